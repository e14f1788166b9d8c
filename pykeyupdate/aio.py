"""``rekey()`` and its like for connections whose bytes an event loop moves.

Theory of operation. Around an ``ssl.SSLObject`` is a transport or stream of asyncio,
uvloop, trio, anyio or httpcore that reads from its outgoing memory BIO and sends. What
OpenSSL has to say beside application data lies in that BIO until somebody makes the
transport look, and none has a method to say so. These are used, and all are public:

- asyncio and uvloop: ``transport.writelines([])`` sends what lies there and nothing
  else, under the transport's flow control. (asyncio before 3.11 ignores an empty list;
  there a ``write()`` of no bytes that does not count as false does it.)
- trio, anyio and httpcore call ``SSLObject.write(data)``, or ``read(n)``, and then send
  what it left in the BIO. For the length of one ``send_all()`` or ``receive_some()``
  the SSLObject has a ``write`` and a ``read`` of its own that take our step in place of
  SSL_write() or SSL_read(). So the stream's own locks and checks hold, and a refusal
  comes before anything has been scheduled.

Renegotiations are why a mere SSL_write() of nothing will not do: it dies when it meets
application data in the middle of one.
"""

import asyncio
import contextlib
import functools
import ssl
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Callable, Optional

from . import _arguments, _handshake, _keyupdate
from ._errors import ConnectionClosedError, NotATLSConnectionError, WrongLoopError
from ._finding import call_text, find_connection, refuse_to_send
from ._handshake import DATA, ClientCertificate
from ._static_lookup import has_attribute
from ._walk import Connection, is_asyncio, is_awaited, is_socket

__all__ = [
    "ClientCertificate",
    "flush",
    "rekey",
    "request_client_certificate",
    "wait_for_renegotiation",
]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05  # seconds between two looks

# What this task takes in place of SSL_write() or SSL_read(); trio's and anyio's tasks
# have contexts too.
_step: ContextVar[Optional[Callable[[], bytes]]] = ContextVar("_step", default=None)


async def rekey(conn: Any, /, *, request_peer: bool = False) -> None:
    """Get new keys now, as ``pykeyupdate.rekey()`` does.

    conn is an asyncio or uvloop transport, a ``StreamWriter`` or the pair with its
    reader; a ``trio.SSLStream``; an anyio ``TLSStream``; or what holds one (httpx,
    httpcore, aiohttp, websockets, uvicorn's ASGI ``send``). For sockets, which block:
    ``pykeyupdate.rekey()``.

    When it returns, the message is in the transport's hands: asyncio's transports send
    it when their flow control lets them, and with a ``StreamWriter`` its ``drain()`` is
    awaited (from Python 3.11 on; before, call it yourself, as two tasks may not be in
    it at once); trio's and anyio's have sent it. It does not wait for the peer.
    Below TLS 1.3 a client does well to await ``wait_for_renegotiation()`` before it
    sends: a write that meets application data in the middle of a renegotiation ends the
    connection, and asyncio before 3.11 holds one back until the next.

    It is a send: no other task may be in one on the same connection where the stream
    does not allow that (trio, anyio). Cancelling it is like cancelling a send: on
    asyncio the update takes place all the same; a trio or anyio stream may be unusable
    if part of the message had gone out, as its documentation says of every send. For a
    timeout use ``asyncio.timeout()``, ``trio.fail_after()``, ``anyio.fail_after()``.

    Raises as ``pykeyupdate.rekey()``; ``WrongLoopError`` (a ``RuntimeError``) in
    another thread or loop than the connection's; ``ConnectionClosedError`` where the
    transport is closing.
    """
    _arguments.check_flag("rekey()", "request_peer", request_peer)
    await _send(conn, "rekey", lambda: _keyupdate.rekey(conn, "rekey", request_peer))


async def flush(conn: Any, /) -> None:
    """Send what is scheduled, and the answer that we owe the peer, without data.

    As ``pykeyupdate.flush()``; conn, tasks, cancellation and errors as for ``rekey()``.
    """
    await _send(conn, "flush", lambda: _keyupdate.flush(conn, "flush"))


async def wait_for_renegotiation(conn: Any, /) -> None:
    """Wait until no renegotiation is pending; at once on TLS 1.3.

    asyncio's transports read by themselves: it waits while they do, and application
    data goes to their protocol (the ``StreamReader``) as ever. While reading is paused
    (a full ``StreamReader``) nothing moves; read from it in another task.

    trio, anyio, httpcore: if no other task is receiving, it drives the handshake by
    receiving; if one is, that one has to go on (if it fails or stops, this may wait for
    ever: give it a timeout). Application data stays for the next receive, and
    ``ReadPendingError`` says that it stands in front of the peer's handshake message:
    receive it and call again. (anyio: while a renegotiation is pending let one task do
    all receiving and sending; its ``receive()`` sends handshake messages, and two tasks
    that send break the stream.)

    It can be cancelled and called again; for a timeout use ``asyncio.timeout()``,
    ``trio.fail_after()``, ``anyio.fail_after()``. Other errors and conn as for
    ``rekey()``, and what ends the connection (``ssl.SSLError`` and the stream's own).
    """
    function = "wait_for_renegotiation"
    connection = _carried(conn, function)
    await _wait(
        conn, connection, function, lambda: not _keyupdate.renegotiate_pending(conn)
    )


async def request_client_certificate(conn: Any, /) -> ClientCertificate:
    """Ask the client for its certificate in mid-connection; servers only.

    As ``pykeyupdate.request_client_certificate()``; waits as
    ``wait_for_renegotiation()`` does. Cancelled, the request is still under way, and
    the next call waits for its answer.
    """
    function = "request_client_certificate"
    connection = _carried(conn, function)
    tls = connection.tls
    request: Optional[_handshake.Request] = None
    answer: Optional[ClientCertificate] = None

    def take() -> None:
        nonlocal request
        request = _handshake.request_certificate(
            conn, tls, function, functools.partial(_keyupdate.request, conn, function)
        )

    def answered() -> bool:
        nonlocal answer
        assert request is not None  # noqa: S101
        answer = _handshake.take_answer(conn, tls, request, function)
        return answer is not None

    await _send(conn, function, take)
    await _wait(conn, connection, function, answered)
    assert answer is not None  # noqa: S101
    return answer


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
    return connection


def _transport(carrier: Any) -> Any:
    return getattr(carrier, "transport", carrier)


def _coroutine(carrier: Any, *names: str) -> Callable[[Any], Any]:
    """Return the first of these methods that a stream has."""
    name = next(name for name in names if has_attribute(carrier, name))
    method: Callable[[Any], Any] = getattr(carrier, name)
    return method


def _check_loop(conn: Any, carrier: Any, function: str) -> None:
    """Refuse a transport of another loop, and one that is no longer open."""
    transport = _transport(carrier)
    running: Optional[asyncio.AbstractEventLoop] = None
    with contextlib.suppress(RuntimeError):  # another framework's loop is none of these
        running = asyncio.get_running_loop()
    for holder in (transport, transport.get_protocol()):
        loop = getattr(holder, "_loop", None) or getattr(holder, "loop", None)
        if isinstance(loop, asyncio.AbstractEventLoop) and loop is not running:
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


def _is_lost(transport: Any) -> bool:
    """Asyncio before 3.11 does not count a TLS transport that was lost as closing."""
    return sys.version_info < (3, 11) and transport.get_extra_info("socket") is None


# -- sending ---------------------------------------------------------------------------


class _Nothing(bytes):
    """No bytes, which yet do not count as false."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return True


async def _send(conn: Any, function: str, take: Callable[[], object]) -> None:
    """Take a step that may write to the BIO, and have the carrier send that."""
    connection = _carried(conn, function)
    carrier = connection.carrier
    _handshake.refuse_in_callback(conn, connection.tls, function)
    if not is_asyncio(carrier):
        await _send_through(connection, take)
        return
    take()
    transport = _transport(carrier)
    if sys.version_info < (3, 11) and type(transport).__module__.startswith("asyncio"):
        transport.write(_Nothing())
    else:
        transport.writelines([])
    if hasattr(carrier, "drain") and sys.version_info >= (3, 11):
        await carrier.drain()  # before, no two tasks may be in it at once


async def _send_through(connection: Connection, take: Callable[[], object]) -> None:
    failed: Optional[Exception] = None

    def step() -> bytes:
        nonlocal failed
        try:
            take()
        except Exception as error:  # noqa: BLE001 (the stream would take it for its own)
            failed = error
        return b""

    send = _coroutine(connection.carrier, "send_all", "send", "write")
    with _standing_in(connection.tls, step):
        await send(_Nothing())
    if failed is not None:
        raise failed


@contextlib.contextmanager
def _standing_in(tls: Any, step: Callable[[], bytes]) -> Iterator[None]:
    """Let this task's ``tls.write()`` of nothing, and ``read()``, take a step instead.

    Two tasks may be in here with one connection: the first in changes it, the last out
    changes it back, and each takes its own step.
    """
    token = _step.set(step)
    inside = vars(tls).get("write")
    if not isinstance(inside, _StandIn):
        inside = tls.write = _StandIn(tls)
        tls.read = inside.read
    inside.tasks += 1
    try:
        yield
    finally:
        inside.tasks -= 1
        if not inside.tasks:
            del tls.write, tls.read
        _step.reset(token)


class _StandIn:
    """``write()`` and ``read()`` of an SSLObject, for as long as a step is taken."""

    def __init__(self, tls: Any) -> None:
        self._write, self._read = tls.write, tls.read
        self.tasks = 0

    def __call__(self, data: Any) -> Any:
        step = _step.get()
        if step is None or not isinstance(data, _Nothing):
            return self._write(data)
        return len(_taken(step))

    def read(self, *arguments: Any) -> Any:
        step = _step.get()
        return self._read(*arguments) if step is None else _taken(step)


def _taken(step: Callable[[], bytes]) -> bytes:
    """Take a step; what a callback reads in the middle of it is a read again."""
    token = _step.set(None)
    try:
        return step()
    finally:
        _step.reset(token)


# -- waiting ---------------------------------------------------------------------------


async def _wait(
    conn: Any, connection: Connection, function: str, is_done: Callable[[], bool]
) -> None:
    """Wait for the end of a handshake, receiving if nobody else does."""
    carrier = connection.carrier
    if is_done():
        return
    if is_asyncio(carrier):
        # what is only scheduled would wait as well
        await _send(conn, function, lambda: _keyupdate.flush(conn, function))
        await _watch(
            asyncio.sleep, is_done, lambda: _check_loop(conn, carrier, function)
        )
        return
    busy = await _receive_until(conn, connection, function, is_done)
    if busy:  # advance() raises where the other task met an end
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
    """Look again and again, while something else does the I/O."""
    pause = _FIRST_PAUSE
    while not is_done():
        await sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
        check()


async def _receive_until(
    conn: Any, connection: Connection, function: str, is_done: Callable[[], bool]
) -> Optional[str]:
    """Drive a handshake by receiving; return who says that another task does that."""
    reached: Optional[int] = None

    def step() -> bytes:
        nonlocal reached
        reached = _keyupdate.advance(conn, function)
        if not is_done() and reached != DATA:
            raise ssl.SSLWantReadError(reached, function)
        return b"-"  # not data: for the stream to return at all

    receive = _coroutine(connection.carrier, "receive_some", "receive", "read")
    try:
        with _standing_in(connection.tls, step):
            await receive(1)
    except Exception as error:
        # anyio's of a send has broken the stream
        if type(error).__name__ != "BusyResourceError" or "writing" in str(error):
            raise
        return type(error).__module__.partition(".")[0]
    if is_done():
        return None
    if reached == DATA:
        _handshake.refuse_in_front_of_data(conn, function)
    raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol")
