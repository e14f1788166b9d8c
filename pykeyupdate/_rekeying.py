"""What rekey() and its siblings do to the TLS side of a connection, without the I/O.

``_sync.py`` and ``_carrier_io.py`` know how to wait, this module knows what to do. A
step takes ``conn``, the object that the user passed and that errors name; ``tls``, the
``ssl`` object inside it; and ``function``, the name of the user's call.

Over memory (an ``SSLObject``, a managed socket) all of it is one uninterrupted call of
the extension (``ext/calls/rekeying.c``). The steps here are for sockets whose bytes
OpenSSL moves itself: their ``do_handshake()`` waits.
"""

import enum
import functools
import ssl
import sys
from types import FrameType
from typing import Any, Callable, NamedTuple, Optional

from . import _keyupdate
from ._constants import KeyUpdateType
from ._errors import (
    AlreadyPendingError,
    DeferredByOpenSSLError,
    PyKeyUpdateError,
    ReadPendingError,
    SharedConnectionError,
    WrongProtocolVersionError,
)
from ._fields import described
from ._finding import call_text, find_connection
from ._identity_map import IdentityMap

DATA = 0
"""The value that ``_keyupdate.advance()`` returns if application data came first."""


class ToSend(enum.IntEnum):
    """What a connection has to send besides application data (ext/calls/rekeying.c)."""

    NOTHING = 0
    KEY_UPDATE = 1
    ANSWER = 2
    RENEGOTIATION = 3
    RENEGOTIATION_UNSENT = 4
    OTHER_MESSAGE = 5


@described
class ClientCertificate(NamedTuple):
    """The result of ``request_client_certificate()``.

    certificate
        The verified certificate in DER; ``None`` if the client sent none. (A TLS 1.3
        client that declines keeps the certificate that it sent before, if any.)
    changed
        Whether the certificate differs from the one before the request.
    """

    certificate: Optional[bytes]
    changed: bool


class Request:
    """A certificate request under way."""

    def __init__(self, certificate: Optional[bytes], peer_finished: int) -> None:
        self.certificate = certificate  # before it
        self.peer_finished = peer_finished  # likewise
        self.is_joined = (
            False  # another call continues it, and may be the one that asks
        )


# A request may outlive the call that made it (after a timeout, or if data came first).
# The next call then waits for its answer instead of asking again.
_requests: "IdentityMap[Request]" = IdentityMap()


def rekey(
    conn: Any,
    tls: Any,
    function: str,
    advance: Callable[[], object],
    *,
    request_peer: bool,
) -> None:
    """Schedule new keys and send the message, or finish one that has begun."""
    kind = _keyupdate.to_send(conn, function)
    if kind:
        send = functools.partial(perform, conn, tls, function, advance)
        if _is_enough(conn, kind, send, request_peer=request_peer):
            return
    if _schedule(conn, function, request_peer=request_peer):
        tls.do_handshake()
    else:
        advance()


def _is_enough(
    conn: Any, kind: int, send: Callable[[], None], *, request_peer: bool
) -> bool:
    """Send what must go first. Return whether that gives the new keys."""
    if kind == ToSend.RENEGOTIATION:
        return False
    scheduled = _keyupdate.get_key_update_type(conn)
    send()
    if kind == ToSend.OTHER_MESSAGE:
        return False
    return not request_peer or scheduled != KeyUpdateType.NOT_REQUESTED


def _schedule(conn: Any, function: str, *, request_peer: bool) -> bool:
    """Schedule a key update and return True, or a renegotiation and return False."""
    wanted = KeyUpdateType.REQUESTED if request_peer else KeyUpdateType.NOT_REQUESTED
    try:
        _keyupdate.key_update(conn, wanted)
    except WrongProtocolVersionError:
        pass  # raise outside, so that later errors do not have it as their context
    else:
        return True
    refuse_beside_a_reader(conn, function)
    _refuse_over_unread_data(conn, function)
    _keyupdate.renegotiate(conn)
    return False


# The functions of ssl.py between OpenSSL and the program's callback.
_SHIMS = ("inner", "shim_cb")
_SSL_GLOBALS = vars(ssl)


def refuse_in_callback(conn: Any, tls: Any, function: str) -> None:
    """Refuse to call OpenSSL in the middle of another call on this connection.

    For a managed connection the extension knows. For others the call stack shows it:
    below a callback from OpenSSL is a function of ssl.py that was given the connection,
    and below that is the connection's method that called OpenSSL.

    A signal handler runs directly on that method. If the method waits, the handler may
    go on: _ssl calls OpenSSL again after the wait. If it does not wait, the handler may
    not: _ssl runs handlers between OpenSSL's return and its reading of the result, and
    would then read the result of the handler's call.
    """
    if _is_managed(tls):
        return
    frame: Optional[FrameType] = sys._getframe(1)
    while frame is not None:
        if frame.f_globals is _SSL_GLOBALS and _is_of(tls, frame):
            raise AlreadyPendingError(
                f"{call_text(function, conn)}: refused, and nothing was done: it was "
                "called from a callback, or a signal handler, in the middle of "
                "another call of this thread on this connection; call it after that "
                "one has returned"
            )
        frame = frame.f_back


def _is_managed(tls: Any) -> bool:
    return isinstance(tls, _keyupdate.ManagedObject) or isinstance(
        getattr(tls, "_sslobj", None), _keyupdate.Duplex
    )


def _is_of(tls: Any, frame: FrameType) -> bool:
    """Return whether a frame of ssl.py is in OpenSSL with this connection."""
    if frame.f_code.co_name not in _SHIMS:
        waits = getattr(tls, "gettimeout", lambda: 0)() != 0
        return not waits and frame.f_locals.get("self") is tls
    within = [*frame.f_locals.values()]
    if frame.f_back is not None:
        within.append(frame.f_back.f_locals.get("self"))
    return any(value is tls for value in within)


def refuse_beside_a_reader(conn: Any, function: str) -> None:
    """Refuse a handshake in this thread if another is always in SSL_read()."""
    if find_connection(conn, function).read_elsewhere:
        raise SharedConnectionError(
            f"{call_text(function, conn)}: its library reads it in a thread of its "
            "own, and a handshake driven by another would break it; use its asyncio "
            "form, or open a new connection"
        )


def _refuse_over_unread_data(conn: Any, function: str) -> None:
    """Refuse a renegotiation that OpenSSL would not send before data has been read."""
    if _keyupdate.has_unread(conn, function):
        raise ReadPendingError(
            f"{call_text(function, conn)}: received data is waiting, and a "
            "renegotiation does not begin before it has been read; recv() it first"
        )


def perform(conn: Any, tls: Any, function: str, advance: Callable[[], object]) -> None:
    """Send what is scheduled or owed; ``advance`` advances a renegotiation."""
    kind = _keyupdate.to_send(conn, function)
    if kind in (ToSend.RENEGOTIATION, ToSend.RENEGOTIATION_UNSENT):
        advance()
    elif kind == ToSend.ANSWER:
        _send_answer(conn, tls)
    elif kind != ToSend.NOTHING:
        tls.do_handshake()


def _send_answer(conn: Any, tls: Any) -> None:
    """Send the answer that this side owes; OpenSSL itself sends it only with a write.

    A key update of our own that requests none is the same message. Where OpenSSL
    refuses one so soon after another, a write of nothing takes the answer with it.
    """
    try:
        _keyupdate.key_update(conn)
    except DeferredByOpenSSLError:
        send = functools.partial(_write_nothing, tls)
    else:
        send = tls.do_handshake
    send()


def _write_nothing(tls: Any) -> None:
    """Write no data. Python 3.9 then takes OpenSSL's 0 for an end of file."""
    try:
        tls.write(b"")
    except ssl.SSLEOFError:
        if sys.version_info >= (3, 10):
            raise


def request_certificate(
    conn: Any, tls: Any, function: str, ask: Callable[[bool], object]
) -> Request:
    """Request the client's certificate, or continue a request under way.

    ``ask(False)`` makes and sends a request, ``ask(True)`` continues one. Return the
    request whose answer the caller must wait for; several callers may do so.
    """
    under_way = _requests.get(tls)
    if under_way is None:
        # This raises if there is no connection. In the middle of a handshake there is
        # no certificate to compare with, and ask() refuses.
        finished = _keyupdate.peer_finished(conn, function)
        before = tls.getpeercert(True) if tls.version() else None
        own = Request(before, finished)
        under_way = _requests.setdefault(tls, own)
        if under_way is own:
            _ask_first(tls, own, ask)
            return own
    if not is_answered(conn, tls, under_way, function):
        under_way.is_joined = True
        ask(True)
    return under_way


def _ask_first(tls: Any, request: Request, ask: Callable[[bool], object]) -> None:
    try:
        _ask_unless_overtaken(request, ask)
    except PyKeyUpdateError:
        _requests.remove(tls)  # a refused request is not under way
        raise


def _ask_unless_overtaken(request: Request, ask: Callable[[bool], object]) -> None:
    try:
        ask(False)
    except AlreadyPendingError:
        if not request.is_joined:
            raise
    else:
        return
    ask(True)  # the thread that joined has asked first


def request_step_by_step(
    conn: Any, tls: Any, function: str, advance: Callable[[], object], under_way: bool
) -> None:
    """Request the client's certificate on a socket that is not managed."""
    if tls.server_side and _keyupdate.to_send(conn, function) == ToSend.ANSWER:
        _send_answer(conn, tls)  # otherwise it would go out instead of the request
    _keyupdate.request_certificate(conn, function, under_way)
    if _keyupdate.to_send(conn, function) == ToSend.NOTHING:
        tls.do_handshake()  # on TLS 1.3 to_send() does not see the request
    perform(conn, tls, function, advance)


def is_answered(conn: Any, tls: Any, request: Request, function: str) -> bool:
    """Return whether the client has answered the request that is under way.

    The client's Finished message ends the answer, on TLS 1.3 and below. ``version()``
    is None in the middle of a handshake.
    """
    finished = _keyupdate.peer_finished(conn, function)
    return finished != request.peer_finished and tls.version() is not None


def take_answer(
    conn: Any, tls: Any, request: Request, function: str
) -> Optional[ClientCertificate]:
    """Return the result of the request, or None if it has not been answered."""
    if not is_answered(conn, tls, request, function):
        return None
    try:
        certificate = tls.getpeercert(True)
    except ValueError:  # another thread's next request has begun
        return None
    if _requests.get(tls) is request:
        _requests.remove(tls)
    return ClientCertificate(certificate, changed=certificate != request.certificate)


def refuse_in_front_of_data(conn: Any, function: str) -> None:
    """Refuse to wait when application data precedes the handshake message."""
    raise ReadPendingError(
        f"{call_text(function, conn)}: application data came before the peer's "
        "handshake message and would be lost; recv() it, then call again to go on (the "
        "handshake is under way and nothing has been lost)"
    )
