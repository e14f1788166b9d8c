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
    writes_refused: int
    """Writes that raised because of that (``RekeyPolicy.on_impossible``)."""
    failed_after_update: int
    """Connections that an alert, an error or a reset has ended, with nothing received
    since our last KeyUpdate: 0 or 1 for one connection. An end without a close_notify
    counts only if we had sent nothing but the update. See
    ``EventKind.FAILED_AFTER_UPDATE``."""


class KeyChanges(NamedTuple):
    """How often this side's keys were changed, by reason.

    The sum is that of ``key_updates_sent`` and all renegotiations in ``Counts``.
    """  # this and the next two: in the order of ext/keys/reasons.h

    explicit: int
    """By the program: ``rekey()``, ``key_update()``, ``renegotiate()``, a client's
    certificate asked for on TLS 1.2."""
    peer_asked: int
    """The answer to a peer's request; a renegotiation that the peer began."""
    records: int
    """By ``RekeyPolicy.sent_records`` or ``received_records``."""
    bytes: int
    """By ``sent_bytes`` or ``received_bytes``."""
    age: int
    """By ``age_seconds``."""
    idle: int
    """By ``idle_seconds``."""
    aead_limit: int
    """By the cipher suite's limit (``aead_limit``)."""
    request_rekey: int
    """By ``request_rekey()``."""
    rekey_all: int
    """By ``rekey_all()``."""


class Impossible(NamedTuple):
    """How often a policy wanted new keys that a connection cannot have, by cause."""

    renegotiation_not_allowed: int
    """TLS 1.2 or below, and ``RekeyPolicy.renegotiate`` is False."""
    renegotiation_forbidden: int
    """``ssl.OP_NO_RENEGOTIATION`` is set (``PeerLimits`` may have set it)."""
    insecure_renegotiation: int
    """The peer does not support RFC 5746."""
    kernel_tls: int
    """The kernel has the keys, and cannot change them."""
    close_received: int
    """The peer has sent its close_notify."""
    unsupported_by_library: int
    """The TLS library lacks the function."""
    refused_by_openssl: int
    """OpenSSL refused for good."""
    needs_owner: int
    """TLS 1.2 or below: an idle key is older than ``max_key_age_seconds``, and a
    renegotiation needs an owner that reads."""
    not_yet: int
    """The cipher suite's limit, or ``max_key_age_seconds``, is reached at a moment when
    keys cannot be changed."""
    ended: int
    """The connection has ended."""


class CutOff(NamedTuple):
    """How often a peer was cut off, by the limit in ``PeerLimits``."""

    key_updates: int
    key_updates_in_a_row: int
    renegotiations: int
    renegotiation_seconds: int
    session_tickets: int


class ConnectionStats(NamedTuple):
    """Statistics of one managed connection."""

    counts: Counts
    sent: KeyUse
    received: KeyUse
    answer_owed: bool
    """Whether the peer requested a key update, which goes out with our next write."""
    request_outstanding: bool
    """Whether the peer has not answered a request of ours."""
    last_change: Optional[str] = None
    """Why our keys were last changed: one of the fields of ``KeyChanges``."""
    limit: Optional[str] = None
    """Which of ``PeerLimits`` the peer has exceeded."""


# As in ext/keys/survey.h.  The last number of records is RFC 9846's for AES-GCM.
AGE_BOUNDS = (60, 300, 900, 3600, 14400, 86400, 604800)
RECORD_BOUNDS = (100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 23_726_566)


class Histogram(NamedTuple):
    """How many keys there are of each size."""

    bounds: tuple[int, ...]
    counts: tuple[int, ...]
    """How many keys are up to the first bound, how many above that and up to the
    second, ..., and how many are above the last: one number more than bounds."""


class KeySurvey(NamedTuple):
    """The present keys of one direction, of all connections that are open."""

    oldest_seconds: Optional[float]
    """The age of the oldest key; ``None`` if there is none."""
    ages: Histogram
    """By age; the bounds are 1, 5 and 15 minutes, 1 and 4 hours, a day and a week, in
    seconds."""
    records: Histogram
    """By the records of data that they have protected; the bounds are 100 to 10,000,000
    in powers of ten, and 23,726,566 (RFC 9846's limit for AES-GCM)."""


_NO_KEYS = KeySurvey(
    None,
    Histogram(AGE_BOUNDS, (0,) * (len(AGE_BOUNDS) + 1)),
    Histogram(RECORD_BOUNDS, (0,) * (len(RECORD_BOUNDS) + 1)),
)


class Totals(NamedTuple):
    """Statistics of all managed connections of the process, closed ones included."""

    counts: Counts
    open: int
    """Connections that are neither closed nor (an ``SSLObject``) deleted."""
    opened: int
    """All connections so far."""
    key_changes: KeyChanges = KeyChanges(*[0] * len(KeyChanges._fields))
    impossible: Impossible = Impossible(*[0] * len(Impossible._fields))
    """``counts.impossible``, by cause."""
    cut_off: CutOff = CutOff(*[0] * len(CutOff._fields))
    """``counts.cut_off``, by limit."""
    sent: KeySurvey = _NO_KEYS
    """The keys under which this side sends."""
    received: KeySurvey = _NO_KEYS
    """The keys under which the peers send."""


def stats(conn: Any, /) -> ConnectionStats:
    """Return the statistics of a managed connection.

    conn is a managed connection (see ``manage()`` and ``install()``), or an object that
    holds one (see ``rekey()``). On the wire: nothing.

    Raises ``NotManagedError`` for other connections, ``ConnectionClosedError``,
    ``NotATLSConnectionError`` (a ``TypeError``). Threads: any for an ``SSLSocket``; for
    an ``SSLObject`` the one that does its I/O.
    """
    numbers, sent, received, owed, outstanding, why, limit = _keyupdate.usage(conn)
    counts = Counts(*numbers)
    changes = counts.renegotiations + counts.peer_renegotiations
    return ConnectionStats(
        counts,
        _use(sent),
        _use(received),
        bool(owed),
        bool(outstanding),
        why if counts.key_updates_sent + changes else None,
        limit,
    )


def _use(numbers: tuple[int, int, float, int, int]) -> KeyUse:
    *used, records, octets = numbers
    limits = [None if limit == NO_LIMIT else limit for limit in (records, octets)]
    return KeyUse(*used, *limits)  # type: ignore[arg-type]


def totals() -> Totals:
    """Return the statistics of all managed connections of the process.

    The process has connections in each of its sub-interpreters, and those that it
    inherited by ``fork()``. The survey of the keys that are in use looks at each of
    them: a millisecond for 10,000 connections, in which nobody waits. Thread-safe.
    ``pykeyupdate.prometheus`` exports them.
    """
    counts, there_are, ever = _keyupdate.totals()
    sent, received = map(_survey, _keyupdate.survey())
    changes, causes, limits = _keyupdate.reasons()
    return Totals(
        Counts(*counts),
        there_are,
        ever,
        KeyChanges(*changes),
        Impossible(*causes),
        CutOff(*limits),
        sent,
        received,
    )


def _survey(numbers: tuple[float, tuple[int, ...], tuple[int, ...]]) -> KeySurvey:
    oldest, ages, records = numbers
    return KeySurvey(
        None if oldest < 0 else oldest,
        Histogram(AGE_BOUNDS, ages),
        Histogram(RECORD_BOUNDS, records),
    )
