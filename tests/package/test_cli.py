"""pykeyupdate/_cli: the commands, run in this process and as a user would."""

import contextlib
import errno
import json
import math
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import openssl_library, pace

import pykeyupdate
from pykeyupdate import _cli
from pykeyupdate._cli import (
    bench,
    bench_asyncio,
    bench_duplex,
    bench_import,
    bench_instructions,
    bench_policy,
    bench_rekey,
    bench_sheet,
    c_program,
    demo,
    demo_all,
    doctor,
    exit_codes,
    pairs,
    tables,
)


def test_demo_holds_and_shows_the_wire(capsys):
    assert _cli.main(["demo", "--all"]) == 0
    out = capsys.readouterr().out
    assert "52 of 52 calls did what OpenSSL's manual says" in out
    assert "WRONG" not in out
    for text in (
        "TLSv1.3",
        "TLSv1.2",
        "client sent KeyUpdate(update_requested)",
        "server received KeyUpdate(update_not_requested)",
        "server sent HelloRequest",
        "client sent ClientHello, Finished",
    ):
        assert text in out
    for name in ("client", "server"):
        for call in ("key_update", "get_key_update_type", "renegotiate"):
            assert f"{name}.{call}(" in out


def test_demo_fails_when_a_call_does_not_hold(capsys, monkeypatch):
    monkeypatch.setattr(demo_all, "_NOT_REQUESTED", "KeyUpdate(something else)")
    assert _cli.main(["demo", "--all"]) == 1
    out = capsys.readouterr().out
    assert "WRONG: expected" in out
    assert "of 52 calls" in out
    assert "52 of 52" not in out


@pytest.mark.parametrize("kept", [True, False])
def test_demo_tells_a_story(capsys, monkeypatch, kept):
    """Also on a coming OpenSSL, which wants a pace to be kept."""
    if kept:
        pause = 2 * pace.interval() or 0.001
        monkeypatch.setattr(demo, "_pace", lambda *_: pause)
    else:
        pace.skip_if_kept()
    monkeypatch.setattr(socket, "create_server", None)  # it needs no network
    assert _cli.main(["demo"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert len(out.splitlines()) <= 25
    assert "WRONG" not in out
    for text in (
        "KeyUpdate(update_not_requested), 18 00 00 01 00",
        "the server read b'hello' under the new key",
        "35 records sent, 3 key updates, never more than 10 records under one key",
        "the server took 33 of them, then recv() raised PeerLimitError",
        "20 messages each way" if kept else "2000 messages each way",
        "demo --all",
    ):
        assert text in out


def test_demo_in_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert _cli.main(["demo"]) == 0
    _versions, *lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40


def test_a_story_that_is_not_true_ends_with_1(capsys, monkeypatch):
    pace.skip_if_kept()
    monkeypatch.setattr(demo, "manage", lambda *_, **__: None)
    with pytest.raises(pykeyupdate.NotManagedError):
        _cli.main(["demo"])
    monkeypatch.undo()
    monkeypatch.setattr(demo, "_A_KEY", 9)
    monkeypatch.setattr(demo, "RekeyPolicy", lambda **_: pykeyupdate.RekeyPolicy())
    assert _cli.main(["demo"]) == 1
    assert "WRONG: 35 records sent, 0 key updates" in capsys.readouterr().out


def test_demo_leaves_nothing_installed():
    _cli.main(["demo", "--all"])
    assert not pykeyupdate.is_installed()


@pytest.mark.parametrize("command", ["demo", "bench"])
def test_without_trustme_the_remedy_is_named(command, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "trustme", None)
    arguments = ["calls"] if command == "bench" else []
    assert _cli.main([command, *arguments]) == 2
    assert "pip install 'pykeyupdate[demo]'" in capsys.readouterr().err


def test_doctor_says_what_a_bug_report_needs(capsys):
    assert _cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) <= 40  # one screen
    assert ssl.OPENSSL_VERSION in out
    assert sys.executable in out
    assert out.splitlines()[-1] == "verdict      pykeyupdate works here."


def test_doctor_for_programs(capsys):
    assert _cli.main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["works"] is True
    assert report["error"] is None
    assert report["controls"] == dict.fromkeys(report["controls"], True)
    assert report["libssl"]["version"] == report["openssl"] == ssl.OPENSSL_VERSION


def test_doctor_names_missing_controls():
    report = doctor.examine()
    report["controls"]["SSL_renegotiate_abbreviated"] = False
    text = doctor.render(report)
    assert "SSL_renegotiate_abbreviated  MISSING" in text
    assert "without the controls marked MISSING" in text


@pytest.mark.parametrize(
    ("openssl", "python", "texts"),
    [
        (0x1010100F, 0x030900F0, ["33rd", "1.1.1d", "ReadPendingError", "key log"]),
        (0x101010BF, 0x030900F0, ["ReadPendingError", "key log"]),
        (0x1010117F, 0x030900F0, ["key log"]),
        (0x30000050, 0x030B00F0, ["key log"]),
        (0x30000060, 0x030D06F0, ["3.13.6"]),
        (0x30500090, 0x030D07F0, []),
        (0x40000000, 0x031000F0, ["newer than"]),
    ],
)
def test_hazards_are_those_of_the_versions(openssl, python, texts):
    libssl = {"version_number": openssl, "ktls_can_rekey": True}
    two_threads, no_rules, *found = doctor.hazards(libssl, python, "linux")
    assert "Two threads" in two_threads
    assert "never changes keys by itself" in no_rules
    assert len(found) == len(texts)
    assert all(text in hazard for text, hazard in zip(texts, found))


@pytest.mark.parametrize(
    ("system", "has_it"),
    [("linux", True), ("freebsd14", True), ("win32", False), ("darwin", False)],
)
def test_hazard_of_kernel_tls(system, has_it):
    libssl = {"version_number": 0x30000060, "ktls_can_rekey": False}
    found = doctor.hazards(libssl, 0x030B00F0, system)
    assert ("OP_ENABLE_KTLS" in found[-1]) == has_it


def test_run_with_m():
    result = subprocess.run(
        [sys.executable, "-m", "pykeyupdate", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.startswith(f"pykeyupdate {pykeyupdate.__version__}, Python ")


def test_alone_it_says_what_there_is(capsys):
    assert _cli.main([]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: python -m pykeyupdate")
    for name in _cli.COMMANDS:
        assert f"\n    {name} " in out
    assert err == ""


CONSOLE_SCRIPT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[2:]))  # modules that cannot be imported
del sys.argv[2:]
from pykeyupdate._cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("suffix", ["", ".exe"])
def test_as_a_program_of_its_own(tmp_path, suffix):
    """``pip`` makes it of the entry in pyproject.toml; its help says its own name."""
    script = tmp_path / f"pykeyupdate{suffix}"
    script.write_text(CONSOLE_SCRIPT)
    command = [sys.executable, str(script)]

    def run(*arguments):
        return subprocess.run(
            [*command, *arguments], check=False, capture_output=True, text=True
        )

    assert run("--help").stdout.startswith("usage: pykeyupdate [-h]")
    report = run("doctor", "pykeyupdate._keyupdate")
    assert (report.returncode, report.stderr) == (1, "")
    assert "pykeyupdate does not work here" in report.stdout


def test_fits_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert _cli.main([]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 40


@pytest.mark.parametrize("arguments", [["frobnicate"], ["demo", "--frobnicate"]])
def test_wrong_usage_exits_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        _cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m pykeyupdate" in capsys.readouterr().err


# -- ends that are nobody's fault ------------------------------------------------------


def start(*arguments, **streams):
    return subprocess.Popen(
        [sys.executable, "-m", "pykeyupdate", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        **streams,
    )


def ends(process, exit_code, said):
    """Wait for the end of a process that says one line of that, or nothing."""
    _, err = process.communicate(timeout=60)
    assert err.count("\n") == bool(said), err
    assert said in err
    assert process.returncode == exit_code


@pytest.fixture
def interruptible():
    """A shell has background commands ignore SIGINT, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
@pytest.mark.parametrize("behind", ["Median", "bulk, sending"])
@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_command_takes_all_its_processes_along(behind):
    """Its threads, too: the second is where another thread sends."""
    process = start("bench", "duplex", stdout=subprocess.PIPE, start_new_session=True)
    while behind not in process.stdout.readline():
        pass
    time.sleep(0.5)
    family = children_of(process.pid)
    assert family
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    ends(process, 130, "interrupted")
    limit = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in family):
        assert time.monotonic() < limit
        time.sleep(0.05)


def children_of(pid):
    tasks = Path(f"/proc/{pid}/task")
    if not tasks.exists():
        pytest.skip("asks Linux for the children of a process")
    return [
        int(child)
        for task in tasks.iterdir()
        for child in (task / "children").read_text().split()
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="asks for a process's parent")
def test_a_far_end_ends_with_its_near_end(certificate, tmp_path):
    """However that ends."""
    pem = tmp_path / "server.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", bench_duplex.__name__, "serve", str(pem), "stock"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as far:
        far.stdout.readline()
        far.stdin.close()
        assert far.wait(60) == 0


@pytest.mark.parametrize(
    "arguments", [["demo"], ["doctor"], ["doctor", "--json"], ["--help"], []]
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_reads(monkeypatch, arguments, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    reads, writes = os.pipe()
    os.close(reads)
    process = start(*arguments, stdout=writes)
    os.close(writes)
    ends(process, 141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    "arguments", [["demo"], ["doctor"], ["doctor", "--json"], ["--help"], []]
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written(monkeypatch, arguments, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with open("/dev/full", "w") as full:
        process = start(*arguments, stdout=full)
    ends(process, 1, "cannot write its output: [Errno 28]")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    ("arguments", "code"), [(["probe", "127.0.0.1:1"], 3), (["run", "--", "/no"], 2)]
)
def test_errors_that_cannot_be_written_change_no_exit_code(arguments, code):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "pykeyupdate", *arguments]
        assert subprocess.run(command, check=False, stderr=full).returncode == code


def test_threads_that_are_left_are_not_cleaned_up_under():
    """OpenSSL's own clean-up, at exit, aborts where one is inside it."""
    program = """
import atexit, sys, threading, time
from pykeyupdate import _cli
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
atexit.register(print, "cleaned up")
sys.argv = ["pykeyupdate", "doctor"]
sys.exit(_cli.main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert "verdict" in done.stdout
    assert "cleaned up" not in done.stdout + done.stderr


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_errors_do_not_go_to_the_output_instead():
    program = "import os, sys; os.close(2); os.execv(sys.executable, sys.argv[1:])"
    command = [sys.executable, "-m", "pykeyupdate", "probe", "127.0.0.1:1"]
    done = subprocess.run(
        [sys.executable, "-c", program, *command], check=False, stdout=subprocess.PIPE
    )
    assert (done.returncode, done.stdout) == (3, b"")


@pytest.mark.parametrize("columns", ["1", "3", "9"])
def test_the_narrowest_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    tables.say("some words", "  ")
    tables.show(("one", "two"), [("three", "some words")])
    assert "some\n" in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_output_that_was_closed_from_the_beginning():
    program = "import os, sys; os.close(1); os.execv(sys.executable, sys.argv[1:])"
    command = [sys.executable, "-m", "pykeyupdate", "doctor"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *command], stderr=subprocess.PIPE, text=True
    )
    ends(process, 0, "")


@pytest.mark.parametrize("arguments", [["demo", "--all"], ["bench", "duplex"]])
def test_without_a_network_the_reason_is_named(arguments, capsys, monkeypatch):
    def create_server(address):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(socket, "create_server", create_server)
    assert _cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "127.0.0.1, which does not work here: [Errno" in err
    assert err.count("\n") == 1


# -- completion ------------------------------------------------------------------------


def completed(line, tmp_path):
    """Ask as a shell does."""
    found = tmp_path / "found"
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(found),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    command = [sys.executable, "-m", "pykeyupdate"]
    subprocess.run(command, check=False, env=environment, capture_output=True)
    return {word.strip() for word in found.read_text().split("\n")}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pykeyupdate pro", {"probe"}),
        ("pykeyupdate probe --start", {"--starttls"}),
        ("pykeyupdate probe --starttls pos", {"postgres"}),
        ("pykeyupdate bench dup", {"duplex"}),
        ("pykeyupdate serve --action cert", {"certificate"}),
        ("pykeyupdate run --log j", {"json"}),
        ("pykeyupdate demo --a", {"--all"}),
        ("pykeyupdate doctor --j", {"--json"}),
    ],
)
def test_completion(tmp_path, line, words):
    pytest.importorskip("argcomplete")
    assert completed(line, tmp_path) == words


def test_without_argcomplete_nothing_is_completed(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    assert _cli.main([]) == 0
    assert "usage:" in capsys.readouterr().out


# -- the benchmarks --------------------------------------------------------------------


def test_bench_calls_compares_side_by_side(capsys):
    """That it runs and what it compares; how fast is no test's business."""
    assert _cli.main(["bench", "calls"]) == 0
    out = capsys.readouterr().out
    for text in ("pending()", "ctypes", "C program", "target"):
        assert text in out


def test_bench_calls_outside_a_checkout_has_no_c_program(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(c_program, "_SOURCE", tmp_path / "cycle.c")
    assert _cli.main(["bench", "calls"]) == 0
    out = capsys.readouterr().out
    why = "is in a checkout alone|loads libssl, which is hidden"
    assert re.search(f"No cycle: The C program it is compared with ({why})", out)
    assert "A cycle" not in out


@pytest.fixture
def all_processors():
    """Leave this process the processors that it may use."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    yield
    if allowed:
        os.sched_setaffinity(0, allowed)


def if_memory_is_told(text):
    """Return a row's text for where the system tells how much memory is used."""
    return "" if math.isnan(bench_duplex.resident()) else text


@pytest.mark.usefixtures("all_processors")
def test_bench_duplex_compares_side_by_side(capsys, monkeypatch):
    monkeypatch.setattr(bench_duplex, "_ROUNDS", 1)
    monkeypatch.setattr(bench_duplex, "_BULK", 1 << 20)
    monkeypatch.setattr(bench_duplex, "_TURNS", 10)
    monkeypatch.setattr(bench_duplex, "_IDLE", 20)
    assert _cli.main(["bench", "duplex"]) == 0
    out = capsys.readouterr().out
    for text in ("receiving", "both ways", "ping-pong", "target"):
        assert text in out
    assert if_memory_is_told("idle") in out


@pytest.mark.usefixtures("all_processors")
def test_bench_policy_compares_side_by_side(capsys, monkeypatch):
    monkeypatch.setattr(bench_policy, "_CONNECTIONS", 2)
    monkeypatch.setattr(bench_policy, "_ROUNDS", 2)
    monkeypatch.setattr(bench_policy, "_OPEN", 20)
    made = {"stock": 0, "managed": 0}

    def memory_connection(*contexts):
        ends = connect(*contexts)
        is_managed = {isinstance(end, pykeyupdate.SSLObject) for end in ends}
        made["managed" if is_managed == {True} else "stock"] += 1
        return ends

    connect = bench_policy.local_connections.memory_connection
    monkeypatch.setattr(
        bench_policy.local_connections, "memory_connection", memory_connection
    )
    assert _cli.main(["bench", "policy"]) == 0
    assert made == {"stock": 7, "managed": 6}  # one shows the cipher
    out = capsys.readouterr().out
    for text in ("16 KiB", "64 KiB", "ping-pong", "target"):
        assert text in out
    for text in ("open", "target: at most 1.0"):
        assert if_memory_is_told(text) in out


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
@pytest.mark.usefixtures("all_processors")
def test_bench_rekey_changes_the_keys_once_a_cycle(capsys, monkeypatch):
    """And the cycle that it compares with leaves them."""
    pace.skip_if_kept()
    if openssl_library.IS_HIDDEN:
        pytest.skip("a C program cannot load this OpenSSL")
    sent, made = [], []

    def contexts(*arguments):
        client, server = make(*arguments)
        client._msg_callback = lambda conn, direction, version, content, kind, data: (
            sent.append(direction) if kind == ssl._TLSMessageType.KEY_UPDATE else None
        )
        return client, server

    def key_updates_of(cycle):
        cycle()  # a policy changes no key that has protected nothing
        sent.clear()
        cycle()
        cycle()
        return sent.copy()

    @contextlib.contextmanager
    def cycles(what, *authority):
        with measure(what, *authority) as both:
            made.append([what.label, *map(key_updates_of, both)])
            yield both

    make, measure = bench_rekey.local_connections.contexts, bench_rekey._cycles
    monkeypatch.setattr(bench_rekey.local_connections, "contexts", contexts)
    monkeypatch.setattr(bench_rekey, "_cycles", cycles)
    monkeypatch.setattr(bench_rekey, "_ROUNDS", 1)
    monkeypatch.setattr(bench_rekey, "_CYCLES", 2000)
    assert _cli.main(["bench", "rekey"]) == 0
    assert made == [
        [what.label, ["write"] * 2, []] for what in bench_rekey.MEASUREMENTS
    ]
    assert capsys.readouterr().out.count("target: at most") == len(made)


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_bench_rekey_needs_a_libssl_to_load(capsys, monkeypatch):
    hidden = {"found_by": "the symbol table of the file", "path": "/opt/python"}
    monkeypatch.setattr(c_program, "libssl", hidden)
    assert _cli.main(["bench", "rekey"]) == 2
    assert "hidden in /opt/python here" in capsys.readouterr().err


def test_bench_import_compares_in_fresh_processes(capsys, monkeypatch):
    monkeypatch.setattr(bench_import, "_ROUNDS", 2)
    assert _cli.main(["bench", "import"]) == 0
    out = capsys.readouterr().out
    for text in ("2 pairs of fresh processes", "import ssl", "target: at most 0.63"):
        assert text in out


def test_bench_asyncio_compares_side_by_side(capsys, monkeypatch):
    monkeypatch.setattr(bench_asyncio, "_ROUNDS", 1)
    monkeypatch.setattr(bench_asyncio, "_SECONDS", 0.01)
    assert _cli.main(["bench", "asyncio"]) == 0
    out = capsys.readouterr().out
    for text in ("asyncio, 64 bytes", "262144 bytes", "uvloop", "target: at least"):
        assert text in out


def test_bench_instructions_needs_valgrind(capsys, monkeypatch):
    monkeypatch.setattr(bench_instructions.shutil, "which", lambda name: None)
    assert _cli.main(["bench", "instructions"]) == 2
    assert "valgrind, which is not installed" in capsys.readouterr().err


def test_bench_instructions_measures_what_it_names(
    authority, certificate, tmp_path, monkeypatch
):
    """The process that valgrind counts, without valgrind."""
    classes = []
    transfer = bench_instructions._send

    def send(sender, receiver, ball):
        classes.extend([type(sender), type(receiver)])
        transfer(sender, receiver, ball)

    pem, trusted = tmp_path / "server.pem", tmp_path / "authority.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
    authority.cert_pem.write_to_path(str(trusted))
    monkeypatch.setattr(bench_instructions, "_send", send)
    for kind in ("managed", "stock"):
        bench_instructions.run(kind, "64", str(pem), str(trusted), "1")
    assert classes == [pykeyupdate.SSLSocket] * 4 + [ssl.SSLSocket] * 4


def test_pairs_are_taken_in_turns():
    order = []
    measured = pairs.take_turns(
        lambda: order.append("ours") or 1.0, lambda: order.append("theirs") or 2.0, 3
    )
    assert measured == [(1.0, 2.0)] * 3
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]


def sheet_of_two(shows):
    sheet = bench_sheet.Sheet(shows=shows)
    sheet.benchmark = "duplex"
    sheet.add("bulk", 2.0, 1.0, "MB/s", [1.0, 2.0, 3.0], at_least=1.5)
    sheet.add("turns", 1500.0, 1000.0, "/s", [1.5], at_most=1.2)
    return sheet


def test_a_comparison_says_its_ratio_and_spread(capsys):
    sheet_of_two(shows=True)
    _, *lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert " ".join(lines[0]) == (
        "bulk 2.0 : 1.0 MB/s 2.00 (1.00 to 3.00) target: at least 1.50"
    )
    assert " ".join(lines[1]) == "turns 1500 : 1000 /s 1.50 target: at most 1.20"


def test_memory_that_a_system_does_not_tell_is_left_out():
    sheet = bench_sheet.Sheet(shows=False)
    sheet.add("memory", float("nan"), float("nan"), "bytes", [float("nan")])
    assert sheet.rows == []


@pytest.fixture
def quick(monkeypatch):
    """Replace all benchmarks by one that measures nothing, and one that cannot run."""

    def cannot(sheet):
        raise exit_codes.CannotRun("it needs valgrind")

    def measure(sheet):
        sheet.say("TLSv1.3")
        sheet.add("bulk", 2.0, 1.0, "MB/s", [1.0, 2.0, 3.0], at_least=1.5)

    both = {"duplex": ("sockets", measure), "instructions": ("counts", cannot)}
    monkeypatch.setattr(bench, "_BENCHMARKS", both)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("columns", ["40", "80"])
def test_all_benchmarks_in_one_table(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert _cli.main(["bench"]) == 0
    out = capsys.readouterr().out
    assert ssl.OPENSSL_VERSION.split()[1] in out
    assert "duplex" in out
    assert "2.00 (1.00 to 3.00)" in out
    assert "at least 1.50" in out
    assert "bulk, 2.0 : 1.0 MB/s" in out
    assert "instructions was left out" in " ".join(out.split())
    if columns == "80":
        assert max(map(len, out.splitlines())) <= 80


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("what", ["all", "duplex"])
def test_benchmarks_for_programs(capsys, what):
    assert _cli.main(["bench", what, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    (row,) = data["rows"]
    assert row["benchmark"] == "duplex"
    assert (row["ratio"], row["low"], row["high"], row["at_least"]) == (2, 1, 3, 1.5)
    assert ssl.OPENSSL_VERSION in data["machine"]["versions"]
    assert ("instructions" in data["left_out"]) == (what == "all")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_a_plot(capsys, tmp_path, suffix):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"ratios{suffix}"
    assert _cli.main(["bench", "duplex", "--plot", str(path)]) == 0
    begin = {".svg": b"<?xml", ".png": b"\x89PNG"}[suffix]
    assert path.read_bytes().startswith(begin)


@pytest.mark.usefixtures("quick")
def test_a_plot_that_cannot_be_is_refused_before_anything_is_measured(
    capsys, monkeypatch, tmp_path
):
    tmp_path /= "folder.svg"
    tmp_path.mkdir()
    monkeypatch.setattr(bench, "_run", None)
    assert _cli.main(["bench", "duplex", "--plot", "ratios.pdf"]) == 2
    assert "--plot writes .svg and .png files" in capsys.readouterr().err
    for nowhere in ("", "no/such/folder/ratios.svg", str(tmp_path)):
        assert _cli.main(["bench", "duplex", "--plot", nowhere]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert _cli.main(["bench", "duplex", "--plot", "ratios.svg"]) == 2
    assert "pip install 'pykeyupdate[plot]'" in capsys.readouterr().err


def test_a_program_of_a_benchmark_that_fails_is_said_in_a_line(capsys, monkeypatch):
    def fails(_):
        code = "import sys; sys.exit('first\\nlast')"
        command = [sys.executable, "-c", code]
        subprocess.run(command, check=True, capture_output=True, text=True)

    monkeypatch.setattr(bench, "_BENCHMARKS", {"calls": ("", fails)})
    assert _cli.main(["bench", "calls"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("calls: ")
    assert err.endswith("ended with 1: last\n")
    assert err.count("\n") == 1
