"""Statistics of a managed connection, and of all of them in the process."""

from typing import Any, NamedTuple, Optional

from . import _keyupdate
from ._fields import described


@described
class KeyUse(NamedTuple):
    """How much one direction's present keys have been used.

    records
        Records of application data.
    bytes
        Bytes of application data.
    age_seconds
        Seconds since the handshake or the last change of these keys.
    most_records
        How many records these keys may protect before they are changed, or the peer is
        asked; ``None`` for any number.
    most_bytes
        The same in bytes.
    """

    records: int
    bytes: int
    age_seconds: float
    most_records: Optional[int]
    most_bytes: Optional[int]


@described
class Counts(NamedTuple):
    """How often each thing has happened.

    key_updates_sent
        KeyUpdate messages that this side has made, answers included.
    key_updates_received
        KeyUpdate messages of the peer.
    requests_sent
        Of the key updates sent, those that asked the peer for one.
    requests_received
        Of the key updates received, those that asked for ours.
    renegotiations
        Completed renegotiations that this side began.
    peer_renegotiations
        Completed renegotiations that the peer began.
    refused
        Refused renegotiations of the peer.
    deferred
        Key changes that were due and had to wait.
    cut_off
        Peers that exceeded ``PeerLimits``: 0 or 1 for one connection.
    impossible
        Connections whose ``RekeyPolicy`` wanted new keys that they cannot have: 0 or 1
        for one connection.
    writes_refused
        Writes that raised because of that (``RekeyPolicy.on_impossible``).
    failed_after_update
        Connections that an alert, an error or a reset has ended, with nothing received
        since our last KeyUpdate: 0 or 1 for one connection. An end without a
        close_notify counts only if we had sent nothing but the update. See
        ``EventKind.FAILED_AFTER_UPDATE``.
    """  # in the order of enum ku_count, ledger.h

    key_updates_sent: int
    key_updates_received: int
    requests_sent: int
    requests_received: int
    renegotiations: int
    peer_renegotiations: int
    refused: int
    deferred: int
    cut_off: int
    impossible: int
    writes_refused: int
    failed_after_update: int


@described
class KeyChanges(NamedTuple):
    """How often this side's keys were changed, by reason.

    The sum is that of ``key_updates_sent`` and all renegotiations in ``Counts``.

    explicit
        By the program: ``rekey()``, ``key_update()``, ``renegotiate()``, a client's
        certificate asked for on TLS 1.2.
    peer_asked
        The answer to a peer's request; a renegotiation that the peer began.
    records
        By ``RekeyPolicy.sent_records`` or ``received_records``.
    bytes
        By ``sent_bytes`` or ``received_bytes``.
    age
        By ``age_seconds``.
    idle
        By ``idle_seconds``.
    aead_limit
        By the cipher suite's limit (``aead_limit``).
    request_rekey
        By ``request_rekey()``.
    rekey_all
        By ``rekey_all()``.
    """  # this and the next two: in the order of ext/keys/reasons.h

    explicit: int
    peer_asked: int
    records: int
    bytes: int
    age: int
    idle: int
    aead_limit: int
    request_rekey: int
    rekey_all: int


@described
class Impossible(NamedTuple):
    """How often a policy wanted new keys that a connection cannot have, by cause.

    renegotiation_not_allowed
        TLS 1.2 or below, and ``RekeyPolicy.renegotiate`` is False.
    renegotiation_forbidden
        ``ssl.OP_NO_RENEGOTIATION`` is set (``PeerLimits`` may have set it).
    insecure_renegotiation
        The peer does not support RFC 5746.
    kernel_tls
        The kernel has the keys, and cannot change them.
    close_received
        The peer has sent its close_notify.
    unsupported_by_library
        The TLS library lacks the function.
    refused_by_openssl
        OpenSSL refused for good.
    needs_owner
        TLS 1.2 or below: an idle key is older than ``max_key_age_seconds``, and a
        renegotiation needs an owner that reads.
    not_yet
        The cipher suite's limit, or ``max_key_age_seconds``, is reached at a moment
        when keys cannot be changed.
    ended
        The connection has ended.
    """

    renegotiation_not_allowed: int
    renegotiation_forbidden: int
    insecure_renegotiation: int
    kernel_tls: int
    close_received: int
    unsupported_by_library: int
    refused_by_openssl: int
    needs_owner: int
    not_yet: int
    ended: int


@described
class CutOff(NamedTuple):
    """How often a peer was cut off, by the limit in ``PeerLimits``.

    key_updates
        By ``PeerLimits.key_updates``.
    key_updates_in_a_row
        By ``PeerLimits.key_updates_in_a_row``.
    renegotiations
        By ``PeerLimits.renegotiations``.
    renegotiation_seconds
        By ``PeerLimits.renegotiation_seconds``.
    session_tickets
        By ``PeerLimits.session_tickets``.
    """

    key_updates: int
    key_updates_in_a_row: int
    renegotiations: int
    renegotiation_seconds: int
    session_tickets: int


@described
class ConnectionStats(NamedTuple):
    """Statistics of one managed connection.

    counts
        How often each thing has happened.
    sent
        The keys under which this side sends.
    received
        The keys under which the peer sends.
    answer_owed
        Whether the peer requested a key update, which goes out with our next write.
    request_outstanding
        Whether the peer has not answered a request of ours.
    last_change
        Why our keys were last changed: one of the fields of ``KeyChanges``.
    limit
        Which of ``PeerLimits`` the peer has exceeded.
    """

    counts: Counts
    sent: KeyUse
    received: KeyUse
    answer_owed: bool
    request_outstanding: bool
    last_change: Optional[str] = None
    limit: Optional[str] = None


# As in ext/keys/survey.h.  The last number of records is RFC 9846's for AES-GCM.
AGE_BOUNDS = (60, 300, 900, 3600, 14400, 86400, 604800)
RECORD_BOUNDS = (100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 23_726_566)


@described
class Histogram(NamedTuple):
    """How many keys there are of each size.

    bounds
        The sizes up to which keys are counted together, in ascending order.
    counts
        How many keys are up to the first bound, how many above that and up to the
        second, ..., and how many are above the last: one number more than bounds.
    """

    bounds: tuple[int, ...]
    counts: tuple[int, ...]


@described
class KeySurvey(NamedTuple):
    """The present keys of one direction, of all connections that are open.

    oldest_seconds
        The age of the oldest key; ``None`` if there is none.
    ages
        By age; the bounds are 1, 5 and 15 minutes, 1 and 4 hours, a day and a week, in
        seconds.
    records
        By the records of data that they have protected; the bounds are 100 to
        10,000,000 in powers of ten, and 23,726,566 (RFC 9846's limit for AES-GCM).
    """

    oldest_seconds: Optional[float]
    ages: Histogram
    records: Histogram


_NO_KEYS = KeySurvey(
    None,
    Histogram(AGE_BOUNDS, (0,) * (len(AGE_BOUNDS) + 1)),
    Histogram(RECORD_BOUNDS, (0,) * (len(RECORD_BOUNDS) + 1)),
)


@described
class Totals(NamedTuple):
    """Statistics of all managed connections of the process, closed ones included.

    counts
        How often each thing has happened.
    open
        Connections that are neither closed nor (an ``SSLObject``) deleted.
    opened
        All connections so far.
    key_changes
        ``counts.key_updates_sent`` and the renegotiations, by reason.
    impossible
        ``counts.impossible``, by cause.
    cut_off
        ``counts.cut_off``, by limit.
    sent
        The keys under which this side sends.
    received
        The keys under which the peers send.
    """

    counts: Counts
    open: int
    opened: int
    key_changes: KeyChanges = KeyChanges(*[0] * len(KeyChanges._fields))
    impossible: Impossible = Impossible(*[0] * len(Impossible._fields))
    cut_off: CutOff = CutOff(*[0] * len(CutOff._fields))
    sent: KeySurvey = _NO_KEYS
    received: KeySurvey = _NO_KEYS


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
        KeyUse(*sent),
        KeyUse(*received),
        bool(owed),
        bool(outstanding),
        why if counts.key_updates_sent + changes else None,
        limit,
    )


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
