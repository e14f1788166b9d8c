"""TLS key update and renegotiation for Python's own ``ssl`` sockets.

Importing this package changes nothing. Its functions take an ``ssl.SSLSocket`` or
``ssl.SSLObject``; ``install()`` makes them methods of every such object as well.
"""

try:
    from .constants import (
        OP_ALLOW_CLIENT_RENEGOTIATION,
        OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION,
        KeyUpdateType,
    )
    from .errors import (
        AlreadyPendingError,
        CloseNotifyError,
        ConnectionClosedError,
        ConnectionFailedError,
        DeferredByOpenSSLError,
        HandshakeNotDoneError,
        InsecureRenegotiationError,
        InvalidKeyUpdateTypeError,
        KernelTLSError,
        NotATLSConnectionError,
        NotNowError,
        NotPossibleError,
        PatchWarning,
        PyKeyUpdateError,
        ReadPendingError,
        RefusedByOpenSSLError,
        RenegotiationForbiddenError,
        UnsupportedByLibraryError,
        WritePendingError,
        WrongProtocolVersionError,
    )
    from ._keyupdate import (
        get_key_update_type,
        key_update,
        renegotiate,
        renegotiate_abbreviated,
        renegotiate_pending,
        secure_renegotiation,
        total_renegotiations,
    )
    from .patch import install, installed, is_installed, uninstall
except ImportError as _error:
    from .importing import reraise as _reraise

    _reraise(_error)

__version__ = "0.1.0"

__all__ = [
    "OP_ALLOW_CLIENT_RENEGOTIATION",
    "OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION",
    "AlreadyPendingError",
    "CloseNotifyError",
    "ConnectionClosedError",
    "ConnectionFailedError",
    "DeferredByOpenSSLError",
    "HandshakeNotDoneError",
    "InsecureRenegotiationError",
    "InvalidKeyUpdateTypeError",
    "KernelTLSError",
    "KeyUpdateType",
    "NotATLSConnectionError",
    "NotNowError",
    "NotPossibleError",
    "PatchWarning",
    "PyKeyUpdateError",
    "ReadPendingError",
    "RefusedByOpenSSLError",
    "RenegotiationForbiddenError",
    "UnsupportedByLibraryError",
    "WritePendingError",
    "WrongProtocolVersionError",
    "get_key_update_type",
    "install",
    "installed",
    "is_installed",
    "key_update",
    "renegotiate",
    "renegotiate_abbreviated",
    "renegotiate_pending",
    "secure_renegotiation",
    "total_renegotiations",
    "uninstall",
]
