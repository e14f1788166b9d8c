"""Finds the ``ssl`` object inside any connection, and what sends for it.

Theory of operation. Hardly any program holds an ``ssl.SSLSocket``: it holds a stream, a
response, a protocol client. All of these expose what they wrap, by a few attributes and
methods that their projects document, and many projects use the same few. So this module
imports none of them. A walk checks whether an object has one of these attributes or
methods, follows it inwards and repeats, until it reaches an object of ``ssl``.

Attributes are looked up on an object's type and in its dict (``_static_lookup.py``), so
that no code of a proxy, a lazy object or a mock runs. A method is called only if the
type has it, and if its name or the methods beside it make the class known. A property
is read only if it is one of ``_PROPERTIES``.

On the way the walk notes what moves the bytes. An ``ssl.SSLSocket`` does that itself.
An ``ssl.SSLObject`` only encrypts, and the transport or stream around it must be told
to send (``_carrier_io.py``).

Other projects' objects can use one open protocol: a method ``__tls_connection__()``
that returns anything accepted here.
"""

import functools
import socket
import sys
from _ssl import _SSLSocket  # type: ignore[attr-defined]
from collections.abc import Iterator
from types import BuiltinMethodType, CoroutineType, MethodType, ModuleType
from typing import Any, Callable, NamedTuple, Optional

from ._fork_lock import importing
from ._originals import connections
from ._signal_handlers import is_of_signal_handler
from ._static_lookup import (
    NOTHING,
    class_name,
    has_methods,
    is_instance,
    package_of,
    packages_of,
    stored_attribute,
    type_attribute,
)

_DUPLEX = "pykeyupdate._keyupdate", "Duplex"
_MOST = 100  # objects to look at; hypercorn's `send` is eight steps from its socket


class Connection(NamedTuple):
    """The connection that a walk has found."""

    tls: Any
    """An ``ssl.SSLSocket`` or ``ssl.SSLObject`` (or an object that acts as one)."""
    carrier: Any
    """The object that sends for an SSLObject: an asyncio StreamWriter or transport, or
    a stream of trio, anyio, httpcore or urllib3. None if no sender is known."""
    read_elsewhere: bool
    """Whether the library's own thread is always in recv(). False for a managed socket,
    where it does no harm."""


def holds_tls(value: object) -> bool:
    """Return whether an object is ssl's, or has an ``_sslobj`` like one (gevent's)."""
    return (
        is_instance(value, *connections())
        or _is_inner(value)
        or _is_inner(stored_attribute(value, "_sslobj"))  # as ext/openssl/sslobject.c
    )


def _is_inner(value: object) -> bool:
    return type(value) is _SSLSocket or class_name(value) == _DUPLEX


def is_socket(tls: Any) -> bool:
    """Return whether a TLS object moves its own bytes."""
    return hasattr(tls, "gettimeout")


def _is_shared(tls: Any) -> bool:
    """Return whether a TLS object is a socket that any number of threads may use."""
    return class_name(getattr(tls, "_sslobj", None)) == _DUPLEX


def _owner(tls: Any) -> Any:
    """Return the SSLSocket or SSLObject around an _SSLSocket, if there is one."""
    owner = tls.owner if _is_inner(tls) else None
    return tls if owner is None else owner


# -- the walk --------------------------------------------------------------------------


class _Inside(NamedTuple):
    """The result of one step inwards."""

    value: Any
    is_sent_for: bool = False
    """Whether the object around ``value`` sends for it, if it is an SSLObject."""
    or_no_tls: bool = False
    """Whether None means that there is no TLS, rather than no connection."""
    error: Optional[Exception] = None
    """What the step raised instead."""


class DeadEnd(NamedTuple):
    """An object that leads no further."""

    value: object
    is_empty: bool = False
    has_no_tls: bool = False
    is_async: bool = False
    error: Optional[Exception] = None


class Walk:
    """A walk inwards from an object."""

    def __init__(self) -> None:
        self.ends: list[DeadEnd] = []
        self.seen: dict[int, object] = {}

    def follow(self, value: object) -> Optional[Connection]:
        """Return the connection inside an object, on the first path that has one."""
        if holds_tls(value):
            return Connection(_owner(value), None, read_elsewhere=False)
        if id(value) in self.seen or len(self.seen) == _MOST:
            return None
        self.seen[id(value)] = value
        for inside in _insides(value):
            end = _end(value, inside)
            if end is not None:
                self.ends.append(end)
                continue
            found = self.follow(inside.value)
            if found is not None:
                return _seen_from(value, found, sends=inside.is_sent_for)
        self.ends.append(DeadEnd(value))
        return None


def _end(value: object, inside: _Inside) -> Optional[DeadEnd]:
    """Return a dead end if a step from an object leads no further."""
    if inside.error is not None:
        return DeadEnd(value, error=inside.error)
    if type(inside.value) is CoroutineType:
        inside.value.close()  # or Python would warn that it was never awaited
        return DeadEnd(value, is_async=True)
    if inside.value is None:
        return DeadEnd(value, not inside.or_no_tls, inside.or_no_tls)
    return None


def _seen_from(value: object, found: Connection, *, sends: bool) -> Connection:
    """Add what an object does for the connection that was found inside it."""
    tls, carrier, read_elsewhere = found
    if sends and carrier is None and not is_socket(tls):
        carrier = value
    read_elsewhere = (read_elsewhere or _has_a_reader(value)) and not _is_shared(tls)
    return Connection(tls, carrier, read_elsewhere)


def _insides(value: Any) -> Iterator[_Inside]:
    """Yield what an object's documented attributes and methods lead to."""
    if is_instance(value, type, ModuleType, socket.socket):
        return
    if has_methods(value, "__tls_connection__"):
        yield _Inside(type(value).__tls_connection__(value))
    if foreign_tls_of(value):
        return
    for name in _names_for(value):
        held = _attribute(value, name)
        if held is not NOTHING and (
            is_instance(held, MethodType) or not callable(held)
        ):
            yield _Inside(held)
    for applies, step in _STEPS:
        if applies(value):
            yield step(value)


# -- the steps -------------------------------------------------------------------------

# The attributes in which libraries keep what they wrap. They are read only if that runs
# no code. For the packages below, other names replace these.
_KEPT = ("transport", "raw", "connection", "sock", "socket", "stream", "writer")

_KEPT_UNDER = {
    "_io": ("raw", "buffer"),  # makefile() returns these, around a SocketIO
    "aiohttp": ("transport", "connection"),
    "aioimaplib": ("protocol", "transport"),
    "amqp": ("_transport", "connection", "sock"),  # `transport` would connect
    "cheroot": ("rfile", "_raw"),  # a WSGI application's input, around a _pyio file
    "http": ("sock", "connection", "fp"),  # fp: a response's
    "hypercorn": ("send", "writer", "stream"),
    "kombu": ("_connection",),  # `connection` would connect
    "redis": (),  # a client has a pool, and its `connection` is None
    "valkey": (),  # likewise
    "socket": ("_sock",),  # SocketIO, which makefile() makes
    "socketserver": ("request",),
    "tornado": ("ws_connection", "request", "connection", "stream", "socket"),
    # a response outlives its connection if the server says `Connection: close`
    "urllib3": ("connection", "sock", "_original_response"),
    "urllib3_future": ("connection", "sock", "_original_response"),
}

# Properties that only return the attribute.
_PROPERTIES = {
    ("aiohttp", "connection"),
    ("aiohttp", "transport"),
    ("urllib3", "connection"),
    ("urllib3_future", "connection"),
}


def _names_for(value: object) -> Iterator[str]:
    known = [_KEPT_UNDER[name] for name in packages_of(value) if name in _KEPT_UNDER]
    return iter(dict.fromkeys(name for names in known or [_KEPT] for name in names))


def _attribute(value: Any, name: str) -> Any:
    """Return an attribute, or NOTHING if unknown code would have to run."""
    held = stored_attribute(value, name)
    if held is NOTHING:
        cls, _ = type_attribute(value, name)
        if cls is not None and (package_of(cls), name) in _PROPERTIES:
            return getattr(value, name)
    return held


def _of(package_name: str, *names: str) -> Callable[[object], bool]:
    """Return a predicate for objects of a package that have these methods."""
    return lambda value: (
        package_name in packages_of(value) and has_methods(value, *names)
    )


def _extra_info(value: Any) -> _Inside:
    """Call ``get_extra_info()``, which may be anything in an unknown class."""
    try:
        found = value.get_extra_info("ssl_object")
    except Exception as error:
        if is_of_signal_handler(error):
            raise
        return _Inside(None, error=error)
    return _Inside(found, is_sent_for=True, or_no_tls=True)


def _typed_attribute(stream: Any) -> _Inside:
    attribute = sys.modules["anyio.streams.tls"].TLSAttribute.ssl_object
    found = stream.extra(attribute, None)  # noqa: S610 (not Django's)
    return _Inside(found, is_sent_for=True, or_no_tls=True)


def _network_stream(response: Any) -> _Inside:
    extensions = stored_attribute(response, "extensions")
    return _Inside(dict.get(extensions, "network_stream"), or_no_tls=True)


_STEPS: list[tuple[Callable[[Any], bool], Callable[[Any], _Inside]]] = [
    # asyncio: the pair that open_connection() returns
    (
        lambda value: is_instance(value, tuple) and tuple.__len__(value) == 2,  # noqa: PLR2004
        lambda value: _Inside(tuple.__getitem__(value, 1)),
    ),
    # asyncio's StreamWriter, its and uvloop's transports, httpcore's network streams
    (lambda value: has_methods(value, "get_extra_info"), _extra_info),
    # anyio's TLSStream
    (_of("anyio", "extra"), _typed_attribute),
    # trio's SSLStream forwards the methods of its SSLObject
    (
        _of("trio", "send_all", "unwrap"),
        lambda stream: _Inside(stream.pending.__self__, is_sent_for=True),
    ),
    # TLS in TLS, through an https proxy (its `socket` is the proxy's)
    (
        _of("urllib3", "sendall", "_ssl_io_loop"),
        lambda stream: _Inside(stored_attribute(stream, "sslobj"), is_sent_for=True),
    ),
    # httpx's and httpcore's Response
    (
        lambda value: is_instance(stored_attribute(value, "extensions"), dict),
        _network_stream,
    ),
    # paho-mqtt's Client, IMAPClient
    (
        lambda value: (
            _of("paho", "socket")(value) or _of("imapclient", "socket")(value)
        ),
        lambda client: _Inside(client.socket()),
    ),
    # ASGI's `send` in uvicorn and other servers
    (
        lambda value: is_instance(value, MethodType, BuiltinMethodType),
        lambda method: _Inside(method.__self__),
    ),
    (
        lambda value: is_instance(value, functools.partial),
        lambda partial: _Inside(partial.func),
    ),
]

# Libraries that read in their own thread, and the attribute that holds the thread.
_READERS = {
    "paho": "_thread",  # loop_start() creates it
    "stomp": "create_thread_fc",
    "websockets": "recv_events_thread",
}


def _has_a_reader(value: object) -> bool:
    kept = [_READERS[name] for name in packages_of(value) if name in _READERS]
    return any(stored_attribute(value, name) not in (None, NOTHING) for name in kept)


# Packages whose TLS is not Python's ssl, and the library that provides it.
_FOREIGN = {
    "M2Crypto": "M2Crypto",
    "OpenSSL": "pyOpenSSL",
    "daphne": "pyOpenSSL",
    "granian": "rustls",
    "grpc": "gRPC",
    "psycopg": "libpq",
    "psycopg2": "libpq",
    "scrapy": "pyOpenSSL",
    "tlslite": "tlslite-ng",
    "twisted": "pyOpenSSL",
}


def foreign_tls_of(value: object) -> Optional[str]:
    """Return the library whose TLS an object uses, if that is not ssl."""
    return next(
        (_FOREIGN[name] for name in packages_of(value) if name in _FOREIGN), None
    )


# -- who sends for an SSLObject --------------------------------------------------------

# The method that sends, the one that receives, and one that tells such a stream from
# others: trio's, anyio's and httpcore's.
_STREAMS = (
    ("send_all", "receive_some"),
    ("send", "receive", "extra"),
    ("write", "read", "start_tls"),
)


def is_asyncio(carrier: object) -> bool:
    """Return whether a carrier is a transport or StreamWriter, of any loop."""
    if not has_methods(carrier, "writelines", "is_closing"):
        return False
    return is_stream_writer(carrier) or has_methods(carrier, "get_protocol")


def is_stream_writer(carrier: object) -> bool:
    """Return whether a carrier is asyncio's StreamWriter, which has a transport."""
    cls, _ = type_attribute(carrier, "transport")
    return cls is not None and package_of(cls) == "asyncio"


def is_awaited(carrier: object) -> bool:
    """Return whether ``aio`` can make a carrier send."""
    return is_asyncio(carrier) or any(
        has_methods(carrier, *names)
        and _is_coroutine_function(type_attribute(carrier, names[0])[1])
        for names in _STREAMS
    )


def _is_coroutine_function(value: object) -> bool:
    with importing:  # slow, and only streams of trio and anyio need it
        import inspect
    return inspect.iscoroutinefunction(value)
