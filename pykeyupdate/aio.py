"""``rekey()`` and its siblings for connections whose bytes an event loop moves.

Theory of operation. A transport or stream of asyncio, uvloop, trio, anyio or httpcore
wraps an ``ssl.SSLObject``, reads from its outgoing memory BIO and sends. Messages that
OpenSSL writes without application data stay in that BIO until something makes the
transport look, and no transport has a method for that. This module uses these public
ones:

- asyncio and uvloop: ``transport.writelines([])`` sends what is in the BIO and nothing
  else, under the transport's flow control. (asyncio before 3.11 ignores an empty list.
  There, a ``write()`` of an empty bytes object that is true has the same effect.)
- trio, anyio and httpcore call ``SSLObject.write(data)`` or ``read(n)``, and then send
  what the call left in the BIO. For the length of one ``send_all()`` or
  ``receive_some()``, this module gives the SSLObject a ``write`` and a ``read`` that
  take our step instead of calling SSL_write() or SSL_read(). So the stream's own locks
  and checks apply, and a refusal comes before anything has been scheduled.

A plain SSL_write() of nothing is not enough because of renegotiations: it fails when it
meets application data in the middle of one.
"""

import asyncio
import contextlib
import functools
import ssl
import sys
import time
from collections.abc import Coroutine, Iterator
from inspect import CORO_CLOSED, CORO_RUNNING, getcoroutinestate
from typing import Any, Callable, Optional

from . import _arguments, _idle_objects, _keyupdate, _rekeying
from ._connections import ConnectionInfo, snapshot
from ._describing import pack
from ._errors import (
    ConnectionClosedError,
    NotATLSConnectionError,
    NotManagedError,
    NotNowError,
    PyKeyUpdateError,
    RekeyImpossibleError,
    WrongLoopError,
)
from ._finding import call_text, find_connection, refuse_to_send
from ._for_all import BREATH, PER_SECOND, Filter, Rekeying, RekeyResult
from ._managed_classes import SSLObject, SSLSocket, asyncio_transport
from ._rekeying import DATA, ClientCertificate
from ._static_lookup import has_attribute, is_instance, stored_attribute
from ._stats import stats
from ._walk import (
    Connection,
    is_asyncio,
    is_awaited,
    is_socket,
    is_stream_writer,
)

__all__ = [
    "ClientCertificate",
    "FreshKeys",
    "flush",
    "keep_fresh",
    "keep_fresh_in_background",
    "label",
    "rekey",
    "rekey_all",
    "request_client_certificate",
    "wait_for_renegotiation",
]

_Call = Coroutine[Any, Any, None]

_TURN = 0.001  # seconds without letting the loop's other tasks run
_A_BREATH, _A_WHILE = 1.0, 60.0  # seconds until an idle key is looked at again
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05  # seconds between two polls


async def rekey(conn: Any, /, *, request_peer: bool = False) -> None:
    """Get new keys now, as ``pykeyupdate.rekey()`` does.

    conn is an asyncio or uvloop transport, a ``StreamWriter`` or the pair with its
    reader; a ``trio.SSLStream``; an anyio ``TLSStream``; or an object that holds one
    (httpx, httpcore, aiohttp, websockets, uvicorn's ASGI ``send``). For sockets, which
    block, use ``pykeyupdate.rekey()``.

    When it returns, the transport has the message. asyncio's transports send it when
    their flow control permits; for a ``StreamWriter`` this call awaits ``drain()``
    (from Python 3.11 on; before, call it yourself, because two tasks may not be in it
    at once). trio's and anyio's streams have sent it. It does not wait for the peer.
    Below TLS 1.3 a client should await ``wait_for_renegotiation()`` before it sends: a
    write that meets application data in the middle of a renegotiation ends the
    connection, and asyncio before 3.11 holds a write back until the next one.

    It is a send: where the stream allows only one at a time (trio, anyio), no other
    task may be sending on the same connection. Cancelling it is like cancelling a send.
    On asyncio the update takes place all the same. A trio or anyio stream is broken
    afterwards, as after every cancelled send, whether or not part of the message had
    gone out. (A call in a scope that was cancelled before breaks anyio's stream, too;
    trio's survives it.) So prefer to let it finish. For a timeout use
    ``asyncio.timeout()``, ``trio.fail_after()``, ``anyio.fail_after()``.

    Raises what ``pykeyupdate.rekey()`` raises; ``WrongLoopError`` (a ``RuntimeError``)
    in a thread or loop that is not the connection's; ``ConnectionClosedError`` if the
    transport is closing.
    """
    _arguments.check_flag("rekey()", "request_peer", request_peer)
    await _send(conn, "rekey", lambda: _keyupdate.rekey(conn, "rekey", request_peer))


async def rekey_all(
    which: Optional[Filter] = None,
    /,
    *,
    request_peer: bool = False,
    per_second: float = PER_SECOND,
) -> RekeyResult:
    """Get new keys on all managed connections, as ``pykeyupdate.rekey_all()`` does.

    It also sends the KeyUpdate message, idle or not, on those TLS 1.3 connections that
    transports of asyncio's own carry in the running loop. Those of other loops,
    threads and frameworks get new keys with their owner's next read or write
    (``waiting``), and sockets at once. The loop goes on meanwhile, also if
    ``per_second`` is ``float("inf")``. It runs under trio, too.

    Arguments, result and errors: as for ``pykeyupdate.rekey_all()``. It can be
    cancelled and called again.
    """
    tour = Rekeying("rekey_all()", which, request_peer, per_second, _send_wanted)
    sleep = _sleep_here()
    turn_ends = time.monotonic() + _TURN
    for ahead in tour.steps():
        if ahead > BREATH or time.monotonic() > turn_ends:
            await sleep(ahead if ahead > BREATH else 0)
            turn_ends = time.monotonic() + _TURN
    return tour.result()


async def flush(conn: Any, /) -> None:
    """Send what is scheduled, and the answer that this side owes, without data.

    Like ``pykeyupdate.flush()``. conn, tasks, cancellation and errors: as for
    ``rekey()``.
    """
    await _send(conn, "flush", lambda: _keyupdate.flush(conn, "flush"))


async def wait_for_renegotiation(conn: Any, /) -> None:
    """Wait until no renegotiation is pending; on TLS 1.3, return at once.

    asyncio's transports read by themselves. This call waits while they do, and
    application data goes to their protocol (the ``StreamReader``) as usual. While
    reading is paused (a full ``StreamReader``) nothing moves; read from it in another
    task.

    trio, anyio, httpcore: if no other task is receiving, this call drives the handshake
    by receiving. If another task is receiving, that task has to go on (if it fails or
    stops, this call may wait for ever: give it a timeout). Application data stays for
    the next receive. ``ReadPendingError`` means that data precedes the peer's handshake
    message: receive it and call again. (anyio: while a renegotiation is pending, let
    one task do all receiving and sending; ``receive()`` sends handshake messages, and
    two tasks that send break the stream.)

    It can be cancelled and called again. For a timeout use ``asyncio.timeout()``,
    ``trio.fail_after()`` or ``anyio.fail_after()``. conn and other errors: as for
    ``rekey()``; it also raises what ends the connection (``ssl.SSLError`` and the
    stream's own errors).
    """
    function = "wait_for_renegotiation"
    connection = _carried(conn, function)
    await _wait(
        conn, connection, function, lambda: not _keyupdate.renegotiate_pending(conn)
    )


async def request_client_certificate(conn: Any, /) -> ClientCertificate:
    """Ask the client for its certificate in mid-connection; servers only.

    Like ``pykeyupdate.request_client_certificate()``; waits as
    ``wait_for_renegotiation()`` does. If the call is cancelled, the request is still
    under way, and the next call waits for its answer.
    """
    function = "request_client_certificate"
    connection = _carried(conn, function)
    tls = connection.tls
    request: Optional[_rekeying.Request] = None
    answer: Optional[ClientCertificate] = None

    def take() -> None:
        nonlocal request
        request = _rekeying.request_certificate(
            conn, tls, function, functools.partial(_keyupdate.request, conn, function)
        )

    def answered() -> bool:
        nonlocal answer
        assert request is not None  # noqa: S101
        answer = _rekeying.take_answer(conn, tls, request, function)
        return answer is not None

    await _send(conn, function, take)
    await _wait(conn, connection, function, answered)
    assert answer is not None  # noqa: S101
    return answer


def label(conn: Any, label: Optional[str] = None, /) -> None:
    """Have a managed connection know its peer, and maybe a name for it.

    An ``SSLObject`` has no address, but what carries its bytes does. This call takes it
    from there (uvloop, trio, anyio, httpcore), for ``repr()``, ``SSLObject.peer``, the
    log and the events. With asyncio's own transports it is not needed, and the first
    other call of this module does the same. ``label`` becomes the connection's
    ``label``; None (the default) leaves that as it is.

    conn is as for ``rekey()``, or a managed connection itself. Nothing that carries it
    is kept alive. On the wire: nothing. Raises ``NotManagedError``,
    ``ConnectionClosedError``, ``NotATLSConnectionError`` (a ``TypeError``);
    ``TypeError`` for a label that is no ``str``. Call it in the loop's thread.
    """
    connection = find_connection(conn, "label")
    if not is_instance(connection.tls, SSLObject, SSLSocket):
        raise NotManagedError(
            f"{call_text('label', conn)}: not a managed connection; call manage() on "
            "its context, or install(), before connecting"
        )
    _remember_peer(connection)
    if label is not None:
        connection.tls.label = label


# -- keys of connections that nobody uses ----------------------------------------------


async def keep_fresh(conn: Any, /, *, lock: Any = None) -> None:
    """Change the key of a managed connection whenever it is old, used or not.

    This is ``RekeyPolicy(rotate_idle=True)`` in an event loop: without it, a key is
    changed with the next read or write. conn: as for ``rekey()``, and managed. It
    returns when the connection has ended, or can have no new keys (TLS 1.2, unless
    there is a ``max_key_age_seconds``), and can be cancelled at any time. On asyncio
    and uvloop there is one timer for all connections of the loop; the end is noticed
    within a second.

    trio, anyio: ``lock`` is needed, a ``trio.Lock`` or ``anyio.Lock`` that the program
    holds while it sends on this connection, because their streams fail when two tasks
    send. The end is noticed when the next key is due, so run it in the connection's own
    nursery or task group, and cancel it with the connection. (Cancelled in the middle
    of a send, it breaks the stream, as any send does.)

    If a key cannot be changed before it is older than ``max_key_age_seconds``, and
    ``on_impossible="close"``, it closes the connection and raises
    ``RekeyImpossibleError``.

    On the wire: a KeyUpdate message when a key is old (TLS 1.3). To a peer that does
    not read, no more than one beyond the data that waits for it.

    Raises ``NotManagedError``; ``ValueError`` if the connection's policy is without
    ``rotate_idle``; ``TypeError`` if a lock is missing; and as ``rekey()`` does,
    ``ConnectionClosedError``, ``NotATLSConnectionError``, ``WrongLoopError``.
    """
    connection = _carried_idle(conn, "keep_fresh")
    wait = _first_wait(conn, connection.tls, "keep_fresh")
    if not is_asyncio(connection.carrier):
        await _keep_stream_fresh(conn, connection, wait, lock)
        return
    idle = _keep_transport_fresh(connection, wait)
    try:
        await asyncio.shield(idle.end)  # which others may be waiting for
    except asyncio.CancelledError:
        idle.release()
        raise


def keep_fresh_in_background(conn: Any, /) -> None:
    """Do what ``keep_fresh()`` does, without a task: asyncio and uvloop.

    It ends with the connection, and leaves nothing behind. Calling it again on the same
    connection changes nothing, so a server may call it for each request.

    Raises as ``keep_fresh()`` does; ``TypeError`` for the streams of trio and anyio.
    What goes wrong later is logged and counted (``EventKind.IMPOSSIBLE``), and shows in
    the connection's own calls.
    """
    function = "keep_fresh_in_background"
    connection = _carried_idle(conn, function)
    wait = _first_wait(conn, connection.tls, function)
    if not is_asyncio(connection.carrier):
        raise TypeError(
            f"{call_text(function, conn)}: there is no background in trio or anyio; "
            "start `aio.keep_fresh(stream, lock=...)` in a nursery or task group"
        )
    _keep_transport_fresh(connection, wait)


class FreshKeys:
    """ASGI middleware: keep the keys of a server's connections fresh (uvicorn).

    ``app = FreshKeys(app)``, around all other middleware. It calls
    ``keep_fresh_in_background()`` for each request and WebSocket over TLS, and passes
    everything on unchanged. Raises ``NotManagedError`` or ``ValueError`` into the
    request if the server's context is not managed, or its policy without
    ``rotate_idle``.
    """

    def __init__(self, app: Callable[..., Any], /) -> None:
        self.app = app

    async def __call__(
        self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]
    ) -> None:
        """Serve one request."""
        if scope.get("scheme") in ("https", "wss"):
            with contextlib.suppress(  # a proxy's was TLS; or it ends just now
                NotATLSConnectionError, ConnectionClosedError
            ):
                keep_fresh_in_background(send)
        await self.app(scope, receive, send)


def _carried_idle(conn: Any, function: str) -> Connection:
    if find_connection(conn, function).carrier is None:
        raise NotATLSConnectionError(
            f"{call_text(function, conn)}: no event loop moves the bytes of this "
            "connection. The idle keys of a managed socket change by themselves "
            "(`RekeyPolicy.rotate_idle`); for an SSLObject, pass the StreamWriter, "
            "transport or stream around it"
        )
    return _carried(conn, function)


def _first_wait(conn: Any, tls: Any, function: str) -> float:
    """Return the seconds in which no key can become due."""
    age = stats(conn).sent.age_seconds  # raises NotManagedError
    policy = tls._rules.policy
    if policy is None or not policy.rotate_idle:
        raise ValueError(
            f"{call_text(function, conn)}: its RekeyPolicy leaves idle keys alone; "
            "manage its context with RekeyPolicy(rotate_idle=True, age_seconds=...)"
        )
    return max(0.0, float(policy._least_age()) - age)


def _keep_transport_fresh(connection: Connection, wait: float) -> _idle_objects.Idle:
    tls, transport = connection.tls, _transport(connection.carrier)
    idle = _idle_objects.Idle(
        tls,
        lambda: _rotate_in_transport(tls, transport),
        lambda: transport.is_closing() or _is_lost(transport),
        asyncio.get_running_loop().create_future(),
    )
    return _idle_objects.keep(idle, wait)


def _rotate_in_transport(tls: Any, transport: Any) -> Optional[float]:
    try:
        wait = _rotate(tls, stuck=transport.get_write_buffer_size() > 0)
    except RekeyImpossibleError:
        _send_output(transport)
        transport.close()
        raise
    _send_output(transport)
    return wait


def _rotate(tls: Any, *, stuck: bool) -> Optional[float]:
    """Change a key if it is due; return the seconds until the next look.

    Returns None if there will be no new keys any more: its own calls say why. Raises
    ``RekeyImpossibleError`` if the connection is to be closed.
    """
    try:
        wait = tls._rotate(stuck)
    except NotNowError:
        return _A_BREATH
    except RekeyImpossibleError:
        if tls._rules.policy.on_impossible == "close":
            raise
        return _A_WHILE
    except PyKeyUpdateError:
        return None
    return wait / 1e6 if wait >= 0 else None


async def _keep_stream_fresh(
    conn: Any, connection: Connection, wait: float, lock: Any
) -> None:
    if lock is None:
        raise TypeError(
            f"{call_text('keep_fresh', conn)}: pass `lock`, the trio.Lock or "
            "anyio.Lock that the program holds while it sends on this connection"
        )

    next_wait: Optional[float] = wait

    def step() -> None:
        nonlocal next_wait
        next_wait = _rotate(connection.tls, stuck=False)

    try:
        while next_wait is not None:
            await _sleep(next_wait)
            async with lock:
                await _send_through(connection, step)
    except RekeyImpossibleError:
        with contextlib.suppress(Exception):  # of a peer that closes first
            await connection.carrier.aclose()
        raise
    except Exception as error:
        if type(error).__name__ not in ("ClosedResourceError", "BrokenResourceError"):
            raise


async def _sleep(seconds: float) -> None:
    """Sleep in whatever event loop this is."""
    loop = asyncio._get_running_loop()
    await (asyncio if loop is not None else sys.modules["trio"]).sleep(seconds)


# -- which connections -----------------------------------------------------------------


def _carried(conn: Any, function: str) -> Connection:
    """Return the connection inside, if an event loop moves its bytes."""
    connection = find_connection(conn, function)
    carrier = connection.carrier
    if carrier is None and is_socket(connection.tls):
        raise NotATLSConnectionError(
            f"{call_text(function, conn)}: no event loop moves the bytes of this "
            f"connection, its socket does; use `pykeyupdate.{function}()`"
        )
    if carrier is None:
        raise NotATLSConnectionError(
            f"{call_text(function, conn)}: an SSLObject only encrypts, and does not "
            "know what sends for it; pass the StreamWriter, transport or stream around "
            "it. Where its memory BIOs are yours to move, use "
            f"`pykeyupdate.{function}()`"
        )
    if not is_awaited(carrier):
        refuse_to_send(conn, connection, function)
    if is_asyncio(carrier):
        _check_loop(conn, carrier, function)
    _remember_peer(connection)
    return connection


def _remember_peer(connection: Connection) -> None:
    """Tell a managed object its peer's address, if its carrier knows it."""
    tls, carrier = connection.tls, connection.carrier
    if carrier is not None and is_instance(tls, SSLObject) and tls._peer is None:
        with contextlib.suppress(OSError):  # not connected any more
            tls._peer = pack(_address_of_peer(carrier))


def _address_of_peer(carrier: Any) -> Any:
    if is_asyncio(carrier):
        return _transport(carrier).get_extra_info("peername")
    if has_attribute(carrier, "extra"):  # anyio
        key = sys.modules["anyio"].abc.SocketAttribute.remote_address
        return carrier.extra(key, None)  # noqa: S610 (no Django here)
    if has_attribute(carrier, "get_extra_info"):  # httpcore
        return carrier.get_extra_info("server_addr")
    below = stored_attribute(carrier, "transport_stream")  # trio
    end = stored_attribute(below, "socket")
    return end.getpeername() if has_attribute(end, "getpeername") else None


def _transport(carrier: Any) -> Any:
    return carrier.transport if is_stream_writer(carrier) else carrier


def _coroutine(carrier: Any, *names: str) -> Callable[[Any], Any]:
    """Return the first of these methods that a stream has."""
    name = next(name for name in names if has_attribute(carrier, name))
    method: Callable[[Any], Any] = getattr(carrier, name)
    return method


def _check_loop(conn: Any, carrier: Any, function: str) -> None:
    """Refuse a transport that belongs to another loop or is no longer open."""
    transport = _transport(carrier)
    running = _running_loop()
    for holder in (transport, transport.get_protocol()):
        loops = stored_attribute(holder, "_loop"), stored_attribute(holder, "loop")
        if any(
            is_instance(it, asyncio.AbstractEventLoop) and it is not running
            for it in loops
        ):
            raise WrongLoopError(
                f"{call_text(function, conn)}: this connection belongs to another "
                "event loop (or thread); use asyncio.run_coroutine_threadsafe() with "
                "its own"
            )
    if transport.is_closing() or _is_lost(transport):
        raise ConnectionClosedError(
            f"{call_text(function, conn)}: its transport is closed or closing; open a "
            "new connection"
        )


def _running_loop() -> Optional[asyncio.AbstractEventLoop]:
    """Return asyncio's loop; another framework's does not count."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _sleep_here() -> Callable[[float], Any]:
    """Return the function that sleeps in the running framework."""
    trio = sys.modules.get("trio")
    if trio is not None:
        with contextlib.suppress(RuntimeError):  # not in trio
            trio.lowlevel.current_task()
            return trio.sleep  # type: ignore[no-any-return]
    return asyncio.sleep


def _is_lost(transport: Any) -> bool:
    """Return whether a transport was lost; asyncio before 3.11 does not report it."""
    return sys.version_info < (3, 11) and transport.get_extra_info("socket") is None


# -- sending ---------------------------------------------------------------------------


class _Nothing(bytes):
    """An empty bytes object that is true."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return True


def _send_wanted(info: ConnectionInfo) -> bool:
    """Send the new keys that have been asked for, on a transport of this loop."""
    conn = info.connection
    loop, transport = asyncio_transport(conn)
    if info.version != "TLSv1.3" or loop is not _running_loop():
        return False
    if transport is None or transport.is_closing() or _is_lost(transport):
        return False
    _keyupdate.ManagedObject.write(conn, b"")  # does what the owner's write does
    _send_output(transport)
    after = snapshot(info.reference)
    sent = info.counts.key_updates_sent
    return after is not None and after.counts.key_updates_sent > sent


async def _send(conn: Any, function: str, take: Callable[[], object]) -> None:
    """Take a step that may write to the BIO, and have the carrier send the result."""
    connection = _carried(conn, function)
    carrier = connection.carrier
    _rekeying.refuse_in_callback(conn, connection.tls, function)
    if not is_asyncio(carrier):
        if not await _send_through(connection, take):
            refuse_to_send(conn, connection, function)
        return
    take()
    _send_output(_transport(carrier))
    if is_stream_writer(carrier) and sys.version_info >= (3, 11):
        await carrier.drain()  # before 3.11, two tasks may not be in it at once


def _send_output(transport: Any) -> None:
    """Have a transport send what OpenSSL has written."""
    if sys.version_info < (3, 11) and type(transport).__module__.startswith("asyncio"):
        transport.write(_Nothing())
    else:
        transport.writelines([])


async def _send_through(connection: Connection, take: Callable[[], object]) -> bool:
    """Take a step inside the carrier's send; return whether it was taken."""
    failed: Optional[Exception] = None
    is_taken = False

    def step() -> bytes:
        nonlocal failed, is_taken
        is_taken = True
        try:
            take()
        except Exception as error:  # noqa: BLE001 (the stream would take it for its own)
            failed = error
        return b""

    send = _coroutine(connection.carrier, "send_all", "send", "write")
    await _stand_in(connection.tls, step, send, _Nothing())
    if failed is not None:
        raise failed
    return is_taken


async def _stand_in(
    tls: Any, step: Callable[[], bytes], method: Callable[[Any], Any], argument: Any
) -> None:
    """Call a stream's method, with a step in place of SSL_write() and SSL_read()."""

    async def call() -> None:
        await method(argument)

    coroutine = call()
    with _standing_in(tls, coroutine, step):
        await coroutine


@contextlib.contextmanager
def _standing_in(
    tls: Any, coroutine: _Call, step: Callable[[], bytes]
) -> Iterator[None]:
    """Make ``tls.read()`` and an empty ``tls.write()`` in a coroutine take a step.

    Two tasks may use this on one connection at the same time. The first to enter
    replaces the two methods, the last to leave restores them, and each task takes its
    own step. A signal handler's exception may come between any two lines. Replacements
    that it leaves behind have no effect, and the next call removes them.
    """
    attributes = vars(tls)
    inside = attributes.get("write")
    if not isinstance(inside, _StandIn):
        inside = _StandIn(tls)
    try:
        inside.steps[coroutine] = step
        attributes.update(write=inside, read=inside.read)
        yield
    finally:
        coroutine.close()
        if inside.is_over():
            attributes.pop("read", None)
            attributes.pop("write", None)  # last: its presence marks the replacement


class _StandIn:
    """Replaces an SSLObject's ``write()`` and ``read()`` while steps are taken."""

    def __init__(self, tls: Any) -> None:
        self._write, self._read = tls.write, tls.read
        self.steps: dict[_Call, Optional[Callable[[], bytes]]] = {}

    def is_over(self) -> bool:
        """Return whether all coroutines that take steps have ended."""
        return all(getcoroutinestate(call) == CORO_CLOSED for call in self.steps)

    def __call__(self, data: Any) -> Any:
        taker = self._taker() if isinstance(data, _Nothing) else None
        return self._write(data) if taker is None else len(self._take(taker))

    def read(self, *arguments: Any) -> Any:
        taker = self._taker()
        return self._read(*arguments) if taker is None else self._take(taker)

    def _taker(self) -> Optional[_Call]:
        """Return the running coroutine if it takes a step."""
        for coroutine, step in self.steps.items():
            if step is not None and getcoroutinestate(coroutine) == CORO_RUNNING:
                return coroutine
        return None

    def _take(self, taker: _Call) -> bytes:
        """Take a step; a callback's read in the middle of it is an ordinary read."""
        step = self.steps[taker]
        assert step is not None  # noqa: S101
        self.steps[taker] = None
        try:
            return step()
        finally:
            self.steps[taker] = step


# -- waiting ---------------------------------------------------------------------------


async def _wait(
    conn: Any, connection: Connection, function: str, is_done: Callable[[], bool]
) -> None:
    """Wait for the end of a handshake; receive if no other task does."""
    carrier = connection.carrier
    if is_done():
        return
    if is_asyncio(carrier):
        # a renegotiation that is only scheduled would not begin by itself
        await _send(conn, function, lambda: _keyupdate.flush(conn, function))
        await _watch(
            asyncio.sleep, is_done, lambda: _check_loop(conn, carrier, function)
        )
        return
    busy = await _receive_until(conn, connection, function, is_done)
    if busy:  # advance() raises if the other task met the end of the connection
        await _watch(
            sys.modules[busy].sleep,
            is_done,
            lambda: is_done() or _keyupdate.advance(conn, function),
        )


async def _watch(
    sleep: Callable[[float], Any],
    is_done: Callable[[], bool],
    check: Callable[[], object],
) -> None:
    """Poll ``is_done()`` while something else does the I/O."""
    pause = _FIRST_PAUSE
    while not is_done():
        await sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
        check()


async def _receive_until(
    conn: Any, connection: Connection, function: str, is_done: Callable[[], bool]
) -> Optional[str]:
    """Drive a handshake by receiving.

    If another task is receiving, return the name of the package that says so.
    """
    reached: Optional[int] = None

    def step() -> bytes:
        nonlocal reached
        reached = _keyupdate.advance(conn, function)
        if not is_done() and reached != DATA:
            raise ssl.SSLWantReadError(reached, function)
        return b"-"  # not data; it makes the stream return

    receive = _coroutine(connection.carrier, "receive_some", "receive", "read")
    try:
        await _stand_in(connection.tls, step, receive, 1)
    except Exception as error:
        # an anyio BusyResourceError of a send means that the stream is broken
        if type(error).__name__ != "BusyResourceError" or "writing" in str(error):
            raise
        return type(error).__module__.partition(".")[0]
    if is_done():
        return None
    if reached == DATA:
        _rekeying.refuse_in_front_of_data(conn, function)
    raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol")
