"""Who is at the other end: what errors, events and log lines say of a connection.

A socket has its peer's address only while it is connected, and one needs it most when
it no longer is. So a managed connection remembers the address: a socket at its
handshake, an object as soon as something that knows it is at hand (asyncio's transport
creates the object; ``aio`` is given the transport).
"""

import socket
import struct
from typing import Any, Optional

from . import _keyupdate
from ._finding import name_of
from ._static_lookup import is_instance

VERSIONS = {
    0x0300: "SSLv3",
    0x0301: "TLSv1",
    0x0302: "TLSv1.1",
    0x0303: "TLSv1.2",
    0x0304: "TLSv1.3",
}
_LONGEST = 200  # characters of a label in repr()
_IPV4, _IPV6 = struct.Struct("!H4s"), struct.Struct("!HII16s")


class Described:
    """A managed connection's name and address, and its ``repr()``."""

    _sslobj: Any
    _peer: Any
    _label: Optional[str]

    @property
    def peer(self) -> Any:
        """The peer's address as ``getpeername()`` gives it, or None if it is unknown.

        It outlives the connection. A socket has it from its handshake on, an
        ``SSLObject`` likewise if asyncio's transport made it, and otherwise once
        ``aio.label()`` or another function of ``aio`` has been given what carries it.
        Any thread may ask. (A program may set an attribute of this name for its own
        use.)
        """
        own = vars(self)
        return own["peer"] if "peer" in own else unpack(self._peer)

    @peer.setter
    def peer(self, peer: Any) -> None:
        vars(self)["peer"] = peer

    @peer.deleter
    def peer(self) -> None:
        vars(self).pop("peer", None)

    @property
    def label(self) -> Optional[str]:
        """The program's own name for the connection, or None (the default).

        It stands in ``repr()``, and so in errors and in the log: its first 200
        characters, on one line. Any thread may set it.
        Raises ``TypeError`` for anything else.
        """
        return self._label

    @label.setter
    def label(self, label: Optional[str]) -> None:
        if label is not None and not is_instance(label, str):
            raise TypeError(
                f"the label of {name_of(self)} must be a str or None, not "
                f"{name_of(label)}: set `str(...)` of it, or a name of your own"
            )
        # a derived class may print, compare and hash in any way
        self._label = None if label is None else str.__str__(label)

    def _describe(self) -> dict[str, Optional[str]]:
        """Return the connection's part of a log record's fields."""
        return {"peer": _peer_text(self), "label": self._label}


def describe(conn: Any, place: str) -> str:
    """Return the ``repr()`` of a managed connection, open or closed.

    Any thread may call it at any time. It asks nothing of the system, and waits for no
    call of another thread.
    """
    cls = type(conn)
    sslobj = getattr(conn, "_sslobj", None)
    facts = _keyupdate.facts(sslobj)
    parts = [_role(conn, facts), *_tls(facts), *_names(conn), place]
    return f"<{cls.__module__}.{cls.__qualname__} {', '.join(parts)}>"


def _role(conn: Any, facts: Any) -> str:
    is_server = getattr(conn, "server_side", None) if facts is None else facts[0]
    if is_server:
        return "server"
    name = getattr(conn, "server_hostname", None)
    return f"client of {_in_line(name)}" if name else "client"


def _tls(facts: Any) -> list[str]:
    if facts is None:
        return ["no TLS"]
    _, version, cipher = facts
    if cipher is None:
        return ["no handshake yet"]
    return [VERSIONS.get(version, hex(version)), cipher]


def _names(conn: Any) -> list[str]:
    peer, label = _peer_text(conn), conn._label
    return [
        *([] if peer is None else [f"peer {peer}"]),
        *([] if label is None else [_short(label)]),
    ]


def _short(label: str) -> str:
    """Return a label in one line that is not too long for a log."""
    whole = len(label) <= _LONGEST
    return repr(label) if whole else f"{label[:_LONGEST]!r}..."


def _peer_text(conn: Any) -> Optional[str]:
    return address_text(unpack(conn._peer))


def address_text(address: Any) -> Optional[str]:
    """Return a socket address as text, or None if it has no name."""
    if isinstance(address, tuple) and len(address) in (2, 4):
        host, port = address[:2]
        return _in_line(f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}")
    if not address:  # a Unix socket may have no name
        return None
    return _in_line(address) if isinstance(address, str) else repr(address)


def _in_line(text: str) -> str:
    """Return a text that others have chosen so that it cannot end a line of the log.

    A peer chooses the path of its Unix socket, which may have anything in it.
    """
    return text if text.isprintable() else repr(text)


def pack(address: Any) -> Any:
    """Return an address as it is kept: an IP address in a third of the memory."""
    try:
        if type(address) is tuple and len(address) == 2:  # noqa: PLR2004
            host, port = address
            return _IPV4.pack(port, socket.inet_pton(socket.AF_INET, host))
        if type(address) is tuple and len(address) == 4:  # noqa: PLR2004
            host, *numbers = address
            return _IPV6.pack(*numbers, socket.inet_pton(socket.AF_INET6, host))
    except (OSError, TypeError, struct.error):  # another family's
        pass
    return (address,) if isinstance(address, bytes) else address  # a path in Linux


def unpack(kept: Any) -> Any:
    """Return the address that ``pack()`` was given."""
    if not isinstance(kept, bytes):
        return kept[0] if isinstance(kept, tuple) and len(kept) == 1 else kept
    if len(kept) == _IPV4.size:
        port, host = _IPV4.unpack(kept)
        return socket.inet_ntop(socket.AF_INET, host), port
    *numbers, host = _IPV6.unpack(kept)
    return (socket.inet_ntop(socket.AF_INET6, host), *numbers)
