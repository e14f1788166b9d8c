"""Finds out whether a context can make managed connections, and through which hook.

Theory of operation. ``ssl`` documents two hooks: a context makes its sockets from its
``sslsocket_class`` and its objects from its ``sslobject_class``. Other projects replace
``ssl``'s classes with their own, and then a hook may have no effect:

- gevent and eventlet replace ``ssl.SSLSocket``. ``ssl``'s own code looks the name up at
  each call, and then cannot make any other socket, neither its own nor ours.
- Their contexts, and others, have a ``wrap_socket()`` that ignores the hook.
- A truststore context contains a second context, which has its own classes in the hooks
  and makes all connections.

A subclass that replaces ``ssl.SSLContext`` does no harm by itself, because it inherits
from ``ssl``'s class. So this module works with the classes that ``ssl`` came with,
whatever has replaced them, and finds out the rest by asking. If a context's
``wrap_socket()`` or ``wrap_bio()`` is not ``ssl``'s own code, it asks the context for
one connection, on which it sends nothing. The connection shows its class, and the
context that really made it.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from itertools import takewhile
from types import FunctionType, MethodType
from typing import Any, Callable, NamedTuple

from ._finding import name_of
from ._managed_classes import SSLObject, SSLSocket
from ._originals import CONTEXT, OBJECT, SOCKET, derived
from ._static_lookup import bases_of, is_instance, names_of


class UnmanageableError(Exception):
    """A hook does not, and cannot be made to, produce managed connections."""


class Hook(NamedTuple):
    """A hook of ``ssl.SSLContext``."""

    name: str
    theirs: type
    ours: type
    method: str
    """The method of a context that uses the hook."""
    sample: Callable[..., Any]
    """A function that has this method make a connection and returns it."""


class Maker(NamedTuple):
    """The context that really makes a context's connections, and their class."""

    context: Any
    made: type


def _sample_socket(wrap_socket: Callable[..., Any], **role: Any) -> Any:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)  # a handshake, if one is begun anyway, fails at once
        made = wrap_socket(near, do_handshake_on_connect=False, **role)
        made.close()
    return made


def _sample_object(wrap_bio: Callable[..., Any], **role: Any) -> Any:
    return wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), **role)


HOOKS = (
    Hook("sslsocket_class", SOCKET, SSLSocket, "wrap_socket", _sample_socket),
    Hook("sslobject_class", OBJECT, SSLObject, "wrap_bio", _sample_object),
)


def managed_classes(context: ssl.SSLContext) -> list[tuple[Any, Hook, type]]:
    """Return which class to put into which hook of which context.

    The context is the given one or one inside it. Raises ``UnmanageableError``.
    """
    _check_sockets()
    found = []
    for hook in HOOKS:
        maker = _maker(context, hook)
        found.append((maker.context, hook, _managed(context, maker, hook)))
    return found


def check_all_contexts() -> None:
    """Raise ``UnmanageableError`` if the hooks of all contexts would have no effect.

    That is so if a hook holds another class already, or if the present
    ``ssl.SSLContext`` makes contexts that ignore the hooks. To find out, this creates
    one context, as any program would.
    """
    _check_sockets()
    for hook in HOOKS:
        there = getattr(CONTEXT, hook.name)
        if there is not hook.theirs and not _derives(there, hook.ours):
            raise UnmanageableError(_foreign("ssl.SSLContext.", hook, there))
    _check_made(ssl.SSLContext)


def _check_made(make: Callable[[Any], Any]) -> None:
    """Raise ``UnmanageableError`` if contexts that ``make`` makes ignore the hooks."""
    context = _asked(make, ssl.PROTOCOL_TLS_CLIENT)
    if not is_instance(context, CONTEXT):
        raise UnmanageableError(
            f"ssl.SSLContext is {name_of(make)}, which makes {name_of(type(context))}"
        )
    for hook in HOOKS:
        maker = _maker(context, hook)
        if not _is_reached(maker, hook):
            raise UnmanageableError(
                f"ssl.SSLContext is {name_of(make)}, which makes {maker.made!r} by "
                f"itself; {_EACH}"
            )


_EACH = "manage() each of its contexts, which follows that or says why not"


def unreached() -> list[str]:
    """Describe the other context classes that may ignore these hooks.

    These are the present subclasses that override a hook, or a method that makes
    connections. No context of somebody else's class is created to find out.
    """
    found = []
    for cls in derived(CONTEXT):
        ways = _own_ways(cls) if cls is not ssl.SSLContext else []
        if ways:
            found.append(f"{name_of(cls)} has a {', '.join(ways)} of its own; {_EACH}")
    return found


def _own_ways(cls: type) -> list[str]:
    """Return which hooks and which methods that use them a class overrides."""
    own = [*map(names_of, takewhile(lambda each: each is not CONTEXT, bases_of(cls)))]
    ways = []
    for hook in HOOKS:
        there = [each[hook.name] for each in own if hook.name in each]
        if there and not _derives(there[0], hook.ours):
            ways.append(hook.name)
        if any(hook.method in each for each in own):
            ways.append(f"{hook.method}()")
    return ways


def _check_sockets() -> None:
    if ssl.SSLSocket is not SOCKET:
        raise UnmanageableError(
            f"ssl.SSLSocket is {name_of(ssl.SSLSocket)}, and no managed sockets can be "
            f"made while that is in the place of ssl's class. "
            f"{_as_it_is(ssl.SSLSocket)}"
        )


def _as_it_is(cls: Any) -> str:
    """Return the part of a message that says what works anyway."""
    return (
        f"rekey(), the other functions and install() without management work with "
        f"connections of {getattr(cls, '__module__', cls)} as they are; SSLObjects "
        f"alone are managed with `context.sslobject_class = pykeyupdate.SSLObject`"
    )


def _maker(context: Any, hook: Hook) -> Maker:
    method = _asked(getattr, context, hook.method)
    if _is_ssls(method, context) or _asking.is_under_way(context):
        return Maker(context, getattr(context, hook.name))
    server = context.protocol == ssl.PROTOCOL_TLS_SERVER
    role = {"server_side": True} if server else {"server_hostname": "localhost"}
    with _asking.of(context):
        made = _asked(hook.sample, method, **role)
    by = _asked(getattr, made, "context")
    return Maker(by if is_instance(by, CONTEXT) else context, type(made))


def _is_ssls(method: Any, context: Any) -> bool:
    """Return whether a method is ssl's own code.

    Its class does not tell: programs also replace methods of ``ssl``'s own class.
    """
    if not (is_instance(method, MethodType) and method.__self__ is context):
        return False
    function = method.__func__
    return is_instance(function, FunctionType) and function.__globals__ is vars(ssl)


class _Asking(threading.local):
    """The contexts that this thread is asking; one may call ``manage()`` on itself."""

    contexts: tuple[Any, ...] = ()

    def is_under_way(self, context: Any) -> bool:
        """Return whether a context is being asked."""
        return any(context is one for one in self.contexts)

    @contextlib.contextmanager
    def of(self, context: Any) -> Iterator[None]:
        """Mark a context as being asked, for the length of a block."""
        before = self.contexts
        self.contexts = (*before, context)
        try:
            yield
        finally:
            self.contexts = before


_asking = _Asking()


def _asked(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call code that is not ssl's, and turn its exceptions into UnmanageableError."""
    try:
        return function(*args, **kwargs)
    except RecursionError:
        raise
    except Exception as error:
        raise UnmanageableError(
            f"its class makes connections in a way of its own, and asked for one it "
            f"raises {error!r}. If these are of its sslsocket_class and "
            f"sslobject_class, put pykeyupdate's classes there; if another context "
            f"makes them, manage() that one"
        ) from error


def _managed(context: ssl.SSLContext, maker: Maker, hook: Hook) -> type:
    there = getattr(maker.context, hook.name, None)
    if maker.made is not there:
        raise UnmanageableError(
            f"its {hook.method}() makes {maker.made!r} by itself, whatever its "
            f"{hook.name} is. {_as_it_is(maker.made)}"
        )
    if there is hook.theirs:
        return hook.ours
    if _derives(there, hook.ours):
        return there
    if maker.context is not context and _derives(there, hook.theirs):
        return _derived(there, hook.ours)
    raise UnmanageableError(_foreign("its ", hook, there))


def _derived(theirs: type, ours: type) -> type:
    """Derive a class from ours and from the class in an inner context's hook.

    That class belongs to the outer context, and may do its checks (truststore's
    verifies the certificate). So its methods come first, and their ``super()`` is ours.
    """
    space = {"__module__": theirs.__module__}
    return type(f"Managed{theirs.__name__}", (theirs, ours), space)


def _derives(cls: Any, base: type) -> bool:
    return is_instance(cls, type) and issubclass(cls, base)


def _foreign(whose: str, hook: Hook, there: Any) -> str:
    if _derives(there, hook.theirs):
        remedy = f"derive that class from pykeyupdate.{hook.ours.__name__} instead"
    else:
        remedy = _as_it_is(there)
    return f"{whose}{hook.name} is {there!r}; {remedy}"


def _is_reached(maker: Maker, hook: Hook) -> bool:
    """Return whether ``ssl.SSLContext``'s hook decides, or our class is used anyway."""
    mro = type(maker.context).__mro__
    return _derives(maker.made, hook.ours) or (
        maker.made is getattr(CONTEXT, hook.name)
        and hook.name not in vars(maker.context)
        and next(cls for cls in mro if hook.name in vars(cls)) is CONTEXT
    )
