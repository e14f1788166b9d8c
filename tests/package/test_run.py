"""``pykeyupdate run``: settings, and the processes of a program."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import pykeyupdate
from pykeyupdate import PeerLimits, RekeyPolicy, _cli, _running
from pykeyupdate._cli.run import settings

SHOW = """
import json, multiprocessing, os, ssl, subprocess, sys

def managed():
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).sslsocket_class.__module__

def tell(queue):
    queue.put(managed())

def of_process(method):
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=tell, args=(queue,))
    process.start()
    try:
        return queue.get(timeout=60)
    finally:
        process.join()

if __name__ == "__main__":
    found = {"itself": managed()}
    for method in multiprocessing.get_all_start_methods():
        found[method] = of_process(method)
    code = "import ssl; print(ssl.SSLContext(2).sslsocket_class.__module__)"
    command = [sys.executable, "-W", "ignore", "-c", code]
    found["subprocess"] = subprocess.check_output(command, text=True).strip()
    found["arguments"] = sys.argv[1:]
    found["path"] = [p for p in sys.path if "bootstrap" in p]
    print(json.dumps(found))
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "show.py"
    path.write_text(SHOW)
    return str(path)


def execute(*command, **environment):
    """Run a command; the package is where this process has it from."""
    places = [str(Path(pykeyupdate.__file__).parents[1]), environment.pop("PLACE", "")]
    path = os.pathsep.join(filter(None, places))
    return subprocess.run(
        [sys.executable, *command],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


def run(*arguments, **environment):
    return execute("-m", "pykeyupdate", "run", *arguments, **environment)


def test_all_processes_of_a_program_are_managed(script):
    result = run("--", script, "--policy", "--", "x")
    assert (result.returncode, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert found.pop("arguments") == ["--policy", "--", "x"]
    assert found.pop("path") == []  # nothing of ours is in the program's way
    assert {"itself", "subprocess", "spawn"} <= found.keys()
    assert set(found.values()) == {"pykeyupdate"}


def test_a_module(script):
    result = run("--", "-m", "show", "x", PLACE=str(Path(script).parent))
    assert json.loads(result.stdout)["arguments"] == ["x"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
@pytest.mark.parametrize("path", [True, False])
def test_a_console_script(script, tmp_path, path):
    program = tmp_path / "show-it"
    program.write_text(f"#!{sys.executable}\n{SHOW}")
    program.chmod(0o755)
    if path:
        result = run("--", "show-it", PATH=f"{tmp_path}:{os.environ['PATH']}")
    else:
        result = run("--", str(program))
    assert json.loads(result.stdout)["itself"] == "pykeyupdate"


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_a_script_that_ignores_the_environment_is_refused(tmp_path):
    program = tmp_path / "isolated"
    program.write_text(f"#!{sys.executable} -sE\nprint('started')\n")
    program.chmod(0o755)
    result = run("--", str(program))
    assert (result.returncode, result.stdout) == (2, "")
    assert "has Python ignore PYTHONPATH (-sE)" in result.stderr


def test_the_interpreter_s_own_sitecustomize_runs_too(script, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('its own')")
    result = run("--", script, PLACE=str(tmp_path))
    assert result.stdout.startswith("its own\n")


def test_the_exit_code_is_the_program_s(tmp_path):
    path = tmp_path / "ends.py"
    path.write_text("raise SystemExit(42)")
    assert run("--", str(path)).returncode == 42


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
@pytest.mark.parametrize("is_first", [True, False])
def test_an_interpreter_without_pykeyupdate(tmp_path, is_first):
    """The program does not start; another one that it starts may do without."""
    (tmp_path / "pykeyupdate.py").write_text("raise ImportError('not here')")
    bootstrap = Path(_cli.__file__).parent / "run" / "bootstrap"
    becomes = (
        "import os, sys;"
        f"os.environ['PYKEYUPDATE_RUN_FIRST'] = str(os.getpid() * {is_first});"
        f"os.environ['PYTHONPATH'] = {str(bootstrap)!r} + ':' + {str(tmp_path)!r};"
        "os.execv(sys.executable, [sys.executable, '-c', 'print(\"started\")'])"
    )
    result = execute("-c", becomes)
    if is_first:
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith("pykeyupdate run: ")
        assert result.stderr.endswith("not here\n")
    else:
        assert (result.returncode, result.stdout, result.stderr) == (0, "started\n", "")


def test_the_log(tmp_path, certificate, authority):
    """Lines that programs can read, whatever the program does with its own logs."""
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    path = tmp_path / "talk.py"
    files = {"pem": str(tmp_path / "server.pem"), "ca": str(tmp_path / "ca.pem")}
    path.write_text(
        textwrap.dedent(
            """
            import socket, ssl, threading, pykeyupdate

            pykeyupdate.on_event(lambda event: 1 / 0)
            server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.load_cert_chain({pem!r})
            client = ssl.create_default_context(cafile={ca!r})
            near, far = socket.socketpair()

            def serve():
                with server.wrap_socket(far, server_side=True) as tls:
                    while data := tls.recv(1):
                        tls.sendall(data)

            threading.Thread(target=serve).start()
            with client.wrap_socket(near, server_hostname="localhost") as tls:
                for _ in range(3):
                    tls.sendall(b"x")
                    tls.recv(1)
            """
        ).format(**files)
    )
    rules = "sent_records=1,min_interval_seconds=0"
    result = run("--log", "json", "--policy", rules, "--", str(path))
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert any("under new keys" in line["message"] for line in lines), lines
    fields = {"event", "reason", "limit", "peer", "label", "connection"}
    assert {"time", "level", "pid", "message"} | fields == lines[0].keys()
    told = [(line.get("event"), line.get("reason")) for line in lines]
    assert ("KEY_UPDATE_SENT", "records") in told
    [failure, *_] = [line for line in lines if "handler" in line["message"]]
    assert "ZeroDivisionError" in failure["exception"]


ACTED_UPON = """
import multiprocessing, os, signal, sys, time

def sockets():
    return sorted(name for name in os.listdir(sys.argv[1]) if name.endswith(".sock"))

def child(queue):
    queue.put(str(os.getpid()) + ".sock" in sockets())

if __name__ == "__main__":
    found = [signal.getsignal(signal.SIGUSR2) is not signal.SIG_DFL, sockets()]
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        process = context.Process(target=child, args=(queue,))
        process.start()
        found.append(queue.get(timeout=60))
        process.join()
    print(os.getpid(), found)
"""


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
@pytest.mark.parametrize("name", ["{pid}.sock", "one.sock"])
def test_a_control_socket_and_a_signal(tmp_path, name):
    """Each process has its own, forked or spawned, if its path has a place for it."""
    script = tmp_path / "acted_upon.py"
    script.write_text(ACTED_UPON)
    control = ["--control", str(tmp_path / name), "--signal", "USR2"]
    result = run(*control, "--", str(script), str(tmp_path))
    assert result.returncode == 0, result.stderr
    pid, found = result.stdout.split(" ", 1)
    own = name.replace("{pid}", pid)
    is_each = "{pid}" in name
    assert found.strip() == str([True, [own], is_each, is_each])


# -- settings --------------------------------------------------------------------------


def gathered(*arguments):
    from pykeyupdate._cli import run as command

    return settings.gather(command.parser().parse_args([*arguments, "--", "x"]))


def test_without_settings_they_are_the_defaults():
    found = gathered()
    nothing = {"log": None, "control": None, "signal": None}
    assert found == {"policy": {}, "limits": {}, **nothing}
    assert _running.policy_of(found["policy"]) == RekeyPolicy()
    assert _running.limits_of(found["limits"]) == PeerLimits()


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("age_seconds=3600", RekeyPolicy(age_seconds=3600)),
        ("age_seconds = 0.5, jitter=0.1", RekeyPolicy(age_seconds=0.5, jitter=0.1)),
        ("sent_bytes=100_000", RekeyPolicy(sent_bytes=100_000)),
        ("request_peer=true", RekeyPolicy(request_peer=True)),
        ("on_impossible=ignore", RekeyPolicy(on_impossible="ignore")),
        ("anssi", RekeyPolicy.anssi()),
        ("anssi,request_peer=true", RekeyPolicy.anssi(request_peer=True)),
        ("none", None),
    ],
)
def test_policies_in_words(text, policy):
    assert _running.policy_of(gathered("--policy", text)["policy"]) == policy


def test_limits_in_words():
    found = gathered("--limits", "renegotiation=never,key_updates=none")
    limits = PeerLimits(renegotiation="never", key_updates=None)
    assert _running.limits_of(found["limits"]) == limits
    assert _running.limits_of(gathered("--limits", "none")["limits"]) is None


TOML = "limits = 'none'\nlog = 'json'\nsignal = 'TERM'\n[policy]\nage_seconds = 60\n"
PYPROJECT = (
    "[tool.pykeyupdate]\nlimits = 'none'\nlog = 'json'\nsignal = 'TERM'\n"
    "[tool.pykeyupdate.policy]\nage_seconds = 60\n"
)
needs_tomllib = pytest.mark.skipif(sys.version_info < (3, 11), reason="no tomllib")


@needs_tomllib
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("settings.toml", TOML),
        ("settings.toml", PYPROJECT),
        ("pyproject.toml", PYPROJECT),
    ],
)
@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_file(tmp_path, monkeypatch, name, text, by):
    path = tmp_path / name
    path.write_text(text)
    if by == "environment":
        monkeypatch.setenv("PYKEYUPDATE_CONFIG", str(path))
    found = gathered(*(["--config", str(path)] if by == "option" else []))
    assert found == {
        "policy": {"age_seconds": 60},
        "limits": None,
        "log": "json",
        "control": None,
        "signal": "SIGTERM",
    }


@needs_tomllib
def test_options_come_before_the_environment_and_that_before_the_file(
    tmp_path, monkeypatch
):
    path = tmp_path / "settings.toml"
    path.write_text("policy = 'anssi'\nlimits = 'none'\nlog = 'json'\n")
    monkeypatch.setenv("PYKEYUPDATE_CONFIG", str(path))
    monkeypatch.setenv("PYKEYUPDATE_POLICY", "age_seconds=1")
    monkeypatch.setenv("PYKEYUPDATE_LIMITS", "key_updates=1")
    found = gathered("--policy", "niap")
    assert found == {
        "policy": {"preset": "niap"},
        "limits": {"key_updates": 1},
        "log": "json",
        "control": None,
        "signal": None,
    }


NO_KILL = (
    "--signal: no process can handle 'KILL'"
    if hasattr(signal, "SIGKILL")
    else "--signal: there is no signal 'KILL' here"
)
WRONG = [
    (["--policy", "age_seconds=-1"], "--policy: RekeyPolicy"),
    (["--policy", "age_seconds=soon"], "--policy: RekeyPolicy"),
    (["--policy", "agee=1"], "--policy: RekeyPolicy has no 'agee'; it has preset, "),
    (["--policy", "never"], "preset must be one of rfc9846, anssi, niap, tiny"),
    (["--policy", "jitter=0.1,jitter=0.2"], "jitter is given twice"),
    (["--limits", "renegotiation=often"], "--limits: PeerLimits"),
    (["--limits", "tiny"], "--limits: PeerLimits has no 'preset'"),
    (["--signal", "SIGNAL"], "--signal: there is no signal 'SIGNAL' here"),
    (["--signal", "KILL"], NO_KILL),
    (["--control", ""], "--control: must be a path"),
    (["--config", "no/such/file"], "cannot read 'no/such/file'"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_wrong_settings_are_refused_before_the_program_starts(
    arguments, said, capsys, tmp_path
):
    if "--config" in arguments and sys.version_info < (3, 11):
        pytest.skip("no tomllib")
    script = tmp_path / "never.py"
    script.write_text("print('started')")
    assert _cli.main(["run", *arguments, "--", str(script)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


@needs_tomllib
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "polcy = 'anssi'",
            "there is no setting 'polcy', only policy, limits, log,",
        ),
        ("policy = 3", "policy: must be a table or a text, not 3"),
        ("log = 'xml'", "log: must be one of text, json"),
        ("policy = [", "cannot read"),
        (f"policy = {'[' * 5000}{']' * 5000}", "cannot read"),
        ("tool = 3", "tool must be a table, not 3"),
        ("[tool]\npykeyupdate = 'x'", "pykeyupdate must be a table, not 'x'"),
        ("[policy]\nage_seconds = '3600'", "age_seconds"),
        ("[policy]\nage_seconds = 1979-05-27", "age_seconds"),
        ("tool = 5", "tool must be a table, not 5"),
        ("[tool]\npykeyupdate = 5", "pykeyupdate must be a table, not 5"),
        ("[[tool]]", "tool must be a table"),
        ("policy = " + "[" * 5000, "cannot read"),
    ],
)
def test_wrong_files_are_refused(tmp_path, capsys, text, said):
    path = tmp_path / "settings.toml"
    path.write_text(text)
    assert _cli.main(["run", "--config", str(path), "--", sys.executable]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


@needs_tomllib
@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero")
def test_a_file_without_end_is_refused(capsys):
    assert _cli.main(["run", "--config", "/dev/zero", "--", sys.executable]) == 2
    assert "it is longer than" in capsys.readouterr().err


def test_wrong_variables_are_refused(monkeypatch, capsys):
    monkeypatch.setenv("PYKEYUPDATE_POLICY", "agee=1")
    assert _cli.main(["run", "--", sys.executable]) == 2
    assert "PYKEYUPDATE_POLICY: RekeyPolicy has no 'agee'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to run"),
        (["--"], "nothing to run"),
        (["--", "no-such-program"], "there is no program no-such-program"),
        (["--", "no/such/script.py"], "there is no script no/such/script.py"),
    ],
)
def test_no_program(arguments, said, capsys):
    assert _cli.main(["run", *arguments]) == 2
    assert said in capsys.readouterr().err
