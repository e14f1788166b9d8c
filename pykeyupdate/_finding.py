"""Which objects the functions accept as a connection, and how they refuse others.

Theory of operation. ``_walk.py`` finds the connection inside the object that a
program holds. If it finds none, the object is refused. If the TLS is another library's,
the refusal says whose. If the object keeps a connection private, the refusal gives the
expression that works: a breadth-first search looks at what the object stores, and calls
nothing.
"""

import socket
from collections import deque
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import NoReturn, Optional

from ._errors import ConnectionClosedError, NotATLSConnectionError
from ._originals import OBJECT, SOCKET
from ._signal_handlers import is_of_signal_handler
from ._static_lookup import (
    class_name,
    is_instance,
    package_of,
    packages_of,
    stored_parts,
)
from ._walk import (
    Connection,
    DeadEnd,
    Walk,
    foreign_tls_of,
    holds_tls,
    is_awaited,
    is_socket,
)


def find_connection(conn: object, function: str) -> Connection:
    """Return the connection inside ``conn``; errors name ``function``.

    Raises ``NotATLSConnectionError`` for an object without TLS, or with TLS that is not
    Python's ``ssl``, and ``ConnectionClosedError`` for one that has no connection now.
    """
    if is_instance(
        conn, SOCKET, OBJECT
    ):  # as a walk would say, after ten times as long
        return Connection(conn, None, read_elsewhere=False)
    walk = Walk()
    found = walk.follow(conn)
    if found is not None:
        return found
    reason = next(filter(None, map(_why_not, walk.ends)), None)
    if reason is None and any(end.is_empty for end in walk.ends):
        raise ConnectionClosedError(
            f"{call_text(function, conn)}: it has no connection now: not connected "
            "yet, closed, or a response that has been read to its end (its connection "
            "is back in the pool; call this before, with requests and urllib3 on a "
            "streamed response)"
        )
    raise NotATLSConnectionError(
        f"{function}() takes a TLS connection of Python's ssl module, or what holds "
        f"one, not {name_of(type(conn))}: {reason or _remedy(conn)}"
    )


def name_of(value: object) -> str:
    """Return repr(value), even if the user's class raises in it."""
    try:
        return repr(value)
    except Exception as error:
        if is_of_signal_handler(error):
            raise
        return "<object without a repr>"


def call_text(function: str, conn: object) -> str:
    """Return a call as errors name it."""
    return f"{function}({name_of(conn)})"


_WITH_ITS_OWN_IO = (
    "what `pykeyupdate.key_update()` schedules (below TLS 1.3 `renegotiate()`) goes "
    "out with its next read or write"
)


def refuse_to_send(conn: object, connection: Connection, function: str) -> NoReturn:
    """Refuse a carrier that neither ``aio`` nor a blocking function can make send."""
    remedy = _WITH_ITS_OWN_IO
    for way, part in _private_parts(conn):
        found = Walk().follow(part)  # does it send for the same TLS object?
        if found and found.tls is connection.tls and is_awaited(found.carrier):
            remedy = f"pass `{way}` to `pykeyupdate.aio.{function}()`"
            break
    raise NotATLSConnectionError(
        f"{call_text(function, conn)}: {name_of(type(connection.carrier))} has no "
        f"documented way to send what lies ready; {remedy}"
    )


_GIVE_NOTHING = {
    "BufferedRWPair": "a file for reading and writing gives no socket; pass that",
    "StreamReader": "a StreamReader gives no connection; pass the StreamWriter",
}
_THEIRS = "its TLS is {}'s, not the ssl module's"


def _why_not(end: DeadEnd) -> Optional[str]:
    """Return why an object leads no further, if the reason is known."""
    owner = foreign_tls_of(end.value)
    if owner:
        return _THEIRS.format(owner)
    if end.error is not None:
        return f"asked for its TLS, {name_of(type(end.value))} raises {end.error!r}"
    if end.is_async:
        return (
            f"{name_of(type(end.value))} gives a coroutine; await it, and pass what "
            "that gives (a method __tls_connection__() must be no `async def`)"
        )
    if end.has_no_tls:
        return f"{name_of(type(end.value))} carries no TLS"
    if is_instance(end.value, socket.socket):
        return "its socket is a plain one, without TLS"
    return _GIVE_NOTHING.get(class_name(end.value)[1])


def _remedy(conn: object) -> str:
    for way, part in _private_parts(conn):
        owner = foreign_tls_of(part)
        if owner:
            return _THEIRS.format(owner)
        found = _known_inside(part)
        if found is not None and (found.carrier or is_socket(found.tls)):
            return f"nothing public in it leads to one; pass `{way}`, which does today"
    return (
        "nothing in it that pykeyupdate knows carries TLS now. Pass the transport, "
        "stream or socket itself; a class of your own can have a method "
        "__tls_connection__() that returns it. What a library gives to nobody is "
        "reached by rekey_all(), if its connections are managed"
    )


# Only these packages' methods are called to find a hint, nobody else's.
_STREAMS = {
    "_asyncio",
    "_io",
    "anyio",
    "asyncio",
    "cheroot",
    "httpcore",
    "socket",
    "trio",
    "uvloop",
}


def _known_inside(part: object) -> Optional[Connection]:
    if holds_tls(part) or package_of(type(part)) in _STREAMS:
        return Walk().follow(part)
    return None


# Packages that libraries are built on. The search enters objects of these and of the
# library's own packages.
_BUILDING_BLOCKS = {
    "aiormq",
    "amqp",
    "botocore",
    "builtins",
    "cheroot",
    "collections",
    "elastic_transport",
    "engineio",
    "httpcore",
    "paho",
    "queue",
    "redis",
    "requests",
    "urllib3",
    "urllib3_future",
    "valkey",
}
_NOT_ENTERED: tuple[type, ...] = (
    str,
    bytes,
    int,
    float,
    type(None),
    type,
    ModuleType,
    FunctionType,
)
_MOST_HINTED = 1000  # objects to look at, which takes some milliseconds


def _private_parts(conn: object) -> Iterator[tuple[str, object]]:
    """Yield what an object keeps in dicts, slots and containers, nearest first.

    Each comes with the expression that leads to it. The search does not enter other
    objects that it meets (an event loop, the program's own): what they hold does not
    belong to this object.
    """
    houses = {*packages_of(conn), *_BUILDING_BLOCKS} - {"asyncio", "threading"}
    queue, seen = deque([("conn", conn)]), {id(conn): conn}
    while queue and len(seen) < _MOST_HINTED:
        here, value = queue.popleft()
        for way, part in stored_parts(value, here):
            if id(part) in seen or is_instance(part, *_NOT_ENTERED):
                continue
            if len(seen) == _MOST_HINTED:
                return
            seen[id(part)] = part
            yield way, part
            if package_of(type(part)) in houses:
                queue.append((way, part))
