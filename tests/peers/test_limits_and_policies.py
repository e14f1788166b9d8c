"""``PeerLimits`` and ``RekeyPolicy`` with other TLS implementations: honest peers stay.

The counts of messages sent and received come from OpenSSL's message callback
(``Witness``) and from the other program's output. All connections here are managed,
with the default rules unless a test sets its own.
"""

import contextlib
import logging
import socket
import time
from itertools import cycle, islice

import pytest
from support.link import NOT_REQUESTED, REQUESTED, Witness
from support.servers import echo

import pykeyupdate
from pykeyupdate import PeerLimitError, PeerLimits, RekeyPolicy

OFTEN = 20
PATIENCE = 20.0
SECONDS = 2.5
EACH_RECORD = {"sent_records": 1, "request_peer": True}
OPENSSL_KEYS = {"k": NOT_REQUESTED, "K": REQUESTED}
# GnuTLS takes eight of ours in a second, answers included
GNUTLS_KEYS = ["^rekey^"] * 8 + ["^rekey1^"] * (OFTEN - 8)
GNUTLS_NAMES = {"^rekey^": REQUESTED, "^rekey1^": NOT_REQUESTED}


@pytest.fixture
def rules():
    """What ``manage()`` is told; a test may add to it before it connects."""
    return {}


@pytest.fixture
def make_contexts(make_contexts, rules):
    def make(version):
        contexts = make_contexts(version)
        for context in contexts:
            pykeyupdate.manage(context, **rules)
        return contexts

    return make


@pytest.fixture
def is_untroubled(caplog):
    """Tell whether a connection was not cut, and the log has no warning."""

    def ask(connection):
        warned = [
            record
            for record in caplog.records
            if record.name == "pykeyupdate" and record.levelno >= logging.WARNING
        ]
        return pykeyupdate.stats(connection).counts.cut_off == 0 and warned == []

    return ask


def receive(connection, amount):
    data = b""
    while len(data) < amount:
        piece = connection.recv(amount - len(data))
        assert piece, f"the end after {data!r}"
        data += piece
    return data


def updates(witness, end, verb="sent"):
    return [name for name in witness.said(end, verb) if name.startswith("KeyUpdate")]


def one_a_second(witness, end, begin):
    """Tell whether one end has sent some updates, and no more than it may, answered."""
    sent, answers = updates(witness, end), updates(witness, end, "received")
    in_time = 2 <= len(sent) <= 1 + time.monotonic() - begin
    return in_time and (sent, answers) == (
        [REQUESTED] * len(sent),
        [NOT_REQUESTED] * len(sent),
    )


def types_each(program, commands, connection, heard, read_until):
    """Type commands with a line of data behind each; wait for the effect of both."""
    for number, command in enumerate(commands):
        before = len(heard())
        program.type(command)
        read_until(connection, lambda _, before=before: len(heard()) > before)
        line = b"line %d\n" % number
        program.type(line.decode().strip())
        read_until(connection, lambda data, line=line: line in data)
        connection.sendall(line)
        program.wait_for(line.decode())


# -- honest peers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("openssl", "our_end"), [("s_client", "server"), ("s_server", "client")]
)
def test_openssl_updates_often(request, read_until, is_untroubled, openssl, our_end):
    peer, connection, witness = request.getfixturevalue(openssl)("tls13")
    peer.type("before")
    read_until(connection, lambda data: b"before" in data)
    witness.wire.clear()
    commands = list(islice(cycle(OPENSSL_KEYS), OFTEN))

    def heard():
        return witness.said(our_end, "received")

    types_each(peer, commands, connection, heard, read_until)
    assert heard() == [OPENSSL_KEYS[command] for command in commands]
    assert is_untroubled(connection)


def test_gnutls_cli_updates_often(gnutls_cli, read_until, is_untroubled):
    client, server, witness = gnutls_cli("tls13")
    client.wait_for("Simple Client Mode")
    witness.wire.clear()

    def heard():
        return witness.said("server", "received")

    types_each(client, GNUTLS_KEYS, server, heard, read_until)
    assert heard() == [GNUTLS_NAMES[command] for command in GNUTLS_KEYS]
    assert is_untroubled(server)


def test_gnutls_serv_answers(gnutls_serv, rules, is_untroubled):
    """It has no command for updates of its own, and answers to ours do not count."""
    rules.update(limits=PeerLimits(key_updates=0, key_updates_in_a_row=0))
    _, client, witness = gnutls_serv("tls13")
    witness.wire.clear()
    for number in range(8):
        pykeyupdate.rekey(client, request_peer=True)
        line = b"line %d\n" % number
        client.sendall(line)
        assert receive(client, len(line)) == line
    assert witness.said("client") == [REQUESTED] * 8
    assert updates(witness, "client", "received") == [NOT_REQUESTED] * 8
    assert is_untroubled(client)


def test_our_own_peer_asks_200_times(make_contexts, make_server, rules, is_untroubled):
    """It waits for each answer; the server is held to the default limits."""

    def at_once(tls):
        tls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        echo(tls)

    server, _ = make_server("tls13", at_once)
    rules.update(limits=PeerLimits(key_updates=0, key_updates_in_a_row=0))
    context, _ = make_contexts("tls13")
    witness = Witness()
    witness.watch("client", context)
    plain = socket.create_connection(server.address, PATIENCE)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with context.wrap_socket(plain, server_hostname="localhost") as client:
        for number in range(200):
            pykeyupdate.rekey(client, request_peer=True)
            line = b"line %d\n" % number
            client.sendall(line)
            assert receive(client, len(line)) == line
        assert updates(witness, "client") == [REQUESTED] * 200
        assert updates(witness, "client", "received") == [NOT_REQUESTED] * 200
        assert is_untroubled(client)
        assert is_untroubled(server.sockets[0])


@pytest.mark.parametrize(("tickets", "most"), [("20", 20), ("255", None)])
def test_s_server_gives_many_tickets(
    s_server, rules, read_until, is_untroubled, tickets, most
):
    """255 is the most for which a client can ask (RFC 9149)."""
    if most is not None:
        rules.update(limits=PeerLimits(session_tickets=most))
    server, client, witness = s_server("tls13", "-num_tickets", tickets)
    server.type("data")
    read_until(client, lambda data: b"data" in data)
    assert witness.said("client", "received").count("NewSessionTicket") == int(tickets)
    assert is_untroubled(client)


def test_s_server_gives_too_many_tickets(s_server, rules, read_until):
    rules.update(limits=PeerLimits(session_tickets=20))
    _, client, witness = s_server("tls13", "-num_tickets", "40")
    with pytest.raises(PeerLimitError, match=r"PeerLimits\.session_tickets"):
        read_until(client, lambda _: False)
    assert witness.said("client", "received").count("NewSessionTicket") == 21


def test_s_client_renegotiates_three_times(s_client, read_until, is_untroubled):
    client, server, witness = s_client("tls12")
    client.type("before")
    read_until(server, lambda data: b"before" in data)
    witness.wire.clear()

    def heard():
        return [name for name in witness.said("server") if name == "Finished"]

    types_each(client, ["R"] * 3, server, heard, read_until)
    assert witness.said("server", "received").count("ClientHello") == 3
    assert is_untroubled(server)
    client.type("R")
    with pytest.raises(PeerLimitError, match=r"PeerLimits\.renegotiations"):
        read_until(server, lambda _: False)
    assert len(heard()) == 3


# -- and one that is not to be told ----------------------------------------------------


def test_gnutls_cli_takes_no_for_try_again(gnutls_cli, rules, read_until):
    """Told ``no_renegotiation``, it begins another at once, and another."""
    rules.update(limits=PeerLimits(renegotiation="never"))
    client, server, witness = gnutls_cli("tls12")
    client.wait_for("Simple Client Mode")
    witness.wire.clear()
    client.type("^renegotiate^")
    with pytest.raises(PeerLimitError, match=r"PeerLimits\.renegotiations"):
        read_until(server, lambda _: False)
    assert witness.wire == [("server", "received", "ClientHello")] * 3
    server.close()
    client.wait_for("Fatal error")
    assert client.output.count("No renegotiation is allowed") == 3


# -- a policy that asks for much -------------------------------------------------------


def test_gnutls_serv_survives_an_update_a_record(gnutls_serv, rules, is_untroubled):
    """By ``min_interval_seconds``, which is 1.0 where nothing else is said."""
    rules.update(policy=RekeyPolicy(**EACH_RECORD))
    _, client, witness = gnutls_serv("tls13")
    witness.wire.clear()
    begin, number = time.monotonic(), 0
    while time.monotonic() < begin + SECONDS:
        line = b"line %d\n" % number
        client.sendall(line)
        assert receive(client, len(line)) == line
        number += 1
    assert number > 8
    assert one_a_second(witness, "client", begin)
    assert is_untroubled(client)


def test_gnutls_cli_survives_an_update_a_record(
    gnutls_cli, rules, read_until, is_untroubled
):
    rules.update(policy=RekeyPolicy(**EACH_RECORD))
    client, server, witness = gnutls_cli("tls13")
    client.wait_for("Simple Client Mode")
    witness.wire.clear()
    begin, number = time.monotonic(), 0
    while time.monotonic() < begin + SECONDS:
        line = b"line %d\n" % number
        server.sendall(line)
        client.wait_for(line.decode())
        client.type(line.decode().strip())
        assert read_until(server, lambda data, line=line: line in data) == line
        number += 1
    assert number > 8
    assert one_a_second(witness, "server", begin)
    assert is_untroubled(server)


def test_gnutls_serv_hangs_up_without_an_interval(gnutls_serv, rules):
    """What the interval is for. No echo is waited for: all are sent within a second."""
    rules.update(policy=RekeyPolicy(sent_records=1, min_interval_seconds=0.0))
    server, client, witness = gnutls_serv("tls13")
    with pytest.raises(OSError):
        for _ in range(OFTEN):
            client.sendall(b"line\n")
        receive(client, OFTEN * len(b"line\n"))
    assert len(updates(witness, "client")) > 8
    server.wait_for("Too many handshake packets")


def test_gnutls_cli_hangs_up_without_an_interval(gnutls_cli, rules):
    rules.update(policy=RekeyPolicy(sent_records=1, min_interval_seconds=0.0))
    client, server, witness = gnutls_cli("tls13")
    client.wait_for("Simple Client Mode")
    with contextlib.suppress(OSError):  # it may be gone before we have sent all
        for _ in range(OFTEN):
            server.sendall(b"line\n")
    assert len(updates(witness, "server")) > 8
    client.wait_for("Too many handshake packets")
