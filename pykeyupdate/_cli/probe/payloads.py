"""What to say inside TLS so that a server answers: harmless, and without a login.

An answer proves that both ends still decrypt each other's records.
"""

import re
import struct
from typing import NamedTuple, Optional

from ... import __version__
from .starttls import ldap_extended_request, typed_bytes, xmpp_stream

_WHO_AM_I = b"1.3.6.1.4.1.4203.1.11.3"  # RFC 4532
_MQTT_CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"  # clean, no name
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"\\": b"\\"}
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[nrt\\])")


class Payload(NamedTuple):
    """A request, what ends its answer (nothing: whatever comes first), how often."""

    name: str
    request: bytes
    end: bytes = b""
    is_once: bool = False  # on one connection


def http(host: str, path: str) -> Payload:
    """Return a request for the head of a page."""
    request = (
        f"HEAD {path} HTTP/1.1\r\nHost: {host}\r\n"
        f"User-Agent: pykeyupdate-probe/{__version__}\r\nAccept: */*\r\n\r\n"
    )
    return Payload("http", typed_bytes(request), b"\r\n\r\n")


def raw(text: str) -> Payload:
    r"""Return the bytes that a text means: ``\r``, ``\n``, ``\t``, ``\\``, ``\x00``."""
    return Payload("payload", _ESCAPE.sub(_byte, typed_bytes(text)))


def _byte(escape: "re.Match[bytes]") -> bytes:
    name = escape[1]
    return bytes([int(name[1:], 16)]) if name[:1] == b"x" else _ESCAPES[name]


def _postgres_startup() -> bytes:
    words = b"user\0pykeyupdate_probe\0\0"
    return struct.pack("!ii", len(words) + 8, 196608) + words


def _mysql_login() -> bytes:
    """Return a HandshakeResponse41 without a user: an error is an answer, too."""
    response = struct.pack("<IIB23x", 0x8A00, 1 << 24, 33) + b"\0\0"
    return len(response).to_bytes(3, "little") + b"\x02" + response


def of_protocol(protocol: str, name: str) -> Payload:
    """Return what to say to a server of one of the protocols with STARTTLS, or MQTT."""
    return {
        "smtp": Payload("smtp", b"NOOP\r\n", b"\n"),
        "imap": Payload("imap", b"a NOOP\r\n", b"\n"),
        "pop3": Payload("pop3", b"CAPA\r\n", b"\n"),
        "ftp": Payload("ftp", b"NOOP\r\n", b"\n"),
        "ldap": Payload("ldap", ldap_extended_request(2, _WHO_AM_I)),
        "postgres": Payload("postgres", _postgres_startup(), is_once=True),
        "mysql": Payload("mysql", _mysql_login(), is_once=True),
        "xmpp": Payload("xmpp", xmpp_stream(name), b"features>", is_once=True),
        "mqtt": Payload("mqtt", _MQTT_CONNECT, is_once=True),
    }[protocol]


_TLS_PORTS = {
    465: "smtp",
    993: "imap",
    995: "pop3",
    990: "ftp",
    636: "ldap",
    5223: "xmpp",
    8883: "mqtt",
}


def protocol_of_port(port: int) -> Optional[str]:
    """Return the protocol that a port with TLS from its first byte is known for."""
    return _TLS_PORTS.get(port)
