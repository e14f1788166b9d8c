"""``RekeyPolicy.rotate_idle``: new keys for managed sockets that nobody uses.

The witness is the peer's message callback. Ages pass by ``advance_clock()``, at which
the thread looks at all sockets; a few tests take real seconds.
"""

import contextlib
import gc
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from support.link import NOT_REQUESTED, REQUESTED, Witness
from support.sockets import needs_unix_pair, socket_pair
from support.waiting import PATIENCE, eventually

import pykeyupdate
from pykeyupdate import EventKind, RekeyImpossibleError, RekeyPolicy, _idle_sockets
from pykeyupdate.testing import advance_clock

HOUR = 3600
NAME = "pykeyupdate"


def is_there():
    return NAME in [thread.name for thread in threading.enumerate()]


class Pair:
    """A managed socket whose keys change while it is idle, and its peer."""

    def __init__(self, idle, peer, witness):
        self.idle, self.peer, self.witness = idle, peer, witness
        peer.settimeout(0.0)

    def close(self):
        self.idle.close()
        self.peer.close()

    def heard(self):
        """Return the KeyUpdates that have come to the peer so far."""
        with contextlib.suppress(ssl.SSLWantReadError):
            assert self.peer.recv(1) == b""
        return self.witness.said("peer", "received")

    def hears(self, *names):
        """Wait until the peer has heard these."""
        return eventually(lambda: self.heard() == list(names))

    def loses_its_socket(self):
        """Have nobody hold it any more, without closing it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            self.idle = socket.socket()
            gc.collect()

    def talks(self):
        self.peer.settimeout(PATIENCE)
        for near, far in ((self.idle, self.peer), (self.peer, self.idle)):
            near.sendall(b"data")
            assert far.recv(10) == b"data"
        return True


@pytest.fixture
def pair(make_contexts, role, threads):
    made = []

    def make(version="tls13", **rules):
        policy = RekeyPolicy(**{"rotate_idle": True, "age_seconds": HOUR, **rules})
        contexts = make_contexts(version)
        contexts[1].num_tickets = 0
        ours, theirs = contexts if role == "client" else reversed(contexts)
        pykeyupdate.manage(ours, policy=policy, limits=None)
        witness = Witness()
        witness.watch("peer", theirs)
        near, far = socket_pair()
        accepted = threads.start(lambda: contexts[1].wrap_socket(far, server_side=True))
        client = contexts[0].wrap_socket(near, server_hostname="localhost")
        ends = (client, accepted()) if role == "client" else (accepted(), client)
        witness.wire.clear()
        made.append(Pair(*ends, witness))
        return made[-1]

    yield make
    for one in made:
        one.close()
    assert eventually(lambda: not is_there())


def test_an_idle_key_is_changed(pair):
    it = pair()
    assert it.heard() == []
    advance_clock(HOUR)
    assert it.hears(NOT_REQUESTED)
    advance_clock(HOUR // 2)
    time.sleep(0.05)
    assert it.heard() == [NOT_REQUESTED]
    advance_clock(HOUR // 2)
    assert it.hears(NOT_REQUESTED, NOT_REQUESTED)
    assert it.talks()
    assert pykeyupdate.stats(it.idle).counts.key_updates_sent == 2


def test_in_real_time(pair):
    it = pair(age_seconds=1)
    begin = time.monotonic()
    assert it.hears(*[NOT_REQUESTED] * 3)
    assert 2.9 < time.monotonic() - begin < 5


def test_jitter_makes_it_earlier(pair):
    it = pair(age_seconds=2, jitter=0.5)
    begin = time.monotonic()
    assert it.hears(*[NOT_REQUESTED] * 3)
    assert 2.9 < time.monotonic() - begin < 6.5


def test_whoever_waits_sees_nothing(pair, threads):
    it = pair()
    result = threads.start(lambda: it.idle.recv(10))
    for number in range(1, 4):
        advance_clock(HOUR)
        assert it.hears(*[NOT_REQUESTED] * number)
    it.peer.sendall(b"data")
    assert result() == b"data"


def test_a_key_that_was_changed_is_young(pair):
    it = pair()
    advance_clock(HOUR - 10)
    pykeyupdate.rekey(it.idle)
    assert it.hears(NOT_REQUESTED)
    advance_clock(HOUR - 10)
    time.sleep(0.05)
    assert it.heard() == [NOT_REQUESTED]
    advance_clock(20)
    assert it.hears(NOT_REQUESTED, NOT_REQUESTED)


def test_it_is_off_by_default(pair):
    it = pair(rotate_idle=False)
    assert not is_there()
    advance_clock(2 * HOUR)
    time.sleep(0.05)
    assert it.heard() == []


def test_an_old_key_of_a_silent_peer_is_no_reason_to_ask(pair):
    """It might never answer, and then none of ours would follow."""
    it = pair()
    it.peer.sendall(b"data")
    assert it.idle.recv(10) == b"data"
    for number in range(1, 4):
        advance_clock(2 * HOUR)
        assert it.hears(*[NOT_REQUESTED] * number)


def test_one_request_at_a_time(pair):
    it = pair(request_peer=True)
    advance_clock(HOUR)
    assert it.hears(REQUESTED)
    advance_clock(HOUR)
    time.sleep(0.05)
    assert it.heard() == [REQUESTED]
    it.peer.sendall(b"data")  # behind the answer
    assert it.idle.recv(10) == b"data"
    assert it.hears(REQUESTED, REQUESTED)


@needs_unix_pair
def test_a_peer_that_does_not_read(pair):
    """It delays no other, and what waits for it does not grow."""
    stuck, other = pair(), pair()
    stuck.idle.settimeout(0.0)
    with contextlib.suppress(ssl.SSLWantWriteError):
        while True:
            stuck.idle.send(bytes(65536))
    for number in range(1, 21):
        advance_clock(HOUR)
        assert other.hears(*[NOT_REQUESTED] * number)
    sent = pykeyupdate.stats(stuck.idle).counts.key_updates_sent
    while NOT_REQUESTED not in stuck.witness.said("peer", "received"):
        with contextlib.suppress(ssl.SSLWantReadError):
            while True:
                assert set(stuck.peer.recv(65536)) == {0}
        advance_clock(HOUR)  # the thread sends what was left, too
    assert sent == 1


def test_a_writer_that_is_blocked(pair, threads):
    """Its data is whole, with the message where it belongs."""
    stuck, other = pair(), pair()
    data = bytes(range(256)) * 40000
    done = threads.start(lambda: stuck.idle.sendall(data))
    time.sleep(0.1)
    for number in range(1, 4):
        advance_clock(HOUR)
        assert other.hears(*[NOT_REQUESTED] * number)
    stuck.peer.settimeout(PATIENCE)
    got = bytearray()
    while len(got) < len(data):
        got += stuck.peer.recv(1 << 20)
    done()
    assert got == data
    assert NOT_REQUESTED in stuck.witness.said("peer", "received")


def test_a_peer_that_is_gone_is_reported_to_the_owner(pair, caplog):
    it, other = pair(), pair()
    it.peer.close()
    for number in range(1, 3):
        advance_clock(HOUR)
        assert other.hears(*[NOT_REQUESTED] * number)
    with pytest.raises(OSError):
        for _ in range(3):
            it.idle.sendall(b"data")
    assert "ERROR" not in [record.levelname for record in caplog.records]


def test_data_of_a_peer_that_is_gone_is_read(pair):
    it, other = pair(), pair()
    it.peer.sendall(b"the last")
    it.peer.close()
    for number in range(1, 3):
        advance_clock(HOUR)
        assert other.hears(*[NOT_REQUESTED] * number)
    assert it.idle.recv(10) == b"the last"


def test_below_tls13_keys_change_with_use(pair):
    it = pair("tls12", renegotiate=True)
    advance_clock(HOUR)
    time.sleep(0.05)
    assert it.heard() == []
    assert not pykeyupdate.renegotiate_pending(it.idle)


@pytest.mark.parametrize("failure", [SystemExit, ZeroDivisionError])
def test_a_handler_cannot_end_the_thread(pair, caplog, failure):
    def fail(event):
        raise failure

    it = pair()
    remove = pykeyupdate.on_event(fail)
    try:
        for number in range(1, 3):
            advance_clock(HOUR)
            assert it.hears(*[NOT_REQUESTED] * number)
    finally:
        remove()
    assert is_there()
    assert "failed" in caplog.text or "was not changed" in caplog.text


def test_many(pair, role):
    pairs = [pair() for _ in range(30)]
    for number in range(1, 4):
        advance_clock(HOUR)
        for it in pairs:
            assert it.hears(*[NOT_REQUESTED] * number)
    names = [thread.name for thread in threading.enumerate()]
    assert names.count(NAME) == 1


# -- a key that is too old -------------------------------------------------------------


def test_what_is_too_old_is_closed(pair, caplog):
    it = pair("tls12", max_key_age_seconds=2 * HOUR, on_impossible="close")
    it.peer.settimeout(0.05)
    advance_clock(HOUR)
    with pytest.raises(socket.timeout):
        it.peer.recv(10)
    it.peer.settimeout(PATIENCE)
    events = []
    remove = pykeyupdate.on_event(events.append)
    try:
        advance_clock(HOUR)
        assert it.peer.recv(10) == b""  # a close_notify
        assert eventually(lambda: not is_there())
    finally:
        remove()
    for call in (it.idle.recv, it.idle.sendall):
        with pytest.raises(RekeyImpossibleError, match="max_key_age_seconds"):
            call(10 if call == it.idle.recv else b"x")
    assert [event.kind for event in events] == [EventKind.IMPOSSIBLE]
    assert "does not allow" in caplog.text
    assert pykeyupdate.stats(it.idle).counts.impossible == 1


def test_whoever_waits_is_told(pair, threads):
    it = pair("tls12", max_key_age_seconds=HOUR, on_impossible="close")
    result = threads.start(lambda: it.idle.recv(10))
    time.sleep(0.05)
    advance_clock(HOUR)
    with pytest.raises(RekeyImpossibleError, match="max_key_age_seconds"):
        result()


def test_an_answer_that_never_comes(pair):
    it = pair(request_peer=True, max_key_age_seconds=2 * HOUR, on_impossible="close")
    advance_clock(HOUR)
    assert it.hears(REQUESTED)
    advance_clock(2 * HOUR)
    assert eventually(lambda: not is_there())
    with pytest.raises(RekeyImpossibleError, match="max_key_age_seconds"):
        it.idle.recv(10)
    it.peer.settimeout(PATIENCE)
    assert it.peer.recv(10) == b""
    assert it.witness.said("peer", "received") == [REQUESTED]


def test_raise_means_the_owners_next_write(pair):
    it = pair("tls12", max_key_age_seconds=HOUR)
    advance_clock(HOUR)
    eventually(lambda: pykeyupdate.stats(it.idle).counts.impossible == 1)
    it.peer.sendall(b"data")
    assert it.idle.recv(10) == b"data"
    with pytest.raises(RekeyImpossibleError, match="does not allow"):
        it.idle.sendall(b"x")


def test_a_function_is_called_in_the_thread(pair):
    called = []

    def decide(conn, error):
        called.append((conn, threading.current_thread().name, str(error)))

    it = pair("tls12", max_key_age_seconds=HOUR, on_impossible=decide)
    advance_clock(HOUR)
    assert eventually(lambda: called)
    assert called[0][:2] == (it.idle, NAME)
    assert it.talks()
    assert len(called) == 1


# -- the life of the thread ------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "collect", "unwrap and close", "detach"])
def test_it_ends_with_the_last(pair, end):
    first, last = pair(), pair()
    assert is_there()
    first.close()
    time.sleep(0.05)
    assert is_there()
    if end == "close":
        last.idle.close()
    elif end == "unwrap and close":
        last.peer.settimeout(PATIENCE)
        answer = threading.Thread(target=lambda: last.peer.unwrap(), daemon=True)
        answer.start()
        last.idle.unwrap().close()
        answer.join(PATIENCE)
        last.idle.close()
    elif end == "detach":
        descriptor = last.idle.detach()
        advance_clock(1)
        socket.close(descriptor)
    else:
        last.peer.close()
        last.loses_its_socket()
    assert eventually(lambda: not is_there())


def test_it_starts_again(pair):
    for _ in range(3):
        it = pair()
        assert is_there()
        advance_clock(HOUR)
        assert it.hears(NOT_REQUESTED)
        it.close()
        assert eventually(lambda: not is_there())


def test_a_thread_that_cannot_be_had_is_tried_for_again(pair, monkeypatch, caplog):
    start = threading.Thread.start

    def fail_for_ours(thread):
        if thread.name == NAME:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail_for_ours)
        early = [pair() for _ in "123"]
        for _ in "123":
            pair().close()
        assert _idle_sockets._thread.inbox.qsize() < 5
    assert not is_there()
    assert caplog.text.count("no thread for rotate_idle") == 1
    late = pair()
    advance_clock(HOUR)
    for one in (*early, late):
        assert one.hears(NOT_REQUESTED)


def test_it_keeps_no_connection_alive(pair):
    first, last = pair(), pair()
    advance_clock(HOUR)
    assert first.hears(NOT_REQUESTED)
    open_before = pykeyupdate.totals().open
    first.peer.close()
    first.loses_its_socket()
    assert eventually(lambda: pykeyupdate.totals().open == open_before - 1)
    assert is_there()
    assert last.talks()


def test_many_come_and_go(pair, threads):
    """At the moment when the thread is about to end, too."""

    def come_and_go():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        policy = RekeyPolicy(rotate_idle=True, age_seconds=HOUR)
        pykeyupdate.manage(context, policy=policy)
        for _ in range(200):
            near, far = socket_pair()
            with (
                far,
                context.wrap_socket(
                    near, server_side=True, do_handshake_on_connect=False
                ),
            ):
                pass

    for result in [threads.start(come_and_go) for _ in range(4)]:
        result()
    assert eventually(lambda: not is_there())
    it = pair()
    advance_clock(HOUR)
    assert it.hears(NOT_REQUESTED)


@contextlib.contextmanager
def child_that(works):
    """Fork a child that does some work, and lives as long as the block."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            works()
            time.sleep(PATIENCE)
        os._exit(0)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_has_its_own(pair):
    """It changes the keys of what it uses there, and the parent no longer does."""
    it = pair()

    def use():
        it.idle.sendall(b"from the child")
        advance_clock(HOUR)

    with child_that(use):
        it.idle.close()
        it.peer.settimeout(PATIENCE)
        assert it.peer.recv(100) == b"from the child"
        it.peer.settimeout(0.0)
        assert it.hears(NOT_REQUESTED)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_leaves_alone_what_it_does_not_use(pair):
    it = pair()
    with child_that(lambda: advance_clock(HOUR)):
        advance_clock(HOUR)
        assert it.hears(NOT_REQUESTED)
        time.sleep(0.1)
        assert it.hears(NOT_REQUESTED)
        assert it.talks()


PROGRAM = """
import atexit, socket, ssl, sys, threading, time
import pykeyupdate
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
pykeyupdate.manage(
    context, policy=pykeyupdate.RekeyPolicy(rotate_idle=True, age_seconds=1)
)
def make():
    near, far = socket.socketpair()
    tls = context.wrap_socket(near, server_side=True, do_handshake_on_connect=False)
    return tls, far
"""


def run(code):
    root = str(Path(pykeyupdate.__file__).parents[1])
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", "-c", PROGRAM + code],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        check=False,
        text=True,
        timeout=PATIENCE,
    )
    assert time.monotonic() - begin < PATIENCE / 2
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "ends = [make() for _ in range(3)]",
        "ends = [make() for _ in range(3)]; time.sleep(1.2)",
        "ends = []; atexit.register(lambda: ends.append(make()))",
        "threading.Thread(target=lambda: ends.append(make()), daemon=True); ends = []",
        "sys.modules['kept'] = [make() for _ in range(100)]",
    ],
)
def test_the_end_of_the_program(code):
    assert run(code) == ""


def test_none_is_started_by_importing():
    code = "print(threading.active_count(), 'asyncio' in sys.modules)"
    assert run(code) == "1 False\n"


IN_A_SUB_INTERPRETER = """
module = __import__(
    "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
)
one = module.create()
failure = module.run_string(one, CODE)
assert failure is None, failure
module.destroy(one)
print("done")
"""
REFUSED_OR_CLOSED = """
try:
    ends = make()
except RuntimeError as error:
    assert "rotate_idle=True" in str(error), error
else:
    time.sleep(0.1)
    for end in ends:
        end.close()
    time.sleep(0.2)
    assert threading.active_count() == 1
"""


@pytest.mark.skipif(
    sys.version_info[:2] == (3, 12), reason="its own ssl module crashes there (3.12.1)"
)
def test_a_sub_interpreter_has_its_own_thread_or_refuses():
    code = IN_A_SUB_INTERPRETER.replace("CODE", repr(PROGRAM + REFUSED_OR_CLOSED))
    assert run(code) == "done\n"
