"""Requests to a managed connection: new keys, and exceptions to the rules."""

import contextlib
from collections.abc import Iterator
from typing import Any

from . import _arguments, _keyupdate
from ._errors import PyKeyUpdateError


def request_rekey(conn: Any, /, *, request_peer: bool = False) -> None:
    """Have a managed connection get new keys with its next read or write.

    This is for threads other than the connection's owner. It sets a mark, and the
    owner's next call changes keys as a policy would, with or without one. If that is
    not possible yet (``min_interval_seconds``, a write half done), the request stays
    pending. ``request_peer`` also asks for the peer's new keys (default ``False``, as
    for ``rekey()``). A connection that cannot have new keys (below TLS 1.3, unless the
    policy says ``renegotiate=True``) goes on as it is, and nothing is counted.

    Nothing happens while the owner neither reads nor writes. (On an ``SSLSocket`` any
    thread may call ``rekey()`` instead.)

    Raises ``NotManagedError``, ``ConnectionClosedError``, ``NotATLSConnectionError`` (a
    ``TypeError``); ``TypeError`` for a ``request_peer`` that is not a ``bool``. On the
    wire: nothing by itself. Thread-safe.
    """
    _arguments.check_flag("request_rekey()", "request_peer", request_peer)
    wanted = _keyupdate.WANTED_OF_BOTH if request_peer else _keyupdate.WANTED
    _keyupdate.want(conn, "request_rekey", wanted)


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
