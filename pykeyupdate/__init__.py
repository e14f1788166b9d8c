"""TLS key update and renegotiation for Python's own ``ssl`` sockets.

New keys on one connection (each function takes an ``ssl.SSLSocket`` or ``SSLObject``,
or an object that holds one, such as an HTTP response):

===============================  ===================================================
``rekey(conn)``                  new keys now, whatever the protocol version
``key_update(conn)``             TLS 1.3: schedule a KeyUpdate message
``get_key_update_type(conn)``    the KeyUpdate that is scheduled or owed
``renegotiate(conn)``            TLS 1.2: schedule a renegotiation, with new secrets
``renegotiate_abbreviated()``    the same, resuming the session
``renegotiate_pending(conn)``    whether a renegotiation is not yet complete
``secure_renegotiation(conn)``   whether the peer supports RFC 5746
``total_renegotiations(conn)``   how many renegotiations this side has begun
``flush(conn)``                  send what is scheduled, and the answer that is owed
``wait_for_renegotiation()``     complete a renegotiation by reading
``request_client_certificate()`` a server asks its client for a certificate
===============================  ===================================================

For connections of asyncio, uvloop, trio and anyio, ``pykeyupdate.aio`` has the same
functions as coroutines: ``await pykeyupdate.aio.rekey(writer)``.

Connections that look after their keys by themselves ("managed"):

===============================  ===================================================
``manage(context)``              a context makes managed connections from now on
``install(managed=True)``        all contexts of the process do
``RekeyPolicy``                  when managed connections change their keys
``PeerLimits``                   how much a peer may make them do
``stats(conn)``, ``totals()``    what has happened: on one connection, on all
``connections()``                every live managed connection, as a snapshot
``on_event(handler)``            be told when something happens
``request_rekey(conn)``          new keys with the owner's next read or write
``rekey_all()``, ``close_all()`` new keys for all, or the end of some: an incident
``allow_renegotiation(conn)``    let a peer renegotiate inside a ``with`` block
===============================  ===================================================

Importing the package changes nothing. ``install()`` makes the first group methods of
``ssl``'s own classes (``sock.rekey()``), ``uninstall()`` undoes it, ``is_installed()``
asks, and ``with installed():`` is for tests.

A refused call leaves the connection as it was. ``NotNowError`` means: try again after
the next read or write; ``NotPossibleError``: never on this connection. The submodules
``aio``, ``control``, ``testing``, ``prometheus`` and ``opentelemetry`` are imported
when they are first used.
"""

import typing as _typing
from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec
from types import FunctionType as _FunctionType

try:
    from ._constants import (
        OP_ALLOW_CLIENT_RENEGOTIATION,
        OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION,
        KeyUpdateType,
    )
    from ._errors import (
        AlreadyPendingError,
        CloseNotifyError,
        ConnectionClosedError,
        ConnectionFailedError,
        DeferredByOpenSSLError,
        HandshakeNotDoneError,
        InsecureRenegotiationError,
        InvalidKeyUpdateTypeError,
        KernelTLSError,
        NoPostHandshakeAuthError,
        NotATLSConnectionError,
        NotManagedError,
        NotNowError,
        NotPossibleError,
        PatchWarning,
        PeerLimitError,
        PyKeyUpdateError,
        ReadPendingError,
        RefusedByOpenSSLError,
        RekeyImpossibleError,
        RenegotiationForbiddenError,
        SharedConnectionError,
        UnsupportedByLibraryError,
        WritePendingError,
        WrongLoopError,
        WrongProtocolVersionError,
        WrongRoleError,
    )
    from ._events import Event, EventKind, on_event
    from ._policy import PeerLimits, RekeyPolicy
    from ._keyupdate import (
        get_key_update_type,
        key_update,
        renegotiate,
        renegotiate_abbreviated,
        renegotiate_pending,
        secure_renegotiation,
        total_renegotiations,
    )
    from ._rekeying import ClientCertificate
    from ._sync import (
        flush,
        rekey,
        request_client_certificate,
        wait_for_renegotiation,
    )
    from ._managed_classes import SSLObject, SSLSocket
    from ._stats import (
        ConnectionStats,
        Counts,
        CutOff,
        Histogram,
        Impossible,
        KeyChanges,
        KeySurvey,
        KeyUse,
        Totals,
        stats,
        totals,
    )
    from ._connections import ConnectionInfo, connections
    from ._managed_requests import allow_renegotiation, request_rekey
    from ._for_all import CloseResult, RekeyResult, close_all, rekey_all
    from ._installation import install, installed, is_installed, manage, uninstall
except ImportError as _error:
    from ._import_error import reraise as _reraise

    _reraise(_error)

__version__ = "0.2.0"

__all__ = [
    "OP_ALLOW_CLIENT_RENEGOTIATION",
    "OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION",
    "AlreadyPendingError",
    "ClientCertificate",
    "CloseNotifyError",
    "CloseResult",
    "ConnectionClosedError",
    "ConnectionFailedError",
    "ConnectionInfo",
    "ConnectionStats",
    "Counts",
    "CutOff",
    "DeferredByOpenSSLError",
    "Event",
    "EventKind",
    "HandshakeNotDoneError",
    "Histogram",
    "Impossible",
    "InsecureRenegotiationError",
    "InvalidKeyUpdateTypeError",
    "KernelTLSError",
    "KeyChanges",
    "KeySurvey",
    "KeyUpdateType",
    "KeyUse",
    "NoPostHandshakeAuthError",
    "NotATLSConnectionError",
    "NotManagedError",
    "NotNowError",
    "NotPossibleError",
    "PatchWarning",
    "PeerLimitError",
    "PeerLimits",
    "PyKeyUpdateError",
    "ReadPendingError",
    "RefusedByOpenSSLError",
    "RekeyImpossibleError",
    "RekeyPolicy",
    "RekeyResult",
    "RenegotiationForbiddenError",
    "SSLObject",
    "SSLSocket",
    "SharedConnectionError",
    "Totals",
    "UnsupportedByLibraryError",
    "WritePendingError",
    "WrongLoopError",
    "WrongProtocolVersionError",
    "WrongRoleError",
    "allow_renegotiation",
    "close_all",
    "connections",
    "flush",
    "get_key_update_type",
    "install",
    "installed",
    "is_installed",
    "key_update",
    "manage",
    "on_event",
    "rekey",
    "rekey_all",
    "renegotiate",
    "renegotiate_abbreviated",
    "renegotiate_pending",
    "request_client_certificate",
    "request_rekey",
    "secure_renegotiation",
    "stats",
    "total_renegotiations",
    "totals",
    "uninstall",
    "wait_for_renegotiation",
]

_OPTIONAL = {"prometheus_client": "prometheus", "opentelemetry": "opentelemetry"}
_SUBMODULES = ("aio", "control", "opentelemetry", "prometheus", "testing")


def _claim_public_names() -> None:
    """Make the public classes and functions name ``pykeyupdate`` as their module.

    Reprs, tracebacks and pickles show it. If the import has failed, the names are
    missing, and ``python -m pykeyupdate doctor`` must still run to say why.
    """
    for name in __all__:
        value = globals().get(name)
        if hasattr(value, "__module__"):
            value.__module__ = __name__
        if isinstance(value, type):  # help() names the modules of methods, too
            for method in vars(value).values():
                if isinstance(method, _FunctionType):
                    method.__module__ = __name__


_claim_public_names()

if _typing.TYPE_CHECKING:
    from . import aio as aio
    from . import control as control
    from . import opentelemetry as opentelemetry
    from . import prometheus as prometheus
    from . import testing as testing
else:  # with __getattr__(), a type checker would accept any name

    def __getattr__(name: str) -> _typing.Any:
        """Import a submodule on its first use."""
        if name in _SUBMODULES:
            return _import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the module's names, including submodules not imported yet."""
    names = {*globals(), *_SUBMODULES}
    for needed, name in _OPTIONAL.items():
        if _find_spec(needed) is None:
            names.discard(name)  # inspect and similar tools would fail on it
    return sorted(names)
