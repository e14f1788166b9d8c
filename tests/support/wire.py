"""Watches each record: a peer of the standard library, and OpenSSL's own callback."""

import collections
import contextlib
import ssl

import pykeyupdate

from .link import HANDSHAKE, KEY_UPDATE, Witness, write_nothing
from .sockets import socket_pair

APPLICATION_DATA = 23
OVERHEAD = 17  # TLS 1.3: the type and the tag
KEY_UPDATE_LENGTH = 5 + OVERHEAD  # no data in these tests is 5 bytes long
HEADER, INNER_TYPE = 256, 257  # of records: what the message callback calls them


class Wire:
    """One end is managed, as a socket or an object; the other is an ssl.SSLObject."""

    def __init__(self, contexts, kind, role, **rules):
        client_context, server_context = contexts
        ours, theirs = (
            (client_context, server_context)
            if role == "client"
            else (server_context, client_context)
        )
        pykeyupdate.manage(ours, **rules)
        self.records, self.rest, self.kind = [], b"", kind
        is_server = {"client": False, "server": True}
        name = {"server_hostname": "localhost"}
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.peer_in, self.peer_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        if kind == "object":
            self.end = ours.wrap_bio(
                self.incoming,
                self.outgoing,
                server_side=is_server[role],
                **({} if is_server[role] else name),
            )
        else:
            near, self.far = socket_pair()
            near.setblocking(False)
            self.far.setblocking(False)
            self.end = ours.wrap_socket(
                near,
                server_side=is_server[role],
                do_handshake_on_connect=False,
                **({} if is_server[role] else name),
            )
        self.peer = theirs.wrap_bio(
            self.peer_in,
            self.peer_out,
            server_side=not is_server[role],
            **(name if is_server[role] else {}),
        )

    def handshake(self):
        for _ in range(4):
            for end in (self.end, self.peer):
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
                self.carry()
        self.read_all()
        self.peer_read_all()
        self.carry()
        self.records.clear()
        return self

    def close(self):
        if self.kind == "socket":
            self.end.close()
            self.far.close()

    # -- the bytes -----------------------------------------------------------------

    def carry(self):
        """Move what both ends have written, and note the records of the managed one."""
        if self.kind == "object":
            data = self.outgoing.read()
            self.incoming.write(self.peer_out.read())
        else:
            data = b""
            with contextlib.suppress(BlockingIOError):
                while True:
                    data += self.far.recv(1 << 20)
            self.far.sendall(self.peer_out.read())
        self.peer_in.write(data)
        self.rest += data
        while len(self.rest) >= 5:
            length = int.from_bytes(self.rest[3:5], "big")
            if len(self.rest) < 5 + length:
                break
            self.records.append((self.rest[0], length))
            self.rest = self.rest[5 + length :]

    def write(self, data):
        """Write all of it, whatever the size of a socket's buffer; return what came."""
        got = b""
        if not data:
            write_nothing(self.end)
        while data:
            try:
                assert self.end.write(data) == len(data)
            except ssl.SSLWantWriteError:
                self.carry()
                got += self.peer_read_all()
            else:
                break
        self.carry()
        return got + self.peer_read_all()

    def read_all(self):
        return _read_all(self.end)

    def peer_read_all(self):
        return _read_all(self.peer)

    def peer_writes(self, data):
        """Have the peer write, and the managed end read it."""
        self.peer.write(data)
        self.carry()
        got = self.read_all()
        self.carry()
        self.peer_read_all()
        return got

    # -- what was on it ------------------------------------------------------------

    def under_each_key(self):
        """Return the bytes of data in the records under one key after the other."""
        keys = [[]]
        for kind, length in self.records:
            assert kind == APPLICATION_DATA
            if length == KEY_UPDATE_LENGTH:
                keys.append([])
            else:
                keys[-1].append(length - OVERHEAD)
        return keys

    def key_updates(self):
        return len(self.under_each_key()) - 1


def _read_all(end):
    got = b""
    with contextlib.suppress(ssl.SSLWantReadError):
        while some := end.read(1 << 20):
            got += some
    return got


class RecordWitness(Witness):
    """What OpenSSL's message callback tells of records of data too, in TLS 1.3."""

    def __init__(self):
        super().__init__()
        self.clear()

    def clear(self):
        """Forget all there was, for other connections to come."""
        self.wire.clear()
        self.keys = collections.defaultdict(lambda: [[]])
        self.classes = collections.defaultdict(set)
        self.headers = {}

    def saw(self, conn, end, verb, content_type, data):
        super().saw(conn, end, verb, content_type, data)
        self.classes[end].add(type(conn))
        keys = self.keys[end, verb]
        if content_type == HEADER:
            self.headers[end, verb] = data
        elif content_type == INNER_TYPE and data[0] == APPLICATION_DATA:
            length = int.from_bytes(self.headers[end, verb][3:5], "big")
            keys[-1].append(length - OVERHEAD)
        elif content_type == HANDSHAKE and data[0] == KEY_UPDATE:
            keys.append([])


def at_once(**limits):
    """Return a policy that changes keys as soon as it can."""
    return pykeyupdate.RekeyPolicy(min_interval_seconds=0, **limits)
