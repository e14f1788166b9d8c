"""Sends and receives what OpenSSL makes without application data, in an event loop.

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
import ssl
import sys
from typing import Any, Callable, Optional

from . import _keyupdate, _rekeying
from ._carriers import (
    carried,
    check_loop,
    coroutine_of,
    is_lost,
    running_loop,
    transport_of,
)
from ._connections import ConnectionInfo, snapshot
from ._finding import refuse_to_send
from ._managed_classes import asyncio_transport
from ._rekeying import DATA
from ._stand_ins import Nothing, stand_in
from ._walk import Connection, is_asyncio, is_stream_writer

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05  # seconds between two polls


def send_wanted(info: ConnectionInfo) -> bool:
    """Send the new keys that have been asked for, on a transport of this loop."""
    conn = info.connection
    loop, transport = asyncio_transport(conn)
    if info.version != "TLSv1.3" or loop is not running_loop():
        return False
    if transport is None or transport.is_closing() or is_lost(transport):
        return False
    _keyupdate.ManagedObject.write(conn, b"")  # does what the owner's write does
    send_output(transport)
    after = snapshot(info.reference)
    sent = info.counts.key_updates_sent
    return after is not None and after.counts.key_updates_sent > sent


async def send(conn: Any, function: str, take: Callable[[], object]) -> None:
    """Take a step that may write to the BIO, and have the carrier send the result."""
    connection = carried(conn, function)
    carrier = connection.carrier
    _rekeying.refuse_in_callback(conn, connection.tls, function)
    if not is_asyncio(carrier):
        if not await send_through(connection, take):
            refuse_to_send(conn, connection, function)
        return
    take()
    send_output(transport_of(carrier))
    if is_stream_writer(carrier) and sys.version_info >= (3, 11):
        await carrier.drain()  # before 3.11, two tasks may not be in it at once


def send_output(transport: Any) -> None:
    """Have a transport send what OpenSSL has written."""
    if sys.version_info < (3, 11) and type(transport).__module__.startswith("asyncio"):
        transport.write(Nothing())
    else:
        transport.writelines([])


async def send_through(connection: Connection, take: Callable[[], object]) -> bool:
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

    send = coroutine_of(connection.carrier, "send_all", "send", "write")
    await stand_in(connection.tls, step, send, Nothing())
    if failed is not None:
        raise failed
    return is_taken


async def wait_until(
    conn: Any, connection: Connection, function: str, is_done: Callable[[], bool]
) -> None:
    """Wait for the end of a handshake; receive if no other task does."""
    carrier = connection.carrier
    if is_done():
        return
    if is_asyncio(carrier):
        # a renegotiation that is only scheduled would not begin by itself
        await send(conn, function, lambda: _keyupdate.flush(conn, function))
        await _watch(
            asyncio.sleep, is_done, lambda: check_loop(conn, carrier, function)
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

    receive = coroutine_of(connection.carrier, "receive_some", "receive", "read")
    try:
        await stand_in(connection.tls, step, receive, 1)
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
