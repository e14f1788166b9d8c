"""``SSLSocket``: like the standard library's, but for any number of threads."""

import contextlib
import errno
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest
from support import pace
from support.link import Witness
from support.sockets import close_with_reset, needs_unix_pair, socket_pair
from support.threads import DEADLOCK
from support.waiting import eventually

import pykeyupdate
from pykeyupdate import _keyupdate

BOTH = pytest.mark.parametrize("version", ["tls13", "tls12"])
MEGABYTE = 1 << 20


def receive(sock, amount):
    data = bytearray()
    while len(data) < amount:
        piece = sock.recv(amount - len(data))
        assert piece, f"the end after {len(data)} of {amount}"
        data += piece
    return bytes(data)


def busy(sock):
    """Wait until another thread is in recv() of a socket that blocks."""
    time.sleep(0.05)


# -- as ssl.SSLSocket ------------------------------------------------------------------


@BOTH
def test_it_is_an_ssl_socket_that_contexts_make(connect, version):
    client, server = connect(version)
    for end in (client, server):
        assert type(end) is pykeyupdate.SSLSocket
        assert isinstance(end, ssl.SSLSocket)
        assert isinstance(end._sslobj, _keyupdate.Duplex)
    assert client.version() == server.version()
    assert client.cipher() == server.cipher()
    assert client.getpeercert()["subjectAltName"]
    assert client.get_channel_binding("tls-unique") == server.get_channel_binding(
        "tls-unique"
    )
    assert not client.session_reused
    assert client.context is not server.context
    assert client._sslobj.owner is client


@BOTH
def test_data_goes_both_ways_by_all_methods(connect, threads, version, tmp_path):
    client, server = connect(version)
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1000)
    got = threads.start(receive, server, 256_000)
    with path.open("rb") as file:
        assert client.sendfile(file) == 256_000
    assert got() == path.read_bytes()
    buffer = bytearray(10)
    client.send(b"0123456789")
    assert server.recv_into(buffer) == 10
    assert bytes(buffer) == b"0123456789"
    server.sendall(memoryview(b"line 1\nline 2\n"))
    with client.makefile("rb") as lines:
        assert lines.readline() == b"line 1\n"
        assert lines.readline() == b"line 2\n"
    assert client.recv(0) == b""
    assert client.send(b"") == 0
    with pytest.raises(ValueError, match="negative"):
        client.recv(-1)
    with pytest.raises(ValueError, match="flags"):
        client.send(b"x", 1)
    with pytest.raises(NotImplementedError):
        client.dup()


def test_timeouts_are_the_sockets_own(connect):
    client, server = connect(plain=socket_pair(4096))
    client.settimeout(0.05)
    with pytest.raises(socket.timeout, match="read operation timed out"):
        client.recv(1)
    with pytest.raises(socket.timeout, match="write operation timed out"):
        client.sendall(bytes(MEGABYTE))
    client.settimeout(0)
    with pytest.raises(ssl.SSLWantReadError, match="did not complete"):
        client.recv(1)
    client.settimeout(None)
    server.sendall(b"x")
    assert client.recv(1) == b"x"


def test_a_timeout_in_the_handshake(make_contexts):
    client, _ = make_contexts("tls13")
    pykeyupdate.manage(client)
    near, far = socket_pair()
    near.settimeout(0.05)
    with far, pytest.raises(socket.timeout, match="handshake operation timed out"):
        client.wrap_socket(near, server_hostname="localhost")


def test_a_half_sent_write_must_be_repeated(connect, threads):
    client, server = connect(plain=socket_pair(4096))
    client.settimeout(0)
    data = bytes(range(256)) * 4096
    with pytest.raises(ssl.SSLWantWriteError):
        client.send(data)
    with pytest.raises(ssl.SSLError) as refused:
        client.send(b"other" + data)
    assert refused.value.reason == "BAD_WRITE_RETRY"
    assert "repeat it with the same data, or close" in str(refused.value)
    with pytest.raises(ssl.SSLError) as refused:
        client.send(b"short")
    assert refused.value.reason == "BAD_WRITE_RETRY"
    received = threads.start(receive, server, len(data))
    client.settimeout(DEADLOCK)
    assert client.send(bytearray(data)) == len(data)
    assert received() == data
    client.send(b"next")
    assert server.recv(10) == b"next"


@BOTH
@pytest.mark.parametrize("schedule_only", [False, True])
def test_new_keys_follow_a_half_sent_write(connect, threads, version, schedule_only):
    """Of a stock socket they are refused (WritePendingError)."""
    witness = Witness()
    client, server = connect(
        version,
        plain=socket_pair(4096),
        setup=lambda client, server: witness.watch("server", server),
    )
    witness.wire.clear()
    client.settimeout(0)
    data = bytes(range(256)) * 4096
    with pytest.raises(ssl.SSLWantWriteError):
        client.send(data)
    if not schedule_only:
        with pytest.raises(ssl.SSLWantWriteError):
            client.rekey()
    elif version == "tls13":
        client.key_update()
    else:
        client.renegotiate()
    client.settimeout(DEADLOCK)
    received = threads.start(receive, server, len(data))
    client.sendall(data)
    assert received() == data
    threads.start(client.recv, 1)
    message = "KeyUpdate(0)" if version == "tls13" else "Finished"
    following = threads.start(server.recv, 4)
    client.sendall(b"next")
    assert following() == b"next"
    assert witness.said("server", "received").count(message) == 1


def test_a_reset_by_the_peer_is_no_end(connect):
    """``ssl`` of Python 3.10 to 3.12 returns b""."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname())
        client, server = connect(plain=(near, listening.accept()[0]))
    close_with_reset(server)
    with pytest.raises(ConnectionResetError):
        client.recv(1)


@BOTH
def test_select_sees_the_end_behind_the_data(connect, version):
    client, server = connect(version)
    server.settimeout(0)
    server.send(b"the last data")
    with pytest.raises(ssl.SSLWantReadError):
        server.unwrap()  # sends close_notify
    assert client.recv(65536) == b"the last data"
    assert client.pending() == 0
    assert select.select([client], [], [], DEADLOCK)[0]
    assert client.recv(65536) == b""


@BOTH
def test_what_select_does_not_see_is_pending(connect, version):
    client, server = connect(version)
    server.sendall(b"x" * 40_000)  # three records
    got = len(client.recv(10_000))
    while got < 40_000:
        assert client.pending() or select.select([client], [], [], DEADLOCK)[0]
        got += len(client.recv(10_000))
    assert client.pending() == 0
    assert not select.select([client], [], [], 0)[0]


def test_one_recv_may_give_several_records(connect):
    client, server = connect()
    server.sendall(bytes(65536))
    time.sleep(0.1)  # on its way
    assert len(client.recv(65536)) > 16384


@pytest.mark.parametrize("suppress", [True, False])
def test_an_end_without_close_notify(connect, suppress):
    client, server = connect(suppress_ragged_eofs=suppress)
    server.sendall(b"data")
    server.shutdown(socket.SHUT_RDWR)
    assert client.recv(100) == b"data"
    # Python 3.9 alone has OpenSSL 3 take it for an end with close_notify
    ignored = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    if suppress or client.context.options & ignored:
        assert client.recv(100) == b""
    else:
        with pytest.raises(ssl.SSLEOFError):
            client.recv(100)


def test_a_certificate_that_is_not_trusted(make_contexts, threads):
    client, server = make_contexts("tls13")
    pykeyupdate.manage(client)
    near, far = socket_pair()
    other_end = threads.start(lambda: server.wrap_socket(far, server_side=True))
    with pytest.raises(ssl.SSLCertVerificationError) as refused:
        client.wrap_socket(near, server_hostname="elsewhere")
    assert refused.value.verify_code == 62
    assert "not valid for 'elsewhere'" in refused.value.verify_message
    assert "CERTIFICATE_VERIFY_FAILED" in str(refused.value)
    with pytest.raises(ssl.SSLError, match="alert"):
        other_end()


def test_the_sni_callback_gets_the_socket_and_may_change_the_context(
    connect, make_contexts
):
    seen = []
    other = make_contexts("tls13")[1]

    def callback(sock, name, context):
        seen.append((type(sock), name))
        sock.context = other
        sock.version()
        sock.pending()

    _, server = connect(
        setup=lambda client, server: setattr(server, "sni_callback", callback)
    )
    assert seen == [(pykeyupdate.SSLSocket, "localhost")]
    assert server.context is other


def test_a_callback_may_ask_and_not_read(connect):
    said = []

    def watch(conn, *args):
        for call in (conn.version, lambda: conn.recv(1), lambda: conn.send(b"x")):
            try:
                call()
            except pykeyupdate.AlreadyPendingError as refused:
                said.append(str(refused))

    client, server = connect(
        setup=lambda client, server: setattr(client, "_msg_callback", watch)
    )
    assert said
    assert all("refused, and nothing was done" in text for text in said)
    server.sendall(b"fine")
    assert client.recv(10) == b"fine"


def test_what_a_callback_raises_comes_out_of_the_handshake(connect):
    class Boom(Exception):
        pass

    def watch(*args):
        raise Boom

    with pytest.raises(Boom):
        connect(
            managed="client",
            setup=lambda client, server: setattr(client, "_msg_callback", watch),
        )


@BOTH
def test_a_callback_may_schedule_and_nothing_breaks(connect, threads, version):
    """renegotiate() puts received data aside, but not while OpenSSL is being called."""
    tries = []

    def watch(conn, *args):
        for call in (pykeyupdate.renegotiate, pykeyupdate.key_update):
            tries.append(call)
            with contextlib.suppress(pykeyupdate.PyKeyUpdateError):
                call(conn)

    client, server = connect(
        version, setup=lambda client, server: setattr(client, "_msg_callback", watch)
    )
    reading = threads.start(receive, server, 5000)
    for _ in range(50):
        client.sendall(b"x" * 100)
    assert reading() == b"x" * 5000
    assert tries


@needs_unix_pair
def test_a_handshake_that_cannot_be_sent_wants_to_write(make_contexts):
    client, server = make_contexts("tls13")
    for context in (client, server):
        pykeyupdate.manage(context, limits=None)
    near, far = socket_pair(1)
    for end in (near, far):
        end.setblocking(False)
    here = client.wrap_socket(
        near, server_hostname="localhost", do_handshake_on_connect=False
    )
    there = server.wrap_socket(far, server_side=True, do_handshake_on_connect=False)
    with here, there:
        with pytest.raises(ssl.SSLWantReadError):
            here.recv(1)  # sends the ClientHello
        with contextlib.suppress(BlockingIOError):
            while True:
                socket.socket.send(there, b"\x16")
        for call in (lambda: there.recv(1), lambda: there.send(b"x")):
            with pytest.raises(ssl.SSLWantWriteError):
                call()


def test_sessions_are_resumed(make_contexts, threads):
    client, server = make_contexts("tls12")
    for context in (client, server):
        pykeyupdate.manage(context, limits=None)
    session = None
    for resumed in (False, True):
        near, far = socket_pair()
        accepting = threads.start(server.wrap_socket, far, True)
        end = client.wrap_socket(near, server_hostname="localhost", session=session)
        with end, accepting() as peer:
            assert (end.session_reused, peer.session_reused) == (resumed, resumed)
            session = end.session


@BOTH
def test_unwrap_gives_the_plain_socket_with_all_that_follows(connect, threads, version):
    client, server = connect(version)
    unwrapped = threads.start(server.unwrap)
    plain = client.unwrap()
    assert plain is client
    assert unwrapped() is server
    socket.socket.sendall(server, b"plaintext " * 100)
    assert receive(plain, 1000) == b"plaintext " * 100
    assert client.version() is None
    with pytest.raises(ValueError, match="No SSL wrapper"):
        client.unwrap()


@pytest.mark.parametrize("length", [1, 3, 5, 100])
def test_plaintext_right_behind_close_notify_is_not_lost(connect, length):
    client, server = connect()
    server.settimeout(0)
    with pytest.raises(ssl.SSLWantReadError):
        server.unwrap()
    follows = b"abcdefghij" * 10
    socket.socket.send(server, follows[:length])
    assert client.recv(100) == b""
    client.unwrap()
    with socket.socket(fileno=client.detach()) as plain:
        assert receive(plain, length) == follows[:length]


def test_tls_stays_on_after_shutdown(connect):
    client, server = connect()
    client.shutdown(socket.SHUT_RD)
    client.sendall(b"still encrypted")
    assert server.recv(100) == b"still encrypted"
    other, peer = connect()
    other.shutdown(socket.SHUT_WR)
    peer.sendall(b"to a half-closed peer")
    assert other.recv(100) == b"to a half-closed peer"
    with pytest.raises(OSError):
        other.sendall(b"x")


# -- threads ---------------------------------------------------------------------------


@BOTH
def test_keys_change_while_both_ends_read_and_write(connect, threads, version):
    witness = Witness()
    client, server = connect(
        version, setup=lambda client, server: witness.watch("client", client)
    )
    witness.wire.clear()
    data = os.urandom(65536) * 16

    def write(end):
        for start in range(0, len(data), 65536):
            end.sendall(data[start : start + 65536])
            if end is client:
                with contextlib.suppress(pykeyupdate.NotNowError):
                    pykeyupdate.rekey(end)

    work = [threads.start(write, end) for end in (client, server)]
    got = [threads.start(receive, end, len(data)) for end in (client, server)]
    for done in work:
        done()
    assert [take() for take in got] == [data, data]
    wanted = "KeyUpdate(0)" if version == "tls13" else "ClientHello"
    assert witness.said("client").count(wanted) >= 2


def test_writers_do_not_mix(connect, threads):
    client, server = connect(plain=socket_pair(4096))
    messages = [bytes([number]) * 100_000 for number in range(4)]
    for message in messages:
        threads.start(client.sendall, message)
    got = receive(server, 400_000)
    pieces = {got[start : start + 100_000] for start in range(0, 400_000, 100_000)}
    assert pieces == set(messages)


def test_readers_lose_nothing(connect, threads):
    client, server = connect()
    readers = [threads.start(receive, client, 50_000) for _ in range(4)]
    server.sendall(b"x" * 200_000)
    assert all(got() == b"x" * 50_000 for got in readers)


def test_a_reader_does_not_wait_for_a_peer_that_does_not_read(connect, threads):
    pace.skip_if_kept()
    client, server = connect(plain=socket_pair(4096))
    blocked = threads.start(client.sendall, bytes(MEGABYTE))
    busy(client)
    for number in range(20):
        pykeyupdate.key_update(server, pykeyupdate.KeyUpdateType.REQUESTED)
        server.sendall(b"%d" % number)
        assert client.recv(10) == b"%d" % number  # while its answers cannot be sent
    assert receive(server, MEGABYTE) == bytes(MEGABYTE)
    blocked()


def test_a_writer_of_megabytes_and_a_reader_share_the_connection(connect, threads):
    client, server = connect()
    stop = threading.Event()
    written = []

    def write():
        while not stop.is_set():
            client.sendall(bytes(MEGABYTE))
            written.append(MEGABYTE)

    def drain():
        while server.recv(65536):
            pass

    writing, draining = threads.start(write), threads.start(drain)
    for _ in range(200):
        server.sendall(b"ping")
        assert receive(client, 4) == b"ping"
    eventually(lambda: len(written) > 3)
    stop.set()
    writing()
    client.shutdown(socket.SHUT_WR)
    draining()


def test_answers_to_a_peer_that_never_reads_are_bounded(connect, threads):
    pace.skip_if_kept()
    client, server = connect(plain=socket_pair(4096))
    reading = threads.start(receive, server, 4)
    client.settimeout(1)
    sent = 0
    with pytest.raises(socket.timeout):
        for _ in range(100_000):  # no reader of ours: the peer must stop
            pykeyupdate.rekey(client, request_peer=True)
            sent += 1
    assert sent < 50_000
    client.settimeout(None)
    drained = threads.start(client.recv, 10)
    client.sendall(b"done")
    assert reading() == b"done"
    server.sendall(b"too")
    assert drained() == b"too"


@BOTH
def test_a_second_reader_times_out_by_its_own_clock(connect, threads, version):
    client, server = connect(version)
    blocked = threads.start(client.recv, 10)
    busy(client)
    client.settimeout(0.05)
    with pytest.raises(socket.timeout):
        client.recv(10)
    client.settimeout(0)
    with pytest.raises(ssl.SSLWantReadError):
        client.recv(10)
    server.sendall(b"data")
    assert blocked() == b"data"


@pytest.mark.parametrize("threads_inside", ["reader", "two readers", "writer", "both"])
def test_close_ends_the_calls_of_other_threads(connect, threads, threads_inside):
    client, _ = connect(plain=socket_pair(4096))
    descriptor = client.fileno()
    inside = []
    if threads_inside != "writer":
        inside.append(threads.start(client.recv, 10))
    if threads_inside == "two readers":
        inside.append(threads.start(client.recv, 10))
    if threads_inside in ("writer", "both"):
        inside.append(threads.start(client.sendall, bytes(MEGABYTE)))
    busy(client)
    client.close()
    assert client.fileno() == -1
    for call in inside:
        with pytest.raises(OSError, match="closed by another thread") as closed:
            call()
        assert closed.value.errno == errno.EBADF
    eventually(lambda: is_closed(descriptor))
    with pytest.raises(OSError):
        client.send(b"x")


def test_urgent_data_wakes_no_reader(connect, threads):
    """Windows' recv() would then wait for data, and no close() would end it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    client, server = connect(plain=(near, far))
    reading = threads.start(client.recv, 10)
    busy(client)
    socket.socket.send(server, b"!", socket.MSG_OOB)
    busy(client)
    client.close()
    with pytest.raises(OSError, match="closed by another thread"):
        reading()


def is_closed(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return True
    return False


def test_close_during_the_handshake(make_contexts, threads):
    client, _ = make_contexts("tls13")
    pykeyupdate.manage(client)
    near, far = socket_pair()
    sock = client.wrap_socket(
        near, server_hostname="localhost", do_handshake_on_connect=False
    )
    shaking = threads.start(sock.do_handshake)
    busy(sock)
    sock.close()
    with far, pytest.raises(OSError) as caught:
        shaking()
    # ENOTSOCK: where the thread had not begun, Windows' own for getpeername()
    assert caught.value.errno in (errno.EBADF, errno.ENOTSOCK)


@BOTH
def test_unwrap_beside_a_reader(connect, threads, version):
    client, server = connect(version)
    reading = threads.start(client.recv, 10)
    busy(client)
    unwrapped = threads.start(client.unwrap)
    assert server.recv(10) == b""
    server.unwrap()
    with pytest.raises(ssl.SSLZeroReturnError):  # as ssl has it, once ours is sent
        reading()
    assert unwrapped() is client


@pytest.mark.skipif(
    os.name == "nt",
    reason="there shutdown() forbids subsequent calls of recv() alone (Microsoft; "
    "python/cpython#91913), for ssl's own sockets as well",
)
def test_shutdown_ends_a_reader(connect, threads):
    client, _ = connect()
    reading = threads.start(client.recv, 10)
    busy(client)
    client.shutdown(socket.SHUT_RDWR)
    assert reading() == b""


def test_a_fatal_error_reaches_every_thread(connect, threads):
    client, server = connect()
    readers = [threads.start(client.recv, 10) for _ in range(2)]
    busy(client)
    socket.socket.sendall(server, b"\x17\x03\x03\x00\x20" + bytes(32))
    for call in readers:
        with pytest.raises(ssl.SSLError, match=r"(?i)mac|record"):
            call()
    with pytest.raises(ssl.SSLError):
        client.send(b"x")


# -- renegotiation ---------------------------------------------------------------------


@pytest.mark.parametrize("end", ["client", "server"])
@pytest.mark.parametrize("peer", ["managed", "stock"])
def test_a_renegotiation_past_data_in_flight(connect, threads, end, peer):
    witness = Witness()
    client, server = connect(
        "tls12",
        managed="both" if peer == "managed" else end,
        setup=lambda client, server: witness.watch("server", server),
    )
    here, there = (client, server) if end == "client" else (server, client)
    witness.wire.clear()
    there.sendall(b"in flight " * 5000)
    pykeyupdate.rekey(here)
    following = threads.start(follow, there)  # a stock peer in one thread may
    here.sendall(b"next")  # a client's is held until the new handshake is done
    pykeyupdate.wait_for_renegotiation(here, timeout=DEADLOCK)
    assert not pykeyupdate.renegotiate_pending(here)
    assert following() == b"next"
    assert receive(here, 50_000) == b"in flight " * 5000
    assert witness.said("server", "received").count("Finished") == 1


def follow(end):
    data = receive(end, 4)
    pykeyupdate.wait_for_renegotiation(end, timeout=DEADLOCK)
    return data


@pytest.mark.parametrize("managed", ["both", "server"])
def test_what_is_pending_is_told_without_a_socket(connect, managed):
    client, server = connect("tls13", managed=managed)
    server.sendall(bytes(100))
    assert client.recv(10) == bytes(10)
    with socket.socket(fileno=client.detach()):
        assert client.pending() == 90


def test_a_writer_drives_the_renegotiation_where_nobody_reads(connect, threads):
    client, server = connect("tls12")
    pykeyupdate.renegotiate(client)
    echo = threads.start(receive, server, 100_000)
    server.sendall(b"before")
    client.sendall(bytes(100_000))
    assert echo() == bytes(100_000)
    assert not pykeyupdate.renegotiate_pending(client)
    assert select.select([client], [], [], 0)[0]  # a reader that waits is told
    assert client.pending() == 6
    assert client.recv(3) == b"bef"
    assert select.select([client], [], [], 0)[0]
    assert client.recv(10) == b"ore"
    assert not select.select([client], [], [], 0)[0]
    server.sendall(b"after")
    assert client.recv(10) == b"after"


@BOTH
def test_data_put_aside_is_no_obstacle_to_plaintext(connect, version):
    """Of data put aside the last byte stays in the socket: not in what follows TLS."""
    client, server = connect(
        version,
        setup=lambda client, server: setattr(client, "post_handshake_auth", True),
    )
    client.sendall(b"data")
    client.settimeout(0)
    with pytest.raises(ssl.SSLWantReadError):
        client.unwrap()  # sends close_notify
    server.settimeout(DEADLOCK)
    with pytest.raises((ssl.SSLError, pykeyupdate.NotPossibleError)):
        if version == "tls13":
            pykeyupdate.request_client_certificate(server)
        pykeyupdate.rekey(server)
        pykeyupdate.wait_for_renegotiation(server)
    assert server.recv(10) == b"data"
    assert server.recv(10) == b""
    plain = server.unwrap()
    socket.socket.send(client, b"in plaintext")
    assert plain.recv(100) == b"in plaintext"


def test_data_put_aside_does_not_hide_the_end(connect):
    client, server = connect("tls12")
    server.sendall(b"data")
    socket.socket.shutdown(server, socket.SHUT_WR)
    client.settimeout(0)
    pykeyupdate.renegotiate(client)

    def has_ended():
        try:
            client.send(b"held")
        except ssl.SSLWantReadError:
            return False
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):  # as options have it
            return True

    eventually(has_ended)
    assert client.recv(10) == b"data"


def test_an_error_of_the_socket_is_told_to_every_writer(connect):
    client, server = connect()
    client.shutdown(socket.SHUT_WR)
    server.sendall(b"answer")
    for data in (b"one", b"another"):
        with pytest.raises(BrokenPipeError):
            client.sendall(data)
    assert select.select([client], [], [], DEADLOCK)[0]
    assert client.recv(10) == b"answer"


def test_a_reader_drives_it_and_the_writer_is_let_go(connect, threads):
    client, server = connect("tls12")
    reading = threads.start(receive, client, 4)
    busy(client)
    pykeyupdate.rekey(client)
    writing = threads.start(client.sendall, b"held")
    assert receive(server, 4) == b"held"
    writing()
    server.sendall(b"done")
    assert reading() == b"done"


def test_a_renegotiation_that_never_comes_ends_a_writer_by_timeout(connect):
    client, _ = connect("tls12")
    client.settimeout(0.1)
    pykeyupdate.rekey(client)  # and the server does not read
    with pytest.raises(socket.timeout):
        client.sendall(b"held")
    with pytest.raises(socket.timeout, match="wait_for_renegotiation"):
        pykeyupdate.wait_for_renegotiation(client, timeout=0.05)


def test_a_refused_renegotiation_ends_the_held_writer(connect, threads):
    client, server = connect(
        "tls12",
        setup=lambda client, server: setattr(
            server, "options", server.options | ssl.OP_NO_RENEGOTIATION
        ),
    )
    answering = threads.start(server.recv, 10)
    pykeyupdate.rekey(client)
    with pytest.raises((ssl.SSLError, OSError)):
        client.sendall(b"held")
    with pytest.raises((ssl.SSLError, OSError)):
        answering()


def test_the_client_certificate_beside_a_reader(connect, threads, authority):
    identity = authority.issue_cert("client@example.org")

    def setup(client, server):
        identity.configure_cert(client)
        client.post_handshake_auth = True
        authority.configure_trust(server)

    client, server = connect("tls13", setup=setup)
    reading = [threads.start(receive, end, 4) for end in (client, server)]
    busy(server)
    asking = [
        threads.start(pykeyupdate.request_client_certificate, server, DEADLOCK)
        for _ in range(3)
    ]
    assert all(brought().certificate for brought in asking)
    for end in (client, server):
        end.sendall(b"done")
    assert [take() for take in reading] == [b"done", b"done"]


def test_a_certificate_request_that_another_thread_overtakes(
    connect, threads, authority, monkeypatch
):
    """The other thread joins the request before the first has sent it."""

    def setup(client, server):
        client.post_handshake_auth = True
        authority.configure_trust(server)

    client, server = connect("tls13", setup=setup)
    reading = threads.start(receive, client, 4)
    request = pykeyupdate._keyupdate.request
    first, overtaken = threading.Event(), threading.Event()

    def asks(conn, function, under_way):
        if not under_way:
            first.set()
            assert overtaken.wait(DEADLOCK)
        result = request(conn, function, under_way)
        overtaken.set()
        return result

    monkeypatch.setattr(pykeyupdate._keyupdate, "request", asks)
    asking = []
    for _ in range(2):
        asking.append(
            threads.start(pykeyupdate.request_client_certificate, server, DEADLOCK)
        )
        assert first.wait(DEADLOCK)
    for brought in asking:
        assert brought() == (None, False)
    server.sendall(b"done")
    assert reading() == b"done"


# -- signals, forks and the end of the process -----------------------------------------


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="POSIX")
@pytest.mark.parametrize("timeout", [None, DEADLOCK])
def test_signals_interrupt_and_nothing_is_lost(connect, threads, timeout):
    client, server = connect(plain=socket_pair(4096))
    client.settimeout(timeout)
    calls = []

    def handler(number, frame):
        calls.append(number)
        if len(calls) == 3:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        with pytest.raises(KeyboardInterrupt):
            client.recv(10)
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert len(calls) == 3
        server.sendall(b"still here")
        assert client.recv(10) == b"still here"
        calls.clear()
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        data = os.urandom(MEGABYTE)
        with pytest.raises(KeyboardInterrupt):
            client.sendall(data)
        signal.setitimer(signal.ITIMER_REAL, 0)
        got = threads.start(receive, server, MEGABYTE)
        client.sendall(data)
        assert got() == data
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="POSIX")
def test_a_signal_handler_may_read_what_is_being_read(connect, threads):
    client, server = connect()
    got = []

    def handler(number, frame):
        server.sendall(b"for the handler")
        got.append(client.recv(100))
        with contextlib.suppress(pykeyupdate.AlreadyPendingError):
            client.sendall(b"x")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        threads.start(lambda: (time.sleep(0.3), server.sendall(b"for the caller")))
        assert client.recv(100) == b"for the caller"
    finally:
        signal.signal(signal.SIGALRM, before)
    assert got == [b"for the handler"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="POSIX")
def test_one_signal_is_enough_and_a_handler_may_not_write_in_a_write(connect, threads):
    client, server = connect(plain=socket_pair(4096))
    data = os.urandom(MEGABYTE)

    def handler(number, frame):
        with pytest.raises(pykeyupdate.AlreadyPendingError):
            client.sendall(b"in the middle of it")
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            client.sendall(data)
    finally:
        signal.signal(signal.SIGALRM, before)
    received = threads.start(receive, server, MEGABYTE)
    client.sendall(data)
    assert received() == data


SCRIPT = """
import os, socket, ssl, sys, threading, time
import pykeyupdate
chain, trusted = sys.argv[1:3]
client = ssl.create_default_context(cafile=trusted)
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(chain)
pykeyupdate.manage(client)
pykeyupdate.manage(server)

def connect():
    near, far = socket.socketpair()
    accepted = []
    thread = threading.Thread(
        target=lambda: accepted.append(server.wrap_socket(far, server_side=True)))
    thread.start()
    here = client.wrap_socket(near, server_hostname="localhost")
    thread.join()
    return here, accepted[0]

here, there = connect()
got = []
reader = threading.Thread(target=lambda: got.append(here.recv(10)), daemon=True)
reader.start()
time.sleep(0.1)
"""


@pytest.fixture
def run_script(authority, certificate, tmp_path):
    chain, trusted = tmp_path / "chain.pem", tmp_path / "ca.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(chain))
    authority.cert_pem.write_to_path(str(trusted))

    def run(text, first=""):
        script = first + SCRIPT + text
        command = [sys.executable, "-X", "faulthandler", "-c", script]
        path = os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            [*command, str(chain), str(trusted)],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": path},
        )

    return run


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork()")
@pytest.mark.parametrize("child", ["here.close()", "del here, there", "pass"])
def test_a_child_leaves_the_parents_connection_alone(run_script, child):
    done = run_script(f"""
import warnings
warnings.simplefilter("ignore")
child = os.fork()
if not child:
    {child}
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
there.sendall(b"alive")
reader.join(20)
assert got == [b"alive"], got
here.sendall(b"too")
assert there.recv(10) == b"too"
""")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork()")
def test_a_child_may_close_in_a_hook_that_is_older_than_pykeyupdate(run_script):
    done = run_script(
        """
import warnings
warnings.simplefilter("ignore")
child = os.fork()
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
there.sendall(b"alive")
reader.join(20)
assert got == [b"alive"], got
""",
        first="import os; os.register_at_fork(after_in_child=lambda: here.close())",
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork()")
def test_what_was_half_done_at_fork_is_refused_in_all_children(run_script):
    done = run_script("""
import warnings
warnings.simplefilter("ignore")
armed, entered = [], threading.Event()

def stay(*args):
    if armed:
        entered.set()
        time.sleep(1)

server._msg_callback = stay
here, there = connect()
armed.append(True)
threading.Thread(target=there.send, args=(b"x",), daemon=True).start()
entered.wait()
for generation in range(2):
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        os._exit(0) if generation else sys.exit()
    try:
        there.pending()
    except pykeyupdate.ConnectionFailedError:
        continue
    os._exit(1)
os._exit(0)
""")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork()")
def test_a_callback_in_a_step_may_fork_and_the_child_goes_on(run_script):
    """The parent's reader thread had the role of the receiver."""
    done = run_script("""
import warnings
warnings.simplefilter("ignore")
armed, pending = [], []

def fork(*args):
    if armed:
        armed.clear()
        if os.fork():
            os._exit(0)
        pending.append(here.pending())

client._msg_callback = fork
here, there = connect()
threading.Thread(target=here.recv, args=(10,), daemon=True).start()
time.sleep(0.1)
armed.append(True)
here.sendall(b"from child")
assert there.recv(10) == b"from child"
there.sendall(b"to child")
here.settimeout(10)
assert here.recv(10) == b"to child"
assert pending == [0]
print("the child is done", flush=True)
os._exit(0)
""")
    assert (done.stdout, done.stderr) == ("the child is done\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork()")
def test_a_child_may_use_what_the_parent_does_not(run_script):
    done = run_script("""
import warnings
warnings.simplefilter("ignore")
child = os.fork()
if not child:
    there.sendall(b"from child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
reader.join(20)
assert got == [b"from child"], got
""")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_interpreter_ends_while_a_thread_reads(run_script):
    done = run_script("")
    assert (done.returncode, done.stderr) == (0, "")


def test_its_errors_are_of_the_ssl_module_that_it_was_imported_with(run_script):
    """urllib3's tests of a Python without it take ``ssl`` out of ``sys.modules``."""
    done = run_script("""
there.sendall(b"x")
reader.join(20)
errors = ssl.SSLWantReadError
for name in "ssl", "_ssl":
    del sys.modules[name]
here.settimeout(0)
try:
    here.recv(10)
except errors:
    pass
""")
    assert (done.returncode, done.stderr) == (0, "")


# -- what is not a connection ----------------------------------------------------------


def test_a_duplex_is_made_of_a_new_connection_over_memory(connect, make_link):
    client, _ = connect()
    link = make_link("tls13")
    plain = make_link("tls13", "socket")
    for inner in (
        None,
        client,
        client._sslobj,
        client._sslobj.inner,
        link.client._sslobj,
        plain.client._sslobj,
    ):
        with pytest.raises(ValueError, match="new connection over memory"):
            _keyupdate.Duplex(inner, client)
    with pytest.raises(TypeError):
        _keyupdate.Duplex()
    with pytest.raises(TypeError):
        client._sslobj.look()
    with pytest.raises(AttributeError):
        client._sslobj.nothing  # noqa: B018


def test_the_controls_take_it_like_any_other(connect):
    client, server = connect()
    for conn in (client, client._sslobj):
        assert pykeyupdate.get_key_update_type(conn) == -1
    client.key_update()
    assert client.get_key_update_type() == 0
    with pytest.raises(pykeyupdate.AlreadyPendingError):
        client.key_update()
    client.do_handshake()
    assert client.get_key_update_type() == -1
    server.sendall(b"x")
    assert client.recv(1) == b"x"
    client.close()
    with pytest.raises(pykeyupdate.ConnectionClosedError):
        client.rekey()


def test_a_writer_is_told_why_the_peer_has_gone(connect):
    client, server = connect("tls12")
    server.settimeout(0)
    socket.socket.send(client, b"\x17\x03\x03\x00\x20" + bytes(32))  # not from OpenSSL
    client.sendall(b"x" * 100)
    with pytest.raises(ssl.SSLError):
        server.recv(10)  # sends an alert
    server.close()  # with data unread
    with pytest.raises(ssl.SSLError, match="(?i)alert bad record mac"):
        for _ in range(100):
            client.sendall(b"y" * 100)
