"""The classes that ``ssl`` came with, whatever others have put in their place.

The names in ``ssl`` are anybody's to replace: by a class derived from it (eventlet,
truststore), by one that is not (gevent), by a function. The class itself is still that
of all connections made before, and the base of most others.
"""

import _socket
import _ssl
import ssl
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from ._static_lookup import bases_of, is_instance, kind_of


def derived(cls: type) -> Iterator[type]:
    """Give the classes derived from a class, its metaclass unasked."""
    children: list[type] = type.__subclasses__(cls)
    for each in children:
        yield each
        yield from derived(each)


def _original(name: str, base: type) -> Any:
    """Return the class that ssl came with: a base of what has its name, or any's."""
    there = vars(ssl).get(name)
    near = bases_of(there) if is_instance(there, type) else ()
    named = "ssl", name
    return next(cls for cls in chain(near, derived(base)) if kind_of(cls) == named)


if TYPE_CHECKING:
    CONTEXT = ssl.SSLContext
    SOCKET = ssl.SSLSocket
    OBJECT = ssl.SSLObject
else:
    CONTEXT = _original("SSLContext", _ssl._SSLContext)
    SOCKET = _original("SSLSocket", _socket.socket)
    OBJECT = _original("SSLObject", object)


def now() -> list[type]:
    """Return the classes of connections that ``ssl`` has now: a function is none."""
    return [cls for cls in (ssl.SSLSocket, ssl.SSLObject) if is_instance(cls, type)]


def connections() -> list[type]:
    """Return ssl's own classes of connections, and those in their place now."""
    return [SOCKET, OBJECT, *now()]
