"""Requests to managed connections: new keys, and exceptions to the rules."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from . import _arguments, _keyupdate
from ._errors import PyKeyUpdateError
from ._managed_classes import SSLSocket, all_sockets
from ._signal_handlers import is_of_signal_handler
from ._stats import totals

_PER_SECOND = 1000.0
_FASTEST = 1e6  # connections a second; any number above counts as this
_BREATH = 0.02  # seconds between two batches


def request_rekey(conn: Any, /, *, request_peer: bool = False) -> None:
    """Have a managed connection get new keys with its next read or write.

    This is for threads other than the connection's owner. It sets a mark, and the
    owner's next call does what ``RekeyPolicy`` does when a limit is reached, with or
    without a policy. If that is not possible yet (``min_interval_seconds``, a write
    half done), the request stays pending. ``request_peer`` also asks for the peer's new
    keys (default ``False``, as for ``rekey()``). TLS 1.2 and below: only if the policy
    says ``renegotiate=True``.

    Nothing happens while the owner neither reads nor writes. (On an ``SSLSocket`` any
    thread may call ``rekey()`` instead.)

    Raises ``NotManagedError``, ``ConnectionClosedError``, ``NotATLSConnectionError`` (a
    ``TypeError``); ``TypeError`` for a ``request_peer`` that is not a ``bool``. On the
    wire: nothing by itself. Thread-safe.
    """
    _arguments.check_flag("request_rekey()", "request_peer", request_peer)
    wanted = _keyupdate.WANTED_OF_BOTH if request_peer else _keyupdate.WANTED
    _keyupdate.want(conn, "request_rekey", wanted)


def rekey_all(*, request_peer: bool = False, per_second: float = _PER_SECOND) -> int:
    """Get new keys on all managed connections that can have them; return their number.

    This is for an incident. A managed ``SSLSocket`` gets new keys here and now, idle or
    not, if its send buffer takes the message (27 bytes) at once. An ``SSLObject`` gets
    them with its owner's next read or write; ``request_rekey()`` has the details. The
    call handles ``per_second`` connections a second (1000.0, because their peers may be
    one machine) and returns when all have been asked. Connections that are opened
    meanwhile, or are in their first handshake, have new keys anyway.

    A connection that cannot have new keys (TLS 1.2 without ``renegotiate=True``) goes
    on as it is and is not counted: close it. The call also skips, and does not count,
    closed connections and those that a forked process inherited and has not used.

    So 10,000 connections take ten seconds, during which this thread mostly sleeps.
    Beside an event loop, call it with ``asyncio.to_thread()`` or the like.

    With sub-interpreters, it covers this interpreter's sockets and all interpreters'
    objects. Any thread may call it, and so may a signal handler. Raises ``ValueError``
    for a ``per_second`` of 0 or less; ``TypeError`` for one that is not a number, and
    for a ``request_peer`` that is not a ``bool``.
    """
    _arguments.check_flag("rekey_all()", "request_peer", request_peer)
    pace = _Pace(
        _arguments.check_number(
            "rekey_all()", "per_second", per_second, "above 0", lambda it: it > 0
        )
    )
    wanted = _keyupdate.WANTED_OF_BOTH if request_peer else _keyupdate.WANTED
    wanted |= _keyupdate.FOR_ALL
    count, last, end = 0, 0, totals().opened
    for sock in all_sockets():
        if _rekey_socket(sock, wanted):
            count += 1
            pace.done(1)
    while last < end:
        last, some = _keyupdate.want_all(last, pace.batch, wanted)
        if some == 0:
            break
        count += some
        pace.done(some)
    return count


def _rekey_socket(sock: SSLSocket, wanted: int) -> bool:
    """Get new keys on a socket; return whether it can have them."""
    try:
        if not _can_renew(sock):
            return False
        _keyupdate.want(sock, "rekey_all", wanted | _keyupdate.UNLESS_INHERITED)
        sock._renew("rekey_all")
    except (PyKeyUpdateError, OSError, ValueError) as error:  # closed, or failed
        if is_of_signal_handler(error):
            raise
        return False
    return True


def _can_renew(sock: SSLSocket) -> bool:
    """Return whether a socket can have new keys: ``can_renew`` in ext/keys/ledger.h."""
    duplex: Any = sock._sslobj  # a derived class may override cipher()
    if duplex is None:
        return False
    cipher = duplex.cipher()  # has the version in the middle of a handshake, too
    policy = sock._rules.policy
    return cipher is not None and (
        cipher[1] == "TLSv1.3" or (policy is not None and policy.renegotiate)
    )


class _Pace:
    """Limits work to so many items a second, in small batches."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self.batch = max(1, int(min(per_second, _FASTEST) * _BREATH))
        self.begin = time.monotonic()
        self.count = 0

    def done(self, some: int) -> None:
        self.count += some
        ahead = self.begin + self.count / self.per_second - time.monotonic()
        if ahead > _BREATH:
            time.sleep(ahead)


@contextlib.contextmanager
def allow_renegotiation(conn: Any) -> Iterator[None]:
    """Let the peer of a managed connection renegotiate for the length of a block.

    TLS 1.2 and below. Inside the block, renegotiation is allowed as with ``"freely"``,
    whatever ``PeerLimits.renegotiation`` and the context's options say
    (``OP_NO_RENEGOTIATION`` is off, ``OP_ALLOW_CLIENT_RENEGOTIATION`` is on).
    Afterwards they are as before. ``PeerLimits.renegotiations`` still limits how often
    the peer may renegotiate. The end of the block does not end a renegotiation that has
    begun. Blocks may nest.

    Raises ``NotManagedError``, ``ConnectionClosedError``, ``NotATLSConnectionError`` (a
    ``TypeError``). On the wire: nothing. Threads: as for ``rekey()``.
    """
    _keyupdate.allow(conn, "allow_renegotiation", 1)
    try:
        yield
    finally:
        with contextlib.suppress(PyKeyUpdateError):  # closed meanwhile
            _keyupdate.allow(conn, "allow_renegotiation", -1)
