"""_managed_requests.py: what a program requests of a managed connection."""

import ssl
import threading

import pytest

import pykeyupdate
from pykeyupdate import RekeyPolicy


def test_request_rekey_is_taken_by_a_read_without_data(make_wire):
    wire = make_wire(None)
    pykeyupdate.request_rekey(wire.end)
    assert wire.read_all() == b""
    wire.carry()
    assert wire.key_updates() == 1


@pytest.mark.parametrize("policy", [None, RekeyPolicy()])
def test_request_rekey_is_taken_by_the_next_write(make_wire, policy):
    wire = make_wire(policy)
    thread = threading.Thread(target=pykeyupdate.request_rekey, args=(wire.end,))
    thread.start()
    thread.join(20)
    wire.carry()
    assert wire.key_updates() == 0
    wire.write(b"data")
    wire.write(b"data")
    assert [len(records) for records in wire.under_each_key()] == [0, 2]


def test_request_rekey_is_taken_by_the_next_read(make_wire):
    wire = make_wire(None)
    pykeyupdate.request_rekey(wire.end, request_peer=True)
    wire.peer_writes(b"data")
    assert wire.key_updates() == 1
    assert pykeyupdate.get_key_update_type(wire.peer) == 0


@pytest.mark.parametrize("policy", [None, RekeyPolicy()])
def test_what_is_asked_for_and_cannot_be_had_is_no_harm(make_wire, policy):
    """Below TLS 1.3 nobody renegotiates unasked, and data goes on."""
    wire = make_wire(policy, "tls12")
    pykeyupdate.request_rekey(wire.end)
    pykeyupdate.rekey_all(per_second=float("inf"))
    for _ in range(3):
        assert wire.write(b"data") == b"data"
        assert wire.peer_writes(b"data") == b"data"
    pykeyupdate.request_rekey(wire.end)
    if wire.kind == "object":
        wire.incoming.write(b"no TLS")
    else:
        wire.far.sendall(b"no TLS")
    with pytest.raises(ssl.SSLError):
        wire.end.read()
    with pytest.raises(ssl.SSLError) as caught:
        wire.end.write(b"data")
    assert not isinstance(caught.value, pykeyupdate.RekeyImpossibleError)


def test_both_sides_keys_are_asked_for_after_the_answer_that_is_owed(make_wire):
    wire = make_wire(RekeyPolicy(min_interval_seconds=0))
    pykeyupdate.key_update(wire.peer, pykeyupdate.KeyUpdateType.REQUESTED)
    wire.peer_writes(b"data")
    pykeyupdate.request_rekey(wire.end, request_peer=True)
    wire.write(b"data")
    assert pykeyupdate.get_key_update_type(wire.peer) < 0
    wire.write(b"data")
    assert pykeyupdate.get_key_update_type(wire.peer) == 0
    wire.write(b"data")
    assert wire.key_updates() == 2


@pytest.mark.parametrize(
    "ask",
    [
        pykeyupdate.request_rekey,
        pykeyupdate.stats,
        lambda conn: pykeyupdate.allow_renegotiation(conn).__enter__(),
    ],
)
def test_only_of_managed_connections(make_link, ask):
    link = make_link("tls13")
    with pytest.raises(pykeyupdate.NotManagedError, match="manage"):
        ask(link.client)
    with pytest.raises(pykeyupdate.NotATLSConnectionError):
        ask(b"no connection")
    assert link.talks()
