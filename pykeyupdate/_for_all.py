"""What a program does to all managed connections, or to those that a filter takes."""

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Optional

from . import _arguments, _keyupdate
from ._connections import INHERITED, ConnectionInfo, connections, snapshot
from ._errors import PyKeyUpdateError
from ._fields import described
from ._finding import name_of
from ._managed_classes import SSLSocket, asyncio_transport
from ._signal_handlers import is_of_signal_handler
from ._static_lookup import is_instance
from ._stats import totals

Filter = Callable[[ConnectionInfo], object]

PER_SECOND = 1000.0
BREATH = 0.02  # seconds; shorter pauses are not made
_LONGEST_PAUSE = 3600.0 * 24  # seconds; no system sleeps for any number
_FASTEST = 1e6  # connections a second; any number above counts as this


class RekeyResult(int):
    """What ``rekey_all()`` has done; as a number, how many connections have new keys.

    That is ``done`` and ``waiting`` together.

    done
        Connections whose KeyUpdate message has been made, and mostly sent: the sockets,
        and with ``aio.rekey_all()`` the objects of its event loop.
    waiting
        Connections that get new keys with their owner's next read or write (objects,
        and sockets whose policy makes them wait: ``min_interval_seconds``), or by a
        renegotiation that goes on with these. Those that turn out to be unable then
        (``ConnectionInfo.obstacle``) go on as they are.
    impossible
        Connections that cannot have new keys: close them, see ``close_all()``.
    obstacles
        How many of those have which ``ConnectionInfo.obstacle``.
    """

    done: int
    waiting: int
    impossible: int
    obstacles: dict[str, int]

    def __new__(  # noqa: PYI034 (Self is newer)
        cls, done: int = 0, waiting: int = 0, obstacles: Optional[dict[str, int]] = None
    ) -> "RekeyResult":
        self = super().__new__(cls, done + waiting)
        self.done, self.waiting = done, waiting
        self.obstacles = dict(obstacles or {})
        self.impossible = sum(self.obstacles.values())
        return self

    def __getnewargs__(self) -> tuple[int, int, dict[str, int]]:  # type: ignore[override]
        return self.done, self.waiting, self.obstacles

    def __repr__(self) -> str:
        return (
            f"<RekeyResult {int(self)}: {self.done} done, {self.waiting} waiting, "
            f"{self.impossible} impossible>"
        )

    __str__ = int.__repr__


def rekey_all(
    which: Optional[Filter] = None,
    /,
    *,
    request_peer: bool = False,
    per_second: float = PER_SECOND,
) -> RekeyResult:
    """Get new keys on all managed connections that can have them; say on how many.

    This is for an incident. A managed ``SSLSocket`` gets new keys here and now, idle or
    not, if its send buffer takes the message (27 bytes) at once. An ``SSLObject`` gets
    them with its owner's next read or write; ``request_rekey()`` has the details, and
    ``await aio.rekey_all()`` reaches those of its event loop that are idle, too. The
    call handles ``per_second`` connections a second (1000.0, because their peers may be
    one machine) and returns when all have been asked. Connections that are opened
    meanwhile, or are in their first handshake, have new keys anyway.

    ``which`` is called with the ``ConnectionInfo`` of each connection (see
    ``connections()``) and returns whether it is meant: ``rekey_all(lambda connection:
    connection.sent.age_seconds > 3600)``. ``None``, the default, means all.

    The result is a number, that of the connections that have new keys or get them;
    ``done``, ``waiting``, ``impossible`` and ``obstacles`` say more. A connection that
    cannot have new keys (TLS 1.2 without ``renegotiate=True``) goes on as it is and is
    counted as impossible: close it, by ``close_all()``. The call skips, and does not
    count at all, closed connections and those that a forked process inherited and has
    not used.

    So 10,000 connections take ten seconds, during which this thread mostly sleeps.
    Beside an event loop, use ``await aio.rekey_all()``.

    With sub-interpreters, it covers this interpreter's sockets and all interpreters'
    objects; with ``which``, only this interpreter's. Any thread may call it, and so may
    a signal handler. Raises what ``which`` raises; ``ValueError`` for a ``per_second``
    of 0 or less; ``TypeError`` for one that is not a number, for a ``request_peer``
    that is not a ``bool``, and for a ``which`` that is not a function.
    """
    tour = Rekeying("rekey_all()", which, request_peer, per_second)
    _wait_between(tour.steps())
    return tour.result()


def _wait_between(steps: Iterator[float]) -> None:
    for ahead in steps:
        if ahead > BREATH:
            time.sleep(ahead)


class Rekeying:
    """``rekey_all()``, step by step, for callers with a way of their own to wait.

    ``send`` is called with the ``ConnectionInfo`` of each ``SSLObject`` that has been
    asked for new keys, and returns whether it could send them at once.
    """

    def __init__(
        self,
        function: str,
        which: Optional[Filter],
        request_peer: bool,
        per_second: float,
        send: Callable[[ConnectionInfo], bool] = lambda _: False,
    ) -> None:
        if which is not None:
            _check_filter(function, which)
        _arguments.check_flag(function, "request_peer", request_peer)
        self._pace = _Pace(function, per_second)
        self._which = which
        self._send = send
        wanted = _keyupdate.WANTED_OF_BOTH if request_peer else _keyupdate.WANTED
        self._wanted = wanted | _keyupdate.FOR_ALL
        self._done = self._waiting = 0
        self._obstacles: dict[str, int] = {}

    def result(self) -> RekeyResult:
        """Return what has been done so far."""
        return RekeyResult(self._done, self._waiting, self._obstacles)

    def steps(self) -> Iterator[float]:
        """Do it; after each step, yield how many seconds it is ahead of its pace."""
        if self._which is None:
            yield from self._ask_all_objects()
        for info in connections():
            is_meant = self._which is None or self._which(info)
            yield self._pace.done(self._do(info) if is_meant else 0)

    def _do(self, info: ConnectionInfo) -> int:
        """Do what can be done; return how many connections were asked: 1 or 0."""
        if info.obstacle is None:
            return 0 if info.version is None else int(self._rekey(info))
        if info.obstacle != INHERITED:
            many = self._obstacles.get(info.obstacle, 0)
            self._obstacles[info.obstacle] = many + 1
        return 0

    def _ask_all_objects(self) -> Iterator[float]:
        """Ask the objects of all interpreters, which have no sockets of ours."""
        last, end = 0, totals().opened
        while last < end:
            last, some = _keyupdate.want_all(last, self._pace.batch, self._wanted)
            if some == 0:
                break
            self._waiting += some
            yield self._pace.done(some)

    def _rekey(self, info: ConnectionInfo) -> bool:
        """Get new keys on one connection; return whether it was asked for them now."""
        conn = info.connection
        is_socket = is_instance(conn, SSLSocket)
        try:
            if is_socket:
                self._rekey_socket(conn, info)
            elif conn is not None:
                return self._rekey_object(conn, info)
        except (PyKeyUpdateError, OSError, ValueError) as error:  # closed, or failed
            if is_of_signal_handler(error):
                raise
            return False
        return is_socket

    def _want(self, conn: Any) -> None:
        _keyupdate.want(conn, "rekey_all", self._wanted | _keyupdate.UNLESS_INHERITED)

    def _rekey_socket(self, sock: SSLSocket, before: ConnectionInfo) -> None:
        self._want(sock)
        sock._renew("rekey_all")
        after = snapshot(before.reference)
        if after is None:
            return
        if after.counts.key_updates_sent > before.counts.key_updates_sent:
            self._done += 1
        else:
            self._waiting += 1

    def _rekey_object(self, conn: Any, info: ConnectionInfo) -> bool:
        if self._which is not None:
            self._want(conn)
            self._waiting += 1
        is_sent = self._send(info)
        self._done += is_sent
        self._waiting -= is_sent
        return is_sent or self._which is not None


def _check_filter(function: str, which: object) -> None:
    if not _arguments.is_function(which):
        raise TypeError(
            f"{function} takes a function of a ConnectionInfo, and no `async def`, not "
            f"{name_of(which)}"
        )


class _Pace:
    """Limits work to so many items a second, in small batches."""

    def __init__(self, function: str, per_second: float) -> None:
        self.per_second = _arguments.check_number(
            function, "per_second", per_second, "above 0", lambda it: it > 0
        )
        self.batch = max(1, int(min(self.per_second, _FASTEST) * BREATH))
        self.begin = time.monotonic()
        self.count = 0

    def done(self, some: int) -> float:
        """Count items; return how many seconds too early they are done."""
        self.count += some
        ahead = self.begin + self.count / self.per_second - time.monotonic()
        return min(ahead, _LONGEST_PAUSE)


@described
class CloseResult(NamedTuple):
    """What ``close_all()`` has done, in numbers of connections.

    closed
        Sockets that have been shut down, and objects whose asyncio loop closes them.
    unreachable
        Objects of which nothing is known that could close them: others than asyncio's
        own transports move their bytes (uvloop, trio, anyio, the program).
    """

    closed: int
    unreachable: int


def close_all(which: Filter, /, *, per_second: float = PER_SECOND) -> CloseResult:
    """Close the managed connections that a filter takes.

    This is for those that ``rekey_all()`` finds impossible: ``close_all(lambda
    connection: connection.obstacle is not None)``. ``which`` is called with the
    ``ConnectionInfo`` of each (see ``connections()``) and returns whether it is meant.
    It handles ``per_second`` connections a second (1000.0, because peers connect
    again).

    On the wire: a close_notify, and the end of the connection. An ``SSLSocket`` is shut
    down in both directions and not closed. So its owner, in whatever thread, finds the
    end of the connection (``recv()`` returns ``b""`` or raises, ``send()`` raises), and
    closes the socket as it would if the peer had ended it. An asyncio transport's
    ``close()`` is called by its loop: what has been written goes out first. Nothing is
    done to other objects, nor to connections that a forked process inherited and has
    not used: they are its parent's.

    Any thread may call it. It covers the connections of this interpreter. Raises what
    ``which`` raises; ``TypeError`` for a ``which`` that is not a function or a
    ``per_second`` that is not a number; ``ValueError`` for one of 0 or less.
    """
    _check_filter("close_all()", which)
    closing = _Closing(which, _Pace("close_all()", per_second))
    _wait_between(closing.steps())
    return CloseResult(closing.closed, closing.unreachable)


class _Closing:
    def __init__(self, which: Filter, pace: _Pace) -> None:
        self._which, self._pace = which, pace
        self.closed = self.unreachable = 0

    def steps(self) -> Iterator[float]:
        for info in connections():
            is_ours = info.obstacle != INHERITED
            conn = info.connection if is_ours and self._which(info) else None
            if conn is not None:
                done = _shut(conn) if is_instance(conn, SSLSocket) else _close(conn)
                self.closed += done
                self.unreachable += not done
                yield self._pace.done(1)


def _shut(sock: SSLSocket) -> bool:
    """Say and make the end of a socket's connection, unless its owner already has."""
    try:
        with contextlib.suppress(PyKeyUpdateError, ValueError):
            sock._send_close_notify()
        sock.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        if is_of_signal_handler(error):
            raise
    return True


def _close(conn: Any) -> bool:
    """Have asyncio close an object's transport; return whether that is possible."""
    loop, transport = asyncio_transport(conn)
    if transport is None:
        return False
    try:
        loop.call_soon_threadsafe(transport.close)
    except RuntimeError as error:  # the loop is closed
        if is_of_signal_handler(error):
            raise
        return False
    return True
