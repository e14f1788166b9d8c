"""The controls as methods of ``ssl``'s classes, and managed sockets behind its hook.

Theory of operation. ``install()`` adds attributes to the two classes and does nothing
else: no class is replaced, no name is rebound and no method of ``ssl`` is overwritten.
So every connection has the methods, those opened before and those of subclasses, and
it does not matter which module imported what first. ``uninstall()`` takes back exactly
what was added, so that ``vars(cls)`` is as it was.

Two things can stand in the way, and neither is destroyed: a method of the same name
that is already there (a future Python's own, say) is left alone, and one that somebody
put in place of ours afterwards is left there. Both are named in a ``PatchWarning``.

Managed sockets come by the hook that ``ssl`` documents for it: a context makes sockets
of its ``sslsocket_class``. ``manage()`` sets that of one context, ``install()`` the one
that all contexts have by default.
"""

import contextlib
import os
import ssl
import threading
import warnings
from collections.abc import Iterator

from .errors import PatchWarning
from .methods import METHODS
from .sockets import SSLSocket

_MISSING = object()
_CLASSES = (ssl.SSLSocket, ssl.SSLObject)
_HOOK = "sslsocket_class"

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


def install(*, managed: bool = False) -> None:
    """Make the controls methods of every ``ssl.SSLSocket`` and ``ssl.SSLObject``.

    For applications: ``sock.key_update()`` is then ``pykeyupdate.key_update(sock)``, on
    connections that are already open too. Libraries should call the functions and
    leave other people's classes alone.

    With ``managed``, all contexts make ``pykeyupdate.SSLSocket`` from now on, as
    ``manage()`` has one context do (default ``False``, because it changes how every
    socket of the process is read and written). Connections that are open stay as they
    are.

    Nothing of ``ssl`` is replaced. Calling it again changes nothing. A method that is
    already there under one of the names and is not pykeyupdate's stays, and so does
    another class in the place of ``ssl.SSLSocket``, with a ``PatchWarning``.
    Thread-safe.
    """
    global _for_good  # noqa: PLW0603
    with _lock:
        _for_good = True
        strangers = _add() + (_add_hook() if managed else [])
    _warn("install() left {} alone: it was there already", strangers)


def uninstall() -> None:
    """Take the methods away again, whoever installed them, and the managed sockets.

    ``vars()`` of ``ssl.SSLSocket``, ``ssl.SSLObject`` and ``ssl.SSLContext`` are then
    as before ``install()``. A method or class that somebody has put in place of ours
    stays, with a ``PatchWarning`` that names it. What ``manage()`` was called for stays
    managed, and so do connections that are open. Calling it again changes nothing.
    Thread-safe.
    """
    global _for_good  # noqa: PLW0603
    with _lock:
        _for_good = False
        strangers = _remove() + _remove_hook()
    _warn("uninstall() left {} alone: it is not pykeyupdate's", strangers)


def is_installed() -> bool:
    """Return whether the methods are on ``ssl``'s classes now."""
    with _lock:
        return any(
            vars(cls).get(name) is method
            for cls in _CLASSES
            for name, method in METHODS.items()
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


def manage(context: ssl.SSLContext) -> None:
    """Have a context make ``pykeyupdate.SSLSocket`` from now on.

    Its sockets may be used by any number of threads at the same time, and are
    ``ssl.SSLSocket`` in every other way; see ``SSLSocket``. Sockets that it has made
    before stay as they are. Libraries may call it for contexts of their own.

    On the wire: nothing. To undo it: ``del context.sslsocket_class``.

    Raises ``TypeError`` for what is no ``ssl.SSLContext``, and for a context whose
    sockets are made by another class than ``ssl.SSLSocket``: derive that one from
    ``pykeyupdate.SSLSocket``. Calling it again changes nothing. Thread-safe.

    Source: the documentation of ``ssl.SSLContext.sslsocket_class``.
    """
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"manage() takes an ssl.SSLContext, not {context!r}")
    cls = context.sslsocket_class
    if issubclass(cls, SSLSocket):
        return
    if cls is not ssl.SSLSocket:
        raise TypeError(
            f"manage({context!r}): its sslsocket_class is {cls!r}; derive that class "
            "from pykeyupdate.SSLSocket instead"
        )
    context.sslsocket_class = SSLSocket


def _add_hook() -> list[str]:
    """Have all contexts make managed sockets; return what is in the way."""
    there = vars(ssl.SSLContext)[_HOOK]
    if there is ssl.SSLSocket:
        setattr(ssl.SSLContext, _HOOK, SSLSocket)
    return [] if there in (ssl.SSLSocket, SSLSocket) else [_describe_hook(there)]


def _remove_hook() -> list[str]:
    """Give back ``ssl``'s own class; return what is there instead of ours."""
    there = vars(ssl.SSLContext)[_HOOK]
    if there is SSLSocket:
        setattr(ssl.SSLContext, _HOOK, ssl.SSLSocket)
    return [] if there in (ssl.SSLSocket, SSLSocket) else [_describe_hook(there)]


def _describe_hook(there: object) -> str:
    return f"ssl.SSLContext.{_HOOK} ({there!r})"


def _add() -> list[str]:
    """Add what is missing; return what is in the way."""
    strangers = []
    for cls in _CLASSES:
        for name, method in METHODS.items():
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
        for name, method in METHODS.items():
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
