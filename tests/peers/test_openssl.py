"""openssl s_server and s_client as peers, including their interactive commands.

s_server -rev sends back each line, reversed; without it, a line typed into either
program goes to the other side, except for single letters: k and K send a key update (K:
requested), r and R request or begin a renegotiation. A program that finds two lines
waiting reads them as one, so a test waits for the effect of a letter before it types
the next line.
"""

import shutil
import subprocess

import pytest
from support.link import NOT_REQUESTED, REQUESTED

from pykeyupdate import KeyUpdateType


def says_hello(connection, data=b"hello\n"):
    """s_server -rev reverses each line."""
    connection.sendall(data)
    answer = b""
    while not answer.endswith(b"\n"):
        answer += connection.recv(100)
    return answer == data[:-1][::-1] + b"\n"


def test_s_server_takes_and_answers_our_updates(s_server):
    _, client, witness = s_server("tls13", "-rev")
    assert says_hello(client)
    witness.wire.clear()
    client.key_update()
    assert says_hello(client)
    assert witness.wire == [("client", "sent", NOT_REQUESTED)]
    client.key_update(KeyUpdateType.REQUESTED)
    client.do_handshake()
    assert says_hello(client)
    assert witness.wire[1:] == [
        ("client", "sent", REQUESTED),
        ("client", "received", NOT_REQUESTED),
    ]


@pytest.mark.parametrize(("key", "message"), [("k", NOT_REQUESTED), ("K", REQUESTED)])
def test_s_servers_updates_are_taken(s_server, read_until, key, message):
    server, client, witness = s_server("tls13")
    server.type("before")
    read_until(client, lambda data: b"before" in data)
    witness.wire.clear()
    server.type(key)
    read_until(client, lambda _: witness.said("client", "received"))
    server.type("after")
    read_until(client, lambda data: b"after" in data)
    assert witness.said("client", "received") == [message]
    owed = message == REQUESTED
    assert client.get_key_update_type() == (0 if owed else -1)
    client.sendall(b"still here\n")
    server.wait_for("still here")
    assert witness.said("client") == ([NOT_REQUESTED] if owed else [])


@pytest.mark.parametrize(("key", "message"), [("k", NOT_REQUESTED), ("K", REQUESTED)])
def test_s_clients_updates_are_taken(s_client, read_until, key, message):
    client, server, witness = s_client("tls13")
    client.type("before")
    read_until(server, lambda data: b"before" in data)
    witness.wire.clear()
    client.type(key)
    read_until(server, lambda _: witness.said("server", "received"))
    client.type("after")
    read_until(server, lambda data: b"after" in data)
    assert witness.said("server", "received") == [message]
    server.sendall(b"still here\n")
    client.wait_for("still here")
    assert witness.said("server") == ([NOT_REQUESTED] if message == REQUESTED else [])


def test_s_client_takes_and_answers_our_updates(s_client, read_until):
    client, server, witness = s_client("tls13")
    server.key_update(KeyUpdateType.REQUESTED)
    server.sendall(b"please\n")
    client.wait_for("please")
    witness.wire.clear()
    client.type("thanks")
    read_until(server, lambda data: b"thanks" in data)
    assert witness.said("server", "received") == [NOT_REQUESTED]


def test_renegotiation_with_s_server_full_and_abbreviated(s_server):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    version = subprocess.run(["openssl", "version"], capture_output=True, check=True)
    allow = [] if b"OpenSSL 1." in version.stdout else ["-client_renegotiation"]
    _, client, witness = s_server("tls12", "-rev", *allow)
    assert says_hello(client)
    for call, resumed in (
        (client.renegotiate, False),
        (client.renegotiate_abbreviated, True),
    ):
        witness.wire.clear()
        call()
        assert client.renegotiate_pending()
        client.do_handshake()
        assert not client.renegotiate_pending()
        assert ("Certificate" in witness.said("client", "received")) is not resumed
        assert client.session_reused is resumed
        assert says_hello(client)


@pytest.mark.parametrize("key", ["r", "R"])
def test_s_server_asks_us_to_renegotiate(s_server, read_until, key):
    server, client, witness = s_server("tls12")
    server.type("before")
    read_until(client, lambda data: b"before" in data)
    witness.wire.clear()
    server.type(key)
    read_until(client, lambda _: "Finished" in witness.said("client", "received"))
    assert witness.said("client", "received")[0] == "HelloRequest"
    assert not client.renegotiate_pending()
    assert client.total_renegotiations() == 1
    client.sendall(b"still here\n")
    server.wait_for("still here")


def test_s_client_renegotiates_with_us(s_client, read_until):
    client, server, witness = s_client("tls12")
    client.type("before")
    read_until(server, lambda data: b"before" in data)
    witness.wire.clear()
    client.type("R")
    read_until(server, lambda _: "Finished" in witness.said("server"))
    client.type("after")
    read_until(server, lambda data: b"after" in data)
    assert "ClientHello" in witness.said("server", "received")


@pytest.mark.parametrize("call", ["renegotiate", "renegotiate_abbreviated"])
def test_s_client_follows_our_request(s_client, read_until, call):
    client, server, witness = s_client("tls12")
    client.type("before")
    read_until(server, lambda data: b"before" in data)
    witness.wire.clear()
    getattr(server, call)()
    server.do_handshake()
    assert server.renegotiate_pending()
    read_until(server, lambda _: not server.renegotiate_pending())
    assert witness.said("server")[0] == "HelloRequest"
    assert witness.said("server", "received")[-1] == "Finished"
    client.type("after")
    read_until(server, lambda data: b"after" in data)
