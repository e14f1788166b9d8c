"""pykeyupdate/_sync.py and _rekeying.py: new keys now, on sockets and memory BIOs."""

import contextlib
import socket
import ssl
import threading
import time
from datetime import timedelta

import pytest
from support import libssl_table
from support.link import NOT_REQUESTED, REQUESTED, Link, fill_to_the_brim, write_nothing
from support.servers import echo
from support.sockets import needs_unix_pair

import pykeyupdate
from pykeyupdate import KeyUpdateType

FIRST = {"client": "ClientHello", "server": "HelloRequest"}


@pytest.fixture(params=[None, 20.0], ids=["blocking", "timeout"])
def waits(request):
    return request.param


class Echo:
    """A blocking pair: the test's end, and one that sends back what it gets."""

    def __init__(self, link, role, timeout):
        self.end, self.other = link.end(role), link.peer(role)
        self.end.settimeout(timeout)
        self.other.settimeout(20)
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        with contextlib.suppress(OSError, ssl.SSLError):
            echo(self.other)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.end.shutdown(socket.SHUT_RDWR)
        self.thread.join(20)

    def talks(self):
        data = bytes(range(256)) * 100
        self.end.sendall(data)
        got = b""
        while len(got) < len(data):
            got += self.end.recv(65536)
        return got == data


# -- rekey() ---------------------------------------------------------------------------


@pytest.mark.parametrize("request_peer", [False, True])
def test_tls13_is_a_key_update_sent_now(tls13, role, request_peer):
    pykeyupdate.rekey(tls13.end(role), request_peer=request_peer)
    assert tls13.said(role) == [REQUESTED if request_peer else NOT_REQUESTED]
    assert pykeyupdate.get_key_update_type(tls13.end(role)) is KeyUpdateType.NONE
    tls13.settle()
    assert tls13.talks()
    other = "server" if role == "client" else "client"
    assert tls13.said(other) == ([NOT_REQUESTED] if request_peer else [])


def test_tls12_is_a_renegotiation_begun_now(tls12, role):
    pykeyupdate.rekey(tls12.end(role))
    assert tls12.said(role) == [FIRST[role]]
    assert pykeyupdate.renegotiate_pending(tls12.end(role))
    tls12.settle()
    assert not pykeyupdate.renegotiate_pending(tls12.end(role))
    assert tls12.said("client").count("Finished") == 1
    if role == "client":  # of a server's request OpenSSL clients make a resumption
        assert "Certificate" in tls12.said("server")
    assert tls12.talks()


@pytest.mark.parametrize("request_peer", [False, True])
def test_tls13_on_a_socket_that_waits(make_link, role, waits, request_peer):
    link = make_link("tls13", "socket")
    with Echo(link, role, waits) as echo:
        for _ in range(5):
            pykeyupdate.rekey(echo.end, request_peer=request_peer)
            assert echo.talks()
        assert echo.end.gettimeout() == waits
    assert link.said(role) == [REQUESTED if request_peer else NOT_REQUESTED] * 5


def test_tls12_on_a_socket_that_waits(make_link, role, waits):
    link = make_link("tls12", "socket")
    with Echo(link, role, waits) as echo:
        for _ in range(3):
            pykeyupdate.rekey(echo.end)
            pykeyupdate.wait_for_renegotiation(echo.end)
            assert not pykeyupdate.renegotiate_pending(echo.end)
            assert echo.talks()
        assert echo.end.gettimeout() == waits
    assert link.said(role).count(FIRST[role]) == 3
    assert link.said("client").count("Finished") == 3


def test_scheduled_update_is_the_one_performed(tls13, role):
    end = tls13.end(role)
    pykeyupdate.key_update(end, KeyUpdateType.REQUESTED)
    pykeyupdate.rekey(end)
    assert tls13.said(role) == [REQUESTED]


def test_scheduled_update_that_asks_too_little_is_followed_by_one_more(tls13, role):
    end = tls13.end(role)
    pykeyupdate.key_update(end)
    pykeyupdate.rekey(end, request_peer=True)
    assert tls13.said(role) == [NOT_REQUESTED, REQUESTED]
    tls13.settle()
    assert tls13.talks()


@pytest.mark.parametrize(
    ("request_peer", "said"),
    [(False, [NOT_REQUESTED]), (True, [NOT_REQUESTED, REQUESTED])],
)
def test_owed_answer_is_never_replaced(tls13, role, request_peer, said):
    """One update answers the peer and is ours too, unless we ask back."""
    pykeyupdate.rekey(tls13.peer(role), request_peer=True)
    tls13.settle()
    pykeyupdate.rekey(tls13.end(role), request_peer=request_peer)
    assert tls13.said(role) == said
    tls13.settle()
    assert tls13.talks()


@needs_unix_pair
def test_full_buffer_raises_and_calling_again_finishes_the_same_update(make_link, role):
    link = make_link("tls13", "socket")
    end, peer = link.end(role), link.peer(role)
    fill_to_the_brim(end, peer)
    for _ in range(3):
        with pytest.raises(ssl.SSLWantWriteError):
            pykeyupdate.rekey(end)
    with pytest.raises(ssl.SSLWantReadError):
        while True:
            peer.read(1000)
    pykeyupdate.rekey(end)
    link.settle()
    assert link.said(role) == [NOT_REQUESTED]
    assert link.talks()
    pykeyupdate.rekey(end)
    assert link.said(role) == [NOT_REQUESTED] * 2


@needs_unix_pair
def test_full_buffer_on_tls12(make_link, role):
    link = make_link("tls12", "socket")
    end, peer = link.end(role), link.peer(role)
    fill_to_the_brim(end, peer)
    for _ in range(3):
        with pytest.raises(ssl.SSLWantWriteError):
            pykeyupdate.rekey(end)
    link.settle()
    assert link.said(role).count(FIRST[role]) == 1
    assert not pykeyupdate.renegotiate_pending(end)
    assert link.talks()


@needs_unix_pair
@pytest.mark.parametrize("version", ["tls13", "tls12"])
def test_full_buffer_on_a_socket_with_a_timeout(make_link, role, version):
    link = make_link(version, "socket")
    end, peer = link.end(role), link.peer(role)
    fill_to_the_brim(end, peer)
    end.settimeout(0.05)
    for _ in range(2):
        with pytest.raises(socket.timeout, match="timed out"):
            pykeyupdate.rekey(end)
        assert end.gettimeout() == 0.05
    end.settimeout(0)
    link.settle()
    with contextlib.suppress(pykeyupdate.AlreadyPendingError):
        pykeyupdate.rekey(end)
    link.settle()
    assert len([m for m in link.said(role) if m in (NOT_REQUESTED, FIRST[role])]) in (
        1,
        2,
    )
    assert link.talks()


def test_incomplete_send_is_refused(make_link, role):
    for version in ("tls13", "tls12"):
        link = make_link(version, "socket")
        data = link.fill(role)
        with pytest.raises(pykeyupdate.WritePendingError):
            pykeyupdate.rekey(link.end(role))
        assert link.said(role) == []
        link.settle()
        link.end(role).write(data)
        link.settle()
        assert link.talks()


def half_a_record(link, role):
    """Give one end the first half of a record; return the second half."""
    link.peer(role).write(b"a record of the peer's")
    incoming = link.to_client if role == "client" else link.to_server
    record = incoming.read()
    incoming.write(record[:9])
    with pytest.raises(ssl.SSLWantReadError):
        link.end(role).read(100)
    return record[9:], incoming


def test_half_a_record_received(make_link, role):
    link = make_link("tls13")
    rest, incoming = half_a_record(link, role)
    if ssl.OPENSSL_VERSION_NUMBER >= 0x101010CF:
        pykeyupdate.rekey(link.end(role))
    incoming.write(rest)
    assert link.end(role).read(100) == b"a record of the peer's"
    assert link.talks()


def test_half_a_record_received_on_tls12_is_refused(make_link, role):
    link = make_link("tls12")
    rest, incoming = half_a_record(link, role)
    with pytest.raises(pykeyupdate.ReadPendingError, match=r"recv\(\) it first"):
        pykeyupdate.rekey(link.end(role))
    assert link.said(role) == []
    assert not pykeyupdate.renegotiate_pending(link.end(role))
    incoming.write(rest)
    assert link.end(role).read(100) == b"a record of the peer's"
    pykeyupdate.rekey(link.end(role))
    link.settle()
    assert link.talks()


def test_data_in_flight_survives_a_renegotiation(make_link, role, over):
    """Where do_handshake() would end the connection with UNEXPECTED_RECORD."""
    link = make_link("tls12", over)
    end, peer = link.end(role), link.peer(role)
    for number in range(3):
        peer.write(b"in flight %d" % number)
    pykeyupdate.rekey(end)
    with link.data_in_front():
        pykeyupdate.wait_for_renegotiation(end)
    for number in range(3):
        assert end.read(11) == b"in flight %d" % number
    link.settle()
    assert not pykeyupdate.renegotiate_pending(end)
    assert link.said("client").count("Finished") == 1
    assert link.talks()


def test_forbidden_renegotiation_is_refused_before_the_wire(make_link, role):
    option = ssl.OP_NO_RENEGOTIATION
    link = make_link("tls12", client=option, server=option)
    with pytest.raises(pykeyupdate.RenegotiationForbiddenError) as caught:
        pykeyupdate.rekey(link.end(role))
    assert repr(link.end(role)) in str(caught.value)
    assert link.wire == []
    assert link.talks()


@pytest.mark.parametrize("version", ["tls13", "tls12"])
@pytest.mark.parametrize("call", [pykeyupdate.rekey, pykeyupdate.flush])
def test_before_the_handshake(make_link, role, version, call):
    link = make_link(version, connected=False)
    with pytest.raises(pykeyupdate.HandshakeNotDoneError):
        call(link.end(role))
    link.handshake()
    assert link.talks()


@pytest.mark.parametrize("version", ["tls13", "tls12"])
def test_peer_gone_is_the_operating_systems_error(make_link, role, version):
    """Or, once a write has failed with it, that this write is incomplete.

    A Unix socket refuses the key update. TCP takes it, and refuses what comes next.
    OpenSSL before 3.0 then still waits for the answer to a renegotiation.
    """
    link = make_link(version, "socket")
    link.peer(role).close()
    expected = OSError, pykeyupdate.NotPossibleError, pykeyupdate.WritePendingError
    if version == "tls12" and ssl.OPENSSL_VERSION_INFO < (3,):
        expected += (pykeyupdate.AlreadyPendingError,)
    for _ in range(3):
        with pytest.raises(expected):
            pykeyupdate.rekey(link.end(role))
            pykeyupdate.wait_for_renegotiation(link.end(role))
            link.end(role).write(b"x")


def test_after_close_notify(make_link, role):
    for version in ("tls13", "tls12"):
        link = make_link(version)
        with pytest.raises(ssl.SSLWantReadError):
            link.end(role).unwrap()
        with pytest.raises(pykeyupdate.CloseNotifyError):
            pykeyupdate.rekey(link.end(role))
        pykeyupdate.flush(link.end(role))
        assert link.said(role) == []


# -- flush() ---------------------------------------------------------------------------


def test_flush_sends_the_answer_of_a_program_that_only_reads(tls13, role):
    pykeyupdate.rekey(tls13.peer(role), request_peer=True)
    tls13.settle()
    assert tls13.said(role) == []
    pykeyupdate.flush(tls13.end(role))
    assert tls13.said(role) == [NOT_REQUESTED]
    pykeyupdate.flush(tls13.end(role))
    assert tls13.said(role) == [NOT_REQUESTED]
    tls13.settle()
    assert tls13.talks()


@pytest.mark.parametrize("call", [pykeyupdate.flush, pykeyupdate.rekey])
def test_an_answer_goes_out_although_openssl_takes_no_update_now(tls13, role, call):
    """As soon after one of ours as a coming OpenSSL does not allow."""
    pykeyupdate.rekey(tls13.peer(role), request_peer=True)
    tls13.settle()
    with libssl_table.refuses_updates():
        call(tls13.end(role))
        assert tls13.said(role) == [NOT_REQUESTED]
        pykeyupdate.flush(tls13.end(role))
        with pytest.raises(pykeyupdate.DeferredByOpenSSLError):
            pykeyupdate.rekey(tls13.end(role))
    assert tls13.said(role) == [NOT_REQUESTED]
    tls13.settle()
    assert tls13.talks()


def test_what_is_owed_goes_out_and_what_openssl_refuses_does_not(tls13, role):
    pykeyupdate.rekey(tls13.peer(role), request_peer=True)
    tls13.settle()
    with libssl_table.refuses_updates():
        with pytest.raises(pykeyupdate.DeferredByOpenSSLError, match="TOO_MANY"):
            pykeyupdate.rekey(tls13.end(role), request_peer=True)
    assert tls13.said(role) == [NOT_REQUESTED]
    pykeyupdate.rekey(tls13.end(role), request_peer=True)
    assert tls13.said(role) == [NOT_REQUESTED, REQUESTED]
    tls13.settle()
    assert tls13.talks()


def test_flush_sends_what_is_scheduled(tls13, role):
    pykeyupdate.key_update(tls13.end(role), KeyUpdateType.REQUESTED)
    pykeyupdate.flush(tls13.end(role))
    assert tls13.said(role) == [REQUESTED]


@pytest.mark.parametrize("version", ["tls13", "tls12"])
def test_flush_of_nothing_sends_nothing(make_link, over, role, version):
    link = make_link(version, over)
    pykeyupdate.flush(link.end(role))
    link.settle()
    assert link.wire == []
    assert link.talks()


def test_flush_begins_a_scheduled_renegotiation(tls12, role):
    pykeyupdate.renegotiate(tls12.end(role))
    pykeyupdate.flush(tls12.end(role))
    assert tls12.said(role) == [FIRST[role]]
    pykeyupdate.flush(tls12.end(role))
    assert tls12.said(role) == [FIRST[role]]
    tls12.settle()
    assert tls12.talks()


def test_flush_over_an_incomplete_send_is_refused(make_link, role):
    link = make_link("tls13", "socket")
    pykeyupdate.rekey(link.peer(role), request_peer=True)
    data = link.fill(role)
    with contextlib.suppress(ssl.SSLWantReadError):
        link.end(role).read(1)
    with pytest.raises(pykeyupdate.WritePendingError):
        pykeyupdate.flush(link.end(role))
    link.settle()
    link.end(role).write(data)
    write_nothing(link.end(role))
    link.settle()
    assert link.said(role) == [NOT_REQUESTED]
    assert link.talks()


# -- wait_for_renegotiation() ----------------------------------------------------------


def test_waiting_for_nothing_returns(make_link, over, role):
    for version in ("tls13", "tls12"):
        link = make_link(version, over)
        pykeyupdate.wait_for_renegotiation(link.end(role))
        assert link.wire == []


def test_waiting_does_not_block_what_does_not_block(tls12, role):
    pykeyupdate.rekey(tls12.end(role))
    with pytest.raises(ssl.SSLWantReadError):
        pykeyupdate.wait_for_renegotiation(tls12.end(role))
    tls12.settle()
    pykeyupdate.wait_for_renegotiation(tls12.end(role))
    assert tls12.talks()


def test_waiting_ends_when_the_time_is_over_and_can_go_on(make_link, role, waits):
    link = make_link("tls12", "socket")
    end = link.end(role)
    end.settimeout(waits)
    pykeyupdate.rekey(end)
    began = time.monotonic()
    with pytest.raises(socket.timeout, match="call it again"):
        pykeyupdate.wait_for_renegotiation(end, timeout=0.1)
    assert 0.09 < time.monotonic() - began < 10
    assert end.gettimeout() == waits
    end.settimeout(0)
    link.settle()
    pykeyupdate.wait_for_renegotiation(end)
    assert link.talks()


def test_timeout_makes_a_socket_wait_that_does_not_block(make_link, role):
    link = make_link("tls12", "socket")
    with Echo(link, role, 0) as echo:
        pykeyupdate.rekey(echo.end)
        pykeyupdate.wait_for_renegotiation(echo.end, timeout=20)
        assert echo.end.gettimeout() == 0
        echo.end.settimeout(20)
        assert echo.talks()


@pytest.mark.parametrize("timeout", [timedelta(seconds=20), 24 * 86400])
@pytest.mark.parametrize("sockets", ["socket", "managed"])
def test_timeout_may_be_a_timedelta_and_long(make_link, role, sockets, timeout):
    link = make_link("tls12", sockets)
    with Echo(link, role, None) as echo:
        pykeyupdate.rekey(echo.end)
        pykeyupdate.wait_for_renegotiation(echo.end, timeout)
        assert echo.talks()


@pytest.mark.parametrize(
    ("error", "timeout"),
    [
        (ValueError, -1),
        (ValueError, timedelta(seconds=-1)),
        (ValueError, float("nan")),
        (ValueError, float("inf")),
        (ValueError, 25 * 86400),  # which would be too much for poll()
        (TypeError, "1"),
        (TypeError, True),
        (TypeError, b"1"),
    ],
)
def test_wrong_timeouts_are_refused_before_the_wire(tls12, error, timeout):
    for call in (
        pykeyupdate.wait_for_renegotiation,
        pykeyupdate.request_client_certificate,
    ):
        with pytest.raises(
            error, match=rf"^{call.__name__}\(\): timeout must be seconds from 0 to 24 "
        ):
            call(tls12.server, timeout=timeout)
    assert tls12.talks()
    assert tls12.wire == []


def test_peer_that_goes_while_we_wait(make_link, role):
    link = make_link("tls12", "socket")
    pykeyupdate.rekey(link.end(role))
    link.peer(role).close()
    with pytest.raises((ssl.SSLError, OSError)):
        pykeyupdate.wait_for_renegotiation(link.end(role), timeout=20)


def test_peer_that_says_goodbye_while_we_wait(make_link):
    """A server: its client may close instead of following."""
    link = make_link("tls12")
    pykeyupdate.rekey(link.server)
    with pytest.raises(ssl.SSLWantReadError):
        link.client.unwrap()
    with pytest.raises(ssl.SSLZeroReturnError):
        pykeyupdate.wait_for_renegotiation(link.server)


def test_peer_that_refuses_ends_the_connection_with_its_reason(make_contexts):
    client, server = make_contexts("tls12")
    client.options |= ssl.OP_NO_RENEGOTIATION
    link = Link(client, server).handshake()
    pykeyupdate.rekey(link.server)
    with pytest.raises(ssl.SSLWantReadError):
        link.client.read(1)
    with pytest.raises(ssl.SSLError, match=r"rene.*wait_for_renegotiation") as caught:
        pykeyupdate.wait_for_renegotiation(link.server)
    assert caught.value.library == "SSL"
    with pytest.raises(pykeyupdate.ConnectionFailedError):
        pykeyupdate.rekey(link.server)
