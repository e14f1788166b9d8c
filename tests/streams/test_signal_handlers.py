"""Signal handlers run when ``ssl``'s would, and their exceptions are never lost."""

import contextlib
import inspect
import logging
import os
import signal
import ssl
import sys
import threading
import time

import pytest
from support import pace
from support.threads import DEADLOCK

import pykeyupdate.aio
from pykeyupdate import RekeyPolicy

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no signals to send")

LATE = 1.0  # seconds that a handler may wait on a machine that is busy


class Stop(Exception):
    """What a handler of the program's raises."""


@pytest.fixture
def on_signal():
    """Have a handler called after a while, or again and again."""
    before = signal.getsignal(signal.SIGUSR1)
    over = threading.Event()
    senders = []

    def send(seconds, interval):
        pause = seconds
        while not over.wait(pause):
            os.kill(os.getpid(), signal.SIGUSR1)
            if not interval:
                return
            pause = interval

    def start(handler, seconds, interval=0.0):
        signal.signal(signal.SIGUSR1, handler)
        senders.append(threading.Thread(target=send, args=(seconds, interval)))
        senders[-1].start()

    yield start
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    over.set()
    for sender in senders:
        sender.join()
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def stopped(on_signal):
    """Say how late a handler that raises is, and that it ends the call."""

    def measure(call, *args, seconds=0.2, error=Stop):
        def handler(*_):
            raise error

        begin = time.monotonic()
        on_signal(handler, seconds)
        with pytest.raises(error):
            call(*args)
        return time.monotonic() - begin - seconds

    return measure


def drain(sock):
    room = bytearray(1 << 18)
    try:
        while sock.recv_into(room):
            pass
    except OSError:
        pass


def change_keys_for_ever(sock, stop):
    """Send nothing but KeyUpdate messages."""
    try:
        while not stop.is_set():
            pykeyupdate.rekey(sock)
    except OSError:
        pass


@pytest.mark.parametrize("timeout", [None, 60.0])
@pytest.mark.parametrize("error", [Stop, SystemExit, KeyboardInterrupt, TimeoutError])
def test_in_the_sending_of_much(connect, threads, stopped, timeout, error):
    client, server = connect(setup=pace.let_go)
    threads.start(drain, server)
    client.settimeout(timeout)
    data = memoryview(bytes(1 << 30))
    assert stopped(client.sendall, data, error=error) < LATE
    client.close()


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_beside_key_updates_without_end(connect, threads, stopped, timeout):
    client, server = connect()
    client.settimeout(timeout)
    stop = threading.Event()
    threads.start(change_keys_for_ever, server, stop)
    late = stopped(client.recv, 10)
    stop.set()
    client.close()
    assert late < LATE


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_in_a_renegotiation_that_does_not_end(connect, threads, stopped, timeout):
    """The client goes on sending data, and does not follow."""
    client, server = connect("tls12", managed="server")
    server.settimeout(timeout)
    pykeyupdate.rekey(server)
    stop = threading.Event()

    def send():
        while not stop.is_set():
            client.sendall(b"data")
            time.sleep(0.001)

    sending = threads.start(send)
    late = stopped(pykeyupdate.wait_for_renegotiation, server, 60)
    stop.set()
    sending()
    assert late < LATE


def test_in_rekey_all(connect, stopped):
    ends = [connect() for _ in range(3)]
    late = stopped(lambda: pykeyupdate.rekey_all(per_second=1.0), error=TimeoutError)
    assert late < LATE
    for client, server in ends:
        client.sendall(b"fine")
        assert server.recv(10) == b"fine"


# what comes in the weak references of the standard library is lost there
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("error", "logged"), [(Stop, False), (SystemExit, True)])
def test_what_it_raises_at_any_moment_comes_out(
    connect, threads, on_signal, error, logged
):
    """Beside a policy that changes keys all the time, a handler of events, and the log.

    (An ``Exception`` in the middle of a ``logging.Handler`` is for its
    ``handleError()``, in all of Python. Where another signal's handler raises before
    the first exception is out, that one is the context of the second. Without a message
    callback: of two that raise in one call, ``_ssl`` keeps the last one's exception.)
    """
    raised, ours, came_out = [], set(), set()

    def handler(signum, frame):
        raised.append(error(len(raised)))
        if frame is not None and is_of_call(frame):
            ours.add(raised[-1])
        raise raised[-1]

    def is_of_call(frame):
        """Whether it is in send(), which is C, or in Python code below it."""
        name = frame.f_globals.get("__name__") or ""
        return name in ("ssl", __name__) or name.partition(".")[0] == "pykeyupdate"

    log = logging.getLogger("pykeyupdate")
    level = log.level
    log.setLevel(logging.DEBUG if logged else logging.WARNING)
    remove = pykeyupdate.on_event(lambda event: [repr(event) for _ in range(20)])
    policy = RekeyPolicy(sent_records=1, min_interval_seconds=1.5 * pace.interval())
    client, server = connect(policy=policy, setup=pace.let_go)
    threads.start(drain, server)
    try:
        on_signal(handler, 0.01, 0.01)
        limit = time.monotonic() + DEADLOCK
        while len(raised) < 100 and time.monotonic() < limit:
            try:
                client.send(b"x" * 100)
            except error as caught:
                came_out.update(chain(caught))
    except error as caught:  # between two calls
        came_out.update(chain(caught))
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        remove()
        log.setLevel(level)
    assert ours
    assert ours <= came_out


def chain(error):
    while error is not None:
        yield error
        error = error.__context__


def test_what_an_events_handler_and_a_signals_raise_is_told_apart(connect, caplog):
    def handler(event):
        if to_raise:
            signal.raise_signal(signal.SIGUSR1)
        raise ValueError("the event handler's own")

    def of_signal(*_):
        raise Stop

    remove = pykeyupdate.on_event(handler)
    before = signal.signal(signal.SIGUSR1, of_signal)
    to_raise = False
    try:
        client, server = connect()
        client.rekey()
        assert "the event handler's own" in caplog.text
        to_raise = True
        with pytest.raises(Stop):
            client.rekey()
    finally:
        signal.signal(signal.SIGUSR1, before)
        remove()
    client.sendall(b"sent under new keys")
    assert server.recv(100) == b"sent under new keys"


class Interrupting:
    """Raises Stop before a bytecode of the package, if a block has so many.

    As a signal handler's exception may come there. ``files`` limits it to those whose
    names begin like this.
    """

    def __init__(self, at, *files):
        self.left = at
        self.files = tuple(f"{os.sep}pykeyupdate{os.sep}{it}" for it in files or [""])
        self.done = False

    def __enter__(self):
        sys.settrace(self.trace)
        return self

    def __exit__(self, kind, *_):
        sys.settrace(None)
        return kind is not None and issubclass(kind, Stop)

    def trace(self, frame, event, arg):
        # 3.9 makes a SystemError of an exception there, 3.12 tells lines alone
        frame.f_trace_opcodes = sys.version_info >= (3, 10)
        code = frame.f_code
        is_ours = any(it in code.co_filename for it in self.files)
        # nor does any come where a coroutine is resumed
        can_come = not code.co_flags & inspect.CO_COROUTINE
        if is_ours and can_come and event in ("opcode", "line"):
            self.left -= 1
            if self.left == 0:
                self.done = True
                raise Stop
        return self.trace


def is_interrupted(call, at):
    """Interrupt a call; return whether it had so many bytecodes."""
    with Interrupting(at) as interrupting:
        call()
    return interrupting.done


@pytest.mark.parametrize("function", ["rekey", "flush", "request_client_certificate"])
def test_an_exception_between_any_two_bytecodes_leaves_nothing_locked(
    connect, threads, make_contexts, function
):
    """As a signal handler's may come: here before each bytecode of the package's."""

    def setup(client, server):
        client.post_handshake_auth = True

    def call():
        if function == "request_client_certificate":
            pykeyupdate.request_client_certificate(server, timeout=DEADLOCK)
        else:
            getattr(pykeyupdate, function)(server)

    client, server = connect(setup=setup)
    receiving = threads.start(drain, client)
    at = 1
    while is_interrupted(call, at):
        at += 1
        assert threads.start(server.send, b"x")() == 1
    assert at > 5
    if function == "request_client_certificate":
        answer = pykeyupdate.request_client_certificate(server, timeout=DEADLOCK)
        assert answer.certificate is None
    server.close()
    receiving()


def test_a_close_that_was_interrupted_can_be_repeated(connect):
    """A descriptor that nobody has any more would keep the peer waiting for ever."""
    interrupted, at = True, 0
    while interrupted:
        at += 1
        client, server = connect()
        interrupted = is_interrupted(server.close, at)
        server.close()
        client.settimeout(DEADLOCK)
        with contextlib.suppress(ssl.SSLError):  # 3.9 says that it was unexpected
            assert client.recv(1) == b""
    assert at > 3


# what comes between making a coroutine and awaiting it, and where a generator is freed
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_stream_outlives_an_exception_between_any_two_bytecodes(make_contexts):
    """A stand-in that was left in the SSLObject took the next receive for its own."""
    trio = pytest.importorskip("trio")
    testing = pytest.importorskip("trio.testing")

    async def is_interrupted_at(at):
        near, far = testing.memory_stream_pair()
        contexts = make_contexts("tls13")
        client = trio.SSLStream(near, contexts[0], server_hostname="localhost")
        server = trio.SSLStream(far, contexts[1], server_side=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            nursery.start_soon(server.do_handshake)
        with Interrupting(at, "aio", "_carrier", "_stand_ins") as interrupting:
            await pykeyupdate.aio.rekey(client)
        await server.send_all(b"data")
        assert await client.receive_some(10) == b"data"
        await client.send_all(b"data")
        assert await server.receive_some(10) == b"data"
        return interrupting.done

    at = 1
    while trio.run(is_interrupted_at, at):
        at += 1
    assert at > 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork()")
def test_a_child_returns_from_a_call_that_a_handler_forked_in(connect, on_signal):
    """While another thread sends in the parent; `ssl`'s own does not hang either."""
    for _ in range(10):
        client, server = connect()
        stop = threading.Event()

        def send(sock=client, stop=stop):
            try:
                while not stop.is_set():
                    sock.send(bytes(1000))
            except OSError:
                pass

        sending = threading.Thread(target=send, daemon=True)
        sending.start()
        child = None

        def handler(*_):
            nonlocal child
            child = os.fork()

        receiving = threading.Thread(target=drain, args=(server,), daemon=True)
        receiving.start()  # a child that is forked in there waits for ever
        on_signal(handler, 0.02)
        try:
            client.settimeout(1 if child is None else 0.2)
            client.recv(10)
        except (OSError, pykeyupdate.ConnectionFailedError):
            pass
        finally:
            if child == 0:
                os._exit(0)
        stop.set()
        limit = time.monotonic() + 20
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > limit:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                pytest.fail("the child hangs")
            time.sleep(0.01)
        client.close()
