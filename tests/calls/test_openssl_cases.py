"""OpenSSL's own test cases for these functions, repeated through Python.

Each test names its model in OpenSSL 4.0's test/ (in sslapitest.c unless it says
otherwise). The cases of OpenSSL's renegotiation tests are in test_renegotiation.py.
"""

import contextlib
import ssl

import pytest
from support import pace
from support.link import NOT_REQUESTED, REQUESTED, Link, write_nothing

import pykeyupdate
from pykeyupdate import KeyUpdateType


@pytest.mark.parametrize("update_type", [0, 1])
def test_forty_updates_in_a_row(tls13, role, update_type):
    """test_key_update"""
    if update_type == KeyUpdateType.REQUESTED:
        pace.skip_if_kept()
    for _ in range(40):
        pykeyupdate.key_update(tls13.end(role), update_type)
        tls13.end(role).do_handshake()
    assert tls13.said(role) == [f"KeyUpdate({update_type})"] * 40
    assert tls13.talks()


def test_peer_requests_while_our_write_is_incomplete(make_link, role):
    """test_key_update_peer_in_write"""
    link = make_link("tls13", "socket")
    end, peer = link.end(role), link.peer(role)
    data = link.fill(role)
    pykeyupdate.key_update(peer, KeyUpdateType.REQUESTED)
    peer.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        end.read(1)
    assert link.said(role) == []
    received = 0
    while True:
        with contextlib.suppress(ssl.SSLWantReadError):
            while True:
                received += len(peer.read(65536))
        with contextlib.suppress(ssl.SSLWantWriteError):
            end.write(data)
            break
    end.write(b"after")
    assert link.said(role) == [NOT_REQUESTED]
    other = "server" if role == "client" else "client"
    assert link.settle()[other].endswith(b"after")
    assert received > 0
    assert link.talks()


def test_local_update_with_half_a_record_read(make_link, role):
    """test_key_update_local_in_read"""
    link = make_link("tls13")
    end, peer = link.end(role), link.peer(role)
    incoming = link.to_client if role == "client" else link.to_server
    peer.write(b"the other half")
    record = incoming.read()
    incoming.write(record[:9])
    with pytest.raises(ssl.SSLWantReadError):
        end.read(1)
    pykeyupdate.key_update(end, KeyUpdateType.REQUESTED)
    end.do_handshake()
    incoming.write(record[9:])
    assert end.read(100) == b"the other half"
    assert link.said(role) == [REQUESTED]
    assert link.talks()


def test_peers_update_with_half_a_record_behind_it(make_link, role):
    """test_key_update_peer_in_read"""
    link = make_link("tls13")
    end, peer = link.end(role), link.peer(role)
    incoming = link.to_client if role == "client" else link.to_server
    pykeyupdate.key_update(peer, KeyUpdateType.REQUESTED)
    peer.write(b"the other half")
    records = incoming.read()
    incoming.write(records[:40])
    with pytest.raises(ssl.SSLWantReadError):
        end.read(1)
    end.write(b"answer")
    assert link.said(role) == [NOT_REQUESTED]
    assert peer.read(100) == b"answer"
    incoming.write(records[40:])
    assert end.read(100) == b"the other half"
    assert link.talks()


def test_post_handshake_authentication_and_key_update(make_contexts, authority, role):
    """test_pha_key_update: both scheduled, whichever comes first"""
    client, server = make_contexts("tls13")
    client.post_handshake_auth = True
    authority.issue_cert("client@example.org").configure_cert(client)
    server.verify_mode = ssl.CERT_OPTIONAL
    authority.configure_trust(server)
    link = Link(client, server).handshake()
    link.server._sslobj.verify_client_post_handshake()
    with pytest.raises(pykeyupdate.AlreadyPendingError, match="post-handshake"):
        pykeyupdate.key_update(link.server)
    if role == "client":
        pykeyupdate.key_update(link.client)
        link.client.do_handshake()
    link.server.do_handshake()
    link.settle()
    assert link.server.getpeercert()
    assert link.talks()


def test_updates_after_the_peer_has_shut_down_its_side(make_link, over):
    """test_shutdown, case 4"""
    link = make_link("tls13", over)
    with pytest.raises(ssl.SSLWantReadError):
        link.client.unwrap()
    link.server.write(b"one")
    pykeyupdate.key_update(link.server, KeyUpdateType.REQUESTED)
    link.server.write(b"two")
    assert link.client.read(3) == b"one"
    assert link.client.read(3) == b"two"
    assert link.said("server") == [REQUESTED]


@pytest.mark.parametrize("update_type", [0, 1])
def test_updates_do_not_resume_or_renegotiate(tls13, role, update_type):
    """ssl-tests/21-key-update"""
    pykeyupdate.key_update(tls13.end(role), update_type)
    tls13.end(role).do_handshake()
    assert tls13.talks()
    assert tls13.client.session_reused is False
    assert not {"ClientHello", "ServerHello"} & {name for _, _, name in tls13.wire}


@pytest.mark.parametrize("legacy_first", [False, True])
def test_cipher_may_change_in_a_renegotiation(make_contexts, legacy_first):
    """ssl-tests/17-renegotiate, aead and non-aead ciphers"""
    client, server = make_contexts("tls12")
    aead, cbc = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256"
    for context in (client, server):
        context.set_ciphers(f"{aead}:{cbc}")
    first, second = (cbc, aead) if legacy_first else (aead, cbc)
    server.set_ciphers(first)
    link = Link(client, server).handshake()
    assert link.client.cipher()[0] == first
    server.set_ciphers(second)
    pykeyupdate.renegotiate(link.client)
    link.settle()
    assert link.client.cipher()[0] == second
    assert link.talks()


def test_client_certificate_in_a_renegotiation(make_contexts, authority):
    """ssl-tests/17-renegotiate, client authentication"""
    client, server = make_contexts("tls12")
    authority.issue_cert("client@example.org").configure_cert(client)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    link = Link(client, server).handshake()
    before = link.server.getpeercert()
    pykeyupdate.renegotiate(link.server)
    link.server.do_handshake()
    link.settle()
    assert link.server.getpeercert() == before != {}
    assert link.talks()


# -- not tested by OpenSSL ---------------------------------------------------------


def test_several_requests_are_answered_one_by_one(tls13, role):
    """Three requests read at once: two answers leave inside the read, one waits."""
    pace.skip_if_kept()
    end, peer = tls13.end(role), tls13.peer(role)
    for _ in range(3):
        pykeyupdate.key_update(peer, KeyUpdateType.REQUESTED)
        peer.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        end.read(1)
    assert pykeyupdate.get_key_update_type(end) == KeyUpdateType.NOT_REQUESTED
    end.write(b"x")
    assert tls13.said(role) == [NOT_REQUESTED] * 3
    tls13.settle()
    assert tls13.talks()


def test_both_sides_request_at_once(tls13):
    for name in ("client", "server"):
        pykeyupdate.key_update(tls13.end(name), KeyUpdateType.REQUESTED)
        tls13.end(name).do_handshake()
    tls13.settle()
    for name in ("client", "server"):
        write_nothing(tls13.end(name))
        assert tls13.said(name) == [REQUESTED, NOT_REQUESTED]
    assert tls13.talks()


def test_shutdown_with_an_answer_owed_goes_through(tls13, role):
    """The answer is then never sent, which RFC 9846 allows: no data follows."""
    end, peer = tls13.end(role), tls13.peer(role)
    pykeyupdate.key_update(peer, KeyUpdateType.REQUESTED)
    peer.do_handshake()
    tls13.settle()
    with pytest.raises(ssl.SSLWantReadError):
        end.unwrap()
    assert tls13.said(role) == []
    with pytest.raises(pykeyupdate.CloseNotifyError):
        pykeyupdate.key_update(end)
