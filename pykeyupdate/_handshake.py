"""What rekey() and its like do to the TLS side of a connection, whoever does the I/O.

``_sync.py`` and ``aio.py`` are built from these steps: they know how to wait, this
module knows what to do. A step takes ``conn``, as the user gave it and errors shall
name it, ``tls``, the object of ``ssl`` inside it, and ``function``, the name of the
user's call.

Over memory (an ``SSLObject``, a managed socket) all of it is one call of the extension,
in which nothing comes between (``ext/calls/handshake.c``). What is here step by step is
for sockets whose bytes OpenSSL itself moves: their ``do_handshake()`` waits.
"""

import enum
import sys
from types import FrameType
from typing import Any, Callable, NamedTuple, Optional

from . import _keyupdate
from ._constants import KeyUpdateType
from ._errors import (
    AlreadyPendingError,
    PyKeyUpdateError,
    ReadPendingError,
    SharedConnectionError,
    WrongProtocolVersionError,
)
from ._finding import call_text, find_connection
from ._identity_map import IdentityMap

DATA = 0
"""What ``_keyupdate.advance()`` returns where application data came first."""


class ToSend(enum.IntEnum):
    """What a connection has to send beside application data (ext/calls/handshake.c)."""

    NOTHING = 0
    KEY_UPDATE = 1
    ANSWER = 2
    RENEGOTIATION = 3
    RENEGOTIATION_UNSENT = 4
    OTHER_MESSAGE = 5


class ClientCertificate(NamedTuple):
    """What ``request_client_certificate()`` brought."""

    certificate: Optional[bytes]
    """The certificate in DER, verified; ``None`` where the client gave none. (A client
    that declines on TLS 1.3 keeps the certificate that it gave before, if any.)"""
    changed: bool
    """Whether it is another one than before the request."""


class Request(NamedTuple):
    """A certificate request under way: what there was before it."""

    certificate: Optional[bytes]
    peer_finished: int


# A request may outlive the call that made it (a timeout, data that came first); the
# next call then waits for its answer instead of asking again.
_requests: "IdentityMap[Request]" = IdentityMap()


def rekey(
    conn: Any, function: str, perform: Callable[[], None], *, request_peer: bool
) -> None:
    """Schedule new keys and perform it, or finish what has been begun."""
    kind = _keyupdate.to_send(conn, function)
    if kind in (ToSend.KEY_UPDATE, ToSend.RENEGOTIATION_UNSENT):
        scheduled = _keyupdate.get_key_update_type(conn)
        perform()
        if not request_peer or scheduled != KeyUpdateType.NOT_REQUESTED:
            return
    elif kind == ToSend.OTHER_MESSAGE or (kind == ToSend.ANSWER and request_peer):
        perform()  # a request of ours may not replace the answer that is owed
    _schedule(conn, function, request_peer=request_peer)
    perform()


def _schedule(conn: Any, function: str, *, request_peer: bool) -> None:
    wanted = KeyUpdateType.REQUESTED if request_peer else KeyUpdateType.NOT_REQUESTED
    try:
        return _keyupdate.key_update(conn, wanted)
    except WrongProtocolVersionError:
        pass  # which is no part of an error that follows
    refuse_beside_a_reader(conn, function)
    _refuse_over_unread_data(conn, function)
    return _keyupdate.renegotiate(conn)


# The functions of ssl.py that stand between OpenSSL and a callback of the program's.
_SHIMS = ("inner", "shim_cb")


def refuse_in_callback(conn: Any, tls: Any, function: str) -> None:
    """Refuse to call OpenSSL in the middle of another call of this connection's.

    Of a managed connection the extension knows. Of others the call stack tells: below
    a callback that OpenSSL has called stands a function of ssl's, which was given the
    connection, and below that the method of the connection that is in OpenSSL.

    A signal handler stands on that method itself. Where it waits the handler may go on:
    who is waiting in OpenSSL asks it again. Where nothing waits it may not: _ssl runs
    handlers between OpenSSL's answer and reading it, and that would be another's.
    """
    if _is_managed(tls):
        return
    waits = getattr(tls, "gettimeout", lambda: 0)() != 0
    frame: Optional[FrameType] = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "ssl" and _is_of(tls, frame, waits):
            raise AlreadyPendingError(
                f"{call_text(function, conn)}: refused, and nothing was done: it was "
                "called from a callback, or a signal handler, in the middle of "
                "another call of this thread on this connection; do it when that has "
                "returned"
            )
        frame = frame.f_back


def _is_managed(tls: Any) -> bool:
    return isinstance(tls, _keyupdate.ManagedObject) or isinstance(
        getattr(tls, "_sslobj", None), _keyupdate.Duplex
    )


def _is_of(tls: Any, frame: FrameType, waits: bool) -> bool:
    """Return whether a function of ssl's is in OpenSSL with this connection."""
    if frame.f_code.co_name not in _SHIMS:
        return not waits and frame.f_locals.get("self") is tls
    within = [*frame.f_locals.values()]
    if frame.f_back is not None:
        within.append(frame.f_back.f_locals.get("self"))
    return any(value is tls for value in within)


def refuse_beside_a_reader(conn: Any, function: str) -> None:
    """Refuse a handshake in this thread while another is always in SSL_read()."""
    if find_connection(conn, function).read_elsewhere:
        raise SharedConnectionError(
            f"{call_text(function, conn)}: its library reads it in a thread of its "
            "own, and a handshake driven by another would break it; use its asyncio "
            "form, or open a new connection"
        )


def _refuse_over_unread_data(conn: Any, function: str) -> None:
    """Refuse what OpenSSL would not send before the received data has been read."""
    if _keyupdate.has_unread(conn, function):
        raise ReadPendingError(
            f"{call_text(function, conn)}: received data is waiting, and a "
            "renegotiation does not begin before it has been read; recv() it first"
        )


def perform(conn: Any, tls: Any, function: str, advance: Callable[[], object]) -> None:
    """Send what is scheduled or owed; ``advance`` takes a renegotiation further."""
    kind = _keyupdate.to_send(conn, function)
    if kind in (ToSend.RENEGOTIATION, ToSend.RENEGOTIATION_UNSENT):
        advance()
    elif kind == ToSend.ANSWER:
        _send_answer(conn, tls)
    elif kind != ToSend.NOTHING:
        tls.do_handshake()


def _send_answer(conn: Any, tls: Any) -> None:
    """Send the answer that is owed; OpenSSL itself does so with a write alone.

    An update of our own that asks for none is the same message, and its preconditions
    are known.
    """
    _keyupdate.key_update(conn)
    tls.do_handshake()


def request_certificate(
    conn: Any, tls: Any, function: str, ask: Callable[[bool], object]
) -> Request:
    """Request the client's certificate, or go on with a request under way.

    ``ask`` asks and sends, or (``True``) goes on. Return the request whose answer is to
    be waited for, by any number of callers.
    """
    under_way = _requests.get(tls)
    if under_way is None:
        # In the middle of a handshake there is none to see; it is refused below.
        before = tls.getpeercert(True) if tls.version() else None
        request = Request(before, _keyupdate.peer_finished(conn, function))
    elif is_answered(conn, tls, under_way, function):
        return under_way
    else:
        request = under_way
    _requests.set(tls, request)
    try:
        ask(under_way is not None)
    except PyKeyUpdateError:
        if under_way is None:
            _requests.remove(tls)  # what is refused is not under way
        raise
    return request


def request_step_by_step(
    conn: Any, tls: Any, function: str, advance: Callable[[], object], under_way: bool
) -> None:
    """Request the client's certificate, of a socket that is not managed."""
    if _keyupdate.to_send(conn, function) == ToSend.ANSWER:
        _send_answer(conn, tls)  # or it would go out in place of the request
    _keyupdate.request_certificate(conn, function, under_way)
    if _keyupdate.to_send(conn, function) == ToSend.NOTHING:
        tls.do_handshake()  # TLS 1.3 does not say that it has something to send
    perform(conn, tls, function, advance)


def is_answered(conn: Any, tls: Any, request: Request, function: str) -> bool:
    """Return whether the client has answered the request that is under way.

    Its Finished message ends the answer, on TLS 1.3 and below; ``version()`` is None
    in the middle of a handshake.
    """
    finished = _keyupdate.peer_finished(conn, function)
    return finished != request.peer_finished and tls.version() is not None


def take_answer(
    conn: Any, tls: Any, request: Request, function: str
) -> Optional[ClientCertificate]:
    """Return what the request has brought, or None where it is not answered."""
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
    """Refuse to wait where application data stands in front of the handshake."""
    raise ReadPendingError(
        f"{call_text(function, conn)}: application data came before the peer's "
        "handshake message and would be lost; recv() it, then call again to go on (the "
        "handshake is under way and nothing has been lost)"
    )
