#!/bin/bash
# The extension under ASan and UBSan, under TSan, under valgrind, and counted for leaks.
#
#     python tests/stress sanitize [PYTHON [DEBUG [FREE_THREADED]]]  (five minutes)
#
# Builds into a folder of its own, which is removed.  PYTHON (the one that runs this)
# needs setuptools and trustme, and so does DEBUG (python3.14d, if it is there), whose
# references are counted.  FREE_THREADED (python3.14t, if it is there) needs setuptools;
# the storm of threads runs on it under TSan.  FUZZ_CALLS (100000), VALGRIND_CALLS
# (5000), THREAD_SECONDS (2), CALLBACK_SECONDS (60), STORM_RUNS (40) and LOOK_SECONDS (20)
# change how long it takes.  Each tool that is missing is named and passed over; the exit status is 0
# where all that ran found nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python3}
debug_python=${2:-$(command -v python3.14d || true)}
free_threaded_python=${3:-$(command -v python3.14t || true)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# build FOLDER PYTHON [CFLAGS]: the package, with an extension built so
build() {
    mkdir -p "$work/$1"
    cp -r ext pykeyupdate setup.py pyproject.toml "$work/$1/"
    rm -f "$work/$1"/pykeyupdate/_keyupdate.*.so
    touch "$work/$1"/{README.md,LICENSE}
    (cd "$work/$1" && CFLAGS="${3:-}" LDFLAGS="${3:-}" \
        "$2" setup.py -q build_ext --inplace --build-temp "$work/$1/build")
}

# run NAME COMMAND...: say how it ended
run() {
    echo "== $1"
    shift
    "$@" || { echo "FAILED with status $?"; failed=1; }
}

sanitized() {
    # Python's own arenas hide overruns, and Python frees little of what it holds at exit.
    PYTHONPATH="$work/asan:$PWD/tests" PYTHONMALLOC=malloc LD_PRELOAD="$asan $ubsan" \
        ASAN_OPTIONS=detect_leaks=0:strict_string_checks=1:detect_stack_use_after_return=1 \
        UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 "$python" "$@"
}

in_valgrind() {
    PYTHONPATH="$work/plain:$PWD/tests" PYTHONMALLOC=malloc valgrind -q --error-exitcode=9 \
        --num-callers=25 "${suppressions[@]}" "$python" "$@"
}

# What valgrind takes for uninitialised in an optimised interpreter's own code.  Errors
# in our code, in OpenSSL and in libc stay, and so do all invalid reads and writes.
python_noise() {
    for kind in Cond Value8 Value4; do
        for object in '*/libpython3*' '*/bin/python3*'; do
            printf '{\npython\nMemcheck:%s\nobj:%s\n}\n' "$kind" "$object"
        done
    done
}

# Of the interpreter and OpenSSL TSan sees nothing: neither the reference counts that order
# a deallocation nor critical sections are among what it knows, and what libc does for them
# is not ours.  Nor does it see how the interpreter passes a new object to other threads.
in_tsan() {
    printf '%s\n' race:duplex_dealloc race:object_dealloc race:duplex_new \
        race:keep_logger race:_PyObjectStack race:libcrypto.so race:libssl.so \
        >"$work/tsan.supp"
    PYTHONPATH="$work/tsan:$PWD/tests" TRUSTME_PYTHON="$python" LD_PRELOAD="$tsan" \
        TSAN_OPTIONS="suppressions=$work/tsan.supp exitcode=66 \
ignore_noninstrumented_modules=1" \
        "$free_threaded_python" "$@"
}

counted() {
    PYTHONPATH="$work/debug:$PWD/tests" "$debug_python" "$@"
}

asan=$(gcc -print-file-name=libasan.so)
ubsan=$(gcc -print-file-name=libubsan.so)
if [[ -e $asan && -e $ubsan ]]; then
    build asan "$python" "-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined \
-fno-sanitize-recover=undefined"
    run "ASan and UBSan: fuzz" sanitized tests/stress/fuzz.py \
        --calls "${FUZZ_CALLS:-100000}"
    run "ASan and UBSan: threads" sanitized tests/stress/threads.py \
        --seconds "${THREAD_SECONDS:-2}"
    run "ASan and UBSan: callbacks" sanitized tests/stress/callbacks.py \
        --seconds "${CALLBACK_SECONDS:-60}"
    run "ASan and UBSan: storm" sanitized tests/stress/storm.py \
        --runs "${STORM_RUNS:-40}" --stock-runs 0
else
    echo "== no libasan or libubsan for gcc: passed over"
fi

tsan=$(gcc -print-file-name=libtsan.so)
if [[ -e $tsan && -n $free_threaded_python ]]; then
    build tsan "$free_threaded_python" "-g -O1 -fsanitize=thread"
    run "TSan: storm" in_tsan tests/stress/storm.py --runs "${STORM_RUNS:-40}" \
        --stock-runs 0 --no-witness
    run "TSan: looking" in_tsan tests/stress/looking.py --seconds "${LOOK_SECONDS:-20}"
else
    echo "== no libtsan for gcc, or no free-threaded Python: passed over"
fi

if command -v valgrind >/dev/null; then
    build plain "$python" "-g"
    suppressions=("--suppressions=$work/python.supp")
    python_noise >"$work/python.supp"
    if [[ -e /usr/lib/valgrind/python3.supp ]]; then
        suppressions+=(--suppressions=/usr/lib/valgrind/python3.supp)
    fi
    run "valgrind: fuzz" in_valgrind tests/stress/fuzz.py \
        --calls "${VALGRIND_CALLS:-5000}"
else
    echo "== no valgrind: passed over"
fi

if [[ -n $debug_python ]]; then
    build debug "$debug_python"
    run "references" counted tests/stress/refleaks.py
else
    echo "== no debug build of Python: references not counted"
fi
exit $failed
