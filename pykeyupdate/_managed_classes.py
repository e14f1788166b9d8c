"""The managed connections: ``SSLSocket`` and ``SSLObject``.

Both have the extension keep a record beside them (``ext/keys/ledger.c``), with the
rules that their context was given: when to change keys, and what the peer may do. An
``SSLObject`` is ``ssl.SSLObject`` with a ``read()`` and ``write()`` in C that look
there. An ``SSLSocket`` is more: any number of threads may use it.

Theory of operation of the socket. OpenSSL allows one thread at a time in a connection.
The ``ssl`` module gives OpenSSL the socket itself, so a thread that waits for data
waits *inside* OpenSSL, and another that sends meanwhile is inside as well: that works
until a key changes, a session ticket comes or the socket has a timeout.

Here OpenSSL reads and writes memory and never waits (``ext/streams/pump.c`` says how
reading, writing and waiting go together). All of that is in an object that stands where
``ssl`` keeps its own, in ``_sslobj``; so ``recv()``, ``sendall()``, ``makefile()``,
``do_handshake()`` and all the rest are ``ssl.SSLSocket``'s own code, of whatever Python
this runs on. This file puts that object there, and closes it while other threads are in
it.
"""

import socket
import ssl
import sys
import weakref
from types import FrameType
from typing import Any, Optional

from . import _keyupdate
from ._identity_map import IdentityMap
from ._methods import Methods
from ._policy import DEFAULT, Rules

RULES = "_pykeyupdate_rules"
"""The attribute of a managed context that holds its ``Rules``."""

_sockets: IdentityMap[None] = IdentityMap()


class Defaults:
    """What contexts that were given no rules of their own make connections with."""

    rules = DEFAULT


def all_sockets() -> "list[SSLSocket]":
    """Return the managed sockets that there are."""
    return _sockets.keys()


def _rules_of(context: ssl.SSLContext) -> Rules:
    return vars(context).get(RULES) or Defaults.rules


class SSLObject(Methods, _keyupdate.ManagedObject, ssl.SSLObject):
    """An ``ssl.SSLObject`` that looks after its keys.

    Contexts make them for asyncio, uvloop, trio and anyio, and for your own memory
    BIOs: see ``manage()`` and ``install()``. ``read()`` and ``write()`` may make a
    KeyUpdate message, which is in the outgoing BIO with the data.

    It is used by one thread at a time, as ``ssl.SSLObject``; here two that meet get
    ``AlreadyPendingError`` instead of a crash, and so does a callback of ``ssl``'s that
    reads or writes its own connection.

    asyncio's own transports get some help: what is written in a renegotiation is taken
    and kept (up to a megabyte, or one write) until that is done; ``unwrap()`` waits for
    it (``ssl.SSLWantReadError``); ``PeerLimitError`` comes in the loop's next turn,
    behind the data that came before; and what an event's handler or an
    ``on_impossible`` function has its transport do in the middle of a ``read()`` or
    ``write()`` follows that.
    """

    _rules: Rules
    _transport: "Optional[weakref.ref[Any]]"

    @classmethod
    def _create(cls, *args: Any, **kwargs: Any) -> "SSLObject":
        made: Any = super()._create(*args, **kwargs)  # type: ignore[misc]
        made._rules = _rules_of(made.context)
        made._transport = _asyncio_transport(sys._getframe(1))
        _keyupdate.keep(made._sslobj, made._rules.numbers)
        return made  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        """Say which end it is: an address it does not have."""
        end = "server" if self.server_side else f"client of {self.server_hostname}"
        return f"<pykeyupdate.SSLObject, {end}, at {id(self):#x}>"

    def _send_close_notify(self) -> None:
        _keyupdate.close_notify(self, "write")

    def _write_backlog(self) -> bool:
        """Have asyncio's transport write what it has been refused, as it is closing.

        It would not try again, and have a close_notify in front of it.
        """
        transport = self._transport() if self._transport is not None else None
        write = getattr(transport, "_do_write", None)
        if write is None:  # Python before 3.11 closes behind what it has
            return False
        write()
        return True

    def _read_again_soon(self) -> bool:
        """Have asyncio's transport look again in its loop's next turn, if it can."""
        transport = self._transport() if self._transport is not None else None
        loop = sys.modules["asyncio"]._get_running_loop()
        if transport is None or loop is None:
            return False
        if hasattr(transport, "buffer_updated"):
            loop.call_soon(transport.buffer_updated, 0)
        else:  # Python before 3.11, where this does not write what was held back
            loop.call_soon(transport.data_received, b"")
            loop.call_soon(transport._process_write_backlog)
        return True


def _asyncio_transport(frame: Optional[FrameType]) -> "Optional[weakref.ref[Any]]":
    """Return asyncio's protocol of TLS that is having an SSLObject made, if it is one.

    It calls ``wrap_bio()`` itself, before Python 3.11 by way of its ``_SSLPipe``.
    Others (uvloop, trio, anyio, programs) need no help: see ``ext/streams/object.c``.
    """
    while frame is not None and frame.f_code.co_name == "wrap_bio":
        frame = frame.f_back
    while frame is not None and frame.f_globals.get("__name__") == "asyncio.sslproto":
        maker = frame.f_locals.get("self")
        if type(maker).__name__ != "_SSLPipe":
            return None if maker is None else weakref.ref(maker)
        frame = frame.f_back
    return None


class SSLSocket(Methods, ssl.SSLSocket):
    """An ``ssl.SSLSocket`` that any number of threads may use at the same time.

    Contexts make them: see ``manage()`` and ``install(managed=True)``. A thread may sit
    in ``recv()`` while others send, change keys, ask for the certificate, ``unwrap()``
    or ``close()``. Everything else is as in ``ssl.SSLSocket``: timeouts, non-blocking
    sockets, exceptions, ``makefile()``, ``selectors``.

    What to know beyond that:

    - The data of one ``send()`` or ``sendall()`` is never mixed with another thread's.
    - One that raises a timeout or ``SSLWantWriteError`` half-way must be repeated with
      the same data, as with OpenSSL. Other data raises ``ssl.SSLError``
      (``BAD_WRITE_RETRY``), where OpenSSL would send a broken stream.
    - ``recv()`` may return the data of several records.
    - Renegotiation (TLS 1.2): ``send()`` waits until the new handshake is done, in
      every thread, and no data is lost. A peer that never ends it makes it wait for
      ever, and so does a megabyte of data in front of its answer that nobody reads:
      give the socket a timeout. Meanwhile ``version()`` is ``None`` and
      ``getpeercert()`` raises ``ValueError``, as in ``ssl``.
    - ``close()`` ends the calls of other threads with ``OSError`` (``EBADF``).
    - A callback of the context's may ask its own connection anything and close it; what
      reads, writes or schedules is ``AlreadyPendingError`` there. Signal handlers may
      do anything but send in the middle of a send of their own thread.
    - A fatal error is raised again by every later call, in every thread.
    - ``shutdown()`` leaves TLS on: what is sent afterwards is still encrypted, and
      after ``SHUT_WR`` the peer's data can be read. (``ssl.SSLSocket`` goes on in
      plaintext.)
    """

    # what ssl.SSLSocket keeps and its stubs do not tell
    _context: Any
    _session: Any

    _duplex: Optional[_keyupdate.Duplex] = None
    _rules: Rules

    @classmethod
    def _create(cls, *args: Any, **kwargs: Any) -> "SSLSocket":
        """Refuse what ``ssl``'s own code, which looks the name up, cannot do."""
        if not issubclass(cls, ssl.SSLSocket):
            raise TypeError(
                f"no {cls.__qualname__} can be made while ssl.SSLSocket is "
                f"{ssl.SSLSocket!r}: let that patch ssl before the context is made"
            )
        return super()._create(*args, **kwargs)  # type: ignore[misc,no-any-return]

    @property
    def _sslobj(self) -> Optional[_keyupdate.Duplex]:
        return self._duplex

    @_sslobj.setter
    def _sslobj(self, made: Any) -> None:
        """Take what ``ssl`` has made for a socket, and make it anew over memory."""
        self._duplex = None if made is None else self._over_memory()

    def _over_memory(self) -> _keyupdate.Duplex:
        inner = self._context._wrap_bio(
            ssl.MemoryBIO(),
            ssl.MemoryBIO(),
            server_side=self.server_side,
            server_hostname=self.server_hostname,
            owner=self,
            session=self._session,
        )
        self._rules = _rules_of(self._context)
        _keyupdate.keep(inner, self._rules.numbers)
        duplex = _keyupdate.Duplex(inner, self)
        _sockets.set(self, None)
        return duplex

    def _send_close_notify(self) -> None:
        _keyupdate.close_notify(self, "write")
        self._renew("write")

    def _renew(self, function: str) -> None:
        """Get new keys if they are due, and send what there is, without waiting."""
        duplex = self._duplex
        if duplex is not None:
            duplex.renew(function)

    # -- the end -----------------------------------------------------------------------

    def shutdown(self, how: int) -> None:
        """Shut the socket down in one direction or both; TLS stays on."""
        socket.socket.shutdown(self, how)

    def _real_close(self) -> None:
        duplex = self._duplex
        # A thread that Python has stopped at exit may be in the middle of a step.
        if duplex is not None and not sys.is_finalizing():
            descriptor = self.detach()
            if descriptor >= 0:
                duplex.close(descriptor)  # or the last of the threads in it does
        super()._real_close()  # type: ignore[misc]
