"""What a program asks of managed connections: new keys, and exceptions to the rules."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from . import _arguments, _keyupdate
from ._errors import PyKeyUpdateError
from ._managed_classes import SSLSocket, all_sockets
from ._signal_handlers import is_of_signal_handler
from ._stats import totals

_WANTED, _WANTED_OF_BOTH, _UNLESS_INHERITED = 1, 2, 4  # enum in ext/keys/ledger.h
_PER_SECOND = 1000.0
_FASTEST = 1e6  # connections a second; what is above counts as this
_BREATH = 0.02  # seconds between two batches


def request_rekey(conn: Any, /, *, request_peer: bool = False) -> None:
    """Have a managed connection get new keys with its next read or write.

    For other threads than the one that owns the connection: it sets a mark, and the
    owner's next call does what ``RekeyPolicy`` does when a limit is reached, with or
    without a policy. Where that cannot be now (``min_interval_seconds``, a write half
    done) it stays wanted. ``request_peer`` asks for the peer's new keys too (default
    ``False``, as for ``rekey()``). TLS 1.2 and below: only where the policy says
    ``renegotiate=True``.

    An owner that neither reads nor writes takes no notice. (Of an ``SSLSocket`` any
    thread may call ``rekey()`` instead.)

    Raises ``NotManagedError``, ``ConnectionClosedError``, ``NotATLSConnectionError`` (a
    ``TypeError``); ``TypeError`` for a ``request_peer`` that is no ``bool``. On the
    wire: nothing by itself. Thread-safe.
    """
    _arguments.check_flag("request_rekey()", "request_peer", request_peer)
    wanted = _WANTED_OF_BOTH if request_peer else _WANTED
    _keyupdate.want(conn, "request_rekey", wanted)


def rekey_all(*, request_peer: bool = False, per_second: float = _PER_SECOND) -> int:
    """Get new keys on all managed connections that can; return how many those are.

    For an incident. A managed ``SSLSocket`` gets them here and now, idle or not, as
    far as its send buffer takes the message (27 bytes) at once; an ``SSLObject`` with
    its owner's next read or write, as in ``request_rekey()``, which says more. It takes
    on ``per_second`` connections a second (1000.0: their peers may be one machine) and
    returns when all have been asked; connections that are opened meanwhile, or in their
    first handshake, have new keys anyway.

    What cannot have new keys (TLS 1.2 without ``renegotiate=True``) goes on as it is
    and is not counted: close it. Passed over and not counted is also what is closed,
    and what a forked process has from its parent and has not used.

    So 10,000 connections take ten seconds, in which this thread mostly sleeps: beside
    an event loop, call it with ``asyncio.to_thread()`` or the like.

    Of sub-interpreters the sockets are this one's, the objects all. Any thread may call
    it, and a signal handler. Raises ``ValueError`` for a ``per_second`` of 0 or less,
    ``TypeError`` for one that is no number and a ``request_peer`` that is no ``bool``.
    """
    _arguments.check_flag("rekey_all()", "request_peer", request_peer)
    _arguments.check_number(
        "rekey_all()", "per_second", per_second, "above 0", lambda number: number > 0
    )
    wanted = _WANTED_OF_BOTH if request_peer else _WANTED
    pace = _Pace(per_second)
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
        _keyupdate.want(sock, "rekey_all", wanted | _UNLESS_INHERITED)
        sock._renew("rekey_all")
    except (PyKeyUpdateError, OSError, ValueError) as error:  # closed, or failed
        if is_of_signal_handler(error):
            raise
        return False
    return True


def _can_renew(sock: SSLSocket) -> bool:
    """Return of a socket what ``ext/keys/ledger.c`` knows of all: ``can_renew``."""
    cipher = sock.cipher()  # names the version in the middle of a handshake, too
    policy = sock._rules.policy
    return cipher is not None and (
        cipher[1] == "TLSv1.3" or (policy is not None and policy.renegotiate)
    )


class _Pace:
    """So many a second, in small batches."""

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

    TLS 1.2 and below. Inside, ``PeerLimits``' ``renegotiation`` and the context's
    options count as ``"freely"`` (``OP_NO_RENEGOTIATION`` off, and on
    ``OP_ALLOW_CLIENT_RENEGOTIATION``); afterwards they are as before. How often it may
    is still limited. A renegotiation that has begun is not ended by the block's end.
    Blocks may nest.

    Raises ``NotManagedError``, ``ConnectionClosedError``, ``NotATLSConnectionError`` (a
    ``TypeError``). On the wire: nothing. Threads: as ``rekey()``.
    """
    _keyupdate.allow(conn, "allow_renegotiation", 1)
    try:
        yield
    finally:
        with contextlib.suppress(PyKeyUpdateError):  # closed meanwhile
            _keyupdate.allow(conn, "allow_renegotiation", -1)
