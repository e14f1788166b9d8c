"""From any connection to the object of ``ssl`` inside it, and who moves its bytes.

Theory of operation. Hardly any program holds an ``ssl.SSLSocket``: it holds a stream, a
response, a protocol client. All of these give away what they wrap, by a few attributes
and methods that their projects document, the same few in many of them. So nothing is
imported and no class is known here: ``find()`` looks whether an object has one of
these, takes that step inwards and looks again, until it meets an object of ``ssl``.

On the way it keeps what moves the bytes. An ``ssl.SSLSocket`` does that itself. An
``ssl.SSLObject`` only encrypts, and the transport or stream around it must be told to
send (``aio.py``).

For objects of other projects there is one open protocol: a method
``__tls_connection__()`` that returns anything accepted here.
"""

import socket
import ssl
import sys
from collections.abc import Mapping
from types import MethodType
from typing import Any, Callable, NamedTuple, NoReturn, Optional

from .errors import ConnectionClosedError, NotATLSConnectionError
from .signals import is_of_signal_handler

_DUPLEX = "pykeyupdate._keyupdate", "Duplex"
_DEEPEST = 8  # requests' response is four steps from its socket


class Connection(NamedTuple):
    """What was found."""

    tls: Any
    """An ``ssl.SSLSocket`` or ``ssl.SSLObject`` (or what behaves as one)."""
    carrier: Any
    """What sends for an SSLObject: an asyncio StreamWriter or transport, or a stream of
    trio, anyio or httpcore. None where nothing is known to."""
    read_elsewhere: bool
    """Whether a thread of its library's own is always in recv(), which is no matter on
    a managed socket."""


def find(conn: object, function: str) -> Connection:
    """Return the connection inside ``conn``; errors name ``function``.

    Raises ``NotATLSConnectionError`` for what carries no TLS, or TLS that is not of
    Python's ``ssl``, and ``ConnectionClosedError`` for what has no connection now.
    """
    here, carrier, read_elsewhere = conn, None, False
    for _ in range(_DEEPEST):
        if _is_tls(here):
            tls = _owner(here)
            carrier = None if hasattr(tls, "gettimeout") else carrier
            return Connection(tls, carrier, read_elsewhere and not _is_shared(tls))
        step = _step_from(here)
        if step is None:
            break
        inside = step(here)
        if inside is None:
            _refuse_empty(conn, here, step, function)
        if step in _CARRIED:
            carrier = here
        read_elsewhere = read_elsewhere or step is _websocket
        here = inside
    return _refuse(conn, function, _why_not(here))


def name_of(value: object) -> str:
    """Return repr(value), whatever a class of the user's makes of it."""
    try:
        return repr(value)
    except Exception as error:
        if is_of_signal_handler(error):
            raise
        return "<object without a repr>"


def call(function: str, conn: object) -> str:
    """Return how errors name a call."""
    return f"{function}({name_of(conn)})"


def _is_tls(value: object) -> bool:
    """Return whether an object is ssl's, or holds one as ssl's do (gevent's)."""
    return (
        isinstance(value, (ssl.SSLSocket, ssl.SSLObject))
        or _is_inner(value)
        or _is_inner(getattr(value, "_sslobj", None))
    )


def _is_inner(value: object) -> bool:
    kind = type(value).__module__, type(value).__name__
    return kind in {("_ssl", "_SSLSocket"), _DUPLEX}


def _is_shared(tls: Any) -> bool:
    """Return whether it is a socket that any number of threads may use."""
    kind = type(getattr(tls, "_sslobj", None))
    return (kind.__module__, kind.__name__) == _DUPLEX


def _owner(tls: Any) -> Any:
    """Return the SSLSocket or SSLObject of an _SSLSocket, where there is one."""
    owner = tls.owner if _is_inner(tls) else None
    return tls if owner is None else owner


# -- the steps -------------------------------------------------------------------------


def _step_from(value: object) -> Optional[Callable[[Any], Any]]:
    """Return the step that leads inwards from an object, or None."""
    if isinstance(value, (type, socket.socket)) or _foreign(value):
        return None
    for applies, step in _STEPS:
        if applies(value):
            return step
    return None


def _has(*names: str) -> Callable[[object], bool]:
    return lambda value: all(getattr(value, name, None) is not None for name in names)


def _hook(value: Any) -> Any:
    return type(value).__tls_connection__(value)


def _writer(pair: Any) -> Any:
    return pair[1]


def _bound_to(method: Any) -> Any:
    return method.__self__


def _extra_info(value: Any) -> Any:
    return value.get_extra_info("ssl_object")


def _typed_attribute(stream: Any) -> Any:
    attribute = sys.modules["anyio.streams.tls"].TLSAttribute.ssl_object
    return stream.extra(attribute, None)  # noqa: S610 (not Django's)


def _forwarded(stream: Any) -> Any:
    return stream.pending.__self__


def _network_stream(response: Any) -> Any:
    return response.extensions.get("network_stream")


def _attribute(name: str) -> tuple[Callable[[object], bool], Callable[[Any], Any]]:
    return (
        lambda value: not callable(getattr(value, name, callable)),
        lambda value: getattr(value, name),
    )


def _websocket(connection: Any) -> Any:
    return connection.socket


_CARRIED = (_extra_info, _typed_attribute, _forwarded)

_STEPS: list[tuple[Callable[[Any], bool], Callable[[Any], Any]]] = [
    (lambda value: hasattr(type(value), "__tls_connection__"), _hook),
    # asyncio: what open_connection() returns, and its StreamWriter
    (lambda value: isinstance(value, tuple) and len(value) == 2, _writer),  # noqa: PLR2004
    (_has("get_extra_info", "transport", "drain"), _extra_info),
    # aiohttp's Request and Connection, websockets' asyncio connection, uvicorn
    _attribute("transport"),
    # asyncio's and uvloop's transports, httpcore's network streams
    (_has("get_extra_info"), _extra_info),
    # anyio's TLSStream
    (
        lambda value: (
            _has("extra", "extra_attributes")(value)
            and "anyio.streams.tls" in sys.modules
        ),
        _typed_attribute,
    ),
    # trio's SSLStream forwards the methods of its SSLObject
    (
        lambda value: (
            _has("transport_stream", "pending")(value)
            and isinstance(value.pending, MethodType)
        ),
        _forwarded,
    ),
    # httpx's and httpcore's Response
    (
        lambda value: isinstance(getattr(value, "extensions", None), Mapping),
        _network_stream,
    ),
    _attribute("raw"),  # requests' Response: urllib3's
    _attribute("connection"),  # urllib3's and aiohttp's response, http.server's handler
    _attribute("sock"),  # http.client, urllib3, smtplib, imaplib, ftplib, poplib
    # websockets' sync connection
    (_has("socket", "recv_events_thread"), _websocket),
    # uvicorn: the ASGI `send`
    (lambda value: isinstance(value, MethodType), _bound_to),
]


# -- what leads nowhere ----------------------------------------------------------------


def _foreign(value: object) -> Optional[str]:
    """Return whose TLS it is, where it is another library's than ssl's."""
    package = (type(value).__module__ or "").partition(".")[0]
    return "pyOpenSSL" if package == "OpenSSL" else None


def _why_not(value: object) -> str:
    foreign = _foreign(value)
    if foreign:
        return f"its TLS is {foreign}'s, which uses another OpenSSL than the ssl module"
    if isinstance(value, socket.socket):
        return "its socket is a plain one, without TLS"
    if type(value).__name__ == "StreamReader":
        return "a StreamReader does not give its connection; pass the StreamWriter"
    return (
        "nothing in it that pykeyupdate knows carries TLS. Pass the transport, stream "
        "or socket itself; a class of your own can have a method __tls_connection__() "
        "that returns it"
    )


def _refuse(conn: object, function: str, why: str) -> NoReturn:
    raise NotATLSConnectionError(
        f"{function}() takes a TLS connection of Python's ssl module, or what holds "
        f"one, not {name_of(type(conn))}: {why}"
    )


def _refuse_empty(
    conn: object, here: object, step: Callable[[Any], Any], function: str
) -> NoReturn:
    if step in (*_CARRIED, _network_stream):
        _refuse(conn, function, f"{name_of(type(here))} carries no TLS")
    raise ConnectionClosedError(
        f"{call(function, conn)}: it has no connection now: not connected yet, closed, "
        "or a response that has been read to its end (its connection is back in the "
        "pool; call this before, with requests and urllib3 on a streamed response)"
    )
