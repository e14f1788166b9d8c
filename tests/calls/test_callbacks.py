"""Every call in the callbacks that are easiest to get wrong.

tests/stress/callbacks.py crosses all calls with all callbacks.
"""

import logging
import signal

import pytest
from support import pace
from support.crossing import judging, loops, scenes
from support.crossing.scenes import Case

import pykeyupdate

TIMER = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="no such timer here"
)
OVER = pytest.mark.parametrize("over", ["socket", "object"])


@pytest.fixture
def judge(certificate, authority, tmp_path):
    chain = tmp_path / "chain.pem"
    chain.write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
    authority_pem = authority.cert_pem.bytes().decode()
    return judging.Judge(scenes.Certificates(str(chain), authority_pem), str(tmp_path))


def wrong_in_any(judge, *, over, moment, version="tls13", role=0, managed=True):
    """Return what is wrong where the callback of a moment makes each of the calls."""
    wrong = {}
    for call in judging.calls_of(over, managed):
        case = Case(over, managed, version, role, moment, call, "own", "return")
        _, said, _ = judge.judge(case)
        if said:
            wrong[str(case)] = said
    return wrong


@OVER
@pytest.mark.parametrize("managed", [True, False], ids=["managed", "stock"])
def test_every_call_in_a_message_callback(judge, over, managed):
    """Of a connection that is not managed pykeyupdate's own calls alone."""
    assert not wrong_in_any(judge, over=over, moment="write", managed=managed)


@OVER
def test_every_call_in_a_handler_of_an_event(judge, over):
    assert not wrong_in_any(judge, over=over, moment="event", role=1)


@OVER
def test_every_call_in_an_on_impossible_function(judge, over):
    wrong = wrong_in_any(judge, over=over, moment="impossible", version="tls12")
    assert not wrong


@TIMER
def test_every_call_in_a_signal_handler(judge):
    assert not wrong_in_any(judge, over="socket", moment="signal in recv", role=1)


@OVER
@pytest.mark.parametrize("moment", ["write", "read", "keys", "unwrap"])
@pytest.mark.parametrize("version", scenes.VERSIONS)
def test_what_a_message_callback_raises_comes_out(judge, over, version, moment, role):
    """Where it does with ssl's own; then the connection goes on as that does."""
    end = int(role == "server")
    case = Case(over, True, version, end, moment, "", "own", "raise")
    assert judge.judge(case) == ("done", [], False)
    result = judge.play(case)
    assert result.own.came_out == judge.play(case._replace(managed=False)).own.came_out


@OVER
@pytest.mark.parametrize("version", scenes.VERSIONS)
def test_a_handler_of_the_log_that_raises_harms_nobody(judge, over, version, capfd):
    case = Case(over, True, version, 1, "log", "", "own", "raise")
    assert judge.judge(case) == ("done", [], False)
    assert "Marker" in capfd.readouterr().err


def test_a_handler_of_the_log_interrupted_by_a_signal(monkeypatch, make_link):
    """It is the signal handler's exception, and comes out."""

    def emit(record):
        signal.raise_signal(signal.SIGINT)
        for _ in range(1000):
            pass

    handler = logging.Handler(logging.DEBUG)
    handler.emit = emit
    log = logging.getLogger("pykeyupdate")
    monkeypatch.setattr(log, "level", logging.DEBUG)
    link = make_link("tls13", "managed")
    before = signal.signal(signal.SIGINT, _interrupted)
    log.addHandler(handler)
    try:
        with pytest.raises(Interrupted):
            link.client.rekey()
    finally:
        log.removeHandler(handler)
        signal.signal(signal.SIGINT, before)


class Interrupted(Exception):
    pass


def _interrupted(*_):
    raise Interrupted


@pytest.mark.parametrize("over", ["memory", "socket", "managed"])
def test_a_signal_handler_in_a_repr_is_not_lost(make_link, over, monkeypatch):
    """Every exception names its connection, in Python code that a signal interrupts."""

    def representation(self):
        signal.raise_signal(signal.SIGINT)
        return "never"

    link = make_link("tls13", over)
    before = signal.signal(signal.SIGINT, _interrupted)
    monkeypatch.setattr(type(link.client), "__repr__", representation)
    try:
        with pytest.raises(Interrupted):
            pykeyupdate.renegotiate(link.client)
    finally:
        signal.signal(signal.SIGINT, before)


@TIMER
def test_a_signal_handler_in_a_call_that_does_not_wait(judge):
    """_ssl runs handlers between OpenSSL's answer and reading it: one run in twenty."""
    call = "pykeyupdate.rekey"
    case = Case("object", False, "tls13", 0, "signal", call, "own", "return")
    for _ in range(60):
        assert judge.judge(case)[1] == []


@pytest.mark.parametrize("loop", loops.NAMES)
@pytest.mark.parametrize("call", [".read", ".write", "aio.rekey"])
def test_calls_in_the_middle_of_a_coroutine(judge, loop, call):
    """A stream's read() and write() are ours for that long (_stand_ins.py)."""
    if call == "aio.rekey":
        pace.skip_if_kept()
    case = Case(loop, True, "tls13", 0, "keys", call, "own", "return")
    outcome, wrong, _ = judge.judge(case)
    assert not wrong
    assert outcome == ("done" if call == "aio.rekey" else "AlreadyPendingError")


def test_another_connection_can_be_changed_meanwhile(judge):
    """A callback of one uses the other, which nothing stands in the way of."""
    for call in ("pykeyupdate.rekey", ".write", ".read"):
        case = Case("socket", True, "tls13", 0, "write", call, "other", "return")
        outcome, wrong, _ = judge.judge(case)
        assert not wrong
        assert outcome in {"done", "SSLWantReadError"}
