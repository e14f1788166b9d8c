"""Constants of OpenSSL that the ``ssl`` module does not export."""

import enum

__all__ = [
    "OP_ALLOW_CLIENT_RENEGOTIATION",
    "OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION",
    "KeyUpdateType",
]


class KeyUpdateType(enum.IntEnum):
    """What a TLS 1.3 KeyUpdate message asks of the peer (RFC 9846 section 4.7.3).

    NONE
        No key update is pending.
    NOT_REQUESTED
        Only the sender's keys change.
    REQUESTED
        The receiver must answer with a key update of its own.
    """

    NONE = -1
    NOT_REQUESTED = 0
    REQUESTED = 1


OP_ALLOW_CLIENT_RENEGOTIATION = 1 << 8
"""For a server's ``SSLContext.options``: let clients begin a renegotiation.

Without this option, OpenSSL 3.0 and later refuse, and the connection then ends. OpenSSL
1.1.1 always allows it (unless ``ssl.OP_NO_RENEGOTIATION`` is set) and ignores this bit.
See SSL_CTX_set_options(3).
"""

OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION = 1 << 16
"""For a server's ``SSLContext.options``: make every renegotiation a full handshake.

With this option, a client's ``renegotiate_abbreviated()`` does the same as
``renegotiate()``. See SSL_CTX_set_options(3).
"""
