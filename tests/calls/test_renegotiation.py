"""ext/calls/controls.c, renegotiation: SSL_renegotiate(3), statement by statement."""

import contextlib
import ssl

import pytest
from support.link import Link
from support.sockets import needs_unix_pair

import pykeyupdate
from pykeyupdate import _keyupdate

BOTH_CALLS = pytest.mark.parametrize(
    "call",
    [pykeyupdate.renegotiate, pykeyupdate.renegotiate_abbreviated],
    ids=["full", "abbreviated"],
)


def resumed(link):
    """Did the last handshake resume a session?  The server then sent no certificate."""
    return "Certificate" not in link.said("server")


# -- SSL_renegotiate, SSL_renegotiate_abbreviated: on a client -----------------------


@BOTH_CALLS
def test_client_call_sends_nothing(tls12, call):
    call(tls12.client)
    assert tls12.wire == []
    assert pykeyupdate.renegotiate_pending(tls12.client) is True


@BOTH_CALLS
@pytest.mark.parametrize(
    "perform",
    [lambda c: c.do_handshake(), lambda c: c.read(1), lambda c: c.write(b"x")],
    ids=["do_handshake", "read", "write"],
)
def test_client_begins_at_the_next_io(tls12, call, perform):
    call(tls12.client)
    with pytest.raises(ssl.SSLWantReadError):
        perform(tls12.client)
    assert tls12.said("client") == ["ClientHello"]
    tls12.settle()
    assert pykeyupdate.renegotiate_pending(tls12.client) is False
    assert tls12.said("client")[-1] == "Finished"
    assert tls12.said("server")[-1] == "Finished"


def test_client_renegotiate_is_a_full_handshake(tls12):
    session = tls12.client.session.id
    pykeyupdate.renegotiate(tls12.client)
    tls12.settle()
    assert not resumed(tls12)
    assert tls12.client.session_reused is False
    assert tls12.client.session.id != session
    assert tls12.talks()


def test_client_renegotiate_abbreviated_resumes_the_session(tls12):
    pykeyupdate.renegotiate_abbreviated(tls12.client)
    tls12.settle()
    assert resumed(tls12)
    assert tls12.client.session_reused is True
    assert tls12.said("client") == ["ClientHello", "Finished"]
    assert tls12.talks()


def test_server_may_decline_to_resume(make_link, over):
    link = make_link(
        "tls12", over, server=pykeyupdate.OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION
    )
    pykeyupdate.renegotiate_abbreviated(link.client)
    link.settle()
    assert not resumed(link)
    assert pykeyupdate.renegotiate_pending(link.client) is False
    assert link.talks()


# -- ... on a server -----------------------------------------------------------------


@BOTH_CALLS
def test_server_call_schedules_a_request(tls12, call):
    call(tls12.server)
    assert tls12.wire == []
    assert pykeyupdate.renegotiate_pending(tls12.server) is True
    tls12.server.do_handshake()
    assert tls12.wire == [("server", "sent", "HelloRequest")]
    assert pykeyupdate.renegotiate_pending(tls12.server) is True


@BOTH_CALLS
@pytest.mark.parametrize(
    "perform",
    [lambda c: c.do_handshake(), lambda c: c.read(1), lambda c: c.write(b"x")],
    ids=["do_handshake", "read", "write"],
)
def test_a_server_asks_at_the_next_io(tls12, call, perform):
    call(tls12.server)
    tls12.server.pending()
    assert tls12.wire == []
    with contextlib.suppress(ssl.SSLWantReadError):
        perform(tls12.server)
    assert tls12.said("server") == ["HelloRequest"]
    tls12.settle()
    assert tls12.talks()


@BOTH_CALLS
def test_client_follows_a_request_by_resuming(tls12, call):
    """For a server both calls are the same: the client decides, and OpenSSL resumes."""
    call(tls12.server)
    tls12.server.do_handshake()
    tls12.settle()
    assert resumed(tls12)
    assert pykeyupdate.renegotiate_pending(tls12.server) is False
    assert pykeyupdate.renegotiate_pending(tls12.client) is False
    assert tls12.talks()


def test_server_pending_stays_until_the_client_has_followed(tls12):
    """A client that does not read does not follow, and data still flows to us."""
    pykeyupdate.renegotiate(tls12.server)
    tls12.server.do_handshake()
    tls12.client.write(b"not yet")
    assert tls12.server.read(100) == b"not yet"
    assert pykeyupdate.renegotiate_pending(tls12.server) is True
    tls12.settle()
    assert pykeyupdate.renegotiate_pending(tls12.server) is False


def test_client_pending_from_the_servers_request_to_the_end(tls12):
    pykeyupdate.renegotiate(tls12.server)
    tls12.server.do_handshake()
    assert pykeyupdate.renegotiate_pending(tls12.client) is False
    with pytest.raises(ssl.SSLWantReadError):
        tls12.client.read(1)
    assert pykeyupdate.renegotiate_pending(tls12.client) is True
    tls12.settle()
    assert pykeyupdate.renegotiate_pending(tls12.client) is False


def test_reading_takes_up_what_the_peer_has_begun(make_link, role):
    """Other functions pass it by, and go on with it afterwards."""
    link = make_link("tls12")
    end, peer = link.end(role), link.peer(role)
    pykeyupdate.renegotiate(peer)
    with contextlib.suppress(ssl.SSLWantReadError):
        peer.do_handshake()
    end.do_handshake()
    assert end.write(b"data") == 4
    assert link.said(role) == []
    with pytest.raises(ssl.SSLWantReadError):
        end.read(1)
    assert (
        link.said(role)[0] == {"client": "ClientHello", "server": "ServerHello"}[role]
    )
    assert peer.read(4) == b"data"
    for _ in range(3):
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.read(1)
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    assert pykeyupdate.renegotiate_pending(end) is False
    assert link.talks()


def test_data_in_flight_survives_a_renegotiation_driven_by_reading(tls12):
    tls12.server.write(b"in flight")
    pykeyupdate.renegotiate(tls12.client)
    got = tls12.settle()
    assert got["client"] == b"in flight"
    assert not resumed(tls12)
    assert tls12.talks()


# -- SSL_renegotiate: errors ---------------------------------------------------------


@BOTH_CALLS
def test_tls13_is_refused(tls13, role, call):
    with pytest.raises(pykeyupdate.WrongProtocolVersionError, match=r"is TLSv1\.3"):
        call(tls13.end(role))
    assert pykeyupdate.renegotiate_pending(tls13.end(role)) is False
    assert tls13.talks()


@BOTH_CALLS
@pytest.mark.parametrize("version", ["tls12", "tls13"])
def test_before_the_handshake_is_refused_and_nothing_leaks(
    make_link, role, call, version
):
    """OpenSSL takes this call; the write after it then goes out in plaintext."""
    link = make_link(version, connected=False)
    end = link.end(role)
    with pytest.raises(pykeyupdate.HandshakeNotDoneError, match="handshake not done"):
        call(end)
    with contextlib.suppress(ssl.SSLError):
        end.do_handshake()
    with contextlib.suppress(ssl.SSLError):
        end.write(b"SECRET")
    sent = link.to_server if role == "client" else link.to_client
    on_the_wire = sent.read()
    assert b"SECRET" not in on_the_wire
    sent.write(on_the_wire)
    link.handshake()
    end.write(b"SECRET")
    on_the_wire = sent.read()
    assert len(on_the_wire) > len(b"SECRET")
    assert b"SECRET" not in on_the_wire
    sent.write(on_the_wire)
    assert link.peer(role).read(100) == b"SECRET"


@BOTH_CALLS
def test_a_second_call_is_refused(tls12, role, call):
    end = tls12.end(role)
    pykeyupdate.renegotiate(end)
    with pytest.raises(pykeyupdate.AlreadyPendingError, match="pending"):
        call(end)
    with contextlib.suppress(ssl.SSLWantReadError):
        end.do_handshake()
    with pytest.raises(pykeyupdate.AlreadyPendingError, match="pending"):
        call(end)
    tls12.settle()
    assert pykeyupdate.renegotiate_pending(end) is False
    assert tls12.talks()


@BOTH_CALLS
def test_inside_the_peers_renegotiation_is_refused(tls12, role, call):
    end, peer = tls12.end(role), tls12.peer(role)
    pykeyupdate.renegotiate(peer)
    with contextlib.suppress(ssl.SSLWantReadError):
        peer.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        end.read(1)
    with pytest.raises(pykeyupdate.AlreadyPendingError):
        call(end)
    tls12.settle()
    assert tls12.talks()


@BOTH_CALLS
def test_op_no_renegotiation_is_refused(make_link, over, role, call):
    link = make_link("tls12", over, **{role: ssl.OP_NO_RENEGOTIATION})
    with pytest.raises(
        pykeyupdate.RenegotiationForbiddenError, match="OP_NO_RENEGOTIATION"
    ):
        call(link.end(role))
    assert pykeyupdate.renegotiate_pending(link.end(role)) is False
    assert link.talks()


@BOTH_CALLS
def test_after_close_notify_of_either_side_is_refused(tls12, role, call):
    end, peer = tls12.end(role), tls12.peer(role)
    with pytest.raises(ssl.SSLWantReadError):
        end.unwrap()
    with pytest.raises(pykeyupdate.CloseNotifyError, match="has been sent"):
        call(end)
    with contextlib.suppress(ssl.SSLZeroReturnError):
        peer.read(1)
    with pytest.raises(pykeyupdate.CloseNotifyError, match="peer has sent"):
        call(peer)


@BOTH_CALLS
def test_after_a_fatal_error_is_refused(make_link, role, call):
    """OpenSSL says yes to this one."""
    link = make_link("tls12")
    incoming = link.to_client if role == "client" else link.to_server
    incoming.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError, match="(?i)bad.record.mac|record.layer.failure"):
        link.end(role).read(1)
    with pytest.raises(pykeyupdate.ConnectionFailedError):
        call(link.end(role))


@needs_unix_pair
@BOTH_CALLS
def test_with_a_write_pending_is_refused(make_link, role, call):
    link = make_link("tls12", "socket")
    end = link.end(role)
    data = link.fill(role)
    with pytest.raises(pykeyupdate.WritePendingError, match="half-way"):
        call(end)
    while True:
        with contextlib.suppress(ssl.SSLWantReadError):
            while link.peer(role).read(65536):
                pass
        with contextlib.suppress(ssl.SSLWantWriteError):
            end.write(data)
            break
    link.settle()
    assert link.talks()


# -- refusal by the peer: the connection is lost -------------------------------------


@BOTH_CALLS
def test_unread_data_is_refused_on_a_client(tls12, call):
    """OpenSSL takes it, and the client's next write ends the connection.

    A managed socket puts the data aside.
    """
    tls12.server.write(b"unread")
    assert tls12.client.read(1) == b"u"
    if tls12.over != "managed":
        with pytest.raises(pykeyupdate.ReadPendingError, match="is waiting.*recv"):
            call(tls12.client)
        assert pykeyupdate.renegotiate_pending(tls12.client) is False
        assert tls12.client.read(100) == b"nread"
    call(tls12.client)
    if tls12.over == "managed":
        assert tls12.client.read(100) == b"nread"
    tls12.settle()
    assert pykeyupdate.total_renegotiations(tls12.client) == 1
    assert tls12.talks()


@BOTH_CALLS
@pytest.mark.parametrize("received", [1, 5, 6, 20, -1])
def test_half_a_hello_request_is_refused_on_a_client(make_link, call, received):
    """OpenSSL takes it, renegotiates, and then waits for what never comes."""
    link = make_link("tls12")
    pykeyupdate.renegotiate(link.server)
    link.server.do_handshake()
    request = link.to_client.read()
    link.to_client.write(request[:received])
    with pytest.raises(ssl.SSLWantReadError):
        link.client.read(1)
    if received != 5:  # its header alone: OpenSSL has no part of the record yet
        with pytest.raises(pykeyupdate.ReadPendingError):
            call(link.client)
    link.to_client.write(request[received:])
    link.settle()
    assert pykeyupdate.total_renegotiations(link.client) == 1
    assert link.talks()


@BOTH_CALLS
def test_unread_data_is_no_obstacle_on_a_server(tls12, call):
    tls12.client.write(b"unread")
    assert tls12.server.read(1) == b"u"
    call(tls12.server)
    tls12.server.do_handshake()
    assert tls12.settle()["server"] == b"nread"
    assert pykeyupdate.total_renegotiations(tls12.client) == 1
    assert tls12.talks()


@pytest.mark.parametrize("caller", ["client", "server"])
def test_a_refused_renegotiation_ends_the_connection(make_contexts, caller):
    contexts = dict(zip(("client", "server"), make_contexts("tls12")))
    other = "server" if caller == "client" else "client"
    contexts[other].options |= ssl.OP_NO_RENEGOTIATION
    link = Link(contexts["client"], contexts["server"]).handshake()
    pykeyupdate.renegotiate(link.end(caller))
    with contextlib.suppress(ssl.SSLWantReadError):
        link.end(caller).do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        link.end(other).read(1)
    with pytest.raises(ssl.SSLError, match="(?i)no.renegotiation"):
        link.end(caller).read(1)
    with pytest.raises(pykeyupdate.ConnectionFailedError):
        pykeyupdate.renegotiate(link.end(caller))


@pytest.mark.skipif(
    _keyupdate.libssl["version_number"] < 0x30000000,
    reason="OpenSSL 1.1.1 servers allow it always",
)
def test_op_allow_client_renegotiation_is_what_allows_it(make_contexts):
    client, server = make_contexts("tls12")
    server.options &= ~pykeyupdate.OP_ALLOW_CLIENT_RENEGOTIATION
    link = Link(client, server).handshake()
    pykeyupdate.renegotiate(link.client)
    with pytest.raises(ssl.SSLError, match="(?i)no.renegotiation"):
        link.settle()


# -- beside the five -----------------------------------------------------------------


def test_secure_renegotiation_is_what_was_negotiated(make_link, tls12, role):
    assert pykeyupdate.secure_renegotiation(tls12.end(role)) is True
    tls13 = make_link("tls13")
    assert pykeyupdate.secure_renegotiation(tls13.end(role)) is False
    fresh = make_link("tls12", connected=False)
    assert pykeyupdate.secure_renegotiation(fresh.end(role)) is False


def test_total_counts_what_this_side_began(tls12):
    assert pykeyupdate.total_renegotiations(tls12.client) == 0
    for count in (1, 2):
        pykeyupdate.renegotiate(tls12.client)
        tls12.settle()
        assert pykeyupdate.total_renegotiations(tls12.client) == count
        assert pykeyupdate.total_renegotiations(tls12.server) == 0
    pykeyupdate.renegotiate(tls12.server)
    tls12.server.do_handshake()
    tls12.settle()
    assert pykeyupdate.total_renegotiations(tls12.client) == 3
    assert pykeyupdate.total_renegotiations(tls12.server) == 1


def test_pending_is_false_on_tls13(tls13, role):
    assert pykeyupdate.renegotiate_pending(tls13.end(role)) is False
