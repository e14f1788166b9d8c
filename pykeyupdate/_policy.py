"""When keys change, how much a peer may make us do, and where the numbers come from.

Theory of operation. OpenSSL never changes keys by itself, and it processes as many key
updates and renegotiations as a peer sends. ``RekeyPolicy`` and ``PeerLimits`` say what
a managed connection does about that. They are numbers. The extension keeps them with
each connection (``ext/keys/ledger.h``) and checks them just before a write and after a
read, in the thread that does either (``ext/keys/policy.c``). Idle connections are
looked at when a key is due (``_idle_sockets.py``). No Python code runs while nothing is
due. The extension calls ``act_on_impossible()`` when keys must change and cannot.
"""

from typing import TYPE_CHECKING, Any, Callable, Literal, NamedTuple, Optional, Union

from . import _arguments
from ._arguments import Seconds
from ._errors import RekeyImpossibleError
from ._finding import call_text, name_of
from ._static_lookup import is_instance

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from ._frozen import dataclass

OnImpossible = Union[
    Literal["raise", "close", "ignore"], Callable[[Any, RekeyImpossibleError], object]
]

NO_LIMIT = 2**64 - 1
_ANY_NUMBER = 2**32 - 1
_OFF = -1
_FREQUENT = 1.0  # seconds
_MODES = ("never", "once", "freely")
_ACTIONS = ("raise", "close", "ignore")


@dataclass(frozen=True, init=False)
class RekeyPolicy:
    """When a managed connection gets new keys by itself. ``None`` turns a limit off.

    Times are numbers of seconds or ``datetime.timedelta`` objects.

    Each direction of a TLS 1.3 connection has its own keys, and only the sender changes
    them. So a policy does two things. Before a write that would use *our* keys beyond a
    limit, it sends a KeyUpdate message. When the *peer* uses its keys for too long, our
    next KeyUpdate asks it for one (``update_requested``). The writer moves first: the
    peer is asked only when it lags, and one request is outstanding at a time (RFC 9846
    section 4.7.3).

    Limits on what this side sends are exact. Only ``min_interval_seconds`` and a
    request that the peer has not answered override them, and only the cipher suite's
    own limit overrides these. (On TLS 1.2 they are not exact everywhere: see
    ``renegotiate``.)

    sent_records, sent_bytes
        How many records, or bytes of data, may be sent under one key (``None``).
    received_records, received_bytes
        How many may be received under one key before the peer is asked (``None``).
        Choose more than the peer's own limit (``anssi()`` takes a sixth more). Where
        this side only receives, its updates have no data in between: Go ends the
        connection over the 17th, BoringSSL, AWS-LC and rustls over the 33rd.
    age_seconds
        How old a key may be when data is sent or received under it (``None``). The peer
        is asked after a sixth more, when it sends data under such a key. Where this
        side only receives, peers may object as above.
    rotate_idle
        Change a key at ``age_seconds`` although nobody reads or writes, too (``False``,
        because it needs a thread of ours, and some peers take a message on an idle
        connection for its end: an HTTP client drops such a connection from its pool and
        opens another). TLS 1.3 only: a renegotiation needs an owner that reads.
        For sockets there is one daemon thread for the process. It starts with the
        first such connection, sleeps until the next key is due, never waits for a peer,
        and ends with the last. For event loops: ``aio.keep_fresh()``. Only our key
        is changed; the peer is not asked unless ``request_peer`` says so, and then no
        further update is sent until it has answered. ``on_event()`` handlers and
        ``on_impossible`` are called in that thread, and delay it.
    max_key_age_seconds
        How old our key may be at most (``None``). What ``age_seconds`` could not change
        by then (the peer has not answered a request; TLS 1.2) sends nothing more: the
        next write does what ``on_impossible`` says. With ``rotate_idle`` that happens
        while the connection is idle: ``"close"`` sends a close_notify and ends it, and
        the owner's next call raises ``RekeyImpossibleError``; a function is called.
        At least ``age_seconds`` and ``min_interval_seconds``; without ``age_seconds``,
        keys are changed at this age. An age counts from when this side made the key.
    idle_seconds
        After so long without data, the next write begins with a new key (``None``).
    min_interval_seconds
        The shortest time between two updates of ours (1.0, because peers are fragile:
        GnuTLS ends a connection on more than 8 in a second). Until then, data is sent
        under the present key.
    request_peer
        Ask for the peer's new key with each update (``False``: in RFC 9846 each side
        keeps its own limits). After a request, no update is sent until the peer has
        answered, whatever the limits except the suite's own (an OpenSSL peer in the
        middle of a write would end the connection). A peer that never writes never
        answers. ``stats().request_outstanding`` says whether an answer is missing;
        ``request_rekey()`` and ``rekey_all()`` do not wait for it.
    jitter
        The fraction of the limits of our own keys (``sent_*``, ``age_seconds``, the
        suite's) that is random, from 0 to less than 1 (0.0, because a limit is mostly
        meant to be that number). With 0.1, each key gets a limit of its own, 90 to
        100 % of the number given here, so that a fleet that was started together does
        not rekey together.
    aead_limit
        Enforce what RFC 9846 section 5.5 demands (``True``): AES-GCM allows 2^24.5 full
        records, AES-CCM is taken to allow 2^23 (RFC 9147 section 4.5.3), and
        ChaCha20-Poly1305 needs no limit. Every record counts as a full one. Our key is
        changed at 3/4 of the limit and the peer is asked at 7/8, as in NSS.
    renegotiate
        On TLS 1.2 and below, renegotiate (``False``, because a peer may answer a
        renegotiation by closing; OpenSSL 3 servers do, and ``PeerLimits`` at the other
        end allows 3 in ten minutes). Such limits are not exact: a server can only ask
        for a renegotiation and goes on sending meanwhile; a client ``SSLObject`` begins
        with its next read; and no write of an ``SSLObject`` is split. An unmanaged
        ``ssl`` client that follows and writes while our data is on its way to it loses
        the connection (UNEXPECTED_RECORD; a managed one does not). During a
        renegotiation, a write of an ``SSLObject`` raises ``ssl.SSLWantReadError`` until
        the data that came first has been read: let another task read. Below TLS 1.3 the
        AEAD's limit counts only with ``renegotiate=True``.
    on_impossible
        What to do when a limit is reached and keys cannot be changed (TLS 1.2 without
        ``renegotiate``, a peer without RFC 5746, ``OP_NO_RENEGOTIATION``).
        ``"raise"`` (default): the write raises ``RekeyImpossibleError``, and the
        connection stays as it is. (If a write reaches the limit in its middle, its
        beginning has gone out.) ``"close"``: the same, after a close_notify is sent.
        ``"ignore"``: the write goes on. A function: it is called as
        ``f(connection, error)`` in the thread that writes. If it returns, the limit is
        ignored from then on; if it raises, the write raises that, each time. It may do
        anything with the connection except write to it, because the present write comes
        first. (Another write raises ``AlreadyPendingError`` on a socket and
        ``ssl.SSLWantReadError`` on an ``SSLObject``, so that a transport keeps the data
        for later. Under uvloop, close with ``loop.call_soon(transport.close)``.)
        Whatever the value, the first time on a connection is counted (``impossible``),
        reported (``EventKind.IMPOSSIBLE``) and logged as a warning. (asyncio gives up a
        connection on any error of a write, without sending what is left: there
        ``"close"`` has the effect of ``"raise"``.)

    On the wire: KeyUpdate messages (27 bytes), HelloRequest or ClientHello messages,
    before the data that would exceed a limit, or after data has been read.

    Raises ``TypeError`` for a value of the wrong type, ``ValueError`` for one out of
    range. A policy is immutable: any thread may use it, for any number of contexts.

    Source: RFC 9846 sections 4.7.3 and 5.5, SSL_key_update(3).
    """

    sent_records: Optional[int]
    sent_bytes: Optional[int]
    received_records: Optional[int]
    received_bytes: Optional[int]
    age_seconds: Optional[float]
    idle_seconds: Optional[float]
    rotate_idle: bool
    max_key_age_seconds: Optional[float]
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
        rotate_idle: bool = False,
        max_key_age_seconds: Optional[Seconds] = None,
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
                values[name] = _arguments.check_count(of, name, values[name], least=1)
        for name in ("age_seconds", "idle_seconds", "max_key_age_seconds"):
            values[name] = _arguments.seconds_or_none(of, name, values[name])
        name = "min_interval_seconds"
        values[name] = _arguments.seconds(of, name, values[name])
        wanted = "a number from 0 to less than 1"
        values["jitter"] = _arguments.check_number(
            of, "jitter", jitter, wanted, lambda part: 0 <= part < 1
        )
        for name in ("request_peer", "aead_limit", "renegotiate", "rotate_idle"):
            _arguments.check_flag(of, name, values[name])
        _check_ages(of, values)
        if not _arguments.is_function(on_impossible):
            values["on_impossible"] = _arguments.check_word(
                of,
                "on_impossible",
                on_impossible,
                _ACTIONS,
                ", or a function that is no `async def`",
            )
        _set(self, values)

    def __repr__(self) -> str:
        return _call_text(self, RekeyPolicy())

    @classmethod
    def rfc9846(cls, **others: Any) -> "RekeyPolicy":
        """Return what RFC 9846 section 5.5 demands, and nothing else: the default.

        Here and in the presets below, ``others`` are arguments of ``RekeyPolicy`` that
        add to the preset's or override them.
        """
        return cls(**others)

    @classmethod
    def anssi(cls, **others: Any) -> "RekeyPolicy":
        """Return "every hour and every 100 GB" (ANSSI, DAT-NT-003, on IPsec).

        It does not give all that ANSSI wants: new keys from a new key exchange. A
        KeyUpdate derives them from the old ones, so whoever has an old secret has the
        later ones, too. Only a new handshake ends that.
        """
        return cls._hourly(100 * 10**9, others)

    @classmethod
    def niap(cls, **others: Any) -> "RekeyPolicy":
        """Return "one hour and one gigabyte", NIAP's thresholds for SSH (TD0281).

        It meets no NIAP requirement, because NIAP has no such threshold for TLS. It is
        the same rotation, for those who want one rule everywhere. As in ``anssi()``,
        keys are derived and not exchanged.
        """
        return cls._hourly(10**9, others)

    @classmethod
    def tiny(cls, **others: Any) -> "RekeyPolicy":
        """Return limits that a test reaches at once: 4 records or 64 KiB, any age.

        It changes keys that often, without a minimum interval. Use it to test a program
        against your own peers: other peers end the connection. So does a managed peer
        with ``PeerLimits`` after some 480 updates; give it ``limits=None``.
        """
        tiny = {
            "sent_records": 4,
            "sent_bytes": 65536,
            "received_records": 8,
            "min_interval_seconds": 0.0,
        }
        return cls(**{**tiny, **others})

    def _least_age(self) -> float:
        """Return the age at which ``rotate_idle`` may change a key, at the earliest."""
        age = _age(self)
        assert age is not None  # noqa: S101 (rotate_idle needs one)
        return age * (1 - self.jitter)

    @classmethod
    def _hourly(cls, amount: int, others: dict[str, Any]) -> "RekeyPolicy":
        hourly = {
            "age_seconds": 3600.0,
            "sent_bytes": amount,
            "received_bytes": amount // 6 * 7,
        }
        return cls(**{**hourly, **others})


@dataclass(frozen=True, init=False)
class PeerLimits:
    """How much a peer may make a managed connection do. ``None`` turns a limit off.

    OpenSSL processes any number of KeyUpdate messages (10 to 50 microseconds each, and
    an answer if one is requested) and session tickets and, if renegotiation is allowed
    at all, any number of handshakes, each for any time. A peer that exceeds a limit is
    cut off in the middle of the ``SSL_read()`` that processes its messages: OpenSSL
    reads no further record, the next read or write raises ``PeerLimitError`` (an
    ``ssl.SSLError``), one warning is logged, and the connection can only be closed.
    Data received before is still returned.

    key_updates, key_update_window_seconds
        How many KeyUpdate messages may arrive in the window (480 in 60 s: GnuTLS's 8 in
        a second, over a minute, so that bursts pass). It is a bucket: a peer that keeps
        to the limit is never cut off, and after a pause that many may arrive at once.
        Answers to our own requests do not count.
    key_updates_in_a_row
        How many of these may arrive in the same window without data, the peer's or
        ours, in between (32: BoringSSL, AWS-LC and rustls have the same limit, but only
        the peer's data resets it).
    renegotiations, renegotiation_window_seconds
        How many renegotiations (TLS 1.2 and below) the peer may begin in the window,
        refused ones included (3 in 600 s: Node.js's defaults).
    renegotiation_seconds
        How long one renegotiation may take, whoever began it (600.0: a person may have
        to find a smart card and its PIN). The time begins when both ends are in it: on
        a server when the ClientHello has come, on a client when the ServerHello has. (A
        server that does not look at our ClientHello is like one that does not read at
        all, and may be busy sending data; for this, a socket has its timeout.) It is
        checked before each read and write, and no time between two of them counts for
        more than a tenth of the limit: a program that does something else meanwhile
        does not know what its peer has sent. A peer that sends nothing wakes nobody: a
        ``recv()`` that waits for it goes on waiting, as long as the socket's timeout
        lets it. ``None``: any time.
    session_tickets, session_ticket_window_seconds
        How many NewSessionTicket messages (TLS 1.3) a server may send in the window
        (5000 in 60 s: an OpenSSL server sends 2, or its ``num_tickets``, after the
        handshake and after each certificate that it asked for, and RFC 9149 lets a
        client ask for 255). It is a bucket, as for ``key_updates``, so a connection may
        last for years.
    renegotiation
        ``"freely"`` (default) keeps to the context's options and the limit above;
        ``"once"`` forbids renegotiation after the peer's first; ``"never"`` forbids it
        from the beginning. It is then forbidden for both sides, a policy's
        ``renegotiate`` included, as with ``ssl.OP_NO_RENEGOTIATION``. A peer that is
        refused gets the warning alert no_renegotiation, and an OpenSSL peer then closes
        the connection. ``allow_renegotiation()`` makes an exception.

    On the wire: nothing but those alerts. Raises ``TypeError`` for a value of the wrong
    type, ``ValueError`` for one out of range (a window is at least a second, and may be
    a ``datetime.timedelta``). It is immutable: any thread may use it.

    Source: RFC 9846 sections 4.7.1 and 4.7.3, RFC 9149, RFC 5246 section 7.2.2,
    SSL_set_options(3).
    """

    key_updates: Optional[int]
    key_update_window_seconds: float
    key_updates_in_a_row: Optional[int]
    renegotiations: Optional[int]
    renegotiation_window_seconds: float
    renegotiation_seconds: Optional[float]
    session_tickets: Optional[int]
    session_ticket_window_seconds: float
    renegotiation: Literal["never", "once", "freely"]

    def __init__(  # noqa: PLR0913
        self,
        *,
        key_updates: Optional[int] = 480,
        key_update_window_seconds: Seconds = 60.0,
        key_updates_in_a_row: Optional[int] = 32,
        renegotiations: Optional[int] = 3,
        renegotiation_window_seconds: Seconds = 600.0,
        renegotiation_seconds: Optional[Seconds] = 600.0,
        session_tickets: Optional[int] = 5000,
        session_ticket_window_seconds: Seconds = 60.0,
        renegotiation: Literal["never", "once", "freely"] = "freely",
    ) -> None:
        values: dict[str, Any] = dict(locals())
        del values["self"]
        of = type(self).__name__
        for name in (
            "key_updates",
            "key_updates_in_a_row",
            "renegotiations",
            "session_tickets",
        ):
            values[name] = _arguments.check_count(of, name, values[name], least=0)
        for name in (
            "key_update_window_seconds",
            "renegotiation_window_seconds",
            "session_ticket_window_seconds",
        ):
            values[name] = _arguments.seconds(of, name, values[name], _arguments.WINDOW)
        name = "renegotiation_seconds"
        values[name] = _arguments.seconds_or_none(of, name, values[name])
        values["renegotiation"] = _arguments.check_word(
            of, "renegotiation", renegotiation, _MODES
        )
        _set(self, values)

    def __repr__(self) -> str:
        return _call_text(self, PeerLimits())


class Rules(NamedTuple):
    """The rules that a managed connection is created with."""

    policy: Optional[RekeyPolicy]
    limits: Optional[PeerLimits]
    numbers: dict[str, float]
    """Both, in the form that ``parse_rules()`` in ext/calls/managed.c takes."""


def make_rules(policy: Optional[RekeyPolicy], limits: Optional[PeerLimits]) -> Rules:
    """Check both and return them as one."""
    for name, value, cls in (
        ("policy", policy, RekeyPolicy),
        ("limits", limits, PeerLimits),
    ):
        if value is not None and not is_instance(value, cls):
            raise TypeError(
                f"{name} must be a {cls.__name__} or None, not {name_of(value)}"
            )
    numbers = _numbers(
        _NO_POLICY if policy is None else policy,
        _UNLIMITED if limits is None else limits,
    )
    return Rules(policy, limits, numbers)


def _numbers(policy: RekeyPolicy, limits: PeerLimits) -> dict[str, float]:
    """Return the numbers that KU_RULES in ext/keys/ledger.h lists, by name."""
    return {
        "sent_records": _count(policy.sent_records),
        "sent_bytes": _count(policy.sent_bytes),
        "received_records": _count(policy.received_records),
        "received_bytes": _count(policy.received_bytes),
        "age": _microseconds(_age(policy)),
        "most_age": _microseconds(policy.max_key_age_seconds),
        "idle": _microseconds(policy.idle_seconds),
        "min_interval": _microseconds(policy.min_interval_seconds),
        "key_update_window": _microseconds(limits.key_update_window_seconds),
        "renegotiation_window": _microseconds(limits.renegotiation_window_seconds),
        "renegotiation_time": _microseconds(limits.renegotiation_seconds),
        "session_ticket_window": _microseconds(limits.session_ticket_window_seconds),
        "key_updates": _count(limits.key_updates, _ANY_NUMBER),
        "key_updates_in_a_row": _count(limits.key_updates_in_a_row, _ANY_NUMBER),
        "renegotiations": _count(limits.renegotiations, _ANY_NUMBER),
        "session_tickets": _count(limits.session_tickets, _ANY_NUMBER),
        "jitter": float(policy.jitter),
        "aead_limit": policy.aead_limit,
        "request_peer": policy.request_peer,
        "renegotiate": policy.renegotiate,
        "mode": _MODES.index(limits.renegotiation),
    }


def _age(policy: RekeyPolicy) -> Optional[float]:
    age = policy.age_seconds
    return policy.max_key_age_seconds if age is None else age


def _check_ages(of: str, values: dict[str, Any]) -> None:
    most, age = values["max_key_age_seconds"], values["age_seconds"]
    if most is not None:
        for name in ("age_seconds", "min_interval_seconds"):
            if values[name] is not None and values[name] > most:
                raise ValueError(
                    f"{of}: max_key_age_seconds must be at least {name}, "
                    f"{values[name]!r}, not {most!r}"
                )
    changed_at = most if age is None else age
    if values["rotate_idle"] and (changed_at is None or changed_at < _FREQUENT):
        raise ValueError(
            f"{of}: rotate_idle=True needs age_seconds (or max_key_age_seconds), the "
            f"age at which an idle key is changed, of at least {_FREQUENT} s, not "
            f"{changed_at!r}"
        )


def act_on_impossible(conn: Any, function: str, reason: str, cause: str) -> None:
    """Return if data may go on under keys that cannot be changed, otherwise raise."""
    action = (conn._rules.policy or _NO_POLICY).on_impossible
    if action == "ignore":
        return
    error = RekeyImpossibleError(
        1,
        f"{call_text(function, conn)}: its RekeyPolicy wants new keys before this is "
        f"sent, and cannot have them: {reason}",
    )
    error.reason = cause
    if callable(action):
        action(conn, error)
        return
    if action == "close":
        conn._send_close_notify()
    raise error


def _set(instance: object, values: dict[str, object]) -> None:
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def _call_text(rules: object, default: object) -> str:
    """Return the call that makes these rules: only what is not as by default."""
    values = (
        (name, value, getattr(rules, name)) for name, value in vars(default).items()
    )
    given = [f"{name}={own!r}" for name, value, own in values if own != value]
    return f"{type(rules).__qualname__}({', '.join(given)})"


def _count(value: Optional[int], no_limit: int = NO_LIMIT) -> int:
    return no_limit if value is None else min(value, no_limit - 1)


def _microseconds(seconds: Optional[float]) -> int:
    return _OFF if seconds is None else int(seconds * 1e6)


_NO_POLICY = RekeyPolicy(aead_limit=False)
_UNLIMITED = PeerLimits(
    key_updates=None,
    key_updates_in_a_row=None,
    renegotiations=None,
    renegotiation_seconds=None,
    session_tickets=None,
)
DEFAULT = make_rules(RekeyPolicy(), PeerLimits())
