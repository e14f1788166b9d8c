"""Statistics of a managed connection, and of all of them in the process."""

from typing import Any, NamedTuple, Optional

from . import _keyupdate
from ._policy import NO_LIMIT


class KeyUse(NamedTuple):
    """How much one direction's present keys have been used."""

    records: int
    """Records of application data."""
    bytes: int
    """Bytes of application data."""
    age_seconds: float
    """Seconds since the handshake or the last change of these keys."""
    most_records: Optional[int]
    """How many records these keys may protect before they are changed, or the peer is
    asked; ``None`` for any number."""
    most_bytes: Optional[int]
    """The same in bytes."""


class Counts(NamedTuple):
    """How often each thing has happened."""  # in the order of enum ku_count, ledger.h

    key_updates_sent: int
    key_updates_received: int
    requests_sent: int
    """Of the key updates sent, those that asked the peer for one."""
    requests_received: int
    """Of the key updates received, those that asked for ours."""
    renegotiations: int
    """Completed renegotiations that this side began."""
    peer_renegotiations: int
    """Completed renegotiations that the peer began."""
    refused: int
    """Refused renegotiations of the peer."""
    deferred: int
    """Key changes that were due and had to wait."""
    cut_off: int
    """Peers that exceeded ``PeerLimits``: 0 or 1 for one connection."""
    impossible: int
    """Connections whose ``RekeyPolicy`` wanted new keys that they cannot have: 0 or 1
    for one connection."""


class ConnectionStats(NamedTuple):
    """Statistics of one managed connection."""

    counts: Counts
    sent: KeyUse
    received: KeyUse
    answer_owed: bool
    """Whether the peer requested a key update, which goes out with our next write."""
    request_outstanding: bool
    """Whether the peer has not answered a request of ours."""


class Totals(NamedTuple):
    """Statistics of all managed connections of the process, closed ones included."""

    counts: Counts
    open: int
    """Connections that are neither closed nor (an ``SSLObject``) deleted."""
    opened: int
    """All connections so far."""


def stats(conn: Any, /) -> ConnectionStats:
    """Return the statistics of a managed connection.

    conn is a managed connection (see ``manage()`` and ``install()``), or an object that
    holds one (see ``rekey()``). On the wire: nothing.

    Raises ``NotManagedError`` for other connections, ``ConnectionClosedError``,
    ``NotATLSConnectionError`` (a ``TypeError``). Threads: any for an ``SSLSocket``; for
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
    """Return the statistics of all managed connections of the process.

    Thread-safe. ``pykeyupdate.prometheus`` exports them.
    """
    counts, there_are, ever = _keyupdate.totals()
    return Totals(Counts(*counts), there_are, ever)
