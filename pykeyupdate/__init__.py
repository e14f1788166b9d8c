"""TLS key update and renegotiation for Python's own ``ssl`` sockets.

Importing this package changes nothing. Its functions accept any connection of Python's
``ssl``, or an object that holds one; ``install()`` also makes them methods of ``ssl``'s
own classes. ``pykeyupdate.aio`` is for connections of asyncio, trio and anyio. ``aio``,
``control``, ``testing``, ``prometheus`` and ``opentelemetry`` are imported when they
are first used.
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

__version__ = "0.1.0"

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
