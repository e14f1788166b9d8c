"""One TLS connection to a probed server, and what OpenSSL saw on it.

The connection is a plain ``ssl.SSLSocket``, not a managed one: nothing but the checks
decides when keys change. What came and went is told by OpenSSL's message callback.
"""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Optional

from ... import (
    AlreadyPendingError,
    CloseNotifyError,
    ConnectionClosedError,
    ConnectionFailedError,
    DeferredByOpenSSLError,
    ReadPendingError,
    flush,
    rekey,
)
from ..exit_codes import CannotRun
from . import failures, starttls
from .deadline import Deadline
from .failures import ALERTS, Ending, ProbeError
from .payloads import Payload
from .targets import Target

_HANDSHAKE, _ALERT = 22, 21  # TLS content types
_MESSAGES = {  # RFC 9846 section 4
    0: "HelloRequest",
    2: "ServerHello",
    4: "NewSessionTicket",
    13: "CertificateRequest",
    20: "Finished",
    24: "KeyUpdate",
}
_OVER = (CloseNotifyError, ConnectionClosedError, ConnectionFailedError)
_OP_LEGACY_SERVER_CONNECT = 0x4  # ssl exports it since Python 3.12
_MOST = 1 << 18  # bytes of an answer; a server may send without end
_STEP = 0.02  # seconds between two looks at what the callback saw
_BETWEEN_UPDATES = 0.1  # seconds; a coming OpenSSL wants them


class Settings(NamedTuple):
    """What is the same for all connections."""

    payload: Callable[[Target], Payload]
    starttls: Optional[str] = None
    servername: Optional[str] = None
    cafile: Optional[str] = None
    insecure: bool = False
    certificate: Optional[str] = None
    key: Optional[str] = None
    timeout: float = 30.0
    limits: bool = False


class Ended(Exception):  # noqa: N818
    """The server ended a connection that was expected to go on."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.text)
        self.ending = ending


class Witness:
    """The handshake messages and alerts of one connection, with their times."""

    def __init__(self) -> None:
        self._received: list[tuple[str, float]] = []
        self.alert: Optional[str] = None

    def __call__(self, *message: Any) -> None:
        _conn, direction, _version, content_type, _type, data = message
        if direction != "read":
            return
        if content_type == _HANDSHAKE:
            name = _MESSAGES.get(data[0], "")
            self._received.append((name, time.perf_counter()))
        elif content_type == _ALERT:
            self.alert = ALERTS.get(data[1], f"number {data[1]}")

    def times(self, name: str) -> list[float]:
        """Return when messages of a name were received."""
        return [at for seen, at in self._received if seen == name]

    def asked_for_certificate(self) -> Optional[str]:
        """Return when the server asked for a certificate: "handshake", "later"."""
        names = [name for name, _ in self._received]
        if "CertificateRequest" not in names:
            return None
        first = names.index("CertificateRequest")
        done = names.index("Finished") if "Finished" in names else len(names)
        return "handshake" if first < done else "later"


class Connection:
    """A TLS connection, after its handshake."""

    def __init__(
        self,
        tls: ssl.SSLSocket,
        witness: Witness,
        deadline: Deadline,
        round_trip: float,
    ) -> None:
        self.tls = tls
        self.witness = witness
        self.round_trip = round_trip
        self._deadline = deadline

    def receive(self, seconds: float) -> bytes:
        """Return what comes within a time; nothing if nothing does."""
        self.tls.settimeout(min(seconds, self._deadline.left()))
        try:
            data = self.tls.recv(65536)
        except socket.timeout:
            return b""
        except OSError as error:
            raise self._ended(error) from error
        if not data:
            raise self._ended(None)
        return data

    def wait(self, seconds: float, is_done: Callable[[], bool]) -> bytes:
        """Receive for a time, or until something is seen; return the first data."""
        data = b""
        deadline = Deadline(seconds, self._deadline)
        while not is_done() and not deadline.has_passed():
            received = self.receive(_STEP)
            data = data or received
        return data

    def exchange(self, payload: Payload, seconds: float) -> bytes:
        """Send a request and return what comes of its answer in time."""
        self.send(payload.request)
        deadline = Deadline(seconds, self._deadline)
        data = b""
        while not data or (payload.end not in data and len(data) < _MOST):
            if deadline.has_passed():
                break
            data += self.receive(min(seconds, _STEP))
        return data

    def send(self, data: bytes) -> None:
        """Send; if the server has ended the connection, say how."""
        self.tls.settimeout(self._deadline.left())
        with self.told():
            self.tls.sendall(data)

    def change_keys(self, *, request_peer: bool = False) -> float:
        """Send a KeyUpdate message and return when."""
        self.tls.settimeout(self._deadline.left())
        with self.told():
            try:
                rekey(self.tls, request_peer=request_peer)
            except AlreadyPendingError:  # the peer asked us first
                flush(self.tls)
                rekey(self.tls, request_peer=request_peer)
            except DeferredByOpenSSLError:
                time.sleep(_BETWEEN_UPDATES)
                rekey(self.tls, request_peer=request_peer)
        return time.perf_counter()

    def past_data(self, call: Callable[[float], None], seconds: float) -> None:
        """Call something with the time left, and receive what lies in its way."""
        deadline = Deadline(seconds, self._deadline)
        while True:
            with self.told():
                try:
                    return call(deadline.left())
                except ReadPendingError:
                    self.receive(_STEP)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Turn the errors of an ended connection into ``Ended``, but no timeout."""
        try:
            yield
        except socket.timeout:
            raise
        except (
            CloseNotifyError,
            ConnectionClosedError,
            ConnectionFailedError,
        ) as error:
            raise self._ended(None) from error
        except OSError as error:
            with contextlib.suppress(OSError, Ended):  # its alert may lie there
                self.receive(_STEP)
            raise self._ended(error) from error

    def _ended(self, error: Optional[OSError]) -> Ended:
        return Ended(failures.ending(error, self.witness.alert))


@contextlib.contextmanager
def connected(
    target: Target,
    settings: Settings,
    deadline: Deadline,
    most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> Iterator[Connection]:
    """Connect, and close at the end. Raises ``ProbeError``."""
    witness = Witness()
    context = _context(settings, most, witness)
    begin = time.perf_counter()
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(_connect(target, deadline))
        round_trip = time.perf_counter() - begin
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = settings.servername or target.host
        if settings.starttls:
            try:
                starttls.upgrade(plain, settings.starttls, name, deadline)
            except OSError as error:
                raise failures.of_dialog(
                    error, settings.starttls, deadline.seconds
                ) from error
        _check_name(context, name)
        try:
            plain.settimeout(deadline.left())
            tls = context.wrap_socket(plain, server_hostname=name)
        except OSError as error:
            raise failures.of_handshake(
                error, witness.alert, deadline.seconds
            ) from error
        stack.enter_context(tls)
        yield Connection(tls, witness, deadline, round_trip)
        tls.settimeout(0)
        with contextlib.suppress(OSError, ValueError):  # ValueError: is closed
            tls.unwrap()  # sends close_notify, and waits for nothing


def _check_name(context: ssl.SSLContext, name: str) -> None:
    """Refuse a name that cannot be one: wrap_socket() would leave its socket open."""
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name)
    except ValueError as error:
        raise ProbeError("name", f"{name!r} is no server name: {error}") from error


def _connect(target: Target, deadline: Deadline) -> socket.socket:
    try:
        return socket.create_connection(target, deadline.left())
    except (OSError, UnicodeError) as error:
        if isinstance(error, UnicodeError):
            raise ProbeError("resolve", f"cannot resolve the name: {error}") from error
        raise failures.of_connecting(error, deadline.seconds) from error


def _context(
    settings: Settings, most: ssl.TLSVersion, witness: Witness
) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = most
    context.options |= _OP_LEGACY_SERVER_CONNECT  # to see, not to trust
    context.post_handshake_auth = True
    try:
        if settings.cafile is not None:
            context.load_verify_locations(settings.cafile)
        if settings.certificate is not None:
            context.load_cert_chain(
                settings.certificate, settings.key, password=_no_password
            )
    except (OSError, ssl.SSLError) as error:
        raise CannotRun(f"cannot load the certificates: {error}") from None
    if settings.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context._msg_callback = witness  # type: ignore[attr-defined]
    return context


def _no_password() -> str:
    raise CannotRun("the key of --cert has a passphrase; give one without")
