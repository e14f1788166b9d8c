"""The controls as methods of ``ssl``'s classes, and managed classes in its hooks.

Theory of operation. ``install()`` adds attributes to the two classes and does nothing
else: it replaces no class, rebinds no name and overwrites no method of ``ssl``. So
every connection has the methods, including those opened before and those of subclasses,
and import order does not matter. ``uninstall()`` removes exactly what was added, so
that ``vars(cls)`` is as it was.

Two things can be in the way, and neither is destroyed. A method of the same name that
is already there (a future Python's own, say) is left alone. A method that somebody put
in place of ours afterwards is left there. A ``PatchWarning`` names both.

If somebody has replaced ``ssl``'s class with another (gevent), that class gets the
methods too, and so does the next replacement with the next ``install()``. All classes
that got methods are remembered, because ``uninstall()`` may find yet another in place.

Managed connections use the hooks that ``ssl`` documents: a context makes its sockets
from its ``sslsocket_class`` and its objects from its ``sslobject_class``. ``manage()``
sets the hooks of one context, ``install()`` the defaults of all contexts. Both first
ask ``_context_hooks.py`` whether that will work, so that nothing is left half done.
"""

import contextlib
import ssl
import warnings
from collections.abc import Iterator
from typing import Any, Optional

from . import _arguments, _context_hooks, _originals
from ._errors import PatchWarning
from ._finding import name_of
from ._fork_lock import make_lock
from ._managed_classes import RULES, Defaults
from ._methods import METHODS
from ._policy import DEFAULT, PeerLimits, RekeyPolicy, Rules, make_rules
from ._signal_handlers import is_of_signal_handler
from ._static_lookup import is_instance

_MISSING = object()


class _NotGiven:
    """The default of an argument for which ``None`` is a value; ``help()`` shows it."""

    def __repr__(self) -> str:
        return "<not given>"


_NOT_GIVEN: Any = _NotGiven()

_lock = make_lock()
_for_good = False  # install() was called, and no uninstall() since
_contexts = 0  # `with installed()` blocks that have not ended
_touched: list[Any] = []  # the classes that may have methods of ours


def install(
    *,
    managed: bool = False,
    policy: Optional[RekeyPolicy] = _NOT_GIVEN,
    limits: Optional[PeerLimits] = _NOT_GIVEN,
) -> None:
    """Make the controls methods of every ``ssl.SSLSocket`` and ``ssl.SSLObject``.

    For applications: ``sock.key_update()`` then calls ``pykeyupdate.key_update(sock)``,
    also on connections that are already open. Libraries should call the functions and
    leave other people's classes alone.

    With a ``policy``, ``limits`` or ``managed=True``, all contexts make managed
    connections from now on, as one context does after ``manage()``. (This is not the
    default, because it changes how every connection of the process is read and
    written.) ``policy`` defaults to ``RekeyPolicy()`` and ``limits`` to
    ``PeerLimits()``; ``None`` means none. A context for which ``manage()`` was called
    keeps its own rules. Open connections stay as they are.

    ``install()`` replaces nothing of ``ssl``. Calling it again changes only the rules
    of new connections, if rules are given, and adds the methods to a class that has
    replaced ``ssl``'s since (gevent's). An existing method of one of these names that
    is not pykeyupdate's stays, with a ``PatchWarning``.

    If connections cannot be managed because other classes have replaced ``ssl``'s
    (gevent, eventlet, truststore) or are in its hooks, ``install()`` does nothing at
    all, and a ``PatchWarning`` says why. (To find out, it asks the present
    ``ssl.SSLContext`` for a context, and the context for connections, on which it sends
    nothing.) Each other context class that overrides ``wrap_socket()`` or the like
    gets a ``PatchWarning``, because it may make connections by itself; ``install()``
    creates no context of such a class to find out. It cannot notice classes that arrive
    later until the next ``install()``: patch first, then install.

    Raises ``TypeError`` for a ``policy`` that is not a ``RekeyPolicy``, ``limits`` that
    are not ``PeerLimits`` or a ``managed`` that is not a ``bool``, and if a class that
    has replaced ``ssl``'s does not accept attributes; nothing is changed then. On the
    wire: nothing now. Thread-safe.
    """
    _arguments.check_flag("install()", "managed", managed)
    given = policy is not _NOT_GIVEN or limits is not _NOT_GIVEN
    wanted = make_rules(
        DEFAULT.policy if policy is _NOT_GIVEN else policy,
        DEFAULT.limits if limits is _NOT_GIVEN else limits,
    )
    with _lock:
        said = _install(managed or given, wanted if given else None)
    _warn("install() {}", said)


def _install(managed: bool, wanted: Optional[Rules]) -> list[str]:
    """Install everything or nothing; return the warnings to give."""
    global _for_good  # noqa: PLW0603
    why_not = _why_not_managed() if managed or _is_hooked() else None
    if managed and why_not:
        return [f"did nothing, as connections cannot be managed: {why_not}"]
    unreached = _context_hooks.unreached() if managed else []
    said = [f"left {name} alone: it was there already" for name in _add()]
    said += [f"may not reach all contexts: {which}" for which in unreached]
    _for_good = True
    if wanted:
        Defaults.rules = wanted
    if managed:
        _set_hooks()
    elif why_not:
        said.append(f"finds that connections are managed no longer: {why_not}")
    return said


def uninstall() -> None:
    """Remove the methods, whoever installed them, and the managed classes.

    ``vars()`` of ``ssl.SSLSocket``, ``ssl.SSLObject`` and ``ssl.SSLContext`` are then
    as before ``install()``. The same holds for classes that had replaced them when
    ``install()`` was called, whatever is in their place now. A method or class that
    somebody put in place of ours stays, and a ``PatchWarning`` names it. Contexts for
    which ``manage()`` was called stay managed, and so do open connections. Calling it
    again changes nothing. On the wire: nothing. Thread-safe.
    """
    global _for_good  # noqa: PLW0603
    with _lock:
        _for_good = False
        Defaults.rules = DEFAULT
        strangers = _remove() + _reset_hooks()
    _warn("uninstall() left {} alone: it is not pykeyupdate's", strangers)


def is_installed() -> bool:
    """Return whether both of ``ssl``'s present classes have the methods.

    So it returns ``False`` after gevent has replaced a class, until the next
    ``install()``. To find out whether a connection is managed, call ``stats()`` on it.
    Thread-safe.
    """
    with _lock:
        return all(
            any(getattr(cls, name, None) is method for name, method in METHODS.items())
            for cls in _originals.now()
        )


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Install the methods for the length of a ``with`` block, mainly for tests.

    Blocks may nest and overlap, also in several threads: the methods are removed when
    the last block ends, unless ``install()`` has been called. The whole process shares
    the classes, so other threads see the methods as well.
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
    """Make a context create managed connections from now on.

    Its sockets are then ``pykeyupdate.SSLSocket``, which any number of threads may use
    at the same time, and its objects (asyncio, uvloop, trio, anyio) are
    ``pykeyupdate.SSLObject``. Both look after their keys as ``policy`` says
    (``RekeyPolicy()``, because RFC 9846 section 5.5 demands that much; ``None`` for no
    policy), hold their peer to ``limits`` (``PeerLimits()``; ``None`` for none), and
    have ``stats()``. In every other way they are ``ssl.SSLSocket`` and
    ``ssl.SSLObject``.

    Connections that the context made before stay as they are. Calling ``manage()``
    again gives new connections new rules. Libraries may call it for their own contexts.

    If another context inside makes this one's connections (truststore's does),
    ``manage()`` follows it: the context inside then uses classes that derive from its
    own and from these two. To find out, ``manage()`` asks any context with its own
    ``wrap_socket()`` or ``wrap_bio()`` for a connection. It sends nothing on that
    connection (which ``totals()`` counts if it is managed already).

    On the wire: nothing now; see ``RekeyPolicy``. To undo it:
    ``del context.sslsocket_class, context.sslobject_class`` (not for a context that
    was followed).

    Raises ``TypeError`` if an argument is not an ``ssl.SSLContext``, ``RekeyPolicy`` or
    ``PeerLimits``, if the context makes connections of another class than ``ssl``'s
    (derive that class from ``pykeyupdate.SSLSocket`` or ``SSLObject``), and if it does
    not accept the attributes that this sets. The context is then as it was. Once gevent
    or eventlet has replaced ``ssl``'s classes, no sockets can be managed and every
    context is refused; ``context.sslobject_class = pykeyupdate.SSLObject`` manages its
    objects. Thread-safe.

    Source: the documentation of ``ssl.SSLContext.sslsocket_class``.
    """
    if not is_instance(context, _originals.CONTEXT):
        raise TypeError(f"manage() takes an ssl.SSLContext, not {name_of(context)}")
    wanted = make_rules(policy, limits)
    try:
        found = _context_hooks.managed_classes(context)
    except _context_hooks.UnmanageableError as error:
        raise TypeError(f"manage({name_of(context)}): {error}") from error.__cause__
    try:
        _set(found, wanted)
    except Exception as error:
        if is_of_signal_handler(error):
            raise
        raise TypeError(
            f"manage({name_of(context)}): it does not take what is set: {error!r}"
        ) from error


def _set(found: list[tuple[Any, _context_hooks.Hook, type]], wanted: Rules) -> None:
    """Set all attributes on the contexts or, if a context refuses one, none."""
    before = []
    try:
        for context, hook, cls in found:
            held = vars(context)
            before += [
                (held, name, held.get(name, _MISSING)) for name in (RULES, hook.name)
            ]
            held[RULES] = wanted
            setattr(context, hook.name, cls)
            _check_taken(context, hook, cls, wanted)
    except BaseException:
        for held, name, value in reversed(before):
            if value is _MISSING:
                held.pop(name, None)
            else:
                held[name] = value
        raise


def _check_taken(
    context: Any, hook: _context_hooks.Hook, cls: type, wanted: Rules
) -> None:
    if getattr(context, hook.name) is not cls:
        raise AttributeError(f"its {hook.name} stays what it is")
    if vars(context).get(RULES) is not wanted:
        raise AttributeError("its __dict__ keeps nothing")


def _why_not_managed() -> Optional[str]:
    try:
        _context_hooks.check_all_contexts()
    except _context_hooks.UnmanageableError as error:
        return str(error)
    return None


def _is_hooked() -> bool:
    return any(
        vars(_originals.CONTEXT).get(hook.name) is hook.ours
        for hook in _context_hooks.HOOKS
    )


def _set_hooks() -> None:
    for hook in _context_hooks.HOOKS:
        if vars(_originals.CONTEXT)[hook.name] is hook.theirs:
            setattr(_originals.CONTEXT, hook.name, hook.ours)


def _reset_hooks() -> list[str]:
    """Restore ``ssl``'s classes in the hooks; return classes that are not ours."""
    strangers = []
    for hook in _context_hooks.HOOKS:
        there = vars(_originals.CONTEXT).get(hook.name)
        if there is hook.ours:
            setattr(_originals.CONTEXT, hook.name, hook.theirs)
        elif there is not hook.theirs:
            strangers.append(f"ssl.SSLContext.{hook.name} ({there!r})")
    return strangers


def _classes() -> list[Any]:
    """Return ssl's own two classes, the present ones, and those touched before."""
    return list(dict.fromkeys((*_originals.connections(), *_touched)))


def _add() -> list[str]:
    """Add all missing methods or none; return the methods that are in the way."""
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
    """Remove our methods; return those that somebody put in their place."""
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
    """Warn at the user's line; contextlib adds a frame in between."""
    for stranger in strangers:
        warnings.warn(text.format(stranger), PatchWarning, stacklevel=frames)
