"""``rekey()`` and its siblings for connections that no event loop drives.

A socket may block, have a timeout or be non-blocking, as in the ``ssl`` module. Over
memory BIOs (an ``ssl.SSLObject``) nothing blocks, and the caller moves the bytes. A
managed socket (``SSLSocket``) is both: steps run over memory, while no other thread is
in the connection, and its own object moves the bytes.
"""

import functools
import selectors
import socket
import ssl
import time
from typing import Any, Callable, Optional

from . import _arguments, _keyupdate, _rekeying
from ._arguments import WAIT, Seconds
from ._errors import NotATLSConnectionError
from ._finding import call_text, find_connection, name_of, refuse_to_send
from ._rekeying import DATA, ClientCertificate
from ._walk import is_awaited


def rekey(conn: Any, /, *, request_peer: bool = False) -> None:
    """Get new keys now, whatever the protocol version: schedule and send.

    TLS 1.3: a key update. This side gets new sending keys; ``request_peer`` also asks
    the peer to update its own (default ``False``, because some peers limit or refuse
    updates that they must answer; RFC 9846 4.7.3 allows one unanswered request at a
    time).
    TLS 1.2 and below: a renegotiation, which changes the keys of both directions, so
    ``request_peer`` makes no difference. A client starts a full handshake. A server
    only asks for one, and its client decides (OpenSSL clients resume, unless the
    server's context has ``OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION``).

    conn is an ``ssl.SSLSocket``, or an object that holds one (``http.client``, urllib3,
    requests, httpx, websockets' sync connections, ``smtplib``, ``imaplib``, ``ftplib``,
    ``poplib``), or an ``ssl.SSLObject`` whose memory BIOs are yours. For asyncio, trio
    and anyio use ``await pykeyupdate.aio.rekey(conn)``.

    On the wire when it returns: the KeyUpdate message; a server's HelloRequest; a
    client's ClientHello. It does not wait for the peer. A renegotiation goes on inside
    your next ``recv()``, or ``wait_for_renegotiation()`` completes it.

    Full send buffer: a blocking socket blocks; a socket with a timeout raises
    ``TimeoutError`` (``socket.timeout`` before Python 3.10); a non-blocking socket
    raises ``ssl.SSLWantWriteError``. The message is then half sent, and calling again
    finishes that message.

    Raises, before anything is sent and with the connection as it was: what
    ``key_update()`` and ``renegotiate()`` raise, except
    ``WrongProtocolVersionError``; on a server below TLS 1.3 also ``ReadPendingError``
    while received data is unread; ``SharedConnectionError`` for a renegotiation if the
    library's own thread is always reading; ``TypeError`` for a ``request_peer`` that is
    not a ``bool``. An end of the connection that it meets raises ``ssl.SSLError`` or
    ``OSError``, as in any send. A renegotiation that the *peer* refuses ends the
    connection: an OpenSSL 3 server refuses its clients' renegotiations by default.

    Do not call it on a connection that the peer is about to close (a response with
    ``Connection: close``). If the peer has closed already, TCP answers the message with
    a reset, and data from the peer that has not been read is lost.

    How often: sparingly, and not while a request waits for the peer's answer
    (``request_outstanding`` in the ``stats()`` of a managed connection). RFC 9846 4.7.3
    forbids a second request until then. And an OpenSSL peer in the middle of a
    non-blocking write ends its own connection (``BAD_LENGTH``) when any update follows
    a request. That may even be our answer to a request of the peer's that crossed ours;
    OpenSSL sends this answer by itself, and nothing can hold it back.

    Threads: call it from the thread that does this connection's I/O; for a managed
    ``SSLSocket``, from any thread. On a managed socket, neither received data (no
    ``ReadPendingError``) nor an incomplete send (no ``WritePendingError``) is in the
    way: the message follows that send's data. A call from a callback that ``ssl`` makes
    for this very connection is refused (``AlreadyPendingError``). A call from a signal
    handler is not. A handler's exception propagates and leaves nothing locked.
    Source: SSL_key_update(3), SSL_renegotiate(3), RFC 9846 sections 4.7.3 and 5.5.
    """
    _arguments.check_flag("rekey()", "request_peer", request_peer)
    tls = _own_io(conn, "rekey")
    _rekeying.refuse_in_callback(conn, tls, "rekey")
    if _is_over_memory(tls):
        _keyupdate.rekey(conn, "rekey", request_peer)
    else:
        advance = functools.partial(_send_handshake, conn, tls, "rekey")
        _rekeying.rekey(conn, tls, "rekey", advance, request_peer=request_peer)


def flush(conn: Any, /) -> None:
    """Send what is scheduled, and the answer that this side owes, without data.

    OpenSSL answers a key update that the peer requested with this side's next write. A
    program that only receives never writes, so it should call this from time to time.
    (Calling it after every ``recv()`` gains nothing: RFC 9846 wants the answer before
    our next data, and sets no time for it.)

    On the wire: a KeyUpdate message if one is scheduled, half sent or owed; a scheduled
    renegotiation's first message; otherwise nothing.

    conn, sockets and threads: as for ``rekey()``. Raises ``WritePendingError`` while
    a send that raised ``SSLWantWriteError`` is incomplete and an answer is owed;
    ``HandshakeNotDoneError``, ``ConnectionFailedError``, ``ConnectionClosedError``,
    ``NotATLSConnectionError`` (a ``TypeError``).

    Source: SSL_key_update(3), RFC 9846 section 4.7.3.
    """
    tls = _own_io(conn, "flush")
    _rekeying.refuse_in_callback(conn, tls, "flush")
    if _is_over_memory(tls):
        _keyupdate.flush(conn, "flush")
    else:
        advance = functools.partial(_send_handshake, conn, tls, "flush")
        _rekeying.perform(conn, tls, "flush", advance)


def wait_for_renegotiation(conn: Any, /, timeout: Optional[Seconds] = None) -> None:
    """Complete a pending renegotiation by reading.

    Returns at once if none is pending (TLS 1.3 has none). timeout is in seconds (or a
    ``datetime.timedelta``; 24 days at most) and covers the whole call. ``None`` applies
    the socket's own timeout to each wait. A non-blocking socket raises
    ``ssl.SSLWantReadError`` or ``SSLWantWriteError`` instead of waiting, unless a
    timeout is given; an ``ssl.SSLObject`` always does.

    It reads because only reading gets past application data that is still on its way.
    It does not consume the data, which stays for the next ``recv()``.
    ``ReadPendingError`` means that data came before the peer's handshake message, which
    cannot be reached without reading the data: ``recv()`` it and call again.

    On a server, give a timeout, because the client may ignore the HelloRequest for
    ever. After a ``TimeoutError`` (``socket.timeout`` before Python 3.10) the
    renegotiation is still pending; call again to continue.

    On the wire: this side's part of the handshake. Raises ``ssl.SSLError`` if the
    renegotiation fails, ``ssl.SSLZeroReturnError`` or ``ssl.SSLEOFError`` if the peer
    closes; ``SharedConnectionError``, ``ConnectionClosedError``,
    ``NotATLSConnectionError`` (a ``TypeError``); ``TypeError`` for a timeout that is
    not a number, ``ValueError`` for one out of range. conn and threads: as for
    ``rekey()``.

    Source: SSL_renegotiate_pending(3), SSL_peek(3).
    """
    function = "wait_for_renegotiation"
    limit = _arguments.seconds_or_none(f"{function}()", "timeout", timeout, WAIT)
    tls = _own_io(conn, function)
    _rekeying.refuse_in_callback(conn, tls, function)
    _drive(conn, tls, function, lambda: not _keyupdate.renegotiate_pending(conn), limit)


def request_client_certificate(
    conn: Any, /, timeout: Optional[Seconds] = None
) -> ClientCertificate:
    """Ask the client for its certificate in mid-connection; servers only.

    TLS 1.3: post-handshake authentication, which the client must have offered (Python:
    ``context.post_handshake_auth = True``). TLS 1.2 and below: a renegotiation with a
    full handshake that asks for a certificate.

    Returns ``ClientCertificate(certificate, changed)``: the certificate in DER or
    ``None``, and whether it differs from the one before. OpenSSL verifies it against
    what the server's context trusts (call ``load_verify_locations()`` before;
    ``verify_mode`` need not be set). If the client has none, ``certificate`` is
    ``None``, unless the context says ``CERT_REQUIRED``: then the connection ends. An
    untrusted certificate ends the connection with ``ssl.SSLCertVerificationError``.
    From then on the client is asked in every renegotiation of this connection.

    On the wire: the answer to a key update, if this side owes one; a CertificateRequest
    or HelloRequest; then the client's answer. The client answers when it next reads.
    This call waits for the answer as ``wait_for_renegotiation()`` does, with the same
    timeout, errors (``ReadPendingError``) and way to call again. An answer that arrives
    inside your own ``recv()`` meanwhile is not lost: the next call returns it.

    Raises before anything is sent: ``WrongRoleError`` on a client;
    ``NoPostHandshakeAuthError``; ``ReadPendingError`` while received data is unread
    (not on a managed ``SSLSocket``); ``CloseNotifyError`` after either side's
    close_notify; ``SharedConnectionError`` if the library's own thread is always
    reading; what ``renegotiate()`` raises; and for a wrong timeout what
    ``wait_for_renegotiation()`` raises. Threads: as for ``rekey()``.

    Source: SSL_verify_client_post_handshake(3), RFC 9846 section 4.7.2.
    """
    function = "request_client_certificate"
    limit = _arguments.seconds_or_none(f"{function}()", "timeout", timeout, WAIT)
    tls = _own_io(conn, function)
    _rekeying.refuse_in_callback(conn, tls, function)
    _rekeying.refuse_beside_a_reader(conn, function)

    def ask(under_way: bool) -> None:
        if _is_over_memory(tls):
            _keyupdate.request(conn, function, under_way)
            return
        advance = functools.partial(_send_handshake, conn, tls, function)
        _rekeying.request_step_by_step(conn, tls, function, advance, under_way)

    request = _rekeying.request_certificate(conn, tls, function, ask)
    answer: Optional[ClientCertificate] = None

    def answered() -> bool:
        nonlocal answer
        answer = _rekeying.take_answer(conn, tls, request, function)
        return answer is not None

    _drive(conn, tls, function, answered, limit)
    assert answer is not None  # noqa: S101
    return answer


def _own_io(conn: Any, function: str) -> Any:
    """Return the SSLSocket or SSLObject, unless something else moves its bytes."""
    connection = find_connection(conn, function)
    if connection.carrier is None:
        return connection.tls
    if not is_awaited(connection.carrier):
        refuse_to_send(conn, connection, function)
    raise NotATLSConnectionError(
        f"{call_text(function, conn)}: {name_of(type(connection.carrier))} moves the "
        f"bytes of this connection; use `await pykeyupdate.aio.{function}()`"
    )


def _is_socket(tls: Any) -> bool:
    return hasattr(tls, "gettimeout")


def _duplex(tls: Any) -> Optional[_keyupdate.Duplex]:
    """Return the object that moves a managed socket's bytes; None for other objects."""
    inner = getattr(tls, "_sslobj", None)
    return inner if isinstance(inner, _keyupdate.Duplex) else None


def _is_over_memory(tls: Any) -> bool:
    """Return whether OpenSSL uses memory and no socket, and so never waits."""
    return not _is_socket(tls) or _duplex(tls) is not None


def _send_handshake(conn: Any, tls: Any, function: str) -> None:
    """Advance a renegotiation as far as possible without waiting for the peer."""
    while _advance(conn, tls, function) == ssl.SSL_ERROR_WANT_WRITE:
        _wait(tls, ssl.SSL_ERROR_WANT_WRITE, function, None)


def _drive(
    conn: Any,
    tls: Any,
    function: str,
    is_done: Callable[[], bool],
    timeout: Optional[float],
) -> None:
    """Drive a handshake to its end, or up to application data in front of it."""
    deadline = None if timeout is None else time.monotonic() + timeout
    duplex = _duplex(tls)
    if duplex is not None:
        return _drive_duplex(duplex, tls, function, is_done, deadline)
    while not is_done():
        reached = _advance(conn, tls, function)
        if is_done():
            return None
        if reached == DATA:
            _rekeying.refuse_in_front_of_data(conn, function)
        _wait(tls, reached, function, deadline)
    return None


def _drive_duplex(
    duplex: _keyupdate.Duplex,
    tls: Any,
    function: str,
    is_done: Callable[[], bool],
    deadline: Optional[float],
) -> None:
    """Process received data, in this thread or another, until ``is_done()``.

    Application data that arrives is kept for ``recv()``.
    """
    done = is_done()
    while not done:
        received, limit = duplex.received, tls.gettimeout()
        if deadline is not None:
            limit = max(1e-6, deadline - time.monotonic())
        duplex.settle(function)
        done = is_done()
        try:
            if done:
                duplex.send(function, limit)  # our last message
            else:
                duplex.receive(function, limit, received)
        except socket.timeout:
            raise _timed_out(function) from None


def _advance(conn: Any, tls: Any, function: str) -> int:
    """Advance the handshake once, without blocking on a socket."""
    _rekeying.refuse_beside_a_reader(conn, function)
    if not _is_socket(tls) or _duplex(tls):
        return _keyupdate.advance(conn, function)
    timeout = tls.gettimeout()
    tls.settimeout(0)
    try:
        return _keyupdate.advance(conn, function)
    finally:
        tls.settimeout(timeout)


def _wait(tls: Any, wanted: int, function: str, deadline: Optional[float]) -> None:
    """Wait until a socket is readable or writable, up to its timeout or a deadline."""
    reads = wanted == ssl.SSL_ERROR_WANT_READ
    limit = tls.gettimeout() if _is_socket(tls) else 0
    if deadline is not None and _is_socket(tls):
        limit = max(0.0, deadline - time.monotonic())
    elif limit == 0:
        error = ssl.SSLWantReadError if reads else ssl.SSLWantWriteError
        raise error(wanted, f"{function}() did not complete: call it again")
    with selectors.DefaultSelector() as selector:
        selector.register(tls, selectors.EVENT_READ if reads else selectors.EVENT_WRITE)
        if not selector.select(limit):
            raise _timed_out(function)


def _timed_out(function: str) -> socket.timeout:
    return socket.timeout(f"{function}() timed out; call it again to go on")
