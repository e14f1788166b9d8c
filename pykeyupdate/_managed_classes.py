"""The managed connections: ``SSLSocket`` and ``SSLObject``.

For each of them the extension keeps a ledger (``ext/keys/ledger.h``) with the rules of
its context: when to change keys, and what the peer may do. An ``SSLObject`` is an
``ssl.SSLObject`` whose ``read()`` and ``write()``, in C, apply these rules. An
``SSLSocket`` is more: any number of threads may use it.

Theory of operation of the socket. OpenSSL allows one thread at a time in a connection.
The ``ssl`` module gives OpenSSL the socket itself, so a thread that waits for data
waits *inside* OpenSSL, and another thread that sends meanwhile is inside as well. That
works until a key changes, a session ticket arrives or the socket has a timeout.

Here OpenSSL reads and writes memory and never waits (``ext/streams/pump.c`` says how
reading, writing and waiting work together). All of that is in an object that replaces
``ssl``'s own in ``_sslobj``. So ``makefile()``, ``do_handshake()``, ``unwrap()`` and
all other methods are ``ssl.SSLSocket``'s own code, of whatever Python this runs on; the
six that move data do the same in C (``ext/streams/socket_methods.c``). This module
makes that object, and closes it even while other threads are in it.
"""

import contextlib
import socket
import ssl
import sys
import weakref
from types import FrameType
from typing import Any, Callable, Optional

from . import _idle_sockets, _keyupdate
from ._describing import Described, describe, pack
from ._events import no_transport
from ._methods import Methods
from ._originals import OBJECT, SOCKET
from ._policy import DEFAULT, Rules
from ._weak_list import WeakList

RULES = "_pykeyupdate_rules"
"""The attribute of a managed context that holds its ``Rules``."""

_sockets: "WeakList[SSLSocket]" = WeakList()
_objects: "WeakList[SSLObject]" = WeakList()


class Defaults:
    """The rules for connections of contexts that have none of their own."""

    rules = DEFAULT


def all_references() -> "list[weakref.ref[Any]]":
    """Return weak references to all living managed connections, and to some dead."""
    return _sockets.references() + _objects.references()


def _rules_of(context: ssl.SSLContext) -> Rules:
    return vars(context).get(RULES) or Defaults.rules


class SSLObject(Described, Methods, _keyupdate.ManagedObject, OBJECT):
    """An ``ssl.SSLObject`` that looks after its keys.

    Contexts make them for asyncio, uvloop, trio and anyio, and for your own memory
    BIOs: see ``manage()`` and ``install()``. ``read()`` and ``write()`` may produce a
    KeyUpdate message, which goes into the outgoing BIO with the data.

    One thread at a time may use it, as with ``ssl.SSLObject``. If two threads collide,
    one gets ``AlreadyPendingError`` instead of a crash, and so does an ``ssl`` callback
    that reads or writes its own connection.

    asyncio's own transports get some help. Data written during a renegotiation is
    accepted and kept (up to a megabyte, or one write) until the renegotiation is
    complete, and ``unwrap()`` waits for that (``ssl.SSLWantReadError``).
    ``PeerLimitError`` is raised in the loop's next turn, after the data that came
    before. If an event's handler or an ``on_impossible`` function makes its transport
    do something in the middle of a ``read()`` or ``write()``, that happens after the
    ``read()`` or ``write()``.
    """

    _rules: Rules
    _transport: "Optional[Callable[[], Any]]"

    @classmethod
    def _create(cls, *args: Any, **kwargs: Any) -> "SSLObject":
        made: Any = super()._create(*args, **kwargs)  # type: ignore[misc]
        # read() and write() look here, wherever a derived class keeps it
        _keyupdate.ManagedObject._sslobj.__set__(made, made._sslobj)
        made._rules = _rules_of(made.context)
        made._transport = _asyncio_transport(sys._getframe(1))
        _keyupdate.open_ledger(made._sslobj, made._rules.numbers)
        _objects.add(made)
        return made  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return describe(self, f"at {id(self):#x}")

    def do_handshake(self) -> None:
        """As ``ssl.SSLObject.do_handshake()``; asyncio's transport knows the peer."""
        if self._peer is None and self._transport is not None:
            self._peer = pack(_peer_of(self._transport()))
        super().do_handshake()

    def __del__(self) -> None:
        """Tell of a connection that asyncio's transport has lost (a reset, an end).

        The transport tells its protocol, and not the object. But when all goes well,
        one of the two sides has sent a close_notify before the object is deleted.
        """
        sslobj = getattr(self, "_sslobj", None)
        is_of_asyncio = self._transport is not None and not sys.is_finalizing()
        if is_of_asyncio and sslobj is not None:
            self._transport = no_transport
            _keyupdate.lost(self, sslobj)

    def _send_close_notify(self) -> None:
        _keyupdate.close_notify(self, "write")

    def _write_backlog(self) -> bool:
        """Have asyncio's closing transport write the data that was refused before.

        The transport would not try again, and the close_notify would precede the data.
        """
        transport = self._transport() if self._transport is not None else None
        write = getattr(transport, "_do_write", None)
        if write is None:  # before Python 3.11, it closes after its backlog
            return False
        write()
        return True

    def _is_closing(self) -> bool:
        """Return whether asyncio's transport, before Python 3.11, is closing.

        Such a transport writes its backlog and then a close_notify, in one go. (Later
        versions call ``unwrap()`` first.)
        """
        transport = self._transport() if self._transport is not None else None
        return bool(getattr(transport, "_in_shutdown", False))

    def _read_again_soon(self) -> bool:
        """Have asyncio's transport read again in the loop's next turn, if it can."""
        transport = self._transport() if self._transport is not None else None
        loop = sys.modules["asyncio"]._get_running_loop()
        if transport is None or loop is None:
            return False
        if hasattr(transport, "buffer_updated"):
            loop.call_soon(transport.buffer_updated, 0)
        else:  # before Python 3.11, data_received() does not write the backlog
            loop.call_soon(transport.data_received, b"")
            loop.call_soon(transport._process_write_backlog)
        return True


def _asyncio_transport(frame: Optional[FrameType]) -> "Optional[weakref.ref[Any]]":
    """Return the asyncio SSL protocol that is creating an SSLObject, if one is.

    It calls ``wrap_bio()`` itself; before Python 3.11, its ``_SSLPipe`` does. Other
    callers (uvloop, trio, anyio, programs) need no help: see
    ``ext/streams/asyncio_help.h``.
    """
    while frame is not None and frame.f_code.co_name == "wrap_bio":
        frame = frame.f_back
    while frame is not None and frame.f_globals.get("__name__") == "asyncio.sslproto":
        maker = frame.f_locals.get("self")
        if type(maker).__name__ != "_SSLPipe":
            return None if maker is None else weakref.ref(maker)
        frame = frame.f_back
    return None


def _peer_of(protocol: Any) -> Any:
    """Return the address of the peer of an asyncio SSL protocol, if it has one."""
    transport = getattr(protocol, "_transport", None)
    return None if transport is None else transport.get_extra_info("peername")


def asyncio_transport(conn: SSLObject) -> tuple[Any, Any]:
    """Return the event loop and the transport of an object of asyncio's, or None both.

    The transport is the one that the program has.
    """
    protocol: Any = conn._transport() if conn._transport is not None else None
    transport = getattr(protocol, "_app_transport", None)
    return (None, None) if transport is None else (protocol._loop, transport)


class SSLSocket(Described, Methods, _keyupdate.ManagedSocket, SOCKET):
    """An ``ssl.SSLSocket`` that any number of threads may use at the same time.

    Contexts make them: see ``manage()`` and ``install(managed=True)``. A thread may
    wait in ``recv()`` while others send, change keys, request the certificate,
    ``unwrap()`` or ``close()``. Everything else is as in ``ssl.SSLSocket``: timeouts,
    non-blocking sockets, exceptions, ``makefile()``, ``selectors``.

    The differences:

    - The data of one ``send()`` or ``sendall()`` is never mixed with another thread's.
    - A call that raises a timeout or ``SSLWantWriteError`` half-way must be repeated
      with the same data, as with OpenSSL. Other data raises ``ssl.SSLError``
      (``BAD_WRITE_RETRY``); OpenSSL would send a broken stream.
    - ``recv()`` may return the data of several records.
    - Renegotiation (TLS 1.2): ``send()`` waits in every thread until the new handshake
      is complete, and no data is lost. It waits for ever if the peer never completes
      the handshake, or if a megabyte of data that nobody reads precedes the peer's
      answer: give the socket a timeout. Meanwhile ``version()`` returns ``None`` and
      ``getpeercert()`` raises ``ValueError``, as in ``ssl``.
    - ``close()`` makes other threads' calls raise ``OSError`` (``EBADF``).
    - A callback of the context may query its own connection and close it; a call there
      that reads, writes or schedules raises ``AlreadyPendingError``. Signal handlers
      may do anything except send in the middle of their own thread's send.
    - A fatal error is raised again by every later call, in every thread.
    - ``shutdown()`` leaves TLS on: data sent afterwards is still encrypted, and after
      ``SHUT_WR`` the peer's data can be read. (``ssl.SSLSocket`` continues in
      plaintext.)
    """

    # attributes of ssl.SSLSocket that its stubs do not have
    _context: Any
    _session: Any

    _rules: Rules
    _forget: Optional[Callable[[], None]] = None
    _sslobj: Optional[_keyupdate.Duplex]
    _peer: Any = None
    _label: Optional[str] = None

    __slots__ = ("_sslobj",)  # which ext/streams/socket_methods.c reads

    @classmethod
    def _create(cls, *args: Any, **kwargs: Any) -> "SSLSocket":
        """Refuse to make a socket while ``ssl.SSLSocket`` is another class.

        ``ssl``'s own code looks that name up, and cannot make ours then.
        """
        if ssl.SSLSocket is not SOCKET:
            raise TypeError(
                f"no {cls.__qualname__} can be made while ssl.SSLSocket is "
                f"{ssl.SSLSocket!r}: let that patch ssl before the context is made"
            )
        return super()._create(*args, **kwargs)  # type: ignore[misc,no-any-return]

    def __repr__(self) -> str:
        descriptor = self.fileno()
        return describe(self, "closed" if descriptor < 0 else f"fd={descriptor}")

    def getpeername(self) -> Any:
        """Return the peer's address, and remember it; ``ssl`` asks at the start."""
        address = super().getpeername()
        if self._peer is None:
            self._peer = pack(address)
        return address

    def do_handshake(self, block: bool = False) -> None:
        """As ``ssl.SSLSocket.do_handshake()``; remembers the peer's address."""
        if self._peer is None:
            with contextlib.suppress(OSError):
                self.getpeername()
        super().do_handshake(block)

    def _over_memory(self) -> _keyupdate.Duplex:
        """Return an object over memory, for the one over the socket of ``ssl``."""
        inner = self._context._wrap_bio(
            ssl.MemoryBIO(),
            ssl.MemoryBIO(),
            server_side=self.server_side,
            server_hostname=self.server_hostname,
            owner=self,
            session=self._session,
        )
        self._rules = _rules_of(self._context)
        _keyupdate.open_ledger(inner, self._rules.numbers)
        duplex = _keyupdate.Duplex(inner, self)
        _sockets.add(self)
        self._adopt()
        return duplex

    def _adopt(self) -> None:
        """Have this process change idle keys: it made the socket, or inherits it."""
        policy = self._rules.policy
        if policy is not None and policy.rotate_idle:
            self._forget = _idle_sockets.watch(self)

    def _send_close_notify(self) -> None:
        _keyupdate.close_notify(self, "write")
        self._renew("write")

    def _give_up(self) -> None:
        """End the connection, because its key is too old."""
        duplex = self._sslobj
        if duplex is not None:
            duplex.give_up("write")

    def _renew(self, function: str) -> None:
        """Get new keys if they are due, and send all output, without waiting."""
        duplex = self._sslobj
        if duplex is not None:
            duplex.renew(function)

    # -- the end -----------------------------------------------------------------------

    def shutdown(self, how: int) -> None:
        """Shut the socket down in one direction or both; TLS stays on."""
        socket.socket.shutdown(self, how)

    def _real_close(self) -> None:
        duplex = getattr(self, "_sslobj", None)
        if self._forget is not None:
            self._forget()
        # At exit, Python may have stopped a thread in the middle of a step.
        if duplex is not None and not sys.is_finalizing():
            duplex.close(self)
        super()._real_close()  # type: ignore[misc]


_keyupdate.set_socket_class(SSLSocket, vars(SSLSocket)["_sslobj"])
