"""``rekey()`` and its like for connections whose owner moves the bytes: sockets.

A socket may block, have a timeout or not block, as the ``ssl`` module has it. Over
memory BIOs (an ``ssl.SSLObject``) nothing blocks and the caller moves the bytes. A
managed socket (``SSLSocket``) is both: steps are taken over memory, while no other
thread is in the connection, and its own object moves the bytes.
"""

import functools
import selectors
import socket
import ssl
import time
from typing import Any, Callable, Optional

from . import _arguments, _handshake, _keyupdate
from ._arguments import WAIT, Seconds
from ._errors import NotATLSConnectionError
from ._finding import call_text, find_connection, name_of, refuse_to_send
from ._handshake import DATA, ClientCertificate
from ._walk import is_awaited


def rekey(conn: Any, /, *, request_peer: bool = False) -> None:
    """Get new keys now, whatever the protocol version: schedule, and send.

    TLS 1.3: a key update. New keys for what this side sends; with ``request_peer`` the
    peer shall update its own too (default ``False``, because some peers limit or refuse
    what they must answer; RFC 9846 4.7.3 allows one unanswered request at a time).
    TLS 1.2 and below: a renegotiation, for both directions, so ``request_peer`` makes
    no difference; a client's is a full handshake, and what a server asks for is up to
    its client (OpenSSL's resume, unless the server's context has
    ``OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION``).

    conn is an ``ssl.SSLSocket``, or what holds one (``http.client``, urllib3, requests,
    httpx, websockets' sync connections, ``smtplib``, ``imaplib``, ``ftplib``,
    ``poplib``), or an ``ssl.SSLObject`` whose memory BIOs are yours. For asyncio, trio
    and anyio: ``await pykeyupdate.aio.rekey(conn)``.

    On the wire when it returns: the KeyUpdate message; a server's HelloRequest; a
    client's ClientHello. A renegotiation goes on inside your next ``recv()``; or let
    ``wait_for_renegotiation()`` end it. It does not wait for the peer.

    Sockets: one that blocks blocks while the send buffer is full; one with a timeout
    raises ``TimeoutError`` (``socket.timeout`` before Python 3.10); one that does not
    block raises ``ssl.SSLWantWriteError``. The message is then half sent, and calling
    again finishes that one.

    Raises, before anything is sent and with the connection as it was: what
    ``key_update()`` and ``renegotiate()`` raise, without
    ``WrongProtocolVersionError``; on a server below TLS 1.3 ``ReadPendingError`` too
    while received data is unread; ``TypeError`` for a ``request_peer`` that is no
    ``bool``. A renegotiation that the *peer* refuses ends the connection: an OpenSSL 3
    server refuses its clients' by default.

    How often: sparingly, and not before the peer has answered a request (``stats()`` of
    a managed connection has ``request_outstanding``). RFC 9846 4.7.3 forbids a second
    request until then, and an OpenSSL peer whose non-blocking write is half-way ends
    its own connection (``BAD_LENGTH``) over any update that follows a request.

    Threads: the one that does this connection's I/O; of a managed ``SSLSocket`` any.
    There received data is never in the way (no ``ReadPendingError``), nor is a send
    that is half-way (no ``WritePendingError``): the message follows its data. Callbacks
    that ``ssl`` calls for this very connection are refused (``AlreadyPendingError``),
    signal handlers are not; a handler's exception comes out and leaves nothing locked.
    Source: SSL_key_update(3), SSL_renegotiate(3), RFC 9846 sections 4.7.3 and 5.5.
    """
    _arguments.check_flag("rekey()", "request_peer", request_peer)
    tls = _own_io(conn, "rekey")
    _handshake.refuse_in_callback(conn, tls, "rekey")
    if _is_over_memory(tls):
        _keyupdate.rekey(conn, "rekey", request_peer)
    else:
        perform = functools.partial(_perform, conn, tls, "rekey")
        _handshake.rekey(conn, "rekey", perform, request_peer=request_peer)


def flush(conn: Any, /) -> None:
    """Send what is scheduled, and the answer that we owe the peer, without data.

    A key update that the peer has requested is answered at our next write. A program
    that only receives never writes: it calls this from time to time (there is nothing
    to gain from calling it after every ``recv()``: one answer covers all requests that
    came before it).

    On the wire: a KeyUpdate message if one is scheduled, half sent or owed; a scheduled
    renegotiation's first message; otherwise nothing.

    conn, sockets and threads: as for ``rekey()``. Raises ``WritePendingError`` while
    a send that raised ``SSLWantWriteError`` is incomplete and an answer is owed,
    ``HandshakeNotDoneError``, ``ConnectionFailedError``, ``ConnectionClosedError``,
    ``NotATLSConnectionError`` (a ``TypeError``).

    Source: SSL_key_update(3), RFC 9846 section 4.7.3.
    """
    tls = _own_io(conn, "flush")
    _handshake.refuse_in_callback(conn, tls, "flush")
    if _is_over_memory(tls):
        _keyupdate.flush(conn, "flush")
    else:
        _perform(conn, tls, "flush")


def wait_for_renegotiation(conn: Any, /, timeout: Optional[Seconds] = None) -> None:
    """Drive a renegotiation that is pending to its end, by reading.

    Returns at once where none is pending (TLS 1.3 has none). timeout is in seconds (or
    a ``datetime.timedelta``; 24 days at most), for the whole; ``None`` is the socket's
    own timeout, for each wait. A socket that does not block raises
    ``ssl.SSLWantReadError`` or ``SSLWantWriteError`` instead of waiting unless a
    timeout is given, and so does an ``ssl.SSLObject``, always.

    Only reading survives application data that is still on its way. It is not consumed
    here, and stays for the next ``recv()``: ``ReadPendingError`` says that it came
    before the peer's handshake message, which cannot be reached without reading it.
    ``recv()`` it and call again.

    On a server the client may ignore the HelloRequest for ever; give a timeout. After
    a ``TimeoutError`` (``socket.timeout`` before Python 3.10) the renegotiation is
    still pending and calling again goes on.

    Raises ``ssl.SSLError`` where the renegotiation fails, ``ssl.SSLZeroReturnError`` or
    ``ssl.SSLEOFError`` where the peer closes; ``ConnectionClosedError``,
    ``NotATLSConnectionError`` (a ``TypeError``); ``TypeError`` and ``ValueError`` for a
    timeout that is no number or out of range. Conn and threads as for ``rekey()``.

    Source: SSL_renegotiate_pending(3), SSL_peek(3).
    """
    function = "wait_for_renegotiation"
    limit = _arguments.seconds_or_none(f"{function}()", "timeout", timeout, WAIT)
    tls = _own_io(conn, function)
    _handshake.refuse_in_callback(conn, tls, function)
    _drive(conn, tls, function, lambda: not _keyupdate.renegotiate_pending(conn), limit)


def request_client_certificate(
    conn: Any, /, timeout: Optional[Seconds] = None
) -> ClientCertificate:
    """Ask the client for its certificate in mid-connection; servers only.

    TLS 1.3: post-handshake authentication, which the client must have offered (Python:
    ``context.post_handshake_auth = True``). TLS 1.2 and below: a renegotiation with a
    full handshake that asks for a certificate.

    Returns ``ClientCertificate(certificate, changed)``: DER or ``None``, and whether it
    is another one than before. It is verified against what the server's context trusts
    (``load_verify_locations()`` before; its ``verify_mode`` need not be set). A client
    without one: ``certificate`` is ``None``, unless the context says ``CERT_REQUIRED``,
    where the connection ends. A certificate that is not trusted ends the connection
    with ``ssl.SSLCertVerificationError``. From here on the client is asked in every
    renegotiation of this connection.

    On the wire: a CertificateRequest or HelloRequest; then the client's answer, which
    comes when the client next reads, and is waited for as in
    ``wait_for_renegotiation()``: timeout, ``ReadPendingError`` and calling again are as
    there. An answer that comes inside your own ``recv()`` meanwhile is not lost: the
    next call returns it.

    Raises before anything is sent: ``WrongRoleError`` on a client;
    ``NoPostHandshakeAuthError``; ``ReadPendingError`` while received data is unread;
    ``SharedConnectionError`` where the library's own thread is always reading; and what
    ``renegotiate()`` raises, and over a wrong timeout ``wait_for_renegotiation()``.
    Threads as for ``rekey()``.

    Source: SSL_verify_client_post_handshake(3), RFC 9846 section 4.7.2.
    """
    function = "request_client_certificate"
    limit = _arguments.seconds_or_none(f"{function}()", "timeout", timeout, WAIT)
    tls = _own_io(conn, function)
    _handshake.refuse_in_callback(conn, tls, function)
    _handshake.refuse_beside_a_reader(conn, function)

    def ask(under_way: bool) -> None:
        if _is_over_memory(tls):
            _keyupdate.request(conn, function, under_way)
            return
        advance = functools.partial(_send_handshake, conn, tls, function)
        _handshake.request_step_by_step(conn, tls, function, advance, under_way)

    request = _handshake.request_certificate(conn, tls, function, ask)
    answer: Optional[ClientCertificate] = None

    def answered() -> bool:
        nonlocal answer
        answer = _handshake.take_answer(conn, tls, request, function)
        return answer is not None

    _drive(conn, tls, function, answered, limit)
    assert answer is not None  # noqa: S101
    return answer


def _own_io(conn: Any, function: str) -> Any:
    """Return the socket or object of ssl, unless something else moves its bytes."""
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
    """Return what moves the bytes of a managed socket, None for all others."""
    inner = getattr(tls, "_sslobj", None)
    return inner if isinstance(inner, _keyupdate.Duplex) else None


def _is_over_memory(tls: Any) -> bool:
    """Return whether OpenSSL has no socket of its own, and never waits."""
    return not _is_socket(tls) or _duplex(tls) is not None


def _perform(conn: Any, tls: Any, function: str) -> None:
    _handshake.perform(
        conn, tls, function, functools.partial(_send_handshake, conn, tls, function)
    )


def _send_handshake(conn: Any, tls: Any, function: str) -> None:
    """Take a renegotiation as far as it goes without waiting for the peer."""
    while _advance(conn, tls, function) == ssl.SSL_ERROR_WANT_WRITE:
        _wait(tls, ssl.SSL_ERROR_WANT_WRITE, function, None)


def _drive(
    conn: Any,
    tls: Any,
    function: str,
    is_done: Callable[[], bool],
    timeout: Optional[float],
) -> None:
    """Take a handshake to its end, or up to application data in front of it."""
    deadline = None if timeout is None else time.monotonic() + timeout
    duplex = _duplex(tls)
    if duplex is not None:
        return _drive_duplex(duplex, tls, function, is_done, deadline)
    while not is_done():
        reached = _advance(conn, tls, function)
        if is_done():
            return None
        if reached == DATA:
            _handshake.refuse_in_front_of_data(conn, function)
        _wait(tls, reached, function, deadline)
    return None


def _drive_duplex(
    duplex: _keyupdate.Duplex,
    tls: Any,
    function: str,
    is_done: Callable[[], bool],
    deadline: Optional[float],
) -> None:
    """Let what is received be processed, by this thread or another, until it is done.

    Application data that comes is kept for ``recv()``.
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
    """Take one pass of the handshake; a socket does not block meanwhile."""
    _handshake.refuse_beside_a_reader(conn, function)
    if not _is_socket(tls) or _duplex(tls):
        return _keyupdate.advance(conn, function)
    timeout = tls.gettimeout()
    tls.settimeout(0)
    try:
        return _keyupdate.advance(conn, function)
    finally:
        tls.settimeout(timeout)


def _wait(tls: Any, wanted: int, function: str, deadline: Optional[float]) -> None:
    """Wait until a socket can be read or written, as long as it or the caller says."""
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
