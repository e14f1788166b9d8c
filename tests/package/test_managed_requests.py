"""_managed_requests.py: new keys that a program requests, for one connection or all."""

import gc
import os
import ssl
import threading

import pytest
from support.wire import Wire

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


def test_rekey_all_reaches_every_managed_connection(make_contexts, make_link):
    wires = [
        Wire(make_contexts("tls13"), kind, "server").handshake()
        for kind in ("object", "socket")
        for _ in range(5)
    ]
    stock = make_link("tls13")
    assert pykeyupdate.rekey_all() >= len(wires)
    for wire in wires:
        wire.carry()
        assert wire.key_updates() == (1 if wire.kind == "socket" else 0)
        assert wire.peer_writes(b"data") == b"data"
        assert wire.write(b"data") == b"data"
        assert wire.key_updates() == 1
        wire.close()
    assert stock.talks()
    assert stock.wire == []


@pytest.mark.parametrize(
    ("version", "policy", "counts"),
    [
        ("tls13", None, True),
        ("tls12", RekeyPolicy(renegotiate=True), True),
        ("tls12", RekeyPolicy(), False),
        ("tls12", None, False),
    ],
)
def test_rekey_all_counts_what_can_have_new_keys(make_wire, version, policy, counts):
    gc.collect()
    before = pykeyupdate.rekey_all(per_second=float("inf"))
    wires = [make_wire(policy, version) for _ in range(3)]
    now = pykeyupdate.rekey_all(per_second=float("inf"))
    assert now - before == (len(wires) if counts else 0)
    for wire in wires:
        wire.read_all()  # does what was asked
        wire.carry()
        assert bool(wire.records) == counts
        if wire.kind == "socket":
            wire.end.close()
    assert wire.kind == "object" or pykeyupdate.rekey_all(per_second=1e9) == before


def test_rekey_all_does_not_count_a_first_handshake(make_contexts, kind, role):
    gc.collect()
    before = pykeyupdate.rekey_all(per_second=float("inf"))
    wire = Wire(make_contexts("tls13"), kind, role)
    with pytest.raises(ssl.SSLWantReadError):
        wire.end.do_handshake()
    assert pykeyupdate.rekey_all(per_second=float("inf")) == before
    wire.handshake()
    assert wire.write(b"data") == b"data"
    assert wire.key_updates() == 0  # its keys are new
    wire.close()


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


def test_rekey_all_takes_its_time(make_contexts):
    wires = [
        Wire(make_contexts("tls13"), "socket", "client").handshake() for _ in range(4)
    ]
    pace = []
    real = pykeyupdate._managed_requests.time.sleep
    pykeyupdate._managed_requests.time.sleep = pace.append
    try:
        assert pykeyupdate.rekey_all(per_second=1) >= 4
    finally:
        pykeyupdate._managed_requests.time.sleep = real
    assert sum(pace) > 3
    for error, wrong in [
        (ValueError, 0),
        (ValueError, -1.5),
        (ValueError, float("nan")),
        (TypeError, "1"),
        (TypeError, True),
        (TypeError, None),
    ]:
        with pytest.raises(error, match=f"per_second must be above 0, not {wrong!r}"):
            pykeyupdate.rekey_all(per_second=wrong)
    for wire in wires:
        wire.close()


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
def test_rekey_all_in_a_child_leaves_the_parents_connections_alone(make_wire):
    wire = make_wire(RekeyPolicy())
    child = os.fork()
    if child == 0:
        os._exit(pykeyupdate.rekey_all())
    assert os.waitpid(child, 0)[1] == 0
    assert wire.write(b"data") == b"data"
    assert wire.key_updates() == 0
