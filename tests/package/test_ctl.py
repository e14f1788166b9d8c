"""_cli/ctl.py: a control socket from the command line, as a user would."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from support.waiting import eventually
from support.wire import Wire, at_once

import pykeyupdate
from pykeyupdate import RekeyPolicy
from pykeyupdate._cli import ctl, ctl_tables
from pykeyupdate._cli.exit_codes import CannotRun

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets"
)


@pytest.fixture
def path(tmp_path):
    with pykeyupdate.control.serve(tmp_path / "control.sock") as serving:
        yield serving.path


def run(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "pykeyupdate", "ctl", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture
def wires(make_contexts):
    made = {
        version: Wire(
            make_contexts(version), "socket", "client", policy=RekeyPolicy()
        ).handshake()
        for version in ("tls13", "tls12")
    }
    for version, wire in made.items():
        wire.end.label = f"mine {version}"
    yield made
    for wire in made.values():
        wire.close()


def test_a_label_may_be_anything(path, wires):
    """It may come from a user: no escape for the terminal, and no endless lines."""
    label = "\x1b[31mred\n\u202e" + "x" * 10**6
    wires["tls13"].end.label = label
    where = ["--where", "label~31mred"]  # others may be left of other tests
    text = run(path, "connections", *where)
    assert "  ?[31mred??xxx" in text
    assert max(map(len, text.splitlines())) < 300
    [row] = json.loads(run(path, "connections", *where, "--json"))["connections"]
    assert row["label"] == label


def test_connections_as_a_table_and_as_json(path, wires):
    where = ["--where", "label~mine"]
    text = run(path, "connections", *where, "--sort=-number")
    head, second, first, foot = text.splitlines()
    assert head.split()[:3] == ["number", "peer", "label"]
    assert "mine tls13" in first
    assert "TLSv1.3" in first
    assert "mine tls12" in second
    assert "no new keys: TLSv1.2" in second
    assert foot == f"2 of 2 connections, process {os.getpid()}"
    answer = json.loads(run(path, "connections", *where, "--json"))
    assert [row["version"] for row in answer["connections"]] == ["TLSv1.3", "TLSv1.2"]
    one = run(path, "connections", *where, "--where", "version == TLSv1.2")
    assert "1 of 1 connections" in one
    assert "1 of 2 connections" in run(path, "connections", *where, "--limit", "1")
    assert len(wires) == 2


def test_all_pages_are_shown(path, wires, monkeypatch, capsys):
    monkeypatch.setattr(ctl, "_PAGE", 1)
    ctl.main([path, "connections", "--where", "label~mine", "--json"])
    [line] = capsys.readouterr().out.splitlines()
    answer = json.loads(line)
    assert len(answer["connections"]) == answer["total"] == len(wires)


def test_rekey_says_what_it_did(path, wires):
    text = run(path, "rekey", "--where", "label~mine", "--per-second", "1000")
    first, second = text.splitlines()
    assert first.startswith("1 have new keys, 0 get them")
    assert second == "  1: TLSv1.2, and its RekeyPolicy has no renegotiate=True"
    wires["tls13"].carry()
    assert wires["tls13"].key_updates() == 1


def test_totals_and_policy(path, wires):
    text = run(path, "totals")
    assert f"process {os.getpid()}" in text
    assert "key_updates_sent" in text
    assert "by age: to 1m: " in text
    text = run(path, "policy")
    assert "policy.min_interval_seconds 1.0" in text
    assert "open connections" in text
    assert wires


def _heed_sigint():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments):
    """Start it with SIGINT as in a terminal: what a shell starts with & ignores it."""
    return subprocess.Popen(
        [sys.executable, "-m", "pykeyupdate", "ctl", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_sigint,  # noqa: PLW1509 (it does one system call)
    )


def end(process):
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said


def test_follow_prints_events_until_it_is_interrupted(path, make_contexts):
    policy = at_once(sent_records=1)
    contexts = make_contexts("tls13")
    wire = Wire(contexts, "object", "client", policy=policy).handshake()
    wire.end.label = "followed"
    process = start(path, "follow", "--event", "KEY_UPDATE_SENT")
    eventually(lambda: pykeyupdate._events.registered)
    for _ in range(3):
        wire.write(b"data")
    lines = [process.stdout.readline() for _ in range(2)]
    for line in lines:
        assert "KEY_UPDATE_SENT" in line
        assert "followed" in line
    end(process)


def test_top_shows_pictures_until_it_is_interrupted(path, wires):
    process = start(path, "top", "--where", "label~mine", "--seconds", "0.1")
    seen = [process.stdout.readline() for _ in range(14)]
    assert len([line for line in seen if "oldest keys" in line]) >= 2
    assert len([line for line in seen if "mine tls13" in line]) >= 2
    assert wires
    end(process)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["connections", "--where", "x"], "is no condition"),
        (["connections", "--where", "x==1"], "unknown field 'x'"),
        (["rekey", "--per-second", "0"], "above 0"),
        (["rekey", "--per-second", "nan"], "NaN is no number of JSON's"),
        (["connections", "--where", "x==" + "[" * 5000], "unknown field 'x'"),
        (["top", "--seconds", "-1"], "'-1' is no number above 0"),
        (["top", "--seconds", "nan"], "'nan' is no number above 0"),
        (["follow", "--event", "X"], "events must be"),
        (["nothing"], "invalid choice"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(path, arguments, said):
    assert said in run(path, *arguments, code=2)


def test_no_server_and_no_file_are_said_in_a_line(tmp_path):
    for name in ("nothing", "dead"):
        if name == "dead":
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(tmp_path / name))
        text = run(str(tmp_path / name), "totals", code=2)
        assert "no process serves it" in text
        assert len(text.splitlines()) == 1


def test_a_process_that_does_not_answer_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ctl, "_PATIENCE", 0.2)
    path = str(tmp_path / "stopped")
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(path)
        stopped.listen()
        with pytest.raises(Exception, match="is the process stopped"):
            ctl.main([path, "totals"])
        accepted = []
        thread = threading.Thread(target=lambda: accepted.append(stopped.accept()[0]))
        thread.start()
        thread.join(20)
        accepted[0].close()
    assert capsys.readouterr().out == ""


@contextlib.contextmanager
def answering(path, answer):
    """Give an answer, whatever it is, to the one client of a socket."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()

        def serve():
            with other.accept()[0] as accepted:
                accepted.sendall(answer)
                accepted.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(20)


@pytest.mark.parametrize("command", ["connections", "totals", "policy", "follow"])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"220 a mail server\r\n", "no control socket"),
        (b"\xff\n", "no control socket"),
        (b"[]\n", "no control socket"),
        (b"[" * 5000 + b"\n", "no control socket"),
        (b"{}\n", "no control socket"),
        (b'{"ok": false}\n', "None"),
        (b'{"ok": true}\n{"ok": true}\n', "of another version"),
    ],
)
def test_a_socket_of_something_else(tmp_path, command, answer, said):
    path = str(tmp_path / "other")
    with answering(path, answer):
        text = run(path, command, code=2)
    assert said in text
    assert len(text.splitlines()) == 1


def test_a_socket_that_never_ends_its_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(ctl, "_LONGEST", 1000)
    path = str(tmp_path / "other")
    with answering(path, b"x" * 2000):
        with pytest.raises(CannotRun, match="no control socket"):
            ctl.main([path, "totals"])


def test_what_others_chose_cannot_control_the_terminal():
    event = {
        "event": "CUT_OFF",
        "at": 0,
        "connection": {"number": 1, "role": "server", "peer": None, "label": "\x1b[2J"},
        "limit": "key\nupdates",
    }
    text = ctl_tables.event(event)
    assert "\x1b" not in text
    assert "\n" not in text
    assert "limit=key?updates" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0s"),
        (59.94, "59.9s"),
        (60, "1m"),
        (61, "1m1s"),
        (3600, "1h"),
        (3661, "1h1m"),
        (90000, "1d1h"),
        (604800, "7d"),
    ],
)
def test_times_are_short(seconds, text):
    assert ctl_tables.duration(seconds) == text
