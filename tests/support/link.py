"""Two TLS ends in one process, and a witness of the messages between them.

Neither end ever blocks, so a test decides which end does I/O, and when. Over memory
BIOs no operating system is involved; over a socketpair there is a real one, with real
buffers.
"""

import contextlib
import ssl
import sys

import pytest

import pykeyupdate

from .pace import HANDSHAKE, KEY_UPDATE, Pace
from .sockets import socket_pair

HELLO_REQUEST, CLIENT_HELLO, CERTIFICATE, FINISHED = 0, 1, 11, 20
NOT_REQUESTED, REQUESTED = "KeyUpdate(0)", "KeyUpdate(1)"
NAMES = {
    HELLO_REQUEST: "HelloRequest",
    CLIENT_HELLO: "ClientHello",
    2: "ServerHello",
    4: "NewSessionTicket",
    CERTIFICATE: "Certificate",
    13: "CertificateRequest",
    15: "CertificateVerify",
    FINISHED: "Finished",
}


def der(identity):
    """Return the certificate of one that trustme made as ssl gives a peer's."""
    return ssl.PEM_cert_to_DER_cert(identity.cert_chain_pems[0].bytes().decode())


class Witness:
    """What OpenSSL's message callback tells of handshake messages."""

    def __init__(self):
        self.wire = []

    def watch(self, end, context):
        pace = Pace()

        def callback(conn, direction, version, content_type, message_type, data):
            verb = "sent" if direction == "write" else "received"
            self.saw(conn, end, verb, content_type, data)
            pace(verb, content_type, data)

        context._msg_callback = callback

    def saw(self, conn, end, verb, content_type, data):
        if content_type == HANDSHAKE:
            name = NAMES.get(data[0], f"message {data[0]}")
            if data[0] == KEY_UPDATE:
                name = f"KeyUpdate({data[-1]})"
            self.wire.append((end, verb, name))

    def said(self, end, verb="sent"):
        """Return what one end has said or heard since the last clear."""
        return [name for who, what, name in self.wire if (who, what) == (end, verb)]


class Link(Witness):
    """A client and a server, connected."""

    def __init__(self, client_context, server_context, over="memory"):
        super().__init__()
        self.over = over
        self.watch("client", client_context)
        self.watch("server", server_context)
        if over == "memory":
            self.to_client, self.to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.client = client_context.wrap_bio(
                self.to_client, self.to_server, server_hostname="localhost"
            )
            self.server = server_context.wrap_bio(
                self.to_server, self.to_client, server_side=True
            )
        else:
            if over == "managed":
                pykeyupdate.manage(client_context, limits=None)
                pykeyupdate.manage(server_context, limits=None)
            near, far = socket_pair()
            near.setblocking(False)
            far.setblocking(False)
            self.client = client_context.wrap_socket(
                near, server_hostname="localhost", do_handshake_on_connect=False
            )
            self.server = server_context.wrap_socket(
                far, server_side=True, do_handshake_on_connect=False
            )

    def data_in_front(self):
        """Expect what a wait says over data that came first: a managed socket keeps
        that, and says that the answer has not come yet."""
        if self.over == "managed":
            return pytest.raises(ssl.SSLWantReadError)
        return pytest.raises(
            pykeyupdate.ReadPendingError, match="nothing has been lost"
        )

    @property
    def ends(self):
        return (self.client, self.server)

    def end(self, name):
        return getattr(self, name)

    def peer(self, name):
        return self.server if name == "client" else self.client

    def close(self):
        if self.over != "memory":
            self.client.close()
            self.server.close()

    def handshake(self):
        """Complete the first handshake and take the session tickets."""
        for _ in range(4):
            for end in self.ends:
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
        self.settle()
        self.wire.clear()
        return self

    def settle(self):
        """Let both ends read until neither gets anything; return what each got."""
        got = {"client": b"", "server": b""}
        quiet = 0
        while quiet < 2:
            before = len(self.wire), got["client"], got["server"]
            for name in ("client", "server"):
                with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    got[name] += self.end(name).read(65536)
            now = len(self.wire), got["client"], got["server"]
            quiet = quiet + 1 if now == before else 0
        return got

    def talks(self):
        """Data goes both ways, complete: nothing about the connection is broken."""
        for name in ("client", "server"):
            data = f"from the {name}".encode() * 100
            assert self.end(name).write(data) == len(data)
            got = self.settle()
            other = "server" if name == "client" else "client"
            assert got[other] == data
        return True

    def fill(self, name):
        """Write until the buffer is full; return the data of the incomplete write."""
        data = bytes(65536)
        with contextlib.suppress(ssl.SSLWantWriteError):
            while True:
                self.end(name).write(data)
        return data


def write_nothing(end):
    """Write b'': sends what is scheduled or owed, and no data.

    Python 3.9 does it too, and then takes OpenSSL's 0 for an end of file.
    """
    with contextlib.suppress(*[ssl.SSLEOFError] if sys.version_info < (3, 10) else []):
        end.write(b"")


def fill_to_the_brim(end, peer):
    """Fill the send buffer and leave no write incomplete.

    A Unix socket takes a message as long as it is below its limit: after the one that
    did not fit, the peer takes one, and the retried one fills it again.
    """
    with contextlib.suppress(ssl.SSLWantWriteError):
        while True:
            end.write(b"x")
    while True:
        peer.read(1)
        try:
            return end.write(b"x")
        except ssl.SSLWantWriteError:
            pass
