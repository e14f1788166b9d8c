"""Arguments that nobody should pass, and objects that strike back when inspected."""

import _ssl
import gc
import math
import socket
import ssl
import sys
import types
import weakref
from unittest import mock

import pykeyupdate
from pykeyupdate import KeyUpdateType, _keyupdate


class Foreign(Exception):
    """Raised by an argument's own code; it is not pykeyupdate's to change."""


class ForeignExit(BaseException):
    """The same, as KeyboardInterrupt and SystemExit are."""


FOREIGN = (Foreign, ForeignExit, ReferenceError, RecursionError)


class Gives:
    """An object whose ``_sslobj`` is whatever one likes."""

    def __init__(self, value):
        self._sslobj = value


class GivesItself:
    @property
    def _sslobj(self):
        return self


class Raises:
    def __init__(self, *error):
        self.error = error

    def __getattr__(self, name):
        kind, *args = self.error
        raise kind(*args)


class Does:
    """An object that acts when its ``_sslobj`` is asked for, and then answers."""

    def __init__(self, action):
        self.action = action

    @property
    def _sslobj(self):
        return self.action()


class NeverConnected:
    """As an SSLSocket before connect(), but ``_connected`` is code."""

    _sslobj = None

    def __init__(self, action):
        self.action = action

    @property
    def _connected(self):
        return self.action()


class BadRepr:
    """No connection, and it cannot be named in a message either."""

    def __init__(self, action, sslobj=None):
        self.action = action
        self._sslobj = sslobj

    def __repr__(self):
        return self.action()


class BadMeta(type):
    def __repr__(cls):
        return cls.action()


class Recursive:
    """Asks pykeyupdate about itself, and so without end."""

    @property
    def _sslobj(self):
        return pykeyupdate.renegotiate_pending(self)

    def __repr__(self):
        return repr(self)


class Liar:
    """isinstance() takes it for an SSLSocket."""

    @property
    def __class__(self):
        return ssl.SSLSocket


class Shifter:
    """Becomes another class, without ``_sslobj``, while it is asked."""

    @property
    def _sslobj(self):
        self.__class__ = _Shifted


class _Shifted:
    @property
    def _connected(self):
        del self.nothing
        return True


class MySocket(ssl.SSLSocket):
    """A subclass, as applications have them, with a repr that fails."""

    def __repr__(self):
        raise Foreign


class MyObject(ssl.SSLObject):
    _sslobj = None


class Integer(int):
    """An int that answers differently to each who asks."""

    def __index__(self):
        raise Foreign

    __int__ = __eq__ = __hash__ = __bool__ = __index__

    def __repr__(self):
        raise Foreign


def raising(kind, *args):
    """Return code that raises: a new exception each time, they keep tracebacks."""

    def action():
        raise kind(*args)

    return action


def handmade():
    """Return an ``_ssl._SSLSocket`` without an SSL, where Python lets one be made."""
    for make in (_ssl._SSLSocket, lambda: object.__new__(_ssl._SSLSocket)):
        try:
            return make()
        except TypeError:
            pass
    return None


def dead_proxy():
    return weakref.proxy(Liar())


def _with_metaclass(action):
    return BadMeta("Named", (), {"action": staticmethod(action)})()


def _plain():
    """Objects of every kind that Python has; none is a connection."""
    return [
        None, NotImplemented, Ellipsis, True, 0, 1, -1, 2**31, 2**63, -(2**70), 10**500,
        0.0, math.nan, -math.inf, 1j, "", "x", "\udc80\0", b"", b"\0" * 9, bytearray(3),
        memoryview(b"abc"), (), (1,), [], {}, set(), frozenset(), range(3),
        slice(None),
        object, type, int, Exception, ValueError("x"), object(), lambda: None, len,
        pykeyupdate, _keyupdate, ssl, _ssl, sys, pykeyupdate.key_update,
        _ssl._SSLSocket,
        ssl.SSLSocket, ssl.SSLObject, ssl.SSLContext, KeyUpdateType,
        KeyUpdateType.REQUESTED, ssl.MemoryBIO(),
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        types.SimpleNamespace(), types.SimpleNamespace(_sslobj=None), iter(()),
        (i for i in ()), weakref.ref(Liar), sys._getframe(),
        types.ModuleType("_sslobj"),
        mock.Mock(), mock.MagicMock(_sslobj=None), mock.Mock(spec=ssl.SSLSocket),
        mock.NonCallableMock(_sslobj=None, _connected=False), Liar(), GivesItself(),
        ssl.SSLSocket.__new__(ssl.SSLSocket), ssl.SSLObject.__new__(ssl.SSLObject),
        MySocket.__new__(MySocket), MyObject.__new__(MyObject), socket.socket(),
    ]  # fmt: skip


def _striking():
    """Objects whose own code does harm, without a connection."""
    errors = [
        (Foreign, "x"),
        (ForeignExit, "x"),
        (AttributeError, "x"),
        (AttributeError,),
    ]
    actions = [
        *(raising(*error) for error in errors),
        lambda: None,
        lambda: 5,
        lambda: b"",
        lambda: "x" * 9999,
        lambda: "\udc80",
        lambda: gc.collect(0),
        lambda: type("", (str,), {})("odd"),
        lambda: True,
        lambda: False,
    ]
    values = [None, False, object(), handmade(), _ssl._SSLSocket, NotImplemented]
    return [
        *(Raises(*error) for error in errors), *map(Does, actions),
        *map(NeverConnected, actions),
        *(BadRepr(action, value) for action in actions for value in values),
        *map(_with_metaclass, actions), *map(Gives, values), handmade(), dead_proxy(),
        Shifter(),
    ]  # fmt: skip


class Arguments:
    """Arguments: a fixed stock, and some made of the world's connections."""

    def __init__(self, rng, world, nested_call):
        self.rng = rng
        self.world = world
        self.nested_call = nested_call
        self.stock = _plain() + _striking()
        self.unconnected = [
            context.wrap_socket(socket.socket())
            for context in (ssl._create_unverified_context(),)
        ]
        self.makers = [
            self._shifter, self._recursive, self._calls_back, self._closes, self._acts,
            self._only_reference, self._wrapped, self._proxy, self._bad_repr,
            self._subclass, self._unconnected,
        ]  # fmt: skip
        self.types = [
            *[0, 1, True, False, *KeyUpdateType] * 8, 2, -1, 2**31, 2**32, 2**64,
            -(2**63), Integer(0), Integer(1), Integer(7), None, 0.0, 1.0, "0", b"\0",
            [],
            KeyUpdateType, object(), BadRepr(raising(Foreign)), math.nan,
            BadRepr(raising(ForeignExit)), BadRepr(lambda: 3), mock.Mock(), Recursive,
        ]  # fmt: skip

    def connection(self):
        """Return something in the place of a connection."""
        if self.rng.random() < 0.8:
            return self.rng.choice(self.stock)
        return self.rng.choice(self.makers)()

    def update_type(self):
        return self.rng.choice(self.types)

    def wrong_signature(self):
        """Return arguments that no function here takes."""
        return self.rng.choice(
            [
                ((), {}),
                ((None, 0, 0), {}),
                ((None,) * 50, {}),
                ((), {"conn": None}),
                ((None,), {"conn": None}),
                ((None,), {"update_types": 0}),
                ((None,), {"\udc80": 0}),
                ((None,), {5: 0}),
                ((None, 0), {"update_type": 0}),
                ((), {"update_type": 0}),
            ]
        )

    def _sslobj(self):
        pair, which = self.world.some_end()
        return pair, which, pair.ends[which]._sslobj

    def _shifter(self):
        return Shifter()

    def _recursive(self):
        return Recursive() if self.rng.random() < 0.01 else Gives(None)

    def _calls_back(self):
        pair, which, sslobj = self._sslobj()

        def action():
            self.nested_call(pair.ends[which])
            return sslobj

        return Does(action)

    def _closes(self):
        """Gives the inside of a connection that is closed by then."""
        pair, _, sslobj = self._sslobj()
        if self.rng.random() < 0.9:
            return Gives(sslobj)

        def action():
            pair.close()
            return sslobj

        return Does(action)

    def _acts(self):
        sslobj = self._sslobj()[2]

        def action():
            self.world.act()
            return sslobj

        return Does(action)

    def _only_reference(self):
        """Gives a connection that lives on in our hands alone."""
        context = self.world.contexts.pairs[0][0]

        def action():
            return context.wrap_bio(
                ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost"
            )._sslobj

        return Does(action)

    def _wrapped(self):
        return Gives(Gives(self._sslobj()[2]))

    def _proxy(self):
        pair, which = self.world.some_end()
        return weakref.proxy(pair.ends[which])

    def _bad_repr(self):
        action = self.rng.choice(
            (raising(Foreign), raising(ForeignExit), self.world.act, lambda: "x")
        )
        return BadRepr(action, self._sslobj()[2])

    def _subclass(self):
        sock = MySocket.__new__(MySocket)
        sock._sslobj = self._sslobj()[2]
        return sock

    def _unconnected(self):
        return self.rng.choice(self.unconnected)
