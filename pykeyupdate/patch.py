"""The controls as methods of ``ssl.SSLSocket`` and ``ssl.SSLObject``.

Theory of operation. ``install()`` adds attributes to the two classes and does nothing
else: no class is replaced, no name is rebound and no method of ``ssl`` is overwritten.
So every connection has the methods, those opened before and those of subclasses, and
it does not matter which module imported what first. ``uninstall()`` takes back exactly
what was added, so that ``vars(cls)`` is as it was.

Two things can stand in the way, and neither is destroyed: a method of the same name
that is already there (a future Python's own, say) is left alone, and one that somebody
put in place of ours afterwards is left there. Both are named in a ``PatchWarning``.
"""

import contextlib
import os
import ssl
import threading
import warnings
from collections.abc import Iterator
from typing import Any, Callable, Literal, Optional, Union

from . import _keyupdate, sync
from .constants import KeyUpdateType
from .errors import PatchWarning
from .performing import ClientCertificate

_MISSING = object()
_CLASSES = (ssl.SSLSocket, ssl.SSLObject)


class _Methods:
    """What is installed: each method is the function of the same name."""

    def key_update(
        self: Any,
        update_type: Union[KeyUpdateType, Literal[0, 1]] = KeyUpdateType.NOT_REQUESTED,
    ) -> None:
        return _keyupdate.key_update(self, update_type)

    def get_key_update_type(self: Any) -> KeyUpdateType:
        return _keyupdate.get_key_update_type(self)

    def renegotiate(self: Any) -> None:
        return _keyupdate.renegotiate(self)

    def renegotiate_abbreviated(self: Any) -> None:
        return _keyupdate.renegotiate_abbreviated(self)

    def renegotiate_pending(self: Any) -> bool:
        return _keyupdate.renegotiate_pending(self)

    def secure_renegotiation(self: Any) -> bool:
        return _keyupdate.secure_renegotiation(self)

    def total_renegotiations(self: Any) -> int:
        return _keyupdate.total_renegotiations(self)

    def rekey(self: Any, *, request_peer: bool = False) -> None:
        sync.rekey(self, request_peer=request_peer)

    def flush(self: Any) -> None:
        sync.flush(self)

    def wait_for_renegotiation(self: Any, timeout: Optional[float] = None) -> None:
        sync.wait_for_renegotiation(self, timeout)

    def request_client_certificate(
        self: Any, timeout: Optional[float] = None
    ) -> ClientCertificate:
        return sync.request_client_certificate(self, timeout)


_METHODS: dict[str, Callable[..., object]] = {
    name: method for name, method in vars(_Methods).items() if name[0] != "_"
}
for _name, _method in _METHODS.items():
    _method.__doc__ = (getattr(sync, _name, None) or getattr(_keyupdate, _name)).__doc__

# Reentrant, and free in a child: a signal handler may call install() too, and a thread
# that holds the lock while another forks does not exist in the child.
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire,
        after_in_parent=_lock.release,
        after_in_child=_lock.release,
    )
_for_good = False  # install() was called, and no uninstall() since
_contexts = 0  # `with installed()` blocks that have not ended


def install() -> None:
    """Make the controls methods of every ``ssl.SSLSocket`` and ``ssl.SSLObject``.

    For applications: ``sock.key_update()`` is then ``pykeyupdate.key_update(sock)``, on
    connections that are already open too. Libraries should call the functions and
    leave other people's classes alone.

    Nothing of ``ssl`` is replaced. Calling it again changes nothing. A method that is
    already there under one of the names and is not pykeyupdate's stays, with a
    ``PatchWarning``. Thread-safe.
    """
    global _for_good  # noqa: PLW0603
    with _lock:
        _for_good = True
        strangers = _add()
    _warn("install() left {} alone: it was there already", strangers)


def uninstall() -> None:
    """Take the methods away again, whoever installed them.

    ``vars(ssl.SSLSocket)`` and ``vars(ssl.SSLObject)`` are then as before
    ``install()``. A method that somebody has put in place of ours stays, with a
    ``PatchWarning`` that names it. Calling it again changes nothing. Thread-safe.
    """
    global _for_good  # noqa: PLW0603
    with _lock:
        _for_good = False
        strangers = _remove()
    _warn("uninstall() left {} alone: it is not pykeyupdate's", strangers)


def is_installed() -> bool:
    """Return whether the methods are on ``ssl``'s classes now."""
    with _lock:
        return any(
            vars(cls).get(name) is method
            for cls in _CLASSES
            for name, method in _METHODS.items()
        )


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Have the methods for the length of a ``with`` block, for tests above all.

    Blocks may nest and overlap, in several threads too: the methods go when the last
    of them ends, unless ``install()`` has been called. The classes are the whole
    process's, so other threads see the methods as well.
    """
    global _contexts  # noqa: PLW0603
    with _lock:
        _contexts += 1
        strangers = _add()
    try:
        _warn("installed() left {} alone: it was there already", strangers, frames=4)
        yield
    finally:
        with _lock:
            _contexts -= 1
            strangers = [] if _for_good or _contexts else _remove()
        _warn("installed() left {} alone: it is not pykeyupdate's", strangers, frames=4)


def _add() -> list[str]:
    """Add what is missing; return what is in the way."""
    strangers = []
    for cls in _CLASSES:
        for name, method in _METHODS.items():
            there = getattr(cls, name, _MISSING)
            if there is _MISSING:
                setattr(cls, name, method)
            elif there is not method:
                strangers.append(_describe(cls, name, there))
    return strangers


def _remove() -> list[str]:
    """Remove what is ours; return what is no longer."""
    strangers = []
    for cls in _CLASSES:
        for name, method in _METHODS.items():
            there = vars(cls).get(name, _MISSING)
            if there is method:
                delattr(cls, name)
            elif there is not _MISSING:
                strangers.append(_describe(cls, name, there))
    return strangers


def _describe(cls: type, name: str, there: object) -> str:
    module = getattr(there, "__module__", None)
    owner = getattr(there, "__qualname__", None) or repr(there)
    return f"ssl.{cls.__name__}.{name} ({module}.{owner})"


def _warn(text: str, strangers: list[str], frames: int = 3) -> None:
    """Warn at the caller's line; contextlib puts a frame in between."""
    for stranger in strangers:
        warnings.warn(text.format(stranger), PatchWarning, stacklevel=frames)
