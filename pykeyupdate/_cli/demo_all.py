"""``demo --all``: use every control on real TLS connections; show the wire.

A client and a server in this process talk over TCP on loopback, first with TLS 1.3 and
then with 1.2. The demo prints each call with its time, its result and the handshake
messages that both ends sent or received meanwhile, as OpenSSL reports them
(``SSLContext._msg_callback``). The exit code is 0 only if every call did what OpenSSL's
manual says.
"""

import contextlib
import select
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Callable, Optional

from .. import (
    AlreadyPendingError,
    DeferredByOpenSSLError,
    KeyUpdateType,
    PyKeyUpdateError,
    WrongProtocolVersionError,
    installed,
)
from . import doctor, local_connections

_HANDSHAKE = 22  # TLS content type
_KEY_UPDATE = 24  # handshake message type (RFC 9846 section 4)
_MESSAGES = {
    0: "HelloRequest",
    1: "ClientHello",
    2: "ServerHello",
    4: "NewSessionTicket",
    11: "Certificate",
    12: "ServerKeyExchange",
    14: "ServerHelloDone",
    16: "ClientKeyExchange",
    20: "Finished",
}
_REQUESTS = {0: "KeyUpdate(update_not_requested)", 1: "KeyUpdate(update_requested)"}
_NOT_REQUESTED, _REQUESTED = _REQUESTS.values()
_PATIENCE = 0.25  # seconds; a coming OpenSSL wants 0.1 between two key updates


def main() -> int:
    """Run the demo; return 0 if every call did what it should, otherwise 1."""
    local_connections.need_loopback()
    authority = local_connections.trustme().CA()
    print(doctor.version_line())
    certificate = authority.issue_cert(local_connections.NAME)
    stage = Stage()
    with installed():
        for version, play in (
            (ssl.TLSVersion.TLSv1_3, play_key_updates),
            (ssl.TLSVersion.TLSv1_2, play_renegotiations),
        ):
            contexts = local_connections.contexts(authority, certificate, version)
            stage.watch(*contexts)
            with local_connections.tcp_connection(*contexts) as ends:
                stage.open(*ends)
                play(stage)
    print(f"\n{stage.held} of {stage.calls} calls did what OpenSSL's manual says")
    return 0 if stage.held == stage.calls else 1


class Stage:
    """Two connected ends, the messages between them, and the checks of both."""

    def __init__(self) -> None:
        self.calls = self.held = 0
        self.ends: dict[str, ssl.SSLSocket] = {}
        self._wire: dict[str, list[str]] = {}

    def watch(self, client: ssl.SSLContext, server: ssl.SSLContext) -> None:
        """Have OpenSSL report each handshake message of these contexts."""
        for end, context in (("client", client), ("server", server)):
            context._msg_callback = self._callback(end)  # type: ignore[attr-defined]

    def _callback(self, end: str) -> Callable[..., None]:
        def callback(*message: Any) -> None:
            _conn, direction, _version, content_type, _type, data = message
            if content_type == _HANDSHAKE:
                verb = "sent" if direction == "write" else "received"
                self._wire.setdefault(f"{end} {verb}", []).append(_name(data))

        return callback

    def open(self, client: ssl.SSLSocket, server: ssl.SSLSocket) -> None:
        """Take a new pair of ends and print their version and cipher."""
        self.ends = {"client": client, "server": server}
        server.sendall(b"!")  # after the session tickets, which recv() processes first
        client.recv(1)
        self._wire.clear()
        cipher = client.cipher()
        print(f"\n{client.version()} {cipher[0] if cipher else ''}, TCP on loopback")

    def call(
        self,
        end: str,
        method: str,
        *arguments: object,
        gives: object = None,
        wire: tuple[str, ...] = (),
        meanwhile: Optional[Callable[[], object]] = None,
    ) -> None:
        """Call a method, print its result, and compare that with the expected result.

        ``meanwhile`` is the other end's part; it runs in a thread of its own.
        """
        with ThreadPoolExecutor(1) as pool:
            others_part = pool.submit(meanwhile) if meanwhile else None
            elapsed, result = _timed(getattr(self.ends[end], method), arguments)
            if result is DeferredByOpenSSLError:
                time.sleep(_PATIENCE)
                elapsed, result = _timed(getattr(self.ends[end], method), arguments)
            if others_part:
                others_part.result()
        seen = tuple(f"{who} {', '.join(what)}" for who, what in self._wire.items())
        self._wire.clear()
        right = result == gives and sorted(seen) == sorted(wire)
        self.calls += 1
        self.held += right
        call = f"{end}.{method}({', '.join(map(_shown, arguments))})"
        value = "" if result is None else _shown(result)
        print(f"  {call:<38} {elapsed:8.1f} us  {value}".rstrip())
        for line in seen:
            print(f"      {line}")
        if not right:
            print(f"      WRONG: expected {_shown(gives)} and {wire or 'no messages'}")


def play_key_updates(stage: Stage) -> None:
    """Play TLS 1.3 key updates, each end in turn."""
    call = stage.call
    for end, peer in (("client", "server"), ("server", "client")):
        call(end, "get_key_update_type", gives=KeyUpdateType.NONE)
        call(end, "key_update")
        call(end, "get_key_update_type", gives=KeyUpdateType.NOT_REQUESTED)
        call(end, "key_update", gives=AlreadyPendingError)
        call(end, "do_handshake", wire=(f"{end} sent {_NOT_REQUESTED}",))
        call(end, "send", b"new key", gives=7)
        call(
            peer,
            "recv",
            100,
            gives=b"new key",
            wire=(f"{peer} received {_NOT_REQUESTED}",),
        )
        call(end, "key_update", KeyUpdateType.REQUESTED)
        call(end, "send", b"you too", gives=7, wire=(f"{end} sent {_REQUESTED}",))
        call(
            peer, "recv", 100, gives=b"you too", wire=(f"{peer} received {_REQUESTED}",)
        )
        call(peer, "get_key_update_type", gives=KeyUpdateType.NOT_REQUESTED)
        call(peer, "send", b"done", gives=4, wire=(f"{peer} sent {_NOT_REQUESTED}",))
        call(
            end, "recv", 100, gives=b"done", wire=(f"{end} received {_NOT_REQUESTED}",)
        )
        call(end, "renegotiate", gives=WrongProtocolVersionError)


_FULL = (
    "client sent ClientHello, ClientKeyExchange, Finished",
    "server received ClientHello, ClientKeyExchange, Finished",
    "server sent ServerHello, Certificate, ServerKeyExchange, ServerHelloDone, "
    "NewSessionTicket, Finished",
    "client received ServerHello, Certificate, ServerKeyExchange, ServerHelloDone, "
    "NewSessionTicket, Finished",
)
_ABBREVIATED = (
    "client sent ClientHello, Finished",
    "server received ClientHello, Finished",
    "server sent ServerHello, Finished",
    "client received ServerHello, Finished",
)
_REQUESTED_BY_SERVER = (
    "client received HelloRequest, ServerHello, Finished",
    *_ABBREVIATED[:3],
)


def play_renegotiations(stage: Stage) -> None:
    """Play TLS 1.2 renegotiations: the client's, full and abbreviated, the server's."""
    call = stage.call
    server = stage.ends["server"]
    call("client", "secure_renegotiation", gives=True)
    for count, method, wire in (
        (1, "renegotiate", _FULL),
        (2, "renegotiate_abbreviated", _ABBREVIATED),
    ):
        call("client", method)
        call("client", "renegotiate_pending", gives=True)
        call("client", "renegotiate", gives=AlreadyPendingError)
        call(
            "client",
            "send",
            b"new key",
            gives=7,
            wire=wire,
            meanwhile=partial(server.recv, 100),
        )
        call("client", "renegotiate_pending", gives=False)
        call("client", "total_renegotiations", gives=count)
    for method in ("renegotiate", "renegotiate_abbreviated"):
        call("server", method)
        call("server", "do_handshake", wire=("server sent HelloRequest",))
        call("server", "renegotiate_pending", gives=True)
        call(
            "client",
            "recv",
            100,
            gives=b"done",
            wire=_REQUESTED_BY_SERVER,
            meanwhile=partial(_drive, server),
        )
        call("server", "renegotiate_pending", gives=False)
    call("client", "key_update", gives=WrongProtocolVersionError)


def _drive(server: ssl.SSLSocket) -> None:
    """Read until the client has renegotiated, as a server's receive loop does."""
    timeout = server.gettimeout()
    server.setblocking(False)
    while server.renegotiate_pending():  # type: ignore[attr-defined]
        select.select([server], [], [], timeout)
        with contextlib.suppress(ssl.SSLWantReadError):
            server.recv(1)
    server.settimeout(timeout)
    server.sendall(b"done")


def _name(message: bytes) -> str:
    if message[0] == _KEY_UPDATE:
        return _REQUESTS.get(message[-1], "KeyUpdate")
    return _MESSAGES.get(message[0], f"message {message[0]}")


def _timed(
    method: Callable[..., object], arguments: tuple[object, ...]
) -> tuple[float, object]:
    """Return how many microseconds a call took, and its result or exception's class."""
    start = time.perf_counter()
    try:
        result = method(*arguments)
    except PyKeyUpdateError as error:
        result = type(error)
    return (time.perf_counter() - start) * 1e6, result


def _shown(value: object) -> str:
    """Return the name of an enum member or class, and the repr() of other values."""
    return str(getattr(value, "name", None) or getattr(value, "__name__", repr(value)))
