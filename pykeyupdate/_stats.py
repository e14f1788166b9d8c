"""What has happened on a managed connection, and on all of the process."""

from typing import Any, NamedTuple, Optional

from . import _keyupdate
from ._policy import NO_LIMIT


class KeyUse(NamedTuple):
    """How much the present keys of one direction have been used."""

    records: int
    """Records of application data."""
    bytes: int
    """Application data, in bytes."""
    age_seconds: float
    """Since the handshake or the last change of these keys."""
    most_records: Optional[int]
    """How many records there may be before keys are changed, or the peer is asked;
    ``None``: any number."""
    most_bytes: Optional[int]
    """The same of bytes."""


class Counts(NamedTuple):
    """How often something has happened."""  # in the order of enum ku_count, ledger.h

    key_updates_sent: int
    key_updates_received: int
    requests_sent: int
    """Of the key updates sent, those that asked the peer for one."""
    requests_received: int
    """Of the key updates received, those that asked for ours."""
    renegotiations: int
    """Complete ones that this side began."""
    peer_renegotiations: int
    """Complete ones that the peer began."""
    refused: int
    """Renegotiations that the peer was refused."""
    deferred: int
    """Changes of keys that were due and had to wait."""
    cut_off: int
    """Peers that have exceeded ``PeerLimits``: of one connection 0 or 1."""
    impossible: int
    """Connections whose ``RekeyPolicy`` wanted new keys that cannot be had: 0 or 1."""


class ConnectionStats(NamedTuple):
    """One managed connection."""

    counts: Counts
    sent: KeyUse
    received: KeyUse
    answer_owed: bool
    """Whether the peer has asked for a key update that goes out with our next write."""
    request_outstanding: bool
    """Whether the peer has not answered a request of ours."""


class Totals(NamedTuple):
    """All managed connections of the process, closed ones included."""

    counts: Counts
    open: int
    """Those that are neither closed nor, as an ``SSLObject``, deleted."""
    opened: int
    """Those that there have ever been."""


def stats(conn: Any, /) -> ConnectionStats:
    """Return what has happened on a managed connection.

    conn is what ``manage()`` or ``install()`` has made managed, or what holds such a
    connection (see ``rekey()``). Nothing goes on the wire.

    Raises ``NotManagedError`` for other connections, ``ConnectionClosedError``,
    ``NotATLSConnectionError`` (a ``TypeError``). Threads: of an ``SSLSocket`` any, of
    an ``SSLObject`` the one that does its I/O.
    """
    counts, sent, received, owed, outstanding = _keyupdate.usage(conn)
    return ConnectionStats(
        Counts(*counts), _use(sent), _use(received), bool(owed), bool(outstanding)
    )


def _use(numbers: tuple[int, int, float, int, int]) -> KeyUse:
    *used, records, octets = numbers
    limits = [None if limit == NO_LIMIT else limit for limit in (records, octets)]
    return KeyUse(*used, *limits)  # type: ignore[arg-type]


def totals() -> Totals:
    """Return what has happened on all managed connections of the process.

    Thread-safe. ``pykeyupdate.prometheus`` exports it.
    """
    counts, there_are, ever = _keyupdate.totals()
    return Totals(Counts(*counts), there_are, ever)
