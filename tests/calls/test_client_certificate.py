"""request_client_certificate() in mid-connection, on TLS 1.3 and below."""

import contextlib
import socket
import ssl
import threading

import pytest
import trustme
from support import libssl_table
from support.link import Link, der, fill_to_the_brim
from support.sockets import needs_unix_pair

import pykeyupdate

REQUEST = {"tls13": "CertificateRequest", "tls12": "HelloRequest"}


@pytest.fixture(params=["tls13", "tls12"])
def version(request):
    return request.param


@pytest.fixture(scope="session")
def clients():
    """An authority that the server trusts, and two of its certificates."""
    authority = trustme.CA()
    return authority, authority.issue_cert("one@client"), authority.issue_cert("two@c")


@pytest.fixture
def connect(make_contexts, clients):
    """Connect a client that has a certificate, or not, to a server that trusts it."""
    links = []

    def connect(
        version,
        identity=True,
        over="memory",
        verify_mode=ssl.CERT_NONE,
        offered=True,
        trusted=True,
    ):
        client, server = make_contexts(version)
        authority, one, _ = clients
        if trusted:
            authority.configure_trust(server)
        if identity:
            one.configure_cert(client)
        server.verify_mode = verify_mode
        client.post_handshake_auth = offered
        if verify_mode != ssl.CERT_NONE:
            server.post_handshake_auth = True
        links.append(Link(client, server, over=over))
        return links[-1].handshake()

    yield connect
    for link in links:
        link.close()


def ask(link):
    """Ask, with the client reading whenever the server wants to."""
    for _ in range(20):
        try:
            return pykeyupdate.request_client_certificate(link.server)
        except ssl.SSLWantReadError:
            with contextlib.suppress(ssl.SSLWantReadError):
                link.client.read(1)
    raise AssertionError("the client does not answer")


@pytest.mark.parametrize("verify_mode", [ssl.CERT_NONE, ssl.CERT_OPTIONAL])
def test_certificate_is_returned_verified(connect, version, over, verify_mode, clients):
    if version == "tls12" and verify_mode != ssl.CERT_NONE:
        pytest.skip("TLS 1.2 has asked in the first handshake then")
    link = connect(version, over=over, verify_mode=verify_mode)
    assert link.server.getpeercert(True) is None
    assert ask(link) == (der(clients[1]), True)
    assert link.server.getpeercert(True) == der(clients[1])
    assert link.said("server").count(REQUEST[version]) == 1
    assert "CertificateVerify" in link.said("client")
    assert link.talks()


def test_asking_again_says_that_nothing_changed(connect, version, clients):
    link = connect(version)
    ask(link)
    again = ask(link)
    assert again.certificate == der(clients[1])
    assert again.changed is False
    assert link.said("server").count(REQUEST[version]) == 2
    assert link.talks()


def test_another_certificate_is_a_change(connect, version, clients, authority):
    if ssl.OPENSSL_VERSION_INFO < (3,):
        pytest.skip("a stock client whose context was replaced reads for ever then")
    link = connect(version)
    assert ask(link) == (der(clients[1]), True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    clients[2].configure_cert(context)
    authority.configure_trust(context)
    link.client.context = context
    assert ask(link) == (der(clients[2]), True)
    assert link.talks()


def test_client_without_a_certificate(connect, version):
    link = connect(version, identity=False)
    assert ask(link) == (None, False)
    assert link.talks()


def test_client_without_one_that_must_have_one(connect):
    link = connect("tls13", identity=False, verify_mode=ssl.CERT_OPTIONAL)
    link.server.context.verify_mode = ssl.CERT_REQUIRED
    assert ask(link) == (None, False)  # what the connection was made with counts


def test_required_certificate_that_does_not_come_ends_the_connection(make_contexts):
    """Post-handshake authentication of a context that requires it."""
    client, server = make_contexts("tls13")
    client.post_handshake_auth = server.post_handshake_auth = True
    server.verify_mode = ssl.CERT_REQUIRED
    link = Link(client, server).handshake()
    with pytest.raises(ssl.SSLError, match="certificate") as caught:
        ask(link)
    assert caught.value.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    with pytest.raises(pykeyupdate.ConnectionFailedError):
        ask(link)


def test_certificate_that_is_not_trusted_ends_the_connection(connect, version):
    link = connect(version, trusted=False)
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        ask(link)
    assert caught.value.reason == "CERTIFICATE_VERIFY_FAILED"
    assert caught.value.verify_code > 0
    assert "certificate" in caught.value.verify_message
    with pytest.raises(pykeyupdate.ConnectionFailedError):
        ask(link)


def test_client_that_did_not_offer_it(connect):
    link = connect("tls13", offered=False)
    for _ in range(2):
        with pytest.raises(
            pykeyupdate.NoPostHandshakeAuthError, match="post_handshake_auth = True"
        ):
            pykeyupdate.request_client_certificate(link.server)
    assert link.wire == []
    assert link.talks()


def test_only_a_server_asks(connect, version):
    link = connect(version)
    with pytest.raises(pykeyupdate.WrongRoleError, match="only a server"):
        pykeyupdate.request_client_certificate(link.client)
    assert link.wire == []
    assert link.talks()


def test_a_client_that_owes_an_answer_sends_nothing(connect, over):
    link = connect("tls13", over=over)
    pykeyupdate.rekey(link.server, request_peer=True)
    link.settle()
    with pytest.raises(pykeyupdate.WrongRoleError):
        pykeyupdate.request_client_certificate(link.client)
    assert link.said("client") == []
    assert pykeyupdate.get_key_update_type(link.client) == 0
    assert link.talks()


def test_a_client_that_has_said_its_end_is_not_asked(connect, version, over):
    link = connect(version, over=over)
    with contextlib.suppress(ssl.SSLWantReadError):
        link.client.unwrap()
    with contextlib.suppress(ssl.SSLZeroReturnError):
        link.server.read(1)
    with pytest.raises(pykeyupdate.CloseNotifyError, match="will not answer"):
        pykeyupdate.request_client_certificate(link.server)
    assert link.said("server") == []


def test_before_the_handshake_it_is_refused(make_link, version):
    link = make_link(version, connected=False)
    with pytest.raises(pykeyupdate.HandshakeNotDoneError):
        pykeyupdate.request_client_certificate(link.server)
    link.handshake()
    assert link.talks()


def test_forbidden_renegotiation_is_refused(make_contexts):
    client, server = make_contexts("tls12")
    server.options |= ssl.OP_NO_RENEGOTIATION
    link = Link(client, server).handshake()
    with pytest.raises(pykeyupdate.RenegotiationForbiddenError):
        pykeyupdate.request_client_certificate(link.server)
    assert link.wire == []
    assert link.talks()


def test_data_that_came_first_is_not_lost(connect, version, over, clients):
    link = connect(version, over=over)
    link.client.write(b"in flight")
    with link.data_in_front():
        pykeyupdate.request_client_certificate(link.server)
    assert link.said("server") == [REQUEST[version]]
    assert link.server.read(100) == b"in flight"
    assert ask(link) == (der(clients[1]), True)
    assert link.said("server").count(REQUEST[version]) == 1
    assert link.talks()


def test_unread_data_is_refused_before_the_wire(connect, version):
    link = connect(version)
    link.client.write(b"unread")
    assert link.server.read(1) == b"u"
    with pytest.raises(pykeyupdate.ReadPendingError, match=r"recv\(\) it first"):
        pykeyupdate.request_client_certificate(link.server)
    assert link.wire == []
    assert link.server.read(100) == b"nread"
    assert ask(link).changed
    assert link.talks()


def test_answer_that_comes_inside_recv_is_the_next_calls(connect, version, clients):
    link = connect(version)
    with pytest.raises(ssl.SSLWantReadError):
        pykeyupdate.request_client_certificate(link.server)
    link.settle()
    assert pykeyupdate.request_client_certificate(link.server) == (
        der(clients[1]),
        True,
    )
    assert link.said("server").count(REQUEST[version]) == 1
    assert link.talks()


@pytest.mark.parametrize("timeout", [None, 20.0])
def test_on_sockets_that_wait(connect, version, timeout, clients):
    link = connect(version, over="socket")
    link.server.settimeout(timeout)
    link.client.settimeout(20)
    reader = threading.Thread(target=link.client.recv, args=(1,), daemon=True)
    reader.start()
    got = pykeyupdate.request_client_certificate(link.server, timeout=20)
    assert got == (der(clients[1]), True)
    link.server.sendall(b"x")
    reader.join(20)
    assert not reader.is_alive()


def test_client_that_does_not_answer(connect, version, clients):
    link = connect(version, over="socket")
    link.server.settimeout(None)
    with pytest.raises(socket.timeout, match="call it again"):
        pykeyupdate.request_client_certificate(link.server, timeout=0.05)
    link.server.settimeout(0)
    assert ask(link) == (der(clients[1]), True)
    assert link.said("server").count(REQUEST[version]) == 1
    assert link.talks()


def test_no_session_is_resumed_instead_of_the_question(connect):
    """An OpenSSL client offers one in answer to a HelloRequest."""
    link = connect("tls12")
    assert ask(link).changed
    assert "Certificate" in link.said("server")


def test_owed_answer_goes_before_the_request(connect, clients, over):
    link = connect("tls13", over=over)
    pykeyupdate.rekey(link.client, request_peer=True)
    link.settle()
    assert pykeyupdate.get_key_update_type(link.server) == 0
    assert ask(link) == (der(clients[1]), True)
    assert link.said("server")[:2] == ["KeyUpdate(0)", "CertificateRequest"]
    assert link.talks()


def test_owed_answer_goes_out_although_openssl_takes_no_update(connect, clients, over):
    link = connect("tls13", over=over)
    pykeyupdate.rekey(link.client, request_peer=True)
    link.settle()
    with libssl_table.refuses_updates():
        assert ask(link) == (der(clients[1]), True)
    assert link.said("server")[:2] == ["KeyUpdate(0)", "CertificateRequest"]
    assert link.talks()


@needs_unix_pair
def test_half_sent_request_is_no_key_update(connect):
    """A rekey() then sends the rest of it, and a key update."""
    link = connect("tls13", over="socket")
    fill_to_the_brim(link.server, link.client)
    with pytest.raises(ssl.SSLWantWriteError):
        pykeyupdate.request_client_certificate(link.server)
    with pytest.raises(ssl.SSLWantReadError):
        while True:
            link.client.read(1000)
    pykeyupdate.rekey(link.server)
    assert link.said("server") == ["CertificateRequest", "KeyUpdate(0)"]
    link.settle()
    assert link.talks()


def test_client_is_told_that_it_is_one_whatever_is_unread(connect, version):
    link = connect(version)
    link.server.write(b"unread")
    link.client.read(1)
    with pytest.raises(pykeyupdate.WrongRoleError):
        pykeyupdate.request_client_certificate(link.client)


def test_library_that_reads_in_a_thread_of_its_own(connect, version):
    link = connect(version, over="socket")

    class Connection:
        __module__ = "websockets.sync.connection"

        def __init__(self):
            self.socket = link.server
            self.recv_events_thread = threading.current_thread()

    with pytest.raises(pykeyupdate.SharedConnectionError):
        pykeyupdate.request_client_certificate(Connection())
    if version == "tls12":
        for begin in (pykeyupdate.rekey, pykeyupdate.renegotiate):
            with pytest.raises(pykeyupdate.SharedConnectionError):
                begin(Connection())
                pykeyupdate.flush(Connection())
        with pytest.raises(pykeyupdate.SharedConnectionError):
            pykeyupdate.wait_for_renegotiation(Connection())
    assert link.wire == []


def test_key_updates_and_certificates_go_together(connect, clients):
    link = connect("tls13")
    pykeyupdate.rekey(link.client, request_peer=True)
    assert ask(link) == (der(clients[1]), True)
    pykeyupdate.rekey(link.server)
    assert link.talks()
