"""The classes that ``ssl`` came with, whatever others have put in their place.

Any program may replace the names in ``ssl``: with a class derived from the original
(eventlet, truststore), with one that is not (gevent), or with a function. The original
is still the class of all connections made before, and the base of most others.
"""

import _socket
import _ssl
import ssl
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from ._static_lookup import bases_of, is_instance, kind_of


def derived(cls: type) -> Iterator[type]:
    """Yield the classes derived from a class, without asking its metaclass."""
    children: list[type] = type.__subclasses__(cls)
    for each in children:
        yield each
        yield from derived(each)


def _original(name: str, base: type) -> Any:
    """Return the class that ssl came with.

    It is a base of the class that has the name now, or else derived from ``base``. But
    if gevent has replaced ``socket.socket`` before ssl was first imported, ssl's own
    socket class derives from gevent's, and that from nothing.
    """
    there = vars(ssl).get(name)
    near = bases_of(there) if is_instance(there, type) else ()
    named = "ssl", name
    for cls in chain(near, derived(base), derived(object)):
        if kind_of(cls) == named:
            return cls
    raise ImportError(
        f"pykeyupdate cannot work here: the class {name} that ssl came with is no "
        f"longer to be found, and ssl.{name} is {there!r}. Import pykeyupdate before "
        "whatever replaces the classes of ssl"
    )


if TYPE_CHECKING:
    CONTEXT = ssl.SSLContext
    SOCKET = ssl.SSLSocket
    OBJECT = ssl.SSLObject
else:
    CONTEXT = _original("SSLContext", _ssl._SSLContext)
    SOCKET = _original("SSLSocket", _socket.socket)
    OBJECT = _original("SSLObject", object)


def now() -> list[type]:
    """Return the connection classes that ``ssl`` has now, if they are classes."""
    return [cls for cls in (ssl.SSLSocket, ssl.SSLObject) if is_instance(cls, type)]


def connections() -> list[type]:
    """Return ssl's own connection classes, and those in their place now."""
    return [SOCKET, OBJECT, *now()]
