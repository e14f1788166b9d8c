"""How calls end: with ``ssl``'s own exceptions, in every way in which they can.

Each test ends a call in one way, on ``ssl``'s own connections and on managed ones, and
compares the two.
"""

import contextlib
import os
import re
import socket
import ssl
import threading
import time

import pytest
import trustme
from support.link import Link
from support.sockets import socket_pair

import pykeyupdate

ENDS_BY_ALERT = ssl.OPENSSL_VERSION_INFO >= (3, 2)
TEXT_ENDS = " ("  # what follows says where: _ssl.c's line, or the call


def connect(contexts, *, blocks=True):
    """Return the two ends of a connection over a socketpair."""
    near, far = socket_pair()
    accepted = []

    def accept():
        with contextlib.suppress(OSError):
            accepted.append(contexts[1].wrap_socket(far, server_side=True))

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        client = contexts[0].wrap_socket(
            near, server_hostname="localhost", suppress_ragged_eofs=False
        )
    finally:
        thread.join()
    client.setblocking(blocks)
    return client, accepted[0]


def outcome(call, *args):
    """Say how it ended, as a program sees it."""
    try:
        return repr(call(*args))
    except ssl.SSLEOFError as error:
        text = error.args[1].partition(TEXT_ENDS)[0]
        return "the end" if ENDS_BY_ALERT else (error.library, error.reason, text)
    except ssl.SSLError as error:
        text = error.args[1].partition(TEXT_ENDS)[0]
        number = error.errno
        return type(error).__name__, number, error.library, error.reason, text
    except BrokenPipeError:
        # OpenSSL from 3.5 on sends an alert over the end, which has nobody to take it
        return "the end"
    except OSError as error:
        return type(error).__name__, error.errno
    except Exception as error:
        return type(error).__name__, re.sub("<.*>", "<the socket>", str(error))


def nothing_to_read(contexts):
    client, server = connect(contexts, blocks=False)
    with client, server:
        yield outcome(client.recv, 1)
        yield outcome(client.recv_into, bytearray(1))
        yield outcome(client.read, 1)


def no_room_to_write(contexts):
    client, server = connect(contexts, blocks=False)

    def fill():
        while True:
            client.send(bytes(1 << 16))

    with client, server:
        yield outcome(fill)


def peer_gone(contexts):
    client, server = connect(contexts, blocks=False)
    server.close()
    with client:
        yield outcome(client.recv, 1)
        yield outcome(client.recv, 1)


def half_a_record(contexts):
    client, server = connect(contexts)
    with client:
        socket.socket.sendall(server, b"\x17\x03\x03\x00\x20half a record")
        server.close()
        yield outcome(client.recv, 1)


def not_tls(contexts):
    client, server = connect(contexts)
    with client, server:
        socket.socket.sendall(server, b"HTTP/1.1 400 Bad Request\r\n\r\n")
        yield outcome(client.recv, 1)


def altered_record(contexts):
    client, server = connect(contexts)
    with client, server:
        socket.socket.sendall(server, b"\x17\x03\x03\x00\x20" + bytes(32))
        yield outcome(client.recv, 1)
        yield outcome(server.recv, 1)  # the alert


def close_notify(contexts):
    client, server = connect(contexts, blocks=False)
    server.setblocking(False)
    with client, server:
        yield outcome(server.unwrap)
        yield outcome(client.recv, 1)
        yield outcome(server.send, b"x")
        yield outcome(lambda: client.unwrap() is client)
        yield outcome(client.recv, 0)


def timeouts(contexts):
    client, server = connect(contexts)
    client.settimeout(0.01)
    with client, server:
        yield outcome(client.recv, 1)

        def fill():
            while True:
                client.sendall(bytes(1 << 16))

        yield outcome(fill)


def closed(contexts):
    client, server = connect(contexts)
    server.close()
    client.close()
    for call in (client.do_handshake, client.unwrap, client.pending, client.version):
        yield outcome(call)
    for name in ("getpeercert", "cipher", "selected_alpn_protocol"):
        yield outcome(getattr(client, name))
    for call, argument in ((client.recv, 1), (client.send, b"x"), (client.read, 1)):
        yield outcome(call, argument)


def closed_before_the_handshake(contexts):
    near, far = socket_pair()
    with far:
        sock = contexts[1].wrap_socket(
            near, server_side=True, do_handshake_on_connect=False
        )
        sock.close()
        yield outcome(sock.do_handshake)
        yield outcome(sock.recv, 1)


def socket_gone(contexts):
    client, server = connect(contexts)
    with server:
        inner = client._sslobj
        socket.socket(fileno=client.detach()).close()
        del client
        yield outcome(inner.read, 1)
        yield outcome(inner.write, b"x")
        yield outcome(inner.do_handshake)
        yield outcome(inner.shutdown)


def refused_certificate(contexts):
    other = trustme.CA()
    contexts[0] = ssl.create_default_context()
    other.configure_trust(contexts[0])
    manage_like(contexts[1], contexts[0])
    yield both_outcomes(contexts)


def refused_name(contexts):
    yield both_outcomes(contexts, server_hostname="other.example")


def manage_like(model, context):
    if model.sslsocket_class is not ssl.SSLSocket:
        pykeyupdate.manage(context)


def both_outcomes(contexts, server_hostname="localhost"):
    """Return how the handshake ends at both ends."""
    near, far = socket_pair()
    at_server = []

    def accept():
        def go():
            with contexts[1].wrap_socket(far, server_side=True) as tls:
                tls.recv(1)  # TLS 1.3: the alert comes after the handshake

        at_server.append(outcome(go))

    thread = threading.Thread(target=accept)
    thread.start()
    with near:
        at_client = outcome(
            lambda: contexts[0].wrap_socket(near, server_hostname=server_hostname)
        )
    thread.join()
    return at_client, at_server


def objects(contexts):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = contexts[0].wrap_bio(incoming, outgoing, server_hostname="localhost")
    yield outcome(end.read, 1)
    yield outcome(end.write, b"x")
    yield outcome(end.unwrap)
    yield outcome(end.do_handshake)
    incoming.write_eof()
    yield outcome(end.read, 1)
    yield outcome(end.do_handshake)


WAYS = [
    nothing_to_read,
    no_room_to_write,
    peer_gone,
    half_a_record,
    not_tls,
    altered_record,
    close_notify,
    timeouts,
    closed,
    closed_before_the_handshake,
    socket_gone,
    refused_certificate,
    refused_name,
    objects,
]


def without_name(end):
    """As ssl tells of a reason that is younger than ssl."""
    *start, reason, text = end
    return (*start, None, text.replace(f": {reason}]", "]", 1))


@pytest.mark.parametrize("version", ["tls13", "tls12"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_it_ends_as_ssls_own(make_contexts, way, version):
    theirs = list(way(list(make_contexts(version))))
    contexts = list(make_contexts(version))
    for context in contexts:
        pykeyupdate.manage(context)
    ours = list(way(contexts))
    for i, their in enumerate(theirs):
        if isinstance(their, tuple) and their[-3:-1] == ("SSL", None) != ours[i][-3:-1]:
            ours[i] = without_name(ours[i])
    assert ours == theirs


def test_a_certificate_for_another_host_in_a_renegotiation(make_contexts, authority):
    """The name is the connection's, whatever holds that: it may have none."""

    class Holder:
        def __init__(self, tls):
            self.tls = tls

        def __tls_connection__(self):
            return self.tls

    client, server = make_contexts("tls12")
    other = authority.issue_cert("other.example")
    contexts = [client, server]
    near, peer = connect(contexts)
    with near, peer:
        other.configure_cert(server)
        peer.context = server

        def serve():
            with contextlib.suppress(OSError):
                while peer.recv(100):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        changed = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        other.configure_cert(changed)
        changed.options |= pykeyupdate.OP_ALLOW_CLIENT_RENEGOTIATION
        peer.context = changed
        try:
            with pytest.raises(ssl.SSLCertVerificationError) as caught:
                pykeyupdate.rekey(Holder(near))
                pykeyupdate.wait_for_renegotiation(Holder(near), timeout=20)
        finally:
            near.close()
            thread.join()
    assert "not valid for 'localhost'" in str(caught.value)


@pytest.mark.parametrize("version", ["tls13", "tls12"])
@pytest.mark.parametrize("waits", [True, False])
def test_tls_again_on_the_socket_that_unwrap_returns(make_contexts, version, waits):
    """The client's second ClientHello comes in one segment with its close_notify."""
    contexts = make_contexts(version)
    for context in contexts:
        pykeyupdate.manage(context)
    near, far = socket_pair()
    versions = []

    def serve():
        tls = contexts[1].wrap_socket(far, server_side=True)
        assert tls.recv(100) == b""
        if waits:
            time.sleep(0.05)  # until the second ClientHello is here
        again = contexts[1].wrap_socket(tls.unwrap(), server_side=True)
        versions.append(again.version())
        again.close()

    thread = threading.Thread(target=serve)
    thread.start()
    near.settimeout(20)
    first, second = Client(contexts[0], near), Client(contexts[0], near)
    first.handshake()
    first.step(first.tls.unwrap)
    second.step(second.tls.do_handshake)
    near.sendall(first.outgoing.read() + second.outgoing.read())
    second.take_server_hello()
    second.handshake()
    thread.join()
    near.close()
    assert versions == [second.tls.version()]


class Client:
    """A client whose bytes are moved by hand: none is read ahead."""

    def __init__(self, context, sock):
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl_context_like(context)
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_hostname="localhost"
        )

    def step(self, call):
        with contextlib.suppress(ssl.SSLWantReadError):
            call()
            return True
        return False

    def record(self):
        header = self.sock.recv(5, socket.MSG_WAITALL)
        length = int.from_bytes(header[3:], "big")
        return header + self.sock.recv(length, socket.MSG_WAITALL)

    def handshake(self):
        while not self.step(self.tls.do_handshake):
            self.send()
            self.incoming.write(self.record())
        self.send()

    def send(self):
        if self.outgoing.pending:
            self.sock.sendall(self.outgoing.read())

    def take_server_hello(self):
        """Pass over what is left of the first connection."""
        record = self.record()
        while record[0] != 22:
            record = self.record()
        self.incoming.write(record)


def ssl_context_like(context):
    context.sslobject_class = ssl.SSLObject
    return context


def test_a_class_needs_no_hash(make_contexts):
    class Mine(pykeyupdate.SSLSocket):  # noqa: PLW1641
        def __eq__(self, other):
            return self is other

    contexts = make_contexts("tls13")
    contexts[0].post_handshake_auth = True
    for context in contexts:
        context.sslsocket_class = Mine
    client, server = connect(contexts)
    with client, server:
        assert type(client) is type(server) is Mine
        assert Mine.__hash__ is None
        reading = threading.Thread(target=outcome, args=(client.recv, 1))
        reading.start()
        answer = server.request_client_certificate(timeout=20)
        assert answer.certificate is None
        server.sendall(b"x")
        reading.join()


def test_rekey_all_calls_no_method_of_a_derived_class(make_contexts):
    class Mine(pykeyupdate.SSLSocket):
        def cipher(self):
            raise RuntimeError("not to be called by rekey_all()")

    contexts = make_contexts("tls13")
    for context in contexts:
        context.sslsocket_class = Mine
    client, server = connect(contexts)
    with client, server:
        assert pykeyupdate.rekey_all() >= 2
        assert pykeyupdate.stats(client).counts.key_updates_sent == 1


def test_an_object_may_keep_its_sslobj_elsewhere(make_contexts):
    class Mine(pykeyupdate.SSLObject):
        @property
        def _sslobj(self):
            return self.elsewhere

        @_sslobj.setter
        def _sslobj(self, made):
            self.elsewhere = made

    contexts = make_contexts("tls13")
    for context in contexts:
        context.sslobject_class = Mine
    link = Link(*contexts).handshake()
    assert type(link.client) is Mine
    link.client.rekey()
    assert link.talks()
    assert pykeyupdate.stats(link.client).counts.key_updates_sent == 1


def test_a_key_log_does_not_keep_a_handshake_from_waiting(make_contexts, tmp_path):
    """Nor do many threads: `ssl` keeps its callbacks' exceptions for do_handshake()."""
    contexts = make_contexts("tls12")
    contexts[0].keylog_filename = os.fspath(tmp_path / "keys.log")
    for context in contexts:
        pykeyupdate.manage(context, limits=None)
    client, server = connect(contexts)
    over, failed = threading.Event(), []

    def repeat(call, *args):
        def run():
            while not over.is_set():
                try:
                    call(*args)
                except pykeyupdate.NotNowError:
                    pass
                except OSError as error:
                    if not over.is_set():
                        failed.append(error)
                    return

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    threads = [
        repeat(client.recv, 9999),
        repeat(server.recv, 9999),
        repeat(server.sendall, b"d" * 500),
        repeat(client.do_handshake),
    ]
    with client, server:
        for _ in range(50):
            pykeyupdate.rekey(server)
            pykeyupdate.wait_for_renegotiation(server, timeout=20)
        over.set()
    for thread in threads:
        thread.join()
    assert not failed
