"""What a context makes its connections of, and whether that can be a managed class.

Theory of operation. ``ssl`` documents two hooks: a context makes sockets of its
``sslsocket_class`` and objects of its ``sslobject_class``. Other projects put classes
of their own in the place of ``ssl``'s, and then a hook may lead nowhere:

- gevent and eventlet replace ``ssl.SSLSocket``. ``ssl``'s own code, which looks the
  name up at each call, then fails to make any other socket: neither its own nor ours.
- Their contexts, and others, have a ``wrap_socket()`` that never looks at the hook.
- truststore's have a second context inside, with classes of its own in the hooks, and
  that one makes all connections.

A subclass in the place of ``ssl.SSLContext`` is no matter by itself: it inherits what
``ssl``'s class has. So the classes that ``ssl`` came with are remembered here, whatever
stands in their place, and the rest is found out by asking. A context whose
``wrap_socket()`` or ``wrap_bio()`` is not ``ssl``'s is asked for one connection, on
which nothing is sent. It tells its class, and the context that really made it.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from types import MethodType
from typing import Any, Callable, NamedTuple

from ._managed_classes import SSLObject, SSLSocket


def _original(name: str, *candidates: type) -> Any:
    """Return the class that ssl came with, from those derived from it."""
    return next(
        cls
        for candidate in candidates
        for cls in candidate.__mro__
        if (cls.__module__, cls.__name__) == ("ssl", name)
    )


CONTEXT = _original("SSLContext", ssl.SSLContext)
SOCKET = _original("SSLSocket", ssl.SSLSocket, CONTEXT.sslsocket_class)
OBJECT = _original("SSLObject", ssl.SSLObject, CONTEXT.sslobject_class)


class UnmanageableError(Exception):
    """A hook does not lead, or cannot be made to lead, to managed connections."""


class NoAnswerError(UnmanageableError):
    """A class that is not ssl's could not be asked."""


class Hook(NamedTuple):
    """A hook of ``ssl.SSLContext``."""

    name: str
    theirs: type
    ours: type
    method: str
    """The method of a context that looks there."""
    sample: Callable[..., Any]
    """Have that method make a connection; return it."""


class Maker(NamedTuple):
    """Who makes the connections that a context gives out."""

    context: Any
    made: type


def _sample_socket(wrap_socket: Callable[..., Any], **role: Any) -> Any:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)  # one that insists on a handshake raises at once
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

    That context is the given one, or the one inside it. Raises ``UnmanageableError``.
    """
    _check_sockets()
    found = []
    for hook in HOOKS:
        maker = _maker(context, hook)
        found.append((maker.context, hook, _managed(context, maker, hook)))
    return found


def check_all_contexts() -> None:
    """Raise ``UnmanageableError`` where the hooks of all contexts are of no use.

    They are where another class is there already, or where the class that is
    ``ssl.SSLContext`` now would not look at them.
    """
    _check_sockets()
    for hook in HOOKS:
        there = getattr(CONTEXT, hook.name)
        if there is not hook.theirs and not _derives(there, hook.ours):
            raise UnmanageableError(_foreign("ssl.SSLContext.", hook, there))
    cls = ssl.SSLContext
    if cls is not CONTEXT:
        _check_class(cls, f"ssl.SSLContext is {cls!r}, which")


def unreached() -> list[str]:
    """Describe the other classes of contexts that do not look at these hooks.

    Of those that there are now, and as far as they can be asked.
    """
    found = []
    for cls in _subclasses(CONTEXT):
        if cls is not ssl.SSLContext and not _is_plain(cls):
            try:
                _check_class(cls, repr(cls))
            except NoAnswerError:
                pass
            except UnmanageableError as error:
                found.append(str(error))
    return found


def _subclasses(cls: Any) -> list[Any]:
    found: list[Any] = cls.__subclasses__()
    return found + [deeper for each in found for deeper in _subclasses(each)]


def _is_plain(cls: type) -> bool:
    """Return whether a class has nothing of its own where connections are made."""
    names = {name for hook in HOOKS for name in (hook.name, hook.method)}
    own = cls.__mro__[: cls.__mro__.index(CONTEXT)]
    return not any(names & vars(each).keys() for each in own)


def _check_class(cls: Callable[[Any], Any], name: str) -> None:
    """Raise where contexts of a class do not look at the hooks of all contexts."""
    context = _asked(cls, ssl.PROTOCOL_TLS_CLIENT)
    for hook in HOOKS:
        maker = _maker(context, hook)
        if not _is_reached(maker, hook):
            raise UnmanageableError(
                f"{name} makes {maker.made!r} by itself; manage() each of its "
                f"contexts, which follows that or says why not"
            )


def _check_sockets() -> None:
    if ssl.SSLSocket is not SOCKET or not issubclass(SSLSocket, SOCKET):
        raise UnmanageableError(
            f"ssl.SSLSocket is {ssl.SSLSocket!r}, and no managed sockets can be made "
            f"while another class is in its place (or was when pykeyupdate was "
            f"imported). {_as_it_is(ssl.SSLSocket)}"
        )


def _as_it_is(cls: Any) -> str:
    """Say what does work."""
    return (
        f"rekey(), the other functions and install() without management work with "
        f"connections of {getattr(cls, '__module__', cls)} as they are; SSLObjects "
        f"alone are managed with `context.sslobject_class = pykeyupdate.SSLObject`"
    )


def _maker(context: Any, hook: Hook) -> Maker:
    method = getattr(context, hook.method)
    is_ssls = method == MethodType(getattr(CONTEXT, hook.method), context)
    if is_ssls or _asking.is_under_way(context):
        return Maker(context, getattr(context, hook.name))
    server = context.protocol == ssl.PROTOCOL_TLS_SERVER
    role = {"server_side": True} if server else {"server_hostname": "localhost"}
    with _asking.of(context):
        made = _asked(hook.sample, method, **role)
    by = _asked(getattr, made, "context")
    return Maker(by if isinstance(by, CONTEXT) else context, type(made))


class _Asking(threading.local):
    """Contexts that this thread is asking: one may call ``manage()`` for itself."""

    contexts: tuple[Any, ...] = ()

    def is_under_way(self, context: Any) -> bool:
        """Return whether a context is being asked."""
        return any(context is one for one in self.contexts)

    @contextlib.contextmanager
    def of(self, context: Any) -> Iterator[None]:
        """Say that a context is being asked, for the length of a block."""
        before = self.contexts
        self.contexts = (*before, context)
        try:
            yield
        finally:
            self.contexts = before


_asking = _Asking()


def _asked(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call what is not ssl's."""
    try:
        return function(*args, **kwargs)
    except RecursionError:
        raise
    except Exception as error:
        raise NoAnswerError(
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
    """Derive a class from that of a context inside another, and from ours.

    That class belongs to the outer context, whose checks it may make (truststore's
    verifies the certificate): its methods come first, and their ``super()`` is ours.
    """
    space = {"__module__": theirs.__module__}
    return type(f"Managed{theirs.__name__}", (theirs, ours), space)


def _derives(cls: Any, base: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, base)


def _foreign(whose: str, hook: Hook, there: Any) -> str:
    if _derives(there, hook.theirs):
        remedy = f"derive that class from pykeyupdate.{hook.ours.__name__} instead"
    else:
        remedy = _as_it_is(there)
    return f"{whose}{hook.name} is {there!r}; {remedy}"


def _is_reached(maker: Maker, hook: Hook) -> bool:
    """Return whether the hook of all contexts decides here, or what does is ours."""
    mro = type(maker.context).__mro__
    return _derives(maker.made, hook.ours) or (
        maker.made is getattr(CONTEXT, hook.name)
        and hook.name not in vars(maker.context)
        and next(cls for cls in mro if hook.name in vars(cls)) is CONTEXT
    )
