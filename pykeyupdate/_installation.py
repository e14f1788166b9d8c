"""The controls as methods of ``ssl``'s classes, and managed ones behind its hooks.

Theory of operation. ``install()`` adds attributes to the two classes and does nothing
else: no class is replaced, no name is rebound and no method of ``ssl`` is overwritten.
So every connection has the methods, those opened before and those of subclasses, and
it does not matter which module imported what first. ``uninstall()`` takes back exactly
what was added, so that ``vars(cls)`` is as it was.

Two things can stand in the way, and neither is destroyed: a method of the same name
that is already there (a future Python's own, say) is left alone, and one that somebody
put in place of ours afterwards is left there. Both are named in a ``PatchWarning``.

Where somebody has put another class in the place of ``ssl``'s (gevent), that one gets
the methods too, as does the next with the next ``install()``: all that have got any are
remembered, because ``uninstall()`` may find yet another there.

Managed connections come by the hook that ``ssl`` documents for it: a context makes
sockets of its ``sslsocket_class`` and objects of its ``sslobject_class``. ``manage()``
sets those of one context, ``install()`` the ones that all contexts have by default. So
that nothing is left half done, both ask ``_context_hooks.py`` first whether that will
do.
"""

import contextlib
import ssl
import warnings
from collections.abc import Iterator
from typing import Any, Optional

from . import _arguments, _context_hooks
from ._errors import PatchWarning
from ._fork_lock import make_lock
from ._managed_classes import RULES, Defaults
from ._methods import METHODS
from ._policy import DEFAULT, PeerLimits, RekeyPolicy, Rules, make_rules

_MISSING = object()
_UNSET: Any = object()

_lock = make_lock()
_for_good = False  # install() was called, and no uninstall() since
_contexts = 0  # `with installed()` blocks that have not ended
_touched: list[Any] = []  # the classes that may have methods of ours


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
    new connections, where it gives some, and adds the methods to a class that has come
    in the place of ``ssl``'s since (gevent's). A method that is already there under one
    of the names and is not pykeyupdate's stays, with a ``PatchWarning``.

    Where connections cannot be managed because other classes are in the place of
    ``ssl``'s (gevent, eventlet, truststore) or in its hooks, it does nothing at all and
    says why in a ``PatchWarning``. Other classes of contexts that make connections in
    ways of their own are named in one each. Those that come afterwards it cannot
    notice before the next ``install()``: patch first, then install.

    Raises ``TypeError`` for what is no ``RekeyPolicy``, no ``PeerLimits`` or, of
    ``managed``, no ``bool``, and where what is in the place of ``ssl``'s class takes no
    attributes; nothing is then done. On the wire: nothing now. Thread-safe.
    """
    _arguments.check_flag("install()", "managed", managed)
    given = policy is not _UNSET or limits is not _UNSET
    wanted = make_rules(
        DEFAULT.policy if policy is _UNSET else policy,
        DEFAULT.limits if limits is _UNSET else limits,
    )
    with _lock:
        said = _install(managed or given, wanted if given else None)
    _warn("install() {}", said)


def _install(managed: bool, wanted: Optional[Rules]) -> list[str]:
    """Do all of it, or nothing; return what there is to say."""
    global _for_good  # noqa: PLW0603
    why_not = _why_not_managed() if managed or _is_hooked() else None
    if managed and why_not:
        return [f"did nothing, as connections cannot be managed: {why_not}"]
    unreached = _context_hooks.unreached() if managed else []
    said = [f"left {name} alone: it was there already" for name in _add()]
    said += [f"does not reach all contexts: {which}" for which in unreached]
    _for_good = True
    if wanted:
        Defaults.rules = wanted
    if managed:
        _set_hooks()
    elif why_not:
        said.append(f"finds that connections are managed no longer: {why_not}")
    return said


def uninstall() -> None:
    """Take the methods away again, whoever installed them, and the managed classes.

    ``vars()`` of ``ssl.SSLSocket``, ``ssl.SSLObject`` and ``ssl.SSLContext`` are then
    as before ``install()``, and so are those of the classes that were in their place
    at an ``install()``, whatever is there now. A method or class that somebody has put
    in place of ours stays, with a ``PatchWarning`` that names it. What ``manage()`` was
    called for stays managed, and so do connections that are open. Calling it again
    changes nothing. Thread-safe.
    """
    global _for_good  # noqa: PLW0603
    with _lock:
        _for_good = False
        Defaults.rules = DEFAULT
        strangers = _remove() + _reset_hooks()
    _warn("uninstall() left {} alone: it is not pykeyupdate's", strangers)


def is_installed() -> bool:
    """Return whether the methods are on both of ``ssl``'s classes now.

    So ``False`` after gevent has put another in their place, until the next
    ``install()``. Whether connections are managed, ``stats()`` says of each.
    """
    with _lock:
        return all(
            any(getattr(cls, name, None) is method for name, method in METHODS.items())
            for cls in (ssl.SSLSocket, ssl.SSLObject)
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
        strangers = _add()
        _contexts += 1
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

    A context that has another make its connections (truststore's) is followed: the
    context inside then makes classes that derive from its own and from these two. To
    find out, any context with a ``wrap_socket()`` or ``wrap_bio()`` of its own is asked
    for a connection, on which nothing is sent (and which ``totals()`` counts if it is
    managed already).

    On the wire: nothing now; see ``RekeyPolicy``. To undo it:
    ``del context.sslsocket_class, context.sslobject_class`` (not of a followed one).

    Raises ``TypeError`` for what is no ``ssl.SSLContext``, no ``RekeyPolicy`` or no
    ``PeerLimits``, and for a context whose connections are made by another class than
    ``ssl``'s: derive that one from ``pykeyupdate.SSLSocket`` or ``SSLObject``. With
    gevent or eventlet in ``ssl``'s place no sockets can be managed and every context is
    refused; ``context.sslobject_class = pykeyupdate.SSLObject`` manages its objects.
    The context is then as it was. Thread-safe.

    Source: the documentation of ``ssl.SSLContext.sslsocket_class``.
    """
    if not isinstance(context, _context_hooks.CONTEXT):
        raise TypeError(f"manage() takes an ssl.SSLContext, not {context!r}")
    wanted = make_rules(policy, limits)
    try:
        found = _context_hooks.managed_classes(context)
    except _context_hooks.UnmanageableError as error:
        raise TypeError(f"manage({context!r}): {error}") from error.__cause__
    for maker, hook, cls in found:
        setattr(maker, RULES, wanted)
        setattr(maker, hook.name, cls)


def _why_not_managed() -> Optional[str]:
    try:
        _context_hooks.check_all_contexts()
    except _context_hooks.UnmanageableError as error:
        return str(error)
    return None


def _is_hooked() -> bool:
    return any(
        vars(_context_hooks.CONTEXT).get(hook.name) is hook.ours
        for hook in _context_hooks.HOOKS
    )


def _set_hooks() -> None:
    for hook in _context_hooks.HOOKS:
        if vars(_context_hooks.CONTEXT)[hook.name] is hook.theirs:
            setattr(_context_hooks.CONTEXT, hook.name, hook.ours)


def _reset_hooks() -> list[str]:
    """Put back what was there; return what is neither that nor ours."""
    strangers = []
    for hook in _context_hooks.HOOKS:
        there = vars(_context_hooks.CONTEXT).get(hook.name)
        if there is hook.ours:
            setattr(_context_hooks.CONTEXT, hook.name, hook.theirs)
        elif there is not hook.theirs:
            strangers.append(f"ssl.SSLContext.{hook.name} ({there!r})")
    return strangers


def _classes() -> list[Any]:
    """Return ssl's own two, those in their place now, and those that were."""
    now = ssl.SSLSocket, ssl.SSLObject
    return list(
        dict.fromkeys((_context_hooks.SOCKET, _context_hooks.OBJECT, *now, *_touched))
    )


def _add() -> list[str]:
    """Add what is missing, or nothing; return what is in the way."""
    strangers = []
    added: list[tuple[Any, str]] = []
    try:
        for cls in _classes():
            for name, method in METHODS.items():
                there = getattr(cls, name, _MISSING)
                if there is _MISSING:
                    setattr(cls, name, method)
                    added.append((cls, name))
                elif there is not method:
                    strangers.append(_describe(cls, name, there))
    except BaseException:
        for cls, name in added:
            delattr(cls, name)
        raise
    _touched[:] = _classes()
    return strangers


def _remove() -> list[str]:
    """Remove what is ours; return what is no longer."""
    strangers = []
    for cls in _classes():
        for name, method in METHODS.items():
            there = vars(cls).get(name, _MISSING)
            if there is method:
                delattr(cls, name)
            elif there is not _MISSING:
                strangers.append(_describe(cls, name, there))
    _touched.clear()
    return strangers


def _describe(cls: type, name: str, there: object) -> str:
    module = getattr(there, "__module__", None)
    owner = getattr(there, "__qualname__", None) or repr(there)
    return f"{cls.__module__}.{cls.__name__}.{name} ({module}.{owner})"


def _warn(text: str, strangers: list[str], frames: int = 3) -> None:
    """Warn at the caller's line; contextlib puts a frame in between."""
    for stranger in strangers:
        warnings.warn(text.format(stranger), PatchWarning, stacklevel=frames)
