# What the scripts of this folder share; each of them reads it with `.` after it has set `work`.
# A script is started from a checkout, on Debian, and keeps all that it fetches and builds in its work folder:
# started again, it takes up what is there.

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mkdir -p "$work"
work=$(cd "$work" && pwd)
jobs=$(nproc)

say() { printf '%s  %s\n' "$(date +%H:%M:%S)" "$*"; }

# quietly NAME COMMAND...: run it with its output in WORK/NAME.log; show the end of that if it fails.
quietly() {
    local log=$work/$1.log
    shift
    "$@" >>"$log" 2>&1 || { tail -n 20 "$log"; echo "failed: $* (all of it: $log)" >&2; exit 1; }
}

# need PACKAGE...: install Debian packages that are missing.
need() {
    local missing=()
    for package; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    ((${#missing[@]} == 0)) && return
    say "apt-get install ${missing[*]}"
    quietly apt apt-get update
    quietly apt env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

# --- Debian's packages of any release: a private apt, so that the machine's own stays as it is ---

# private_apt SUITE: fill `apt`, a command that knows that release alone.
private_apt() {
    local of=$work/apt/$1 mirror
    apt_options=(-o Dir::Etc::SourceList="$of/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o Dir::State="$of" -o Dir::State::status=/dev/null -o Dir::Cache="$of/cache" -o APT::Sandbox::User=)
    [ -e "$of/updated" ] && return
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' | sort -u | grep -v security | head -n 1)
    mkdir -p "$of/lists/partial" "$of/cache/archives/partial"
    printf '%s [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
        deb "$mirror" "$1" deb-src "$mirror" "$1" >"$of/sources.list"
    apt-get "${apt_options[@]}" -qq update >&2
    touch "$of/updated"
}

# source_of SUITE PACKAGE: unpack the original sources (Debian's patches are left out), and print their folder.
source_of() {
    local into=$work/src/$1/$2 version
    if ! compgen -G "$into/*.orig.tar.*z*" >/dev/null; then
        mkdir -p "$into"
        private_apt "$1"
        # An index can list what the pool no longer has, and the pool have the sources without Debian's part:
        # the newest version whose sources are there.
        for version in $(apt-cache "${apt_options[@]}" showsrc --only-source "$2" |
            sed -n 's/^Version: //p' | sort -Vru); do
            (cd "$into" && apt-get "${apt_options[@]}" -qq source --download-only "$2=$version") >&2 || true
            compgen -G "$into/*.orig.tar.*z*" >/dev/null && break
        done
    fi
    local archives
    archives=$(compgen -G "$into/*.orig.tar.*z*" | grep -v '\.asc$') ||
        { echo "$1 has no sources of $2 that can be fetched" >&2; return 1; }
    [ -d "$into/tree" ] || {
        rm -rf "$into/tree.part"
        mkdir "$into/tree.part"
        tar -x --strip-components=1 -C "$into/tree.part" -f "$archives"
        mv "$into/tree.part" "$into/tree"
    }
    echo "$into/tree"
}

# --- The checks of an interpreter -----------------------------------------------------------------

# pip_for PYTHON PACKAGE...: install into an interpreter without pip, by a pip of this machine's python3.
pip_for() {
    local python=$1
    shift
    need python3-venv
    [ -e "$work/pip/bin/pip" ] || {
        quietly pip python3 -m venv "$work/pip"
        quietly pip "$work/pip/bin/pip" install --upgrade pip # an old one knows neither --python nor a new Python
    }
    quietly pip "$work/pip/bin/pip" --python "$python" install --root-user-action ignore "$@"
}

# What the tests want of group `core`: without trustme, whose cryptography does not load everywhere.
core_packages=('setuptools>=77' 'pytest>=8' pytest-timeout pyelftools 'rich>=13' 'argcomplete>=3')

# The tests that need no program and no library beside group `core`, nor an installed distribution.
core_tests=(--ignore tests/integrations --ignore tests/peers --ignore tests/test_packaging.py
    --ignore tests/test_readme.py)

# step NAME LABEL COMMAND...: run it, and add the last line that tells to WORK/NAME.results.
step() {
    local name=$1 label=$2 log=$work/$1-$2.log result=failed start=$SECONDS
    shift 2
    if "$@" >"$log" 2>&1; then result=ok; fi
    printf '%-18s %-11s %-6s %4d s  %s\n' "$name" "$label" "$result" $((SECONDS - start)) \
        "$(grep -E 'calls did|passed|runs,|calls on|: fine|FAILED|WRONG|cut after' "$log" | tail -n 1 | cut -c -100)" |
        tee -a "$work/$name.results"
}

# copy_checkout FOLDER: what git knows, and nothing that was built. A copy is no repository.
copy_checkout() {
    mkdir -p "$1"
    if [ -e "$checkout/.git" ]; then
        (cd "$checkout" && git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C "$1")
    else
        cp -a "$checkout/." "$1"
    fi
}

# check NAME PYTHON [PYTEST ARGUMENT...]: build the extension in a copy of the checkout, and run everything.
check() {
    local name=$1 python=$2 copy=$work/$1-checkout
    shift 2
    rm -rf "$copy" "$work/$name.results"
    copy_checkout "$copy"
    cd "$copy"
    quietly "$name-build" "$python" setup.py build_ext --inplace
    export PYTHONPATH=$copy${PYTHONPATH:+:$PYTHONPATH}
    "$python" -c 'import ssl, sys; print(sys.version.split(" (")[0], "with", ssl.OPENSSL_VERSION)'
    step "$name" demo "$python" -m pykeyupdate demo --all
    step "$name" tests "$python" -m pytest -q --timeout 300 "${core_tests[@]}" "$@" tests
    step "$name" storm "$python" tests/stress storm --runs 200
    step "$name" peer_flood "$python" tests/stress peer_flood
    step "$name" fuzz "$python" tests/stress fuzz --calls 100000
    step "$name" threads "$python" tests/stress threads
    ! grep -q ' failed ' "$work/$name.results"
}
