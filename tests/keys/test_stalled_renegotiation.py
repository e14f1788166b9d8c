"""``PeerLimits.renegotiation_seconds``: how long a peer may leave one unfinished.

The peer is an unmanaged connection of ``ssl``, which does nothing unless the test has
it do something. Hours pass by ``advance_clock()``. They count as far as this side looks
meanwhile, which it does each minute in ``waits_for()``.
"""

import contextlib
import socket
import ssl
import time

import pytest
from support.libssl_table import libssl, pointer
from support.link import Link
from support.sockets import socket_pair

import pykeyupdate
from pykeyupdate import PeerLimitError, PeerLimits
from pykeyupdate.testing import advance_clock

DEFAULT = 600
LOOKS = 10  # of the time between two looks, no more counts than this part of the limit
DAY = 24 * 3600
ON_A_CLIENT = pytest.mark.parametrize("role", ["client"])
ON_A_SERVER = pytest.mark.parametrize("role", ["server"])


@pytest.fixture(params=["memory", "socket"])
def over(request):
    """An SSLObject, or an SSLSocket."""
    return request.param


class Case:
    def __init__(self, link, role):
        self.link, self.role = link, role
        self.conn, self.peer = link.end(role), link.peer(role)

    def begins(self):
        """Begin a renegotiation, and leave it to the peer to end it."""
        client = self.link.client
        assert libssl.SSL_renegotiate(pointer(client)) == 1  # not an abbreviated one
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        if self.role == "client":
            self.peer_looks()
        assert self.waits()

    def peer_looks(self):
        with pytest.raises(ssl.SSLWantReadError):
            self.peer.read(100)

    def waits(self):
        with pytest.raises(ssl.SSLWantReadError):
            self.conn.read(100)
        return True

    def waits_for(self, seconds, limit=DEFAULT):
        """Wait so long, and look now and then as a program that reads does."""
        whole, rest = divmod(seconds, limit // LOOKS)
        for each in [limit // LOOKS] * whole + [rest] * (rest > 0):
            self.waits()
            advance_clock(each)

    def is_cut(self):
        for call, argument in ((self.conn.read, 100), (self.conn.write, b"x")):
            with pytest.raises(
                PeerLimitError, match=r"PeerLimits\.renegotiation_seconds"
            ):
                call(argument)
        return True

    def ends(self):
        self.link.settle()
        counts = pykeyupdate.stats(self.conn).counts
        return (
            counts.renegotiations + counts.peer_renegotiations == 1
            and self.link.talks()
        )


@pytest.fixture
def case(make_contexts, over, role):
    links = []

    def make(policy=None, **limits):
        contexts = dict(zip(("client", "server"), make_contexts("tls12")))
        pykeyupdate.manage(contexts[role], policy=policy, limits=PeerLimits(**limits))
        links.append(Link(contexts["client"], contexts["server"], over=over))
        return Case(links[-1].handshake(), role)

    yield make
    for link in links:
        link.close()


def test_ten_minutes_are_allowed(case):
    it = case()
    it.begins()
    it.waits_for(DEFAULT - 10)
    assert it.waits()
    assert it.ends()
    advance_clock(DAY)
    assert it.link.talks()


def test_more_are_not(case):
    it = case()
    it.begins()
    it.waits_for(DEFAULT)
    assert it.is_cut()


@pytest.mark.parametrize("answers", ["while it is away", "when it is back"])
def test_a_program_that_looks_too_late_cuts_nobody_off(case, answers):
    """What the peer has sent may have been there all the time."""
    it = case()
    it.begins()
    if answers == "while it is away":
        it.peer_looks()
    advance_clock(DAY)
    if answers == "when it is back":
        assert it.waits()
        advance_clock(DAY)
    assert it.ends()


def test_a_peer_is_cut_off_by_a_program_that_looks_seldom(case):
    it = case()
    it.begins()
    for _ in range(LOOKS):
        assert it.waits()
        advance_clock(DAY)
    assert it.is_cut()


def test_a_write_is_told_first(case):
    it = case()
    it.begins()
    it.waits_for(DEFAULT)
    with pytest.raises(PeerLimitError):
        it.conn.write(b"x")


def test_nothing_is_read_behind_the_limit(case):
    """Not even the rest of the handshake, which is too late."""
    it = case()
    it.begins()
    it.link.wire.clear()
    it.waits_for(DEFAULT)
    with contextlib.suppress(ssl.SSLWantReadError):
        it.peer.read(100)
    assert it.is_cut()
    assert it.link.said(it.role, "received") == []


def test_it_can_be_handshaken_with_no_more(case):
    it = case()
    it.begins()
    it.waits_for(DEFAULT)
    with pytest.raises(PeerLimitError):
        it.conn.do_handshake()


def test_another_time(case):
    it = case(renegotiation_seconds=30)
    it.begins()
    it.waits_for(30, limit=30)
    assert it.is_cut()


def test_any_time(case):
    it = case(renegotiation_seconds=None)
    it.begins()
    advance_clock(DAY)
    assert it.waits()
    assert it.ends()


def test_a_second_one_has_its_own_time(case):
    it = case(renegotiations=None)
    it.begins()
    assert it.ends()
    advance_clock(DAY)
    it.begins()
    it.waits_for(DEFAULT - 10)
    assert it.waits()
    it.waits_for(20)
    assert it.is_cut()


@ON_A_SERVER
def test_a_request_that_the_client_ignores_takes_any_time(case):
    """RFC 5246 7.4.1.1: it may ignore a HelloRequest, and the connection goes on."""
    it = case()
    pykeyupdate.renegotiate(it.conn)
    it.conn.do_handshake()
    for _ in range(3):
        advance_clock(DAY)
        assert it.conn.write(b"data") == 4
        assert it.waits()


@ON_A_CLIENT
def test_a_server_that_only_sends_takes_any_time(case):
    """It does not look at our ClientHello before it has sent all it has."""
    it = case()
    pykeyupdate.renegotiate(it.conn)
    with pytest.raises(ssl.SSLWantReadError):
        it.conn.do_handshake()
    for _ in range(3):
        advance_clock(DAY)
        it.peer.write(b"data")
        assert it.conn.read(100) == b"data"
    advance_clock(DAY)
    assert it.waits()
    assert it.ends()


@ON_A_CLIENT
def test_its_time_begins_with_its_answer(case):
    it = case()
    pykeyupdate.renegotiate(it.conn)
    with pytest.raises(ssl.SSLWantReadError):
        it.conn.do_handshake()
    advance_clock(DAY)
    assert it.waits()
    it.peer_looks()
    assert it.waits()
    it.waits_for(DEFAULT - 10)
    assert it.waits()
    it.waits_for(20)
    assert it.is_cut()


def test_what_is_told(case, caplog):
    before = pykeyupdate.totals().counts.cut_off
    events, it = [], case()
    it.begins()
    remove = pykeyupdate.on_event(events.append)
    it.waits_for(DEFAULT)
    try:
        assert it.is_cut()
    finally:
        remove()
    (cut,) = [it for it in events if it.kind is pykeyupdate.EventKind.CUT_OFF]
    assert "PeerLimits.renegotiation_seconds" in cut.detail
    assert "PeerLimits.renegotiation_seconds" in caplog.text
    assert pykeyupdate.stats(it.conn).counts.cut_off == 1
    assert pykeyupdate.totals().counts.cut_off == before + 1


# -- a server thread that waits --------------------------------------------------------


class Raw:
    """A client over memory, whose bytes the test sends when it likes."""

    def __init__(self, context, plain):
        self.plain = plain
        self.inside, self.outside = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.inside, self.outside, server_hostname="localhost"
        )

    def runs(self, call):
        with contextlib.suppress(ssl.SSLWantReadError):
            call()
            return True
        return False

    def takes(self):
        self.inside.write(self.plain.recv(65536))

    def handshakes(self):
        while not self.runs(self.tls.do_handshake):
            self.plain.sendall(self.outside.read())
            self.takes()


@pytest.fixture
def waiting(make_contexts, threads):
    """Connect a raw client to a managed server that waits in ``recv()``."""
    client_context, server_context = make_contexts("tls12")
    pykeyupdate.manage(server_context, limits=PeerLimits())
    near, far = socket_pair()
    with contextlib.ExitStack() as stack:
        raw = Raw(client_context, near)
        accepted = threads.start(lambda: server_context.wrap_socket(far, server_side=1))
        raw.handshakes()
        server = stack.enter_context(accepted())
        stack.enter_context(near)
        yield raw, threads.start(lambda: server.recv(100)), server


def half_done(raw):
    """Have the client renegotiate up to its last flight, and return that."""
    assert libssl.SSL_renegotiate(pointer(raw.tls)) == 1
    raw.runs(raw.tls.do_handshake)
    raw.plain.sendall(raw.outside.read())
    while raw.outside.pending == 0:
        raw.takes()
        raw.runs(raw.tls.do_handshake)
    return raw.outside.read()


def times_out(server):
    """Have it read as long as it may."""
    for _ in range(LOOKS):
        with pytest.raises(socket.timeout):
            server.recv(100)
        advance_clock(DEFAULT / LOOKS)


def test_a_peer_that_sends_a_byte_now_and_then(waiting):
    raw, result, server = waiting
    flight = half_done(raw)
    for place in range(LOOKS + 1):
        raw.plain.sendall(flight[place : place + 1])
        time.sleep(0.1)
        assert (pykeyupdate.stats(server).counts.cut_off == 1) == (place == LOOKS)
        advance_clock(DEFAULT / LOOKS)
    with pytest.raises(PeerLimitError):
        result()


def test_a_peer_that_sends_nothing_is_met_by_the_next_call(waiting):
    raw, result, server = waiting
    half_done(raw)
    server.settimeout(0.2)  # of calls to come; the present one has none
    times_out(server)
    for call in (server.recv, server.sendall):
        with pytest.raises(PeerLimitError):
            call(100 if call == server.recv else b"x")
    raw.plain.close()
    with pytest.raises(PeerLimitError):  # now the one that waited is told, too
        result()


def test_a_timeout_comes_first(make_contexts, threads):
    client_context, server_context = make_contexts("tls12")
    pykeyupdate.manage(server_context, limits=PeerLimits())
    near, far = socket_pair()
    raw = Raw(client_context, near)
    accepted = threads.start(lambda: server_context.wrap_socket(far, server_side=True))
    raw.handshakes()
    with accepted() as server, near:
        server.settimeout(0.2)
        half = threads.start(lambda: half_done(raw))
        with pytest.raises((socket.timeout, ssl.SSLError)) as late:
            server.recv(100)
        half()
        assert isinstance(late.value, socket.timeout)
        times_out(server)
        with pytest.raises(PeerLimitError):
            server.recv(100)
