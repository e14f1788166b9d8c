"""The managed connections: ``SSLSocket`` and ``SSLObject``.

Both have the extension keep a record beside them (``ext/record.c``), with the rules
that their context was given: when to change keys, and what the peer may do. An
``SSLObject`` is ``ssl.SSLObject`` with a ``read()`` and ``write()`` in C that look
there. An ``SSLSocket`` is more: any number of threads may use it.

Theory of operation of the socket. OpenSSL allows one thread at a time in a connection.
The ``ssl`` module gives OpenSSL the socket itself, so a thread that waits for data
waits *inside* OpenSSL, and another that sends meanwhile is inside as well: that works
until a key changes, a session ticket comes or the socket has a timeout.

Here OpenSSL reads and writes memory and never waits (``ext/pump.c`` says how reading,
writing and waiting go together). All of that is in an object that stands where ``ssl``
keeps its own, in ``_sslobj``; so ``recv()``, ``sendall()``, ``makefile()`` and all the
rest are ``ssl.SSLSocket``'s own code, of whatever Python this runs on. This file has
what ``ssl`` leaves to its inner object and a socket's waiting: the handshake, the
shutdown, and closing while other threads are in it.
"""

import errno
import io
import operator
import os
import socket
import ssl
import sys
import weakref
from typing import Any, Optional

from . import _keyupdate
from .locks import make_lock
from .methods import Methods
from .policy import DEFAULT, Rules

RULES = "_pykeyupdate_rules"
"""The attribute of a managed context that holds its ``Rules``."""

_sockets: "weakref.WeakSet[SSLSocket]" = weakref.WeakSet()
_sockets_lock = make_lock()


class Defaults:
    """What contexts that were given no rules of their own make connections with."""

    rules = DEFAULT


def all_sockets() -> "list[SSLSocket]":
    """Return the managed sockets that there are."""
    with _sockets_lock:
        return list(_sockets)


def _rules_of(context: ssl.SSLContext) -> Rules:
    return vars(context).get(RULES) or Defaults.rules


class SSLObject(Methods, _keyupdate.ManagedObject, ssl.SSLObject):
    """An ``ssl.SSLObject`` that looks after its keys.

    Contexts make them for asyncio, uvloop, trio and anyio, and for your own memory
    BIOs: see ``manage()`` and ``install()``. ``read()`` and ``write()`` may make a
    KeyUpdate message, which is in the outgoing BIO with the data.

    It is used by one thread at a time, as ``ssl.SSLObject``; here two that meet get
    ``AlreadyPendingError`` instead of a crash, and so does a callback of ``ssl``'s that
    reads or writes its own connection. What a ``_msg_callback`` raises does not come
    out of ``read()`` and ``write()`` before Python 3.15.
    """

    _rules: Rules

    @classmethod
    def _create(cls, *args: Any, **kwargs: Any) -> "SSLObject":
        made: Any = super()._create(*args, **kwargs)  # type: ignore[misc]
        made._rules = _rules_of(made.context)
        _keyupdate.keep(made._sslobj, made._rules.numbers)
        return made  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        """Say which end it is: an address it does not have."""
        end = "server" if self.server_side else f"client of {self.server_hostname}"
        return f"<pykeyupdate.SSLObject, {end}, at {id(self):#x}>"

    def _send_close_notify(self) -> None:
        _keyupdate.close_notify(self, "write")


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
    - ``shutdown()`` leaves TLS on: what is sent afterwards is still encrypted, and
      after ``SHUT_WR`` the peer's data can be read. (``ssl.SSLSocket`` goes on in
      plaintext.)
    """

    # what ssl.SSLSocket keeps and its stubs do not tell
    _context: Any
    _session: Any
    _check_connected: Any

    _duplex: Optional[_keyupdate.Duplex] = None
    _rules: Rules

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
        with _sockets_lock:
            _sockets.add(self)
        return duplex

    def _send_close_notify(self) -> None:
        _keyupdate.close_notify(self, "write")
        self._renew("write")

    def _renew(self, function: str) -> None:
        """Get new keys if they are due, and send what there is, without waiting."""
        duplex = self._duplex
        if duplex is not None:
            duplex.renew(function)

    # -- handshakes and shutdowns ------------------------------------------------------

    def do_handshake(self, block: bool = False) -> None:
        """Perform the handshake, or what is scheduled; see ``ssl.SSLSocket``."""
        self._check_connected()
        timeout = self.gettimeout()
        if timeout == 0 and block:
            timeout = None
        duplex: Any = self._sslobj
        duplex.handshake(timeout)
        if self._context._msg_callback or self._context.keylog_filename:
            # ssl keeps what its own callbacks have raised for its next call: this one
            duplex.call(duplex.inner.do_handshake)

    def unwrap(self) -> socket.socket:
        """Shut TLS down; see ``ssl.SSLSocket``. The other threads' ``recv()`` end."""
        duplex = self._sslobj
        plain = super().unwrap()
        left_over = duplex.left_over() if duplex else b""
        if left_over:
            _LeftOver(self, left_over)
        return plain

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


class _LeftOver:
    """What a peer sent in plaintext right behind its close_notify.

    It was received together with the last of TLS. The methods of the socket give it out
    before what is still to be received, and are its own again afterwards.
    """

    def __init__(self, sock: socket.socket, data: bytes) -> None:
        self.sock = sock
        self.data = data
        for name in ("recv", "recv_into", "recvfrom", "recvfrom_into", "detach"):
            setattr(sock, name, getattr(self, name))

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        return self._take("recv", buflen, flags)

    def recvfrom(self, buflen: int = 1024, flags: int = 0) -> tuple[bytes, None]:
        # a stream's does not name its peer
        return self._take("recvfrom", buflen, flags), None

    def recv_into(
        self, buffer: Any, nbytes: Optional[int] = None, flags: int = 0
    ) -> int:
        return self._fill("recv_into", buffer, nbytes, flags)

    def recvfrom_into(
        self, buffer: Any, nbytes: Optional[int] = None, flags: int = 0
    ) -> tuple[int, None]:
        return self._fill("recvfrom_into", buffer, nbytes, flags), None

    def _fill(
        self, function: str, buffer: Any, nbytes: Optional[int], flags: int
    ) -> int:
        # BytesIO takes the buffers that a socket takes: the others are refused here
        io.BytesIO().readinto(buffer)
        with memoryview(buffer) as view:
            room = view.nbytes
        most = 0 if nbytes is None else operator.index(nbytes)
        if most > room:
            raise ValueError(
                f"{function}(): nbytes is greater than the length of the buffer: "
                f"{most} and {room}"
            )
        taken = self._take(function, most or room, flags)
        return io.BytesIO(taken).readinto(buffer)

    def _take(self, function: str, most: int, flags: int) -> bytes:
        most, peeks = operator.index(most), flags & socket.MSG_PEEK
        if most < 0:
            raise ValueError(f"negative buffersize in {function}")
        if self.sock.fileno() < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        taken = self.data[:most]
        if not peeks:
            self.data = self.data[most:]
        if not self.data:
            self._leave()
        return taken

    def detach(self) -> int:
        raise ValueError(
            f"{self.sock!r}: {len(self.data)} bytes that came behind the end of TLS "
            "would be lost; recv() them first"
        )

    def _leave(self) -> None:
        for name in ("recv", "recv_into", "recvfrom", "recvfrom_into", "detach"):
            self.sock.__dict__.pop(name, None)
