"""When keys change, how much a peer may make us do, and where the numbers come from.

Theory of operation. OpenSSL never changes keys by itself, and processes as many key
updates and renegotiations as a peer sends. ``RekeyPolicy`` and ``PeerLimits`` say what
a managed connection does about it; they are numbers, and the extension keeps them
beside each connection (``ext/keys/ledger.c``) and looks at them just before a write and
after a read, on the thread that does either (``ext/keys/policy.c``). No Python runs
where nothing is due. ``act_on_impossible()`` is what the extension asks where keys must
be changed and cannot be.
"""

import dataclasses
from typing import Any, Callable, Literal, NamedTuple, Optional, Union

from . import _arguments
from ._arguments import Seconds
from ._errors import RekeyImpossibleError
from ._finding import call_text

OnImpossible = Union[
    Literal["raise", "close", "ignore"], Callable[[Any, RekeyImpossibleError], object]
]

NO_LIMIT = 2**64 - 1
_ANY_NUMBER = 2**32 - 1
_OFF = -1
_MODES = ("never", "once", "freely")
_ACTIONS = ("raise", "close", "ignore")


@dataclasses.dataclass(frozen=True, init=False)
class RekeyPolicy:
    """When a managed connection gets new keys by itself. ``None`` turns a limit off.

    Times are in seconds, or a ``datetime.timedelta``.

    Each direction of a TLS 1.3 connection has keys of its own, and only the sender
    changes them. So a policy acts twice: before a write that would use *our* keys
    beyond a limit, a KeyUpdate message goes in front of it; and where the *peer* uses
    its keys for too long, our next KeyUpdate asks it for one (``update_requested``).
    The writer moves first: the peer is asked only when it lags, and one request is
    outstanding at a time (RFC 9846 section 4.7.3).

    Never more than so much goes out under one key, exactly; ``min_interval_seconds``
    alone comes before these limits, and the cipher suite's own comes before that. (On
    TLS 1.2 they are not exact everywhere: see ``renegotiate``.)

    sent_records, sent_bytes
        How many records, and bytes of data, go out under one key (``None``).
    received_records, received_bytes
        How many come in under one key before the peer is asked (``None``). Choose more
        than what the peer does by itself (``anssi()``: a sixth more). On a connection
        that only receives, a peer with BoringSSL, AWS-LC or rustls ends it after 32
        such requests, as no data comes in between.
    age_seconds
        How old a key may be when data goes out or comes in (``None``). The peer is
        asked after a sixth more, when it sends data under such a key.
    idle_seconds
        After so long without data the next write begins with a new key (``None``).
    min_interval_seconds
        The least time between two updates of ours (1.0, because peers are fragile:
        GnuTLS ends a connection on more than 8 in a second, BoringSSL and rustls on
        more than 32 in a row). Until then data goes on under the present key.
    request_peer
        Ask for the peer's new key with each update (``False``: RFC 9846 has each side
        keep its own limits). Behind a request no update goes before the peer has
        answered, whatever the limits, but at the suite's own (an OpenSSL peer in the
        middle of a write would end the connection over it); a peer that never writes
        never answers. ``stats().request_outstanding`` tells, and ``request_rekey()``
        and ``rekey_all()`` do not wait for it.
    jitter
        The part of the limits of our own keys (``sent_*``, ``age_seconds``, the
        suite's) that is left to chance, from 0 to less than 1 (0.0, as a limit is
        mostly meant to be that number): with 0.1 it is 90 to 100 % of what is given
        here, another one for each key, so that a fleet that was started together does
        not rekey together.
    aead_limit
        Keep what RFC 9846 section 5.5 demands (``True``): AES-GCM is good for 2^24.5
        full records, AES-CCM is taken to be for 2^23 (RFC 9147 section 4.5.3), and
        ChaCha20-Poly1305 needs no limit. Every record counts as a full one. Ours is
        changed at 3/4 of that and the peer asked at 7/8, as NSS does.
    renegotiate
        On TLS 1.2 and below, renegotiate (``False``, because a peer may answer a
        renegotiation by closing; OpenSSL 3 servers do, and ``PeerLimits`` at the other
        end allows 3 in ten minutes). A server can only ask for it and goes on
        meanwhile; a client that is an ``SSLObject`` begins with its next read; and no
        write of an ``SSLObject`` is divided: such limits are not exact. A client of
        ``ssl``'s own that follows and writes while our data is on its way to it loses
        the connection (UNEXPECTED_RECORD; a managed one does not). A write of an
        ``SSLObject`` meanwhile raises ``ssl.SSLWantReadError`` until what came first
        has been read: let another task read. Below TLS 1.3 the AEAD's limit counts with
        this alone.
    on_impossible
        What to do where a limit is reached and keys cannot be changed (TLS 1.2 without
        ``renegotiate``, a peer without RFC 5746, ``OP_NO_RENEGOTIATION``): ``"raise"``
        (default) has the write raise ``RekeyImpossibleError``, and the connection stay
        as it is (of a write that reaches the limit in its middle, the beginning has
        gone out); ``"close"`` sends a close_notify before that; ``"ignore"`` goes on; a
        function is called as ``f(connection, error)`` in the thread that writes: to
        return is to ignore, from then on, and what it raises the write raises, each
        time. It may do anything with the connection but write to it: that write comes
        first (on a socket another is ``AlreadyPendingError``, on an ``SSLObject``
        ``ssl.SSLWantReadError``, over which a transport keeps the data for later; under
        uvloop close it by ``loop.call_soon(transport.close)``).
        Whatever it is: the first time on a connection is counted (``impossible``), told
        (``EventKind.IMPOSSIBLE``) and logged, a warning. (asyncio gives up a connection
        on any error of a write, without sending what is left: there ``"close"`` is as
        ``"raise"``.)

    On the wire: KeyUpdate messages (27 bytes), HelloRequest or ClientHello messages,
    before the data that would exceed a limit, or after data has been read.

    Raises ``TypeError`` for what is of another type, ``ValueError`` for what is out of
    range. It never changes: any thread may use it, for any number of contexts.

    Source: RFC 9846 sections 4.7.3 and 5.5, SSL_key_update(3).
    """

    sent_records: Optional[int]
    sent_bytes: Optional[int]
    received_records: Optional[int]
    received_bytes: Optional[int]
    age_seconds: Optional[float]
    idle_seconds: Optional[float]
    min_interval_seconds: float
    request_peer: bool
    jitter: float
    aead_limit: bool
    renegotiate: bool
    on_impossible: OnImpossible

    def __init__(  # noqa: PLR0913
        self,
        *,
        sent_records: Optional[int] = None,
        sent_bytes: Optional[int] = None,
        received_records: Optional[int] = None,
        received_bytes: Optional[int] = None,
        age_seconds: Optional[Seconds] = None,
        idle_seconds: Optional[Seconds] = None,
        min_interval_seconds: Seconds = 1.0,
        request_peer: bool = False,
        jitter: float = 0.0,
        aead_limit: bool = True,
        renegotiate: bool = False,
        on_impossible: OnImpossible = "raise",
    ) -> None:
        values: dict[str, Any] = dict(locals())
        del values["self"]
        of = type(self).__name__
        for direction in ("sent", "received"):
            for name in (f"{direction}_records", f"{direction}_bytes"):
                _arguments.check_count(of, name, values[name], least=1)
        for name in ("age_seconds", "idle_seconds"):
            values[name] = _arguments.seconds_or_none(of, name, values[name])
        name = "min_interval_seconds"
        values[name] = _arguments.seconds(of, name, values[name])
        wanted = "a number from 0 to less than 1"
        _arguments.check_number(
            of, "jitter", jitter, wanted, lambda part: 0 <= part < 1
        )
        for name in ("request_peer", "aead_limit", "renegotiate"):
            _arguments.check_flag(of, name, values[name])
        if not callable(on_impossible):
            _arguments.check_word(
                of, "on_impossible", on_impossible, _ACTIONS, ", or a function"
            )
        _set(self, values)

    @classmethod
    def rfc9846(cls, **others: Any) -> "RekeyPolicy":
        """Return what RFC 9846 section 5.5 demands, and nothing else: the default.

        Here and in the presets below, ``others`` are arguments of ``RekeyPolicy``, in
        addition or in the place of the preset's.
        """
        return cls(**others)

    @classmethod
    def anssi(cls, **others: Any) -> "RekeyPolicy":
        """Return "every hour and every 100 GB" (ANSSI, DAT-NT-003, on IPsec).

        What it does not give: that text wants new keys from a new key exchange, and a
        KeyUpdate derives them from the old ones. Who has an old secret has the later
        ones. Only new connections give forward secrecy.
        """
        return cls._hourly(100 * 10**9, others)

    @classmethod
    def niap(cls, **others: Any) -> "RekeyPolicy":
        """Return "one hour and one gigabyte", NIAP's thresholds for SSH (TD0281).

        What it does not give: NIAP has no such threshold for TLS, so this fulfils no
        requirement of its; it is the same rotation for those who want one rule. As in
        ``anssi()``, keys are derived and not exchanged.
        """
        return cls._hourly(10**9, others)

    @classmethod
    def tiny(cls, **others: Any) -> "RekeyPolicy":
        """Return limits that a test reaches at once: 4 records or 64 KiB, any age.

        New keys as often as that, and without an interval: for tests of a program
        against peers of one's own. Others end the connection, and so does a managed one
        with ``PeerLimits`` after some 480 updates: ``limits=None`` at the other end.
        """
        tiny = {
            "sent_records": 4,
            "sent_bytes": 65536,
            "received_records": 8,
            "min_interval_seconds": 0.0,
        }
        return cls(**{**tiny, **others})

    @classmethod
    def _hourly(cls, amount: int, others: dict[str, Any]) -> "RekeyPolicy":
        hourly = {
            "age_seconds": 3600.0,
            "sent_bytes": amount,
            "received_bytes": amount // 6 * 7,
        }
        return cls(**{**hourly, **others})


@dataclasses.dataclass(frozen=True, init=False)
class PeerLimits:
    """How much a peer may make a managed connection do. ``None`` turns a limit off.

    OpenSSL takes any number of KeyUpdate messages (10 to 50 microseconds each, and an
    answer where one is requested) and, where renegotiation is allowed at all, any
    number of handshakes. A peer that exceeds a limit is cut off in the middle of the
    ``SSL_read()`` that takes its messages: OpenSSL reads no further record, the next
    read or write raises ``PeerLimitError`` (an ``ssl.SSLError``), the log has one
    warning, and all that is left is to close. What had been received before is still
    returned.

    key_updates, key_update_window_seconds
        How many KeyUpdate messages may come in such a time (480 in 60 s: GnuTLS' 8 in a
        second, over a minute, so that bursts pass). It is a bucket: who keeps to the
        limit is never cut, and so many at once are let through after a pause. Answers
        to our own requests do not count.
    key_updates_in_a_row
        How many of these may come without data in between, theirs or ours, in such a
        time (32: BoringSSL, AWS-LC and rustls have the same, for theirs alone).
    renegotiations, renegotiation_window_seconds
        How often the peer may begin a renegotiation (TLS 1.2 and below) in such a time,
        refused ones included (3 in 600 s: Node.js' defaults).
    renegotiation
        ``"freely"`` (default) leaves what the context's options say and the limit
        above; ``"once"`` forbids it after the peer's first; ``"never"`` forbids it from
        the beginning. It is then forbidden for both sides, a policy's ``renegotiate``
        included, as with ``ssl.OP_NO_RENEGOTIATION``. A peer that is refused gets the
        warning alert no_renegotiation, over which OpenSSL's closes the connection.
        ``allow_renegotiation()`` makes an exception.

    On the wire: nothing but those alerts. Raises ``TypeError`` for what is of another
    type, ``ValueError`` for what is out of range (a window has a second at least, and
    may be a ``datetime.timedelta``). Any thread may use it, as it never changes.

    Source: RFC 9846 section 4.7.3, RFC 5246 section 7.2.2, SSL_set_options(3).
    """

    key_updates: Optional[int]
    key_update_window_seconds: float
    key_updates_in_a_row: Optional[int]
    renegotiations: Optional[int]
    renegotiation_window_seconds: float
    renegotiation: Literal["never", "once", "freely"]

    def __init__(  # noqa: PLR0913
        self,
        *,
        key_updates: Optional[int] = 480,
        key_update_window_seconds: Seconds = 60.0,
        key_updates_in_a_row: Optional[int] = 32,
        renegotiations: Optional[int] = 3,
        renegotiation_window_seconds: Seconds = 600.0,
        renegotiation: Literal["never", "once", "freely"] = "freely",
    ) -> None:
        values: dict[str, Any] = dict(locals())
        del values["self"]
        of = type(self).__name__
        for name in ("key_updates", "key_updates_in_a_row", "renegotiations"):
            _arguments.check_count(of, name, values[name], least=0)
        for name in ("key_update_window_seconds", "renegotiation_window_seconds"):
            values[name] = _arguments.seconds(of, name, values[name], _arguments.WINDOW)
        _arguments.check_word(of, "renegotiation", renegotiation, _MODES)
        _set(self, values)


class Rules(NamedTuple):
    """What a managed connection is made with."""

    policy: Optional[RekeyPolicy]
    limits: Optional[PeerLimits]
    numbers: tuple[object, ...]
    """Both as the extension wants them (``parse_rules()``, managed.c)."""


def make_rules(policy: Optional[RekeyPolicy], limits: Optional[PeerLimits]) -> Rules:
    """Return both in one, checked."""
    for name, value, cls in (
        ("policy", policy, RekeyPolicy),
        ("limits", limits, PeerLimits),
    ):
        if value is not None and not isinstance(value, cls):
            raise TypeError(f"{name} must be a {cls.__name__} or None, not {value!r}")
    return Rules(policy, limits, _numbers(policy or _NO_POLICY, limits or _UNLIMITED))


def _numbers(policy: RekeyPolicy, limits: PeerLimits) -> tuple[object, ...]:
    return (
        _count(policy.sent_records),
        _count(policy.sent_bytes),
        _count(policy.received_records),
        _count(policy.received_bytes),
        _microseconds(policy.age_seconds),
        _microseconds(policy.idle_seconds),
        _microseconds(policy.min_interval_seconds),
        _microseconds(limits.key_update_window_seconds),
        _microseconds(limits.renegotiation_window_seconds),
        _count(limits.key_updates, _ANY_NUMBER),
        _count(limits.key_updates_in_a_row, _ANY_NUMBER),
        _count(limits.renegotiations, _ANY_NUMBER),
        float(policy.jitter),
        policy.aead_limit,
        policy.request_peer,
        policy.renegotiate,
        _MODES.index(limits.renegotiation),
    )


def act_on_impossible(conn: Any, function: str, reason: str) -> None:
    """Return where data may go on under keys that cannot be changed, or raise."""
    action = (conn._rules.policy or _NO_POLICY).on_impossible
    if action == "ignore":
        return
    error = RekeyImpossibleError(
        1,
        f"{call_text(function, conn)}: its RekeyPolicy wants new keys before this is "
        f"sent, and cannot have them: {reason}",
    )
    if callable(action):
        action(conn, error)
        return
    if action == "close":
        conn._send_close_notify()
    raise error


def _set(instance: object, values: dict[str, object]) -> None:
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def _count(value: Optional[int], no_limit: int = NO_LIMIT) -> int:
    return no_limit if value is None else min(value, no_limit - 1)


def _microseconds(seconds: Optional[float]) -> int:
    return _OFF if seconds is None else int(seconds * 1e6)


_NO_POLICY = RekeyPolicy(aead_limit=False)
_UNLIMITED = PeerLimits(
    key_updates=None, key_updates_in_a_row=None, renegotiations=None
)
DEFAULT = make_rules(RekeyPolicy(), PeerLimits())
