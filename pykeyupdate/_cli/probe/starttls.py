"""The few words before TLS: STARTTLS in eight protocols, as a client speaks it.

Each dialog is a function of the plain connection and the server's name. It returns when
the next byte is TLS's, and raises ``ProbeError`` if the server does not offer that.
"""

import socket
import struct
from typing import Callable, NoReturn

from .deadline import Deadline
from .failures import ProbeError, printable

_MOST = 65536  # bytes of one answer; a greeting has a few hundred
_POSTGRES_REQUEST = struct.pack("!ii", 8, 80877103)  # SSLRequest
_MYSQL_SSL, _MYSQL_PROTOCOL_41 = 0x800, 0x200
_MYSQL_SECURE_CONNECTION = 0x8000
_LDAP_START_TLS = b"1.3.6.1.4.1.1466.20037"  # RFC 4511 section 4.14
_BER_SEQUENCE, _BER_FOUR_BYTES = b"\x30", 0x84
_XMPP_TLS = "urn:ietf:params:xml:ns:xmpp-tls"


class Dialog:
    """A plain connection that is read by lines or by numbers of bytes."""

    def __init__(self, plain: socket.socket, deadline: Deadline) -> None:
        self._plain = plain
        self._deadline = deadline
        self._data = b""

    def send(self, data: bytes) -> None:
        """Send all of this."""
        self._plain.settimeout(self._deadline.left())
        self._plain.sendall(data)

    def _more(self) -> None:
        """Receive more. A byte too many would be TLS's: see ``is_empty()``."""
        self._plain.settimeout(self._deadline.left())
        data = self._plain.recv(4096)
        if not data:
            raise ConnectionError("the server closed")
        self._data += data
        if len(self._data) > _MOST:
            _refuse(self._data)

    def exactly(self, count: int) -> bytes:
        """Receive so many bytes."""
        while len(self._data) < count:
            self._more()
        data, self._data = self._data[:count], self._data[count:]
        return data

    def until(self, *ends: bytes) -> bytes:
        """Receive up to and with the first of these texts that comes."""
        while True:
            found = [
                self._data.find(end) + len(end) for end in ends if end in self._data
            ]
            if found:
                return self.exactly(min(found))
            self._more()

    def line(self) -> bytes:
        """Receive a line."""
        return self.until(b"\n")

    def reply(self) -> bytes:
        """Receive a reply of SMTP or FTP, all its lines, and return the last."""
        line = self.line()
        while line[3:4] == b"-" or not line[:3].isdigit():
            line = self.line()
        return line

    def is_empty(self) -> bool:
        """Return whether nothing came behind what has been received."""
        return not self._data


def _refuse(answer: bytes) -> NoReturn:
    said = printable(answer.decode("ascii", "replace"))
    raise ProbeError(
        "starttls", f"the server does not offer STARTTLS: it said {said!r}"
    )


def _want(answer: bytes, start: bytes) -> None:
    if not answer.startswith(start):
        _refuse(answer)


def smtp(dialog: Dialog, _name: str) -> None:
    """RFC 3207."""
    _want(dialog.reply(), b"220")
    dialog.send(b"EHLO probe.invalid\r\n")
    _want(dialog.reply(), b"250")
    dialog.send(b"STARTTLS\r\n")
    _want(dialog.reply(), b"220")


def imap(dialog: Dialog, _name: str) -> None:
    """RFC 9051 section 6.2.1."""
    _want(dialog.line(), b"* ")
    dialog.send(b"a STARTTLS\r\n")
    answer = dialog.line()
    while answer.startswith(b"* "):
        answer = dialog.line()
    _want(answer, b"a OK")


def pop3(dialog: Dialog, _name: str) -> None:
    """RFC 2595 section 4."""
    _want(dialog.line(), b"+OK")
    dialog.send(b"STLS\r\n")
    _want(dialog.line(), b"+OK")


def ftp(dialog: Dialog, _name: str) -> None:
    """RFC 4217 section 4."""
    _want(dialog.reply(), b"220")
    dialog.send(b"AUTH TLS\r\n")
    _want(dialog.reply(), b"234")


def ldap(dialog: Dialog, _name: str) -> None:
    """RFC 4511 section 4.14: an extended request, and success as its result code."""
    dialog.send(ldap_extended_request(1, _LDAP_START_TLS))
    head = dialog.exactly(2)
    size = head[1]
    if head[:1] != _BER_SEQUENCE or size > _BER_FOUR_BYTES:
        _refuse(head)
    if size & 0x80:  # the size's own size
        size = int.from_bytes(dialog.exactly(size & 0x7F), "big")
    if size > _MOST:
        _refuse(head)
    answer = dialog.exactly(size)
    if b"\x0a\x01\x00" not in answer[:16]:
        _refuse(answer[8:])


def ldap_extended_request(number: int, name: bytes) -> bytes:
    """Return an LDAP message with an extended request without a value."""
    request = bytes([0x77, len(name) + 2, 0x80, len(name)]) + name
    message = bytes([0x02, 0x01, number]) + request
    return bytes([0x30, len(message)]) + message


def postgres(dialog: Dialog, _name: str) -> None:
    """PostgreSQL's frontend/backend protocol, SSLRequest."""
    dialog.send(_POSTGRES_REQUEST)
    _want(dialog.exactly(1), b"S")


def mysql(dialog: Dialog, _name: str) -> None:
    """MySQL's and MariaDB's connection phase, SSLRequest."""
    head = dialog.exactly(4)
    size = int.from_bytes(head[:3], "little")
    if size > _MOST:
        _refuse(head)
    greeting = dialog.exactly(size)
    _want(greeting, b"\x0a")
    behind_salt = greeting.find(b"\0") + 1 + 4 + 8 + 1
    capabilities = int.from_bytes(greeting[behind_salt : behind_salt + 2], "little")
    if not capabilities & _MYSQL_SSL:
        _refuse(greeting[1 : greeting.find(b"\0")])
    flags = _MYSQL_SSL | _MYSQL_PROTOCOL_41 | _MYSQL_SECURE_CONNECTION
    request = struct.pack("<IIB23x", flags, 1 << 24, 33)
    dialog.send(len(request).to_bytes(3, "little") + b"\x01" + request)


def xmpp(dialog: Dialog, name: str) -> None:
    """RFC 6120 section 5."""
    dialog.send(xmpp_stream(name))
    if b"starttls" not in dialog.until(b"</stream:features>", b"</stream:stream>"):
        _refuse(b"no starttls among its features")
    dialog.send(f"<starttls xmlns='{_XMPP_TLS}'/>".encode())
    answer = dialog.until(b">")
    if b"<proceed" not in answer:
        _refuse(answer)


def xmpp_stream(name: str) -> bytes:
    """Return the opening tag of a client's stream."""
    return typed_bytes(
        f"<?xml version='1.0'?><stream:stream to='{name}' version='1.0' "
        "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
    )


def typed_bytes(text: str) -> bytes:
    """Return the bytes that a user typed, which need not be UTF-8."""
    return text.encode("utf-8", "surrogateescape")


DIALOGS: dict[str, Callable[[Dialog, str], None]] = {
    "smtp": smtp,
    "imap": imap,
    "pop3": pop3,
    "ftp": ftp,
    "ldap": ldap,
    "postgres": postgres,
    "mysql": mysql,
    "xmpp": xmpp,
}


def upgrade(plain: socket.socket, protocol: str, name: str, deadline: Deadline) -> None:
    """Speak a protocol until the server is ready for TLS."""
    dialog = Dialog(plain, deadline)
    DIALOGS[protocol](dialog, name)
    if not dialog.is_empty():  # CVE-2021-33515 and its like: plaintext taken for TLS
        raise ProbeError("starttls", "the server sent more plaintext after STARTTLS")
