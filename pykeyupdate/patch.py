"""The controls as methods of ``ssl``'s classes, and managed ones behind its hooks.

Theory of operation. ``install()`` adds attributes to the two classes and does nothing
else: no class is replaced, no name is rebound and no method of ``ssl`` is overwritten.
So every connection has the methods, those opened before and those of subclasses, and
it does not matter which module imported what first. ``uninstall()`` takes back exactly
what was added, so that ``vars(cls)`` is as it was.

Two things can stand in the way, and neither is destroyed: a method of the same name
that is already there (a future Python's own, say) is left alone, and one that somebody
put in place of ours afterwards is left there. Both are named in a ``PatchWarning``.

Managed connections come by the hook that ``ssl`` documents for it: a context makes
sockets of its ``sslsocket_class`` and objects of its ``sslobject_class``. ``manage()``
sets those of one context, ``install()`` the ones that all contexts have by default.
"""

import contextlib
import ssl
import warnings
from collections.abc import Iterator
from typing import Any, Optional

from . import checks
from .errors import PatchWarning
from .locks import make_lock
from .methods import METHODS
from .policy import DEFAULT, PeerLimits, RekeyPolicy, rules
from .sockets import RULES, Defaults, SSLObject, SSLSocket

_MISSING = object()
_CLASSES = (ssl.SSLSocket, ssl.SSLObject)
_HOOKS = (
    ("sslsocket_class", ssl.SSLSocket, SSLSocket),
    ("sslobject_class", ssl.SSLObject, SSLObject),
)
_UNSET: Any = object()

_lock = make_lock()
_for_good = False  # install() was called, and no uninstall() since
_contexts = 0  # `with installed()` blocks that have not ended


def install(
    *,
    managed: bool = False,
    policy: Optional[RekeyPolicy] = _UNSET,
    limits: Optional[PeerLimits] = _UNSET,
) -> None:
    """Make the controls methods of every ``ssl.SSLSocket`` and ``ssl.SSLObject``.

    For applications: ``sock.key_update()`` is then ``pykeyupdate.key_update(sock)``, on
    connections that are already open too. Libraries should call the functions and
    leave other people's classes alone.

    With a ``policy``, ``limits`` or ``managed=True``, all contexts make managed
    connections from now on, as ``manage()`` has one context do (not by default, because
    it changes how every connection of the process is read and written). Where one of
    the two is not given, it is ``RekeyPolicy()`` or ``PeerLimits()``; ``None`` is none.
    A context that ``manage()`` was called for keeps what it was given. Connections that
    are open stay as they are.

    Nothing of ``ssl`` is replaced. Calling it again changes nothing but the rules of
    new connections, where it gives some. A method that is already there under one of
    the names and is not pykeyupdate's stays, and so does another class in the place of
    ``ssl.SSLSocket`` or ``ssl.SSLObject``, with a ``PatchWarning``.

    Raises ``TypeError`` for what is no ``RekeyPolicy``, no ``PeerLimits`` or, of
    ``managed``, no ``bool``. On the wire: nothing now. Thread-safe.
    """
    global _for_good  # noqa: PLW0603
    checks.flag("install()", "managed", managed)
    given = policy is not _UNSET or limits is not _UNSET
    wanted = rules(
        DEFAULT.policy if policy is _UNSET else policy,
        DEFAULT.limits if limits is _UNSET else limits,
    )
    with _lock:
        _for_good = True
        strangers = _add()
        if given:
            Defaults.rules = wanted
        if given or managed:
            strangers += _set_hooks(managed=True)
    _warn("install() left {} alone: it was there already", strangers)


def uninstall() -> None:
    """Take the methods away again, whoever installed them, and the managed classes.

    ``vars()`` of ``ssl.SSLSocket``, ``ssl.SSLObject`` and ``ssl.SSLContext`` are then
    as before ``install()``. A method or class that somebody has put in place of ours
    stays, with a ``PatchWarning`` that names it. What ``manage()`` was called for stays
    managed, and so do connections that are open. Calling it again changes nothing.
    Thread-safe.
    """
    global _for_good  # noqa: PLW0603
    with _lock:
        _for_good = False
        Defaults.rules = DEFAULT
        strangers = _remove() + _set_hooks(managed=False)
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


def manage(
    context: ssl.SSLContext,
    *,
    policy: Optional[RekeyPolicy] = DEFAULT.policy,
    limits: Optional[PeerLimits] = DEFAULT.limits,
) -> None:
    """Have a context make managed connections from now on.

    Its sockets are ``pykeyupdate.SSLSocket``, which any number of threads may use at
    the same time, and its objects (asyncio, uvloop, trio, anyio)
    ``pykeyupdate.SSLObject``.
    Both look after their keys as ``policy`` says (``RekeyPolicy()``, because RFC 9846
    section 5.5 demands that much; ``None`` for no policy), hold their peer to
    ``limits`` (``PeerLimits()``; ``None`` for none), and have ``stats()``. They are
    ``ssl.SSLSocket`` and ``ssl.SSLObject`` in every other way.

    Connections that it has made before stay as they are. Calling it again gives new
    connections new rules. Libraries may call it for contexts of their own.

    On the wire: nothing now; see ``RekeyPolicy``. To undo it:
    ``del context.sslsocket_class, context.sslobject_class``.

    Raises ``TypeError`` for what is no ``ssl.SSLContext``, no ``RekeyPolicy`` or no
    ``PeerLimits``, and for a context whose connections are made by another class than
    ``ssl``'s: derive that one from ``pykeyupdate.SSLSocket`` or ``SSLObject``.
    Thread-safe.

    Source: the documentation of ``ssl.SSLContext.sslsocket_class``.
    """
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"manage() takes an ssl.SSLContext, not {context!r}")
    wanted = rules(policy, limits)
    for name, _, ours in _HOOKS:
        there = getattr(context, name)
        if not _is_free(there) and not issubclass(there, ours):
            raise TypeError(
                f"manage({context!r}): its {name} is {there!r}; derive that class "
                f"from pykeyupdate.{ours.__name__} instead"
            )
    setattr(context, RULES, wanted)
    for name, _, ours in _HOOKS:
        if _is_free(getattr(context, name)):
            setattr(context, name, ours)


def _is_free(cls: type) -> bool:
    """Return whether a class is ssl's own, or ours as ``install()`` puts it there."""
    return any(cls in (theirs, ours) for _, theirs, ours in _HOOKS)


def _set_hooks(*, managed: bool) -> list[str]:
    """Have all contexts make managed connections, or not; return what is in the way."""
    strangers = []
    for name, theirs, ours in _HOOKS:
        old, new = (theirs, ours) if managed else (ours, theirs)
        there = vars(ssl.SSLContext)[name]
        if there is old:
            setattr(ssl.SSLContext, name, new)
        elif there is not new:
            strangers.append(_describe_hook(name, there))
    return strangers


def _describe_hook(name: str, there: object) -> str:
    return f"ssl.SSLContext.{name} ({there!r})"


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
