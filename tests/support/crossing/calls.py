"""Every call on a connection, by name, with arguments.

The names come from pykeyupdate and from the classes themselves. So a new name raises
``LookupError`` here until somebody adds its arguments. A word after a name
distinguishes two calls of the same name.
"""

import contextlib
import io
import socket
import ssl
from inspect import iscoroutinefunction

import pykeyupdate
from pykeyupdate import KeyUpdateType, aio, testing

INNER = b"<written by the call>"  # and in no other data
BRIEFLY = 0.02  # seconds that a call may wait for data
ENDING = {"close", "detach", "shutdown", "unwrap"}
"""What a connection need not survive."""
WRITING = {"send", "sendall", "sendfile", "write"}


class Hands:
    """What the call has read, which is missed elsewhere."""

    def __init__(self):
        self.took = b""

    def briefly(self, conn, call):
        """Call something, and have it wait but for a moment."""
        if not isinstance(conn, ssl.SSLSocket):
            return call()
        timeout = conn.gettimeout()
        conn.settimeout(min(timeout or 0, BRIEFLY))
        try:
            return call()
        finally:
            with contextlib.suppress(OSError):  # closed
                conn.settimeout(timeout)

    def take(self, conn, read):
        self.took += self.briefly(conn, read)

    def take_into(self, conn, read_into):
        buffer = bytearray(50)
        self.take(conn, lambda: buffer[: read_into(buffer)])


def _with(context_manager):
    with context_manager:
        pass


def _change_blocking(conn):
    timeout = conn.gettimeout()
    conn.setblocking(True)
    conn.settimeout(timeout)


FUNCTIONS = {
    "allow_renegotiation": lambda conn, _: _with(pykeyupdate.allow_renegotiation(conn)),
    "close_all": lambda conn, _: pykeyupdate.close_all(lambda it: it.counts is None),
    "connections": lambda conn, _: [it.as_dict() for it in pykeyupdate.connections()],
    "flush": lambda conn, _: pykeyupdate.flush(conn),
    "get_key_update_type": lambda conn, _: pykeyupdate.get_key_update_type(conn),
    "install": lambda conn, _: pykeyupdate.install(),
    "installed": lambda conn, _: _with(pykeyupdate.installed()),
    "is_installed": lambda conn, _: pykeyupdate.is_installed(),
    "key_update": lambda conn, _: pykeyupdate.key_update(conn),
    "key_update REQUESTED": lambda conn, _: pykeyupdate.key_update(
        conn, KeyUpdateType.REQUESTED
    ),
    "manage": lambda conn, _: pykeyupdate.manage(conn.context),
    "on_event": lambda conn, _: pykeyupdate.on_event(id)(),
    "rekey": lambda conn, _: pykeyupdate.rekey(conn),
    "rekey request_peer": lambda conn, _: pykeyupdate.rekey(conn, request_peer=True),
    "rekey_all": lambda conn, _: pykeyupdate.rekey_all(per_second=1e9),
    "renegotiate": lambda conn, _: pykeyupdate.renegotiate(conn),
    "renegotiate_abbreviated": lambda conn, _: pykeyupdate.renegotiate_abbreviated(
        conn
    ),
    "renegotiate_pending": lambda conn, _: pykeyupdate.renegotiate_pending(conn),
    "request_client_certificate": lambda conn, _: (
        pykeyupdate.request_client_certificate(conn, BRIEFLY)
    ),
    "request_rekey": lambda conn, _: pykeyupdate.request_rekey(conn),
    "secure_renegotiation": lambda conn, _: pykeyupdate.secure_renegotiation(conn),
    "stats": lambda conn, _: pykeyupdate.stats(conn),
    "total_renegotiations": lambda conn, _: pykeyupdate.total_renegotiations(conn),
    "totals": lambda conn, _: pykeyupdate.totals(),
    "uninstall": lambda conn, _: pykeyupdate.uninstall(),
    "wait_for_renegotiation": lambda conn, _: pykeyupdate.wait_for_renegotiation(
        conn, BRIEFLY
    ),
}
TESTING = {"advance_clock": lambda conn, _: testing.advance_clock(2)}


async def _rekey_all(_):
    await aio.rekey_all(per_second=1e9)


AIO = {
    "flush": aio.flush,
    "keep_fresh": aio.keep_fresh,
    "rekey": aio.rekey,
    "rekey_all": _rekey_all,
    "request_client_certificate": aio.request_client_certificate,
    "wait_for_renegotiation": aio.wait_for_renegotiation,
}
"""Coroutine functions of the transport or stream."""
METHODS = {
    "accept": lambda conn, hands: hands.briefly(conn, conn.accept),
    "bind": lambda conn, _: conn.bind(conn.getsockname()),
    "cipher": lambda conn, _: conn.cipher(),
    "client_sigalg": lambda conn, _: conn.client_sigalg(),
    "close": lambda conn, _: conn.close(),
    "compression": lambda conn, _: conn.compression(),
    "connect": lambda conn, _: conn.connect(conn.getpeername()),
    "connect_ex": lambda conn, _: conn.connect_ex(conn.getpeername()),
    "detach": lambda conn, _: socket.close(conn.detach()),
    "do_handshake": lambda conn, hands: hands.briefly(conn, conn.do_handshake),
    "dup": lambda conn, _: conn.dup(),
    "fileno": lambda conn, _: conn.fileno(),
    "flush": lambda conn, _: conn.flush(),
    "get_channel_binding": lambda conn, _: conn.get_channel_binding(),
    "get_inheritable": lambda conn, _: conn.get_inheritable(),
    "get_key_update_type": lambda conn, _: conn.get_key_update_type(),
    "get_unverified_chain": lambda conn, _: conn.get_unverified_chain(),
    "get_verified_chain": lambda conn, _: conn.get_verified_chain(),
    "getblocking": lambda conn, _: conn.getblocking(),
    "getpeercert": lambda conn, _: conn.getpeercert(True),
    "getpeername": lambda conn, _: conn.getpeername(),
    "getsockname": lambda conn, _: conn.getsockname(),
    "getsockopt": lambda conn, _: conn.getsockopt(
        socket.SOL_SOCKET, socket.SO_KEEPALIVE
    ),
    "gettimeout": lambda conn, _: conn.gettimeout(),
    "group": lambda conn, _: conn.group(),
    "ioctl": lambda conn, _: conn.ioctl(  # on Windows alone
        socket.SIO_KEEPALIVE_VALS, (1, 60_000, 1_000)
    ),
    "key_update": lambda conn, _: conn.key_update(),
    "listen": lambda conn, _: conn.listen(1),
    "makefile": lambda conn, _: conn.makefile("rb").close(),
    "pending": lambda conn, _: conn.pending(),
    "read": lambda conn, hands: hands.take(conn, lambda: conn.read(50)),
    "recv": lambda conn, hands: hands.take(conn, lambda: conn.recv(50)),
    "recv_into": lambda conn, hands: hands.take_into(conn, conn.recv_into),
    "recvfrom": lambda conn, _: conn.recvfrom(50),
    "recvfrom_into": lambda conn, _: conn.recvfrom_into(bytearray(50)),
    "recvmsg": lambda conn, _: conn.recvmsg(50),
    "recvmsg_into": lambda conn, _: conn.recvmsg_into([bytearray(50)]),
    "rekey": lambda conn, _: conn.rekey(),
    "renegotiate": lambda conn, _: conn.renegotiate(),
    "renegotiate_abbreviated": lambda conn, _: conn.renegotiate_abbreviated(),
    "renegotiate_pending": lambda conn, _: conn.renegotiate_pending(),
    "request_client_certificate": lambda conn, _: conn.request_client_certificate(
        BRIEFLY
    ),
    "secure_renegotiation": lambda conn, _: conn.secure_renegotiation(),
    "selected_alpn_protocol": lambda conn, _: conn.selected_alpn_protocol(),
    "selected_npn_protocol": lambda conn, _: conn.selected_npn_protocol(),
    "send": lambda conn, hands: hands.briefly(conn, lambda: conn.send(INNER)),
    "sendall": lambda conn, hands: hands.briefly(conn, lambda: conn.sendall(INNER)),
    "sendfile": lambda conn, hands: hands.briefly(
        conn, lambda: conn.sendfile(io.BytesIO(INNER))
    ),
    "sendmsg": lambda conn, _: conn.sendmsg([INNER]),
    "sendmsg_afalg": lambda conn, _: conn.sendmsg_afalg([INNER], op=1),
    "sendto": lambda conn, _: conn.sendto(INNER, conn.getpeername()),
    "server_sigalg": lambda conn, _: conn.server_sigalg(),
    "set_inheritable": lambda conn, _: conn.set_inheritable(False),
    "setblocking": lambda conn, _: _change_blocking(conn),
    "setsockopt": lambda conn, _: conn.setsockopt(
        socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1
    ),
    "settimeout": lambda conn, _: conn.settimeout(conn.gettimeout()),
    "share": lambda conn, _: conn.share(0),
    "shared_ciphers": lambda conn, _: conn.shared_ciphers(),
    "shutdown": lambda conn, _: conn.shutdown(socket.SHUT_RDWR),
    "total_renegotiations": lambda conn, _: conn.total_renegotiations(),
    "unwrap": lambda conn, hands: hands.briefly(conn, conn.unwrap),
    "verify_client_post_handshake": lambda conn, _: conn.verify_client_post_handshake(),
    "version": lambda conn, _: conn.version(),
    "wait_for_renegotiation": lambda conn, _: conn.wait_for_renegotiation(BRIEFLY),
    "write": lambda conn, hands: hands.briefly(conn, lambda: conn.write(INNER)),
}


def _attribute(name):
    return lambda conn, _: getattr(conn, name)


def _found(names, table):
    """Return what the table has for these names, all of them."""
    missing = set(names) - {name.split()[0] for name in table}
    if missing:
        raise LookupError(f"no arguments known for {sorted(missing)}: add them")
    return {name: do for name, do in table.items() if name.split()[0] in names}


def _functions_of(module):
    values = {name: getattr(module, name) for name in module.__all__}
    return {
        name
        for name, value in values.items()
        if callable(value) and not isinstance(value, type)
    }


def _functions_in(module):
    """The same of a module that does not list its names."""
    return {
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__ and name[0] != "_"
    }


def functions():
    """Return pykeyupdate's: names and ``do(conn, hands)``."""
    found = _found(_functions_of(pykeyupdate), FUNCTIONS)
    found.update(_found(_functions_in(testing), TESTING))
    return {f"pykeyupdate.{name}": do for name, do in found.items()}


def coroutines():
    """Return pykeyupdate.aio's: names and coroutine functions."""
    names = {it for it in _functions_of(aio) if iscoroutinefunction(getattr(aio, it))}
    found = _found(names, AIO)
    return {f"aio.{name}": do for name, do in found.items()}


def methods(cls):
    """Return the public methods and attributes of SSLSocket or SSLObject."""
    public = [name for name in dir(cls) if name[0] != "_"]
    called = {name for name in public if callable(getattr(cls, name))}
    found = {name: _attribute(name) for name in public if name not in called}
    found.update(_found(called, METHODS))
    return {f".{name}": do for name, do in found.items()}


def word(name):
    """Return the mere name of a call: ``.recv`` is ``recv``."""
    return name.rpartition(".")[2].partition(" ")[0]
