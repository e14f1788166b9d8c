"""``rekey()`` and its siblings for connections whose bytes an event loop moves.

Each takes what a program holds of asyncio, uvloop, trio, anyio or httpcore, or an
object of a framework around it. How a message gets to the wire without a method for
that is said in ``_carrier_io.py``.
"""

import asyncio
import contextlib
import functools
import time
from typing import Any, Callable, Optional

from . import _arguments, _keyupdate, _rekeying
from ._carrier_io import send, send_wanted, wait_until
from ._carriers import carried, remember_peer, sleep_here
from ._errors import ConnectionClosedError, NotATLSConnectionError, NotManagedError
from ._finding import call_text, find_connection
from ._for_all import BREATH, PER_SECOND, Filter, Rekeying, RekeyResult
from ._keeping_fresh import (
    carried_idle,
    first_wait,
    keep_stream_fresh,
    keep_transport_fresh,
)
from ._managed_classes import SSLObject, SSLSocket
from ._rekeying import ClientCertificate
from ._static_lookup import is_instance
from ._walk import is_asyncio

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

_TURN = 0.001  # seconds without letting the loop's other tasks run


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
    await send(conn, "rekey", lambda: _keyupdate.rekey(conn, "rekey", request_peer))


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
    tour = Rekeying("rekey_all()", which, request_peer, per_second, send_wanted)
    sleep = sleep_here()
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
    await send(conn, "flush", lambda: _keyupdate.flush(conn, "flush"))


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
    connection = carried(conn, function)
    await wait_until(
        conn, connection, function, lambda: not _keyupdate.renegotiate_pending(conn)
    )


async def request_client_certificate(conn: Any, /) -> ClientCertificate:
    """Ask the client for its certificate in mid-connection; servers only.

    Like ``pykeyupdate.request_client_certificate()``; waits as
    ``wait_for_renegotiation()`` does. If the call is cancelled, the request is still
    under way, and the next call waits for its answer.
    """
    function = "request_client_certificate"
    connection = carried(conn, function)
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

    await send(conn, function, take)
    await wait_until(conn, connection, function, answered)
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
    remember_peer(connection)
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
    connection = carried_idle(conn, "keep_fresh")
    wait = first_wait(conn, connection.tls, "keep_fresh")
    if not is_asyncio(connection.carrier):
        await keep_stream_fresh(conn, connection, wait, lock)
        return
    idle = keep_transport_fresh(connection, wait)
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
    connection = carried_idle(conn, function)
    wait = first_wait(conn, connection.tls, function)
    if not is_asyncio(connection.carrier):
        raise TypeError(
            f"{call_text(function, conn)}: there is no background in trio or anyio; "
            "start `aio.keep_fresh(stream, lock=...)` in a nursery or task group"
        )
    keep_transport_fresh(connection, wait)


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
