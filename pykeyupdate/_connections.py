"""The live managed connections of the process, as snapshots."""

import time
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Optional

from . import _keyupdate
from ._describing import VERSIONS, unpack
from ._managed_classes import all_references
from ._stats import Counts, KeyUse

INHERITED = "it was inherited from the process that forked"
"""The obstacle of a connection that is that process's, until this one uses it."""
_OBSTACLES = {
    "renegotiation_not_allowed": "{version}, and its RekeyPolicy has no "
    "renegotiate=True",
    "renegotiation_forbidden": "{version}, and OP_NO_RENEGOTIATION is set",
    "insecure_renegotiation": "{version}, and its peer does not support RFC 5746",
    "close_received": "{version}, and its peer has sent close_notify",
    "ended": "it has ended, and is not closed yet",
}  # by the cause; a first handshake gives new keys anyway
_TURN = 0.001  # seconds without letting other threads run
_PAUSE = 0.0002  # seconds, in which a thread that waits for the GIL takes it


class _Values(NamedTuple):
    """What a ``ConnectionInfo`` says, in its order."""

    number: int
    label: Optional[str]
    peer: Any
    role: str
    server_name: Optional[str]
    version: Optional[str]
    cipher: Optional[str]
    sent: KeyUse
    received: KeyUse
    counts: Counts
    idle_seconds: float
    answer_owed: bool
    request_outstanding: bool
    obstacle: Optional[str]


class ConnectionInfo(_keyupdate.View):
    """A managed connection as it was at one moment.

    Its attributes cannot be set; ``as_dict()`` has them all. Two are equal if all of
    these are. A copy that was pickled has no ``connection``.
    """

    __slots__ = ()

    def _all(self) -> _Values:
        values: Optional[_Values] = self.told
        if values is None:
            values = self.told = self._read()
        return values

    def _read(self) -> _Values:
        number, is_server, code, cipher, *used, idle, owed, outstanding, why = (
            _keyupdate.values(self)
        )
        sent, received, counts = used
        version = VERSIONS.get(code)
        return _Values(
            number,
            self.kept_label,
            unpack(self.kept_peer),
            "server" if is_server else "client",
            self.kept_name,
            version,
            cipher,
            KeyUse(*sent),
            KeyUse(*received),
            Counts(*counts),
            idle,
            owed,
            outstanding,
            None if why is None else _obstacle(version, *why),
        )

    @property
    def connection(self) -> Any:
        """The ``SSLSocket`` or ``SSLObject``, or ``None`` if it has gone."""
        return None if self.reference is None else self.reference()

    @property
    def number(self) -> int:
        """Its number in this process, from 1 up; none comes twice."""
        return self._all().number

    @property
    def label(self) -> Optional[str]:
        """The connection's ``label``."""
        return self._all().label

    @property
    def peer(self) -> Any:
        """The connection's ``peer``: what ``getpeername()`` returned, or None."""
        return self._all().peer

    @property
    def role(self) -> str:
        """``"client"`` or ``"server"``: this side's."""
        return self._all().role

    @property
    def server_name(self) -> Optional[str]:
        """A client's ``server_hostname``."""
        return self._all().server_name

    @property
    def version(self) -> Optional[str]:
        """As ``version()`` has it, of the last complete handshake; None before."""
        return self._all().version

    @property
    def cipher(self) -> Optional[str]:
        """OpenSSL's name of the cipher suite, likewise."""
        return self._all().cipher

    @property
    def sent(self) -> KeyUse:
        """The keys under which this side sends."""
        return self._all().sent

    @property
    def received(self) -> KeyUse:
        """The keys under which the peer sends."""
        return self._all().received

    @property
    def counts(self) -> Counts:
        """How often each thing has happened."""
        return self._all().counts

    @property
    def idle_seconds(self) -> float:
        """Seconds since data went or came, or the handshake.

        It is exact to some milliseconds. Only from the first ``connections()`` or
        ``control.serve()`` of the process on, the times are noted, and what was before
        counts as then. (To note them costs a hundredth of the time of a small message.)
        """
        return self._all().idle_seconds

    @property
    def answer_owed(self) -> bool:
        """Whether the peer requested a key update; it goes out with our next write."""
        return self._all().answer_owed

    @property
    def request_outstanding(self) -> bool:
        """Whether the peer has not answered a request of ours."""
        return self._all().request_outstanding

    @property
    def obstacle(self) -> Optional[str]:
        """What speaks against new keys, in words, or None.

        Below TLS 1.3: its policy, ``OP_NO_RENEGOTIATION``, a peer without RFC 5746 or
        one that has sent close_notify. In any version: a cut, a fork, and its end (our
        close_notify, a fatal alert, an error). It is None in the first handshake
        (``version`` is None), too, which gives it new keys anyway. What passes by
        itself, such as data that is not yet read, is no obstacle. Nor is known here
        that the keys are in the kernel, or that an ``SSLObject``'s transport was lost.
        """
        return self._all().obstacle

    def as_dict(self) -> dict[str, Any]:
        """Return a new dict of all attributes but ``connection``."""
        return self._all()._asdict()

    def __repr__(self) -> str:
        return f"ConnectionInfo{repr(self._all())[len('_Values') :]}"

    def __eq__(self, other: object) -> bool:
        if type(other) is not ConnectionInfo:
            return NotImplemented
        return self._all() == other._all()

    def __hash__(self) -> int:
        return hash(self.number)

    def __reduce__(self) -> "tuple[Any, ...]":
        return _restored, tuple(self._all())


FIELDS = _Values._fields


def _restored(*values: Any) -> ConnectionInfo:
    """Return a pickled snapshot again, without its connection."""
    info = ConnectionInfo()
    info.told = _Values(*values)
    return info


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
    _keyupdate.watch()
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
    if inner is None:
        return None
    return _keyupdate.view(
        ConnectionInfo, inner, conn._label, conn._peer, conn.server_hostname, reference
    )


def _obstacle(
    version: Optional[str],
    inherited: bool,
    cause: Optional[str],
    why_cut: Optional[str],
) -> Optional[str]:
    if inherited:
        return INHERITED
    if why_cut is not None:
        return f"its peer exceeded PeerLimits.{why_cut}"
    text = None if cause is None else _OBSTACLES.get(cause)
    return None if text is None else text.format(version=version)
