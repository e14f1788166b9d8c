"""gnutls-serv and gnutls-cli as peers: a different TLS implementation.

gnutls-serv --echo sends back what it receives. gnutls-cli --inline-commands accepts
^rekey^ (an update that requests one), ^rekey1^ (one that does not) and ^renegotiate^.
"""

import contextlib
import ssl

import pytest
from support.link import NOT_REQUESTED, REQUESTED

import pykeyupdate
from pykeyupdate import KeyUpdateType

OP_LEGACY_SERVER_CONNECT = 0x4  # ssl exports it since Python 3.12
WITHOUT_RFC_5746 = ":%DISABLE_SAFE_RENEGOTIATION"


def echoes(connection, data=b"hello\n"):
    connection.sendall(data)
    answer = b""
    while not answer.endswith(b"\n"):
        answer += connection.recv(100)
    return answer == data


def test_gnutls_serv_takes_and_answers_our_updates(gnutls_serv):
    _, client, witness = gnutls_serv("tls13")
    assert echoes(client)
    witness.wire.clear()
    client.key_update()
    assert echoes(client)
    assert witness.wire == [("client", "sent", NOT_REQUESTED)]
    client.key_update(KeyUpdateType.REQUESTED)
    client.do_handshake()
    assert echoes(client)
    assert witness.wire[1:] == [
        ("client", "sent", REQUESTED),
        ("client", "received", NOT_REQUESTED),
    ]


def test_gnutls_clis_update_is_taken_and_answered(gnutls_cli, read_until):
    client, server, witness = gnutls_cli("tls13")
    client.wait_for("Simple Client Mode")
    witness.wire.clear()
    client.type("^rekey^")
    read_until(server, lambda _: witness.said("server", "received"))
    assert witness.said("server", "received") == [REQUESTED]
    assert server.get_key_update_type() == KeyUpdateType.NOT_REQUESTED
    server.sendall(b"still here\n")
    assert witness.said("server") == [NOT_REQUESTED]
    client.wait_for("still here")
    client.type("so am I")
    read_until(server, lambda data: b"so am I" in data)


def test_gnutls_cli_takes_and_answers_our_updates(gnutls_cli, read_until):
    client, server, witness = gnutls_cli("tls13")
    client.wait_for("Simple Client Mode")
    witness.wire.clear()
    server.key_update(KeyUpdateType.REQUESTED)
    server.sendall(b"please\n")
    client.wait_for("please")
    client.type("thanks")
    read_until(server, lambda data: b"thanks" in data)
    assert witness.said("server", "received") == [NOT_REQUESTED]


def test_renegotiation_with_gnutls_serv_full_and_abbreviated(gnutls_serv):
    """gnutls-serv (3.7, 3.8) that resumes *by ticket* in a renegotiation hangs up
    ("Cannot perform this action while handshake is in progress"); by session ID it
    works.
    """
    _, client, witness = gnutls_serv("tls12", "--noticket")
    assert client.secure_renegotiation()
    assert echoes(client)
    for call, resumed in (
        (client.renegotiate, False),
        (client.renegotiate_abbreviated, True),
    ):
        witness.wire.clear()
        call()
        client.do_handshake()
        assert not client.renegotiate_pending()
        assert witness.said("client")[0] == "ClientHello"
        assert witness.said("client", "received")[-1] == "Finished"
        assert ("Certificate" in witness.said("client", "received")) is not resumed
        assert client.session_reused is resumed
        assert echoes(client)


def test_gnutls_cli_renegotiates_with_us(gnutls_cli, read_until):
    client, server, witness = gnutls_cli("tls12")
    client.wait_for("Simple Client Mode")
    witness.wire.clear()
    client.type("^renegotiate^")
    read_until(server, lambda _: "Finished" in witness.said("server"))
    client.type("after")
    read_until(server, lambda data: b"after" in data)
    assert "ClientHello" in witness.said("server", "received")


@pytest.mark.parametrize("call", ["renegotiate", "renegotiate_abbreviated"])
def test_gnutls_cli_follows_our_request(gnutls_cli, read_until, call):
    client, server, witness = gnutls_cli("tls12")
    client.wait_for("Simple Client Mode")
    witness.wire.clear()
    getattr(server, call)()
    server.do_handshake()
    read_until(server, lambda _: not server.renegotiate_pending())
    assert witness.said("server")[0] == "HelloRequest"
    assert witness.said("server", "received")[-1] == "Finished"
    client.type("after")
    read_until(server, lambda data: b"after" in data)


CALLS = [pykeyupdate.renegotiate, pykeyupdate.renegotiate_abbreviated]


@pytest.mark.parametrize("call", CALLS)
def test_gnutls_serv_without_rfc_5746_is_not_asked(gnutls_serv, call):
    _, client, witness = gnutls_serv(
        "tls12", priority=WITHOUT_RFC_5746, allow=OP_LEGACY_SERVER_CONNECT
    )
    witness.wire.clear()
    assert client.secure_renegotiation() is False
    with pytest.raises(pykeyupdate.InsecureRenegotiationError, match="RFC 5746"):
        call(client)
    assert echoes(client)
    assert witness.wire == []


@pytest.mark.parametrize("call", CALLS)
def test_gnutls_cli_without_rfc_5746_is_not_asked(gnutls_cli, read_until, call):
    client, server, witness = gnutls_cli("tls12", WITHOUT_RFC_5746)
    client.wait_for("Simple Client Mode")
    witness.wire.clear()
    assert server.secure_renegotiation() is False
    with pytest.raises(pykeyupdate.InsecureRenegotiationError, match="RFC 5746"):
        call(server)
    client.type("as before")
    read_until(server, lambda data: b"as before" in data)
    assert witness.wire == []


def test_gnutls_serv_without_rfc_5746_is_refused(gnutls_serv):
    """What it asks for, as OP_NO_RENEGOTIATION says: by a warning, and no more."""
    server, client, witness = gnutls_serv(
        "tls12",
        priority=WITHOUT_RFC_5746,
        allow=OP_LEGACY_SERVER_CONNECT | ssl.OP_NO_RENEGOTIATION,
    )
    witness.wire.clear()
    client.sendall(b"**REHANDSHAKE**\n")
    with contextlib.suppress(OSError):
        while client.recv(100):  # it hangs up, in some way
            pass
    assert witness.wire == [("client", "received", "HelloRequest")]
    server.wait_for("A TLS warning alert has been received")
