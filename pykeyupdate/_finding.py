"""What the functions take for a connection, and how they refuse what is none.

Theory of operation. ``_walk.py`` finds the connection in what a program holds. What
leads nowhere is refused with whose TLS it is, where that is another library's, or with
the expression that does work, where an object keeps a connection in private: what it
stores is then searched, breadth first, and nothing is called.
"""

import socket
from collections import deque
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import NoReturn, Optional

from ._errors import ConnectionClosedError, NotATLSConnectionError
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

    Raises ``NotATLSConnectionError`` for what carries no TLS, or TLS that is not of
    Python's ``ssl``, and ``ConnectionClosedError`` for what has no connection now.
    """
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
    """Return repr(value), whatever a class of the user's makes of it."""
    try:
        return repr(value)
    except Exception as error:
        if is_of_signal_handler(error):
            raise
        return "<object without a repr>"


def call_text(function: str, conn: object) -> str:
    """Return how errors name a call."""
    return f"{function}({name_of(conn)})"


_WITH_ITS_OWN_IO = (
    "what `pykeyupdate.key_update()` schedules (below TLS 1.3 `renegotiate()`) goes "
    "out with its next read or write"
)


def refuse_to_send(conn: object, connection: Connection, function: str) -> NoReturn:
    """Refuse what neither ``aio`` nor a function that blocks can have sent."""
    remedy = _WITH_ITS_OWN_IO
    for way, part in _private_parts(conn):
        found = Walk().follow(part)  # it is taken already; this is who sends for it
        if found and found.tls is connection.tls and is_awaited(found.carrier):
            remedy = f"pass `{way}` to `pykeyupdate.aio.{function}()`"
            break
    raise NotATLSConnectionError(
        f"{call_text(function, conn)}: {name_of(type(connection.carrier))} has no "
        f"documented way to send what lies ready; {remedy}"
    )


_THEIRS = "its TLS is {}'s, not the ssl module's"


def _why_not(end: DeadEnd) -> Optional[str]:
    """Return why an object leads no further, where that can be said."""
    owner = foreign_tls_of(end.value)
    if owner:
        return _THEIRS.format(owner)
    if end.has_no_tls:
        return f"{name_of(type(end.value))} carries no TLS"
    if is_instance(end.value, socket.socket):
        return "its socket is a plain one, without TLS"
    if class_name(end.value)[1] == "StreamReader":
        return "a StreamReader does not give its connection; pass the StreamWriter"
    return None


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


# Whose methods are asked for a hint; no stranger's is.
_STREAMS = {"_asyncio", "anyio", "asyncio", "httpcore", "trio", "uvloop"}


def _known_inside(part: object) -> Optional[Connection]:
    if holds_tls(part) or package_of(type(part)) in _STREAMS:
        return Walk().follow(part)
    return None


# What libraries are built on; their own packages, and these, are looked into.
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
_MOST_HINTED = 1000  # objects that are looked at, some milliseconds


def _private_parts(conn: object) -> Iterator[tuple[str, object]]:
    """Give what an object keeps in dicts, slots and containers, the nearest first.

    Each with the expression that leads to it. Other people's objects beside it (an
    event loop, the program's own) are not entered: what they hold is not its.
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
