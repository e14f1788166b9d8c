"""A call in the middle of a call is answered, or refused before anything is touched."""

import os
import ssl
import threading
import time

import pytest
from support.link import Witness
from support.threads import DEADLOCK

import pykeyupdate

BOTH = pytest.mark.parametrize("version", ["tls13", "tls12"])


class Armed(Witness):
    """A message callback that makes a call once, in the first message after arming."""

    def __init__(self):
        super().__init__()
        self.call, self.ended = None, []

    def setup(self, end):
        def set_callback(client, server):
            context = client if end == "client" else server
            self.watch(end, context)
            watch = context._msg_callback

            def callback(conn, *args):
                call, self.call = self.call, None
                watch(conn, *args)
                if call is not None:
                    try:
                        self.ended.append(call(conn))
                    except Exception as error:
                        self.ended.append(error)

            context._msg_callback = callback

        return set_callback


ACTS = {
    "rekey": pykeyupdate.rekey,
    "flush": pykeyupdate.flush,
    "key_update": pykeyupdate.key_update,
    "renegotiate": pykeyupdate.renegotiate,
    "renegotiate_abbreviated": pykeyupdate.renegotiate_abbreviated,
    "request_client_certificate": pykeyupdate.request_client_certificate,
    "recv": lambda conn: conn.recv(1),
    "send": lambda conn: conn.send(b"x"),
    "do_handshake": lambda conn: conn.do_handshake(),
    "unwrap": lambda conn: conn.unwrap(),
    "verify_client_post_handshake": lambda conn: conn.verify_client_post_handshake(),
}
LOOKS = {
    "version": lambda conn: conn.version(),
    "pending": lambda conn: conn.pending(),
    "cipher": lambda conn: conn.cipher(),
    "getpeercert": lambda conn: conn.getpeercert(),
    "session": lambda conn: conn.session,
    "get_key_update_type": pykeyupdate.get_key_update_type,
    "renegotiate_pending": pykeyupdate.renegotiate_pending,
    "stats": pykeyupdate.stats,
    "request_rekey": pykeyupdate.request_rekey,
}


@BOTH
@pytest.mark.parametrize("end", ["client", "server"])
@pytest.mark.parametrize("name", [*ACTS, *LOOKS])
def test_in_a_callback(connect, version, end, name):
    armed = Armed()
    pair = connect(version, setup=armed.setup(end))
    mine, peer = pair if end == "client" else reversed(pair)
    armed.wire.clear()
    armed.call = {**ACTS, **LOOKS}[name]
    mine.sendall(b"d" * 100)
    assert peer.recv(1000) == b"d" * 100
    (ended,) = armed.ended
    if name in ACTS:
        assert isinstance(ended, pykeyupdate.PyKeyUpdateError)
        assert "refused, and nothing was done" in str(ended)
    else:
        assert not isinstance(ended, Exception)
    assert armed.wire == []
    peer.sendall(b"and back")
    assert mine.recv(100) == b"and back"


def test_callbacks_that_ask_another_connection_do_not_wait_for_each_other(
    connect, threads
):
    """Two threads crosswise, as `ssl`'s own can."""
    servers = []

    def callback(conn, *args):
        if len(servers) == 2:
            time.sleep(0.001)
            other = servers[conn is servers[0]]
            other.version()
            other.pending()
            pykeyupdate.stats(other)

    def setup(client, server):
        server._msg_callback = callback

    pairs = [connect(setup=setup) for _ in range(2)]
    servers.extend(server for _, server in pairs)

    def work(client, server):
        for _ in range(30):
            server.sendall(b"x")
            assert client.recv(9) == b"x"

    for result in [threads.start(work, *pair) for pair in pairs]:
        result()


def test_callbacks_that_write_to_another_connection_are_refused_in_time(
    connect, threads
):
    """Each waits in its callback for the other's step: that has no end."""
    servers, refused, met = [], [], threading.Barrier(2)

    def callback(conn, *args):
        if len(servers) == 2 and not refused:
            met.wait(DEADLOCK)
            try:
                servers[conn is servers[0]].send(b"y")
            except pykeyupdate.AlreadyPendingError as error:
                refused.append(str(error))

    def setup(client, server):
        server._msg_callback = callback

    pairs = [connect(setup=setup) for _ in range(2)]
    servers.extend(server for _, server in pairs)
    for result in [threads.start(server.send, b"x") for _, server in pairs]:
        assert result() == 1
    assert any(
        "a callback of another connection cannot wait" in text for text in refused
    )


def test_a_callback_may_close_another_connection_that_is_in_a_step(connect, threads):
    """Whose last thread closes the socket."""
    entered, go_on = threading.Event(), threading.Event()
    others = []

    def stays(conn, *args):
        if others:
            entered.set()
            go_on.wait(DEADLOCK)

    def closes(conn, *args):
        if others and entered.is_set():
            others[0].close()

    first = connect(
        setup=lambda client, server: setattr(server, "_msg_callback", stays)
    )
    second = connect(
        setup=lambda client, server: setattr(server, "_msg_callback", closes)
    )
    others.append(first[1])
    staying = threads.start(first[1].send, b"x")
    assert entered.wait(DEADLOCK)
    assert second[1].send(b"x") == 1
    assert first[1].fileno() == -1
    go_on.set()
    with pytest.raises(OSError):
        staying()
    assert first[0].recv(10) in (b"", b"x")


def test_a_finalizer_in_a_callback_is_refused_and_hurts_nobody(connect):
    """As garbage collection may run it there."""
    refused = []

    class Finalized:
        def __init__(self, conn):
            self.conn = conn

        def __del__(self):
            try:
                pykeyupdate.rekey(self.conn)
            except pykeyupdate.AlreadyPendingError as error:
                refused.append(error)

    armed = Armed()
    client, server = connect(setup=armed.setup("server"))
    armed.call = lambda conn: Finalized(conn) and None
    server.sendall(b"data")
    assert client.recv(100) == b"data"
    assert len(refused) == 1


def test_a_refused_renegotiation_begins_nothing(connect):
    client, _ = connect("tls12")
    pykeyupdate.renegotiate(client)
    assert client.version() == "TLSv1.2"
    with pytest.raises(pykeyupdate.AlreadyPendingError):
        pykeyupdate.renegotiate(client)
    assert client.version() == "TLSv1.2"


def connected_objects(contexts):
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = contexts[0].wrap_bio(to_client, to_server, server_hostname="localhost")
    server = contexts[1].wrap_bio(to_server, to_client, server_side=True)
    done = set()
    while len(done) < 2:
        for end in (client, server):
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                pass
    return client, server


@pytest.mark.parametrize("function", ["rekey", "flush", "request_client_certificate"])
@pytest.mark.parametrize("managed", ["neither", "both"])
def test_an_objects_own_callback_is_told_so(make_contexts, function, managed):
    """Managed or not: the call stack tells of ssl's own."""
    contexts = make_contexts("tls13")
    if managed == "both":
        for context in contexts:
            pykeyupdate.manage(context)
    ended, armed = [], []

    def callback(conn, *args):
        if armed:
            armed.clear()
            try:
                getattr(pykeyupdate, function)(conn)
            except pykeyupdate.AlreadyPendingError as error:
                ended.append(str(error))

    contexts[1]._msg_callback = callback
    client, server = connected_objects(contexts)
    armed.append(True)
    server.write(b"data")
    assert client.read(100) == b"data"
    assert len(ended) == 1
    assert "refused, and nothing was done" in ended[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork()")
def test_an_object_that_another_thread_used_at_a_fork_is_the_parents(make_contexts):
    contexts = make_contexts("tls13")
    for context in contexts:
        pykeyupdate.manage(context)
    entered, go_on = threading.Event(), threading.Event()

    def callback(conn, *args):
        entered.set()
        go_on.wait(DEADLOCK)

    contexts[0]._msg_callback = callback
    end = contexts[0].wrap_bio(
        ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost"
    )

    def begin():
        with pytest.raises(ssl.SSLWantReadError):
            end.do_handshake()

    thread = threading.Thread(target=begin)
    thread.start()
    assert entered.wait(DEADLOCK)
    child = os.fork()
    if child == 0:
        try:
            end.read(1)
        except pykeyupdate.ConnectionFailedError:
            os._exit(0)
        finally:
            os._exit(1)
    go_on.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_peeked_records_are_counted(make_contexts):
    """A renegotiation is driven by looking at what stands in front of its messages."""
    contexts = make_contexts("tls12")
    for context in contexts:
        pykeyupdate.manage(context)
    client, server = connected_objects(contexts)
    pykeyupdate.renegotiate(server)
    for _ in range(5):
        client.write(b"data")
    for _ in range(5):
        with pytest.raises((pykeyupdate.ReadPendingError, ssl.SSLWantReadError)):
            pykeyupdate.wait_for_renegotiation(server)
        server.read(100)
    assert pykeyupdate.stats(client).sent.records == 5
    assert pykeyupdate.stats(server).received[:2] == (5, 20)
