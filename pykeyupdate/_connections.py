"""The live managed connections of the process, as snapshots."""

import time
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Optional

from . import _keyupdate
from ._describing import VERSIONS
from ._managed_classes import all_references
from ._stats import Counts, KeyUse

_INHERITED = "it was inherited from the process that forked"
_BEGINNING = "its first handshake is not complete"
PASSING = _INHERITED, _BEGINNING
"""Obstacles of connections that nothing need be done about."""
_TURN = 0.001  # seconds without letting other threads run
_tuple = tuple.__new__  # makes a NamedTuple, without its function in Python

_PAUSE = 0.00002  # seconds: any pause lets a thread that waits for the GIL have it


class ConnectionInfo(NamedTuple):
    """A managed connection as it was at one moment."""

    number: int
    """Its number in this process: connections are counted from 1, and the number of one
    that has gone does not come again."""
    label: Optional[str]
    """What the program calls it."""
    peer: Any
    """The peer's address as ``getpeername()`` has it; ``None`` if it is unknown."""
    role: str
    """``"client"`` or ``"server"``: this side's."""
    server_name: Optional[str]
    """A client's ``server_hostname``."""
    version: Optional[str]
    """As ``version()`` has it, of the last complete handshake; ``None`` before."""
    cipher: Optional[str]
    """OpenSSL's name of the cipher suite, likewise."""
    sent: KeyUse
    received: KeyUse
    counts: Counts
    idle_seconds: float
    """Seconds since data last went or came, or since the handshake; the clock ticks
    every few milliseconds."""
    answer_owed: bool
    """Whether the peer requested a key update, which goes out with our next write."""
    request_outstanding: bool
    """Whether the peer has not answered a request of ours."""
    obstacle: Optional[str]
    """Why it cannot have new keys as it is; ``None`` if it can."""
    reference: Callable[[], Any]
    """A weak reference to the connection. A copy that was pickled has none."""

    @property
    def connection(self) -> Any:
        """The ``SSLSocket`` or ``SSLObject``, or ``None`` if it has gone."""
        return self.reference()

    def __reduce__(self) -> "tuple[Any, ...]":
        return type(self)._make, ((*self[:-1], _nothing),)


def _nothing() -> None:
    """Stand for a weak reference to an object that has gone."""


def connections() -> Iterator[ConnectionInfo]:
    """Iterate over the live managed connections, oldest first, each as a snapshot.

    They are those of this interpreter: sockets that are not closed and objects that are
    not deleted, whether or not their handshake is complete, and those that a forked
    process inherited. Each snapshot is taken when the iteration reaches it; opened
    meanwhile, a connection may be missing. A snapshot does not keep its connection
    alive: ``snapshot.connection`` is the connection or ``None``.

    Any thread may call it, whatever the connections' own threads do; it waits for none
    of them, and they do not wait for it. It costs a few microseconds a connection and
    gives way to other threads every millisecond. In an event loop, where it would delay
    the loop's own work by all of its time, use ``await
    asyncio.to_thread(list, pykeyupdate.connections())``. On the wire: nothing.
    """
    turn_ends = time.monotonic() + _TURN
    for reference in all_references():
        info = snapshot(reference)
        if info is not None:
            yield info
        if time.monotonic() > turn_ends:
            time.sleep(_PAUSE)
            turn_ends = time.monotonic() + _TURN


def snapshot(reference: Callable[[], Any]) -> Optional[ConnectionInfo]:
    """Return a live managed connection as it is now, or None."""
    conn: Any = reference()
    inner = getattr(conn, "_sslobj", None)
    seen = None if inner is None else _keyupdate.view(inner)
    if seen is None:
        return None
    number, code, cipher, sent, received, counts, idle, owed, outstanding, why = seen
    version = VERSIONS.get(code)
    fields = (
        number,
        conn.label,
        conn.peer,
        "server" if conn.server_side else "client",
        conn.server_hostname,
        version,
        cipher,
        _tuple(KeyUse, sent),
        _tuple(KeyUse, received),
        _tuple(Counts, counts),
        idle,
        owed,
        outstanding,
        None if why is None else _obstacle(version, *why),
        reference,
    )
    return _tuple(ConnectionInfo, fields)


def _obstacle(
    version: Optional[str], connected: bool, inherited: bool, why_cut: Optional[str]
) -> str:
    if inherited:
        return _INHERITED
    if not connected:
        return _BEGINNING
    if why_cut is not None:
        return f"its peer exceeded PeerLimits.{why_cut}"
    return f"{version}, and its RekeyPolicy has no renegotiate=True"
