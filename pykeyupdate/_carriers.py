"""What moves the bytes of a connection: transports and streams of event loops.

Which connection is inside is ``_walk.py``'s and ``_finding.py``'s business. This is
about the loop that a carrier belongs to, and what it knows of the peer.
"""

import asyncio
import contextlib
import sys
from typing import Any, Callable, Optional

from ._describing import pack
from ._errors import ConnectionClosedError, NotATLSConnectionError, WrongLoopError
from ._finding import call_text, find_connection, refuse_to_send
from ._managed_classes import SSLObject
from ._static_lookup import has_attribute, is_instance, stored_attribute
from ._walk import Connection, is_asyncio, is_awaited, is_socket, is_stream_writer


def carried(conn: Any, function: str) -> Connection:
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
        check_loop(conn, carrier, function)
    remember_peer(connection)
    return connection


def remember_peer(connection: Connection) -> None:
    """Tell a managed object its peer's address, if its carrier knows it."""
    tls, carrier = connection.tls, connection.carrier
    if carrier is not None and is_instance(tls, SSLObject) and tls._peer is None:
        with contextlib.suppress(OSError):  # not connected any more
            tls._peer = pack(_address_of_peer(carrier))


def _address_of_peer(carrier: Any) -> Any:
    if is_asyncio(carrier):
        return transport_of(carrier).get_extra_info("peername")
    if has_attribute(carrier, "extra"):  # anyio
        key = sys.modules["anyio"].abc.SocketAttribute.remote_address
        return carrier.extra(key, None)  # noqa: S610 (no Django here)
    if has_attribute(carrier, "get_extra_info"):  # httpcore
        return carrier.get_extra_info("server_addr")
    below = stored_attribute(carrier, "transport_stream")  # trio
    end = stored_attribute(below, "socket")
    return end.getpeername() if has_attribute(end, "getpeername") else None


def transport_of(carrier: Any) -> Any:
    return carrier.transport if is_stream_writer(carrier) else carrier


def coroutine_of(carrier: Any, *names: str) -> Callable[[Any], Any]:
    """Return the first of these methods that a stream has."""
    name = next(name for name in names if has_attribute(carrier, name))
    method: Callable[[Any], Any] = getattr(carrier, name)
    return method


def check_loop(conn: Any, carrier: Any, function: str) -> None:
    """Refuse a transport that belongs to another loop or is no longer open."""
    transport = transport_of(carrier)
    running = running_loop()
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
    if transport.is_closing() or is_lost(transport):
        raise ConnectionClosedError(
            f"{call_text(function, conn)}: its transport is closed or closing; open a "
            "new connection"
        )


def running_loop() -> Optional[asyncio.AbstractEventLoop]:
    """Return asyncio's loop; another framework's does not count."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def sleep_here() -> Callable[[float], Any]:
    """Return the function that sleeps in the running framework."""
    trio = sys.modules.get("trio")
    if trio is not None:
        with contextlib.suppress(RuntimeError):  # not in trio
            trio.lowlevel.current_task()
            return trio.sleep  # type: ignore[no-any-return]
    return asyncio.sleep


def is_lost(transport: Any) -> bool:
    """Return whether a transport was lost; asyncio before 3.11 does not report it."""
    return sys.version_info < (3, 11) and transport.get_extra_info("socket") is None
