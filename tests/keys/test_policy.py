"""ext/keys and _policy.py: keys change when they must, to the record.

What is claimed of TLS 1.3 is counted on the wire (tests/support/wire.py).
"""

import contextlib
import ctypes
import dataclasses
import functools
import gc
import logging
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
from datetime import timedelta
from unittest import mock

import pytest
from support import libssl_table
from support.link import (
    CLIENT_HELLO,
    HELLO_REQUEST,
    NAMES,
    NOT_REQUESTED,
    REQUESTED,
    Link,
    Witness,
)
from support.wire import Wire

import pykeyupdate
from pykeyupdate import PeerLimits, RekeyPolicy, testing

SIZES = [0, 1, 4, 100, 4096, 16383, 16384, 16385, 100_000]


def at_once(**limits):
    return RekeyPolicy(min_interval_seconds=0, **limits)


@pytest.fixture(params=["object", "socket"])
def kind(request):
    return request.param


@pytest.fixture
def make_wire(make_contexts, kind, role):
    wires = []

    def make(policy, version="tls13", limits=None, *, witness=None):
        contexts = make_contexts(version)
        if witness is not None:
            witness.watch(role, contexts[role == "server"])
        wire = Wire(contexts, kind, role, policy=policy, limits=limits)
        wires.append(wire)
        return wire.handshake()

    yield make
    for wire in wires:
        wire.close()


def some_data(seed, pieces=60):
    """Return pieces of data of all kinds of lengths, none of them a KeyUpdate's."""
    chance = random.Random(seed)
    return [chance.randbytes(chance.choice(SIZES)) for _ in range(pieces)]


# -- exactness -------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 3, 7, 64])
def test_never_more_than_n_records_under_one_key(make_wire, most):
    wire = make_wire(at_once(sent_records=most))
    for piece in some_data(most, pieces=100):
        assert wire.write(piece) == piece
    keys = wire.under_each_key()
    assert len(keys) > 2
    assert [len(records) for records in keys[:-1]] == [most] * (len(keys) - 1)
    assert len(keys[-1]) <= most


@pytest.mark.parametrize("most", [1, 1000, 16384, 100_000])
def test_never_more_than_n_bytes_under_one_key(make_wire, most):
    wire = make_wire(at_once(sent_bytes=most))
    for piece in some_data(most, pieces=12 if most > 1 else 0) or [b"abc", b"de"]:
        assert wire.write(piece) == piece
    keys = wire.under_each_key()
    assert len(keys) > 2
    assert [sum(records) for records in keys[:-1]] == [most] * (len(keys) - 1)
    assert sum(keys[-1]) <= most


def test_records_are_counted_where_the_peer_wants_smaller_ones(make_contexts, kind):
    """RFC 6066: a client may ask for records of 512 bytes."""
    wire = Wire(make_contexts("tls13"), kind, "server", policy=at_once(sent_records=3))
    set_length = libssl_table.libssl.SSL_ctrl
    set_length.argtypes = [
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_long,
        ctypes.c_void_p,
    ]
    by_name = libssl_table.libssl.SSL_set_tlsext_max_fragment_length
    by_name.argtypes = [ctypes.c_void_p, ctypes.c_uint8]
    assert by_name(libssl_table.pointer(wire.peer), 1) == 1
    wire.handshake()
    data = bytes(20_000)
    assert wire.write(data) == data
    keys = wire.under_each_key()
    assert max(max(records) for records in keys if records) <= 512
    assert [len(records) for records in keys[:-1]] == [3] * (len(keys) - 1)
    wire.close()


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for its segments")
def test_a_key_update_goes_in_the_segment_of_its_data(make_server):
    """In one of its own it would wait for the other's acknowledgement (Nagle)."""
    server, context = make_server("tls13")
    pykeyupdate.manage(context, policy=at_once(sent_records=1))
    plain = socket.create_connection(server.address, 20)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with context.wrap_socket(plain, server_hostname="localhost") as tls:
        for number in range(5):
            before = segments_sent(tls)
            tls.sendall(b"data %d" % number)
            assert tls.recv(100) == b"data %d" % number
            assert segments_sent(tls) - before == 1
        assert pykeyupdate.stats(tls).counts.key_updates_sent == 4


def segments_sent(sock):
    """tcpi_data_segs_out of struct tcp_info (linux/tcp.h), less tcpi_total_retrans.

    A busy machine acknowledges late, and the kernel then sends a segment again.
    """
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
    sent, again = info[156:160], info[100:104]
    return int.from_bytes(sent, sys.byteorder) - int.from_bytes(again, sys.byteorder)


def test_updates_that_others_begin_count_as_well(make_wire):
    """After a key_update() of the program's, or an answer to the peer, it is N anew."""
    wire = make_wire(at_once(sent_records=4))
    for _ in range(3):
        wire.write(b"data")
    pykeyupdate.key_update(wire.end)
    for _ in range(3):
        wire.write(b"data")
    pykeyupdate.key_update(wire.peer, pykeyupdate.KeyUpdateType.REQUESTED)
    wire.peer_writes(b"question")
    for _ in range(6):
        wire.write(b"data")
    assert [len(records) for records in wire.under_each_key()] == [3, 3, 4, 2]


def test_nothing_changes_below_the_limits_nor_without_a_policy(make_wire):
    for policy in (None, RekeyPolicy(), at_once(sent_records=61, aead_limit=False)):
        wire = make_wire(policy)
        for _ in range(60):
            assert wire.write(b"data") == b"data"
            assert wire.peer_writes(b"data") == b"data"
        assert wire.key_updates() == 0
        wire.close()


# -- time ------------------------------------------------------------------------------


def test_age_before_a_write(make_wire):
    wire = make_wire(RekeyPolicy(age_seconds=3600))
    wire.write(b"fresh data")
    testing.advance_clock(3590)
    wire.write(b"fresh data")
    assert wire.key_updates() == 0
    testing.advance_clock(11)
    wire.write(b"old")
    wire.write(b"fresh data")
    assert [len(records) for records in wire.under_each_key()] == [2, 2]


def test_age_after_a_read(make_wire):
    """An end that only receives has new keys too, and asks the peer that lags."""
    wire = make_wire(RekeyPolicy(age_seconds=3600))
    testing.advance_clock(3601)
    assert wire.peer_writes(b"data") == b"data"
    assert wire.key_updates() == 1
    assert pykeyupdate.stats(wire.end).counts.requests_sent == 0
    testing.advance_clock(3602)
    assert wire.peer_writes(b"data") == b"data"
    assert pykeyupdate.stats(wire.end).counts.requests_sent == 1


def test_age_without_data_changes_nothing(make_wire):
    """An idle connection stays silent: a client's pool takes any byte for its end."""
    wire = make_wire(RekeyPolicy(age_seconds=3600))
    testing.advance_clock(4000)
    assert wire.read_all() == b""
    wire.carry()
    assert wire.key_updates() == 0


def test_age_where_a_read_brings_a_key_update_alone(make_wire, role):
    """The read has no data to return, and its error is not lost among callbacks."""
    wire = make_wire(RekeyPolicy(age_seconds=3600), witness=Witness())
    testing.advance_clock(4000)
    pykeyupdate.key_update(wire.peer)
    wire.peer.do_handshake()
    wire.carry()
    with pytest.raises(ssl.SSLWantReadError):
        wire.end.read()


def test_idle(make_wire):
    wire = make_wire(RekeyPolicy(idle_seconds=300))
    wire.write(b"data")
    for _ in range(3):
        testing.advance_clock(200)
        wire.write(b"data")
    assert wire.key_updates() == 0
    testing.advance_clock(301)
    wire.write(b"data")
    assert [len(records) for records in wire.under_each_key()] == [4, 1]


def test_min_interval_comes_before_the_limits(make_wire):
    wire = make_wire(RekeyPolicy(sent_records=2, min_interval_seconds=100))
    for _ in range(10):
        assert wire.write(b"data") == b"data"
    assert [len(records) for records in wire.under_each_key()] == [2, 8]
    assert pykeyupdate.stats(wire.end).counts.deferred == 1
    testing.advance_clock(101)
    wire.write(b"data")
    wire.write(b"data")
    assert [len(records) for records in wire.under_each_key()] == [2, 8, 2]


def test_jitter_makes_limits_smaller_and_not_the_same(make_wire):
    wire = make_wire(at_once(sent_records=100, jitter=0.5))
    for _ in range(1500):
        wire.write(b"data")
    lengths = [len(records) for records in wire.under_each_key()[:-1]]
    assert all(50 <= length <= 100 for length in lengths)
    assert len(set(lengths)) > 3


# -- the peer's keys -------------------------------------------------------------------


def test_a_peer_that_lags_is_asked_once(make_wire, role):
    wire = make_wire(at_once(received_records=5))
    types = []
    for number in range(12):
        assert wire.peer_writes(b"%d" % number) == b"%d" % number
        types.append(pykeyupdate.get_key_update_type(wire.peer))
    # the peer reads our request after its fifth record, and answers with its sixth
    asked = [number for number, kind in enumerate(types) if kind >= 0]
    assert asked == [4, 9]
    stats = pykeyupdate.stats(wire.end)
    assert stats.counts.requests_sent == 2
    assert stats.counts.key_updates_received == 2


def test_one_request_is_outstanding_at_a_time(make_wire):
    wire = make_wire(at_once(sent_records=2, request_peer=True))
    for _ in range(9):
        wire.write(b"data")
    stats = pykeyupdate.stats(wire.end)
    # and no other update before the answer, over which OpenSSL may end the connection
    assert stats.counts.key_updates_sent == 1
    assert stats.counts.requests_sent == 1
    assert stats.counts.deferred == 1
    assert stats.request_outstanding
    wire.peer_writes(b"data")  # brings the answer
    assert not pykeyupdate.stats(wire.end).request_outstanding
    for _ in range(2):
        wire.write(b"data")
    assert pykeyupdate.stats(wire.end).counts.requests_sent == 2


@pytest.mark.parametrize(
    "wish",
    [
        lambda end: pykeyupdate.request_rekey(end, request_peer=True),
        lambda end: pykeyupdate.rekey_all(request_peer=True),
    ],
    ids=["request_rekey", "rekey_all"],
)
def test_a_wish_for_both_sides_keys_asks_no_second_time(make_wire, role, wish):
    """Before the answer, that is; new keys of our own there are each time."""
    witness = Witness()
    wire = make_wire(at_once(), witness=witness)
    witness.wire.clear()
    for _ in range(3):
        wish(wire.end)
        wire.write(b"data")
    assert witness.said(role) == [REQUESTED, NOT_REQUESTED, NOT_REQUESTED]
    wire.peer_writes(b"data")  # brings the answer
    assert witness.said(role, "received") == [NOT_REQUESTED]
    wish(wire.end)
    wire.write(b"data")
    assert witness.said(role)[3:] == [REQUESTED]


def test_a_peer_that_never_answers_is_read_all_the_same(make_wire, role):
    """RFC 9846 5.5: a receiver should not enforce the limits."""
    witness = Witness()
    wire = make_wire(at_once(received_records=5, received_bytes=100), witness=witness)
    witness.wire.clear()
    for number in range(100):
        wire.peer.write(b"%02d" % number)  # and does not read
        wire.carry()
        assert wire.read_all() == b"%02d" % number
    assert witness.said(role) == [REQUESTED]
    assert witness.said(role, "received") == []
    wire.carry()
    assert wire.write(b"data") == b"data"


def test_an_answer_that_is_owed_is_not_replaced_by_a_request(make_wire):
    wire = make_wire(at_once(sent_records=2, request_peer=True))
    wire.write(b"data")
    wire.write(b"data")
    pykeyupdate.key_update(wire.peer, pykeyupdate.KeyUpdateType.REQUESTED)
    wire.peer_writes(b"data")
    assert pykeyupdate.stats(wire.end).answer_owed
    wire.write(b"data")  # new keys are due, and the answer gives them
    assert pykeyupdate.get_key_update_type(wire.peer) < 0  # it was not asked in return
    assert [len(records) for records in wire.under_each_key()] == [2, 1]


# -- asked for -------------------------------------------------------------------------


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


# -- TLS 1.2 ---------------------------------------------------------------------------


def test_below_tls13_the_default_policy_does_nothing(make_wire):
    wire = make_wire(RekeyPolicy(), "tls12")
    assert wire.write(b"data") == b"data"
    assert wire.peer_writes(b"data") == b"data"


def test_impossible_raises_and_leaves_the_connection_as_it_was(make_wire):
    wire = make_wire(at_once(sent_records=2), "tls12")
    wire.write(b"one")
    wire.write(b"two")
    for _ in range(2):
        with pytest.raises(
            pykeyupdate.RekeyImpossibleError,
            match=r"write\(.*TLSv1.2.*renegotiate=True",
        ) as caught:
            wire.end.write(b"three")
        assert isinstance(caught.value, ssl.SSLError)
        assert caught.value.errno == ssl.SSL_ERROR_SSL
    wire.carry()
    assert wire.peer_read_all() == b""
    assert wire.peer_writes(b"still read") == b"still read"


def test_impossible_closes(make_wire, caplog):
    wire = make_wire(at_once(sent_records=1, on_impossible="close"), "tls12")
    wire.write(b"one")
    with pytest.raises(pykeyupdate.RekeyImpossibleError):
        wire.end.write(b"two")
    wire.carry()
    assert wire.peer.read() == b""  # a close_notify: without one it is an error
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_impossible_raises_and_says_so(make_wire, caplog):
    """asyncio takes any OSError of a write for the end, and logs nothing."""
    wire = make_wire(at_once(sent_records=1), "tls12")
    wire.write(b"one")
    with pytest.raises(pykeyupdate.RekeyImpossibleError):
        wire.end.write(b"two")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "renegotiate=True" in record.getMessage()


def test_impossible_is_ignored_with_one_warning(make_wire, caplog):
    wire = make_wire(at_once(sent_records=1, on_impossible="ignore"), "tls12")
    for _ in range(20):
        assert wire.write(b"data") == b"data"
    (record,) = caplog.records
    assert record.name == "pykeyupdate"
    assert "cannot have the new keys" in record.getMessage()
    assert pykeyupdate.stats(wire.end).counts.impossible == 1


def test_impossible_asks_a_function(make_wire):
    asked = []

    def judge(conn, error):
        asked.append((conn, type(error)))
        if len(asked) > 1:
            raise RuntimeError("no")

    wire = make_wire(at_once(sent_records=1, on_impossible=judge), "tls12")
    for _ in range(5):
        assert wire.write(b"data") == b"data"
    assert asked == [(wire.end, pykeyupdate.RekeyImpossibleError)]
    other = make_wire(at_once(sent_records=1, on_impossible=judge), "tls12")
    other.write(b"data")
    with pytest.raises(RuntimeError, match="no"):
        other.end.write(b"data")


def test_no_write_of_an_object_goes_beyond_a_limit_unnoticed(make_wire):
    """It is not divided below TLS 1.3, so it is refused before its first byte."""
    wire = make_wire(at_once(sent_bytes=1000), "tls12")
    assert wire.write(b"d" * 1000) == b"d" * 1000
    with pytest.raises(pykeyupdate.RekeyImpossibleError):
        wire.end.write(b"d")
    other = make_wire(at_once(sent_bytes=1000), "tls12")
    with pytest.raises(pykeyupdate.RekeyImpossibleError):
        other.end.write(b"d" * 1_000_000)
    other.carry()
    assert len(other.peer_read_all()) == (0 if other.kind == "object" else 1000)


def test_a_client_that_may_not_renegotiate_says_so(make_contexts, kind):
    contexts = make_contexts("tls12")
    contexts[0].options |= ssl.OP_NO_RENEGOTIATION
    wire = Wire(
        contexts, kind, "client", policy=at_once(sent_records=2, renegotiate=True)
    )
    wire.handshake()
    wire.write(b"data")
    wire.write(b"data")
    with pytest.raises(pykeyupdate.RekeyImpossibleError, match="OP_NO_RENEGOTIATION"):
        wire.end.write(b"data")
    wire.close()


def test_renegotiates_where_the_policy_allows_it(make_contexts, kind, role):
    contexts = make_contexts("tls12")
    policy = at_once(sent_records=5, renegotiate=True)
    pykeyupdate.manage(contexts[role == "server"], policy=policy)
    link = Link(*contexts, over={"object": "memory", "socket": "socket"}[kind])
    link.handshake()
    other = {"client": "server", "server": "client"}[role]
    for number in range(23):
        data, got = b"%d" % number, b""
        for _ in range(5):
            try:
                link.end(role).write(data)
            except ssl.SSLWantReadError:  # the rest of the renegotiation
                got += link.settle()[other]
            else:
                break
        assert got + link.settle()[other] == data
        link.end(other).write(b"answer")
        assert link.settle()[role] == b"answer"
    first = {"client": CLIENT_HELLO, "server": HELLO_REQUEST}[role]
    assert 3 <= link.said(role).count(NAMES[first]) <= 5
    assert link.said("client").count("Finished") >= 3
    assert pykeyupdate.stats(link.end(role)).counts.renegotiations >= 3
    link.close()


# -- what a managed object still is ----------------------------------------------------


def test_a_managed_object_reads_and_writes_as_ssls(make_wire, kind):
    if kind == "socket":
        pytest.skip("tests/streams/test_managed_sockets.py")
    wire = make_wire(RekeyPolicy())
    end = wire.end
    assert isinstance(end, ssl.SSLObject)
    for write in (
        lambda: end.write(b"abc"),
        lambda: end.write(data=bytearray(b"abc")),
        lambda: end.write(memoryview(b"xabcx")[1:4]),
    ):
        assert write() == 3
        wire.carry()
        assert wire.peer_read_all() == b"abc"
    buffer = bytearray(8)
    for read, expected in (
        (lambda: end.read(3), b"abc"),
        (lambda: end.read(len=3), b"abc"),
        (lambda: end.read(), b"abc"),
        (lambda: end.read(2, buffer), 2),
        (lambda: end.read(len=8, buffer=buffer), 3),
        (lambda: end.read(3, None), b"abc"),
    ):
        wire.peer.write(b"abc")
        wire.carry()
        assert read() == expected
        wire.read_all()
    for wrong in (
        lambda: end.read(1, None, 2),
        lambda: end.read(what=1),
        lambda: end.read(1, len=1),
        lambda: end.read("a"),
        lambda: end.write(),
        lambda: end.write("text"),
        lambda: end.write(b"", b""),
        lambda: end.write(what=b""),
    ):
        with pytest.raises(TypeError):
            wrong()
    assert wire.write(b"fine") == b"fine"


def test_a_managed_object_made_by_hand_is_refused(make_wire, kind):
    bare = pykeyupdate.SSLObject.__new__(pykeyupdate.SSLObject)
    with pytest.raises(pykeyupdate.NotManagedError):
        bare.read()
    with pytest.raises(AttributeError):
        bare.version()
    bare._sslobj = None
    with pytest.raises(pykeyupdate.NotManagedError):
        bare.write(b"")
    bare._sslobj = (
        ssl.create_default_context()
        .wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
        ._sslobj
    )
    with pytest.raises(pykeyupdate.NotManagedError):
        bare.read()


# -- numbers and rules -----------------------------------------------------------------


WRONG_TYPES = [
    (RekeyPolicy, {"sent_records": "4"}),
    (RekeyPolicy, {"received_records": 1.5}),
    (RekeyPolicy, {"received_bytes": True}),
    (RekeyPolicy, {"age_seconds": "3600"}),
    (RekeyPolicy, {"idle_seconds": True}),
    (RekeyPolicy, {"min_interval_seconds": None}),
    (RekeyPolicy, {"jitter": "0.1"}),
    (RekeyPolicy, {"jitter": False}),
    (RekeyPolicy, {"on_impossible": None}),
    (RekeyPolicy, {"renegotiate": "never"}),
    (RekeyPolicy, {"request_peer": 1}),
    (RekeyPolicy, {"aead_limit": None}),
    (PeerLimits, {"renegotiations": "3"}),
    (PeerLimits, {"key_update_window_seconds": None}),
    (PeerLimits, {"renegotiation": None}),
]
WRONG_VALUES = [
    (RekeyPolicy, {"sent_records": 0}),
    (RekeyPolicy, {"sent_bytes": -1}),
    (RekeyPolicy, {"age_seconds": -1}),
    (RekeyPolicy, {"age_seconds": timedelta(seconds=-1)}),
    (RekeyPolicy, {"idle_seconds": float("nan")}),
    (RekeyPolicy, {"idle_seconds": float("inf")}),
    (RekeyPolicy, {"min_interval_seconds": 1e300}),
    (RekeyPolicy, {"min_interval_seconds": timedelta.max}),
    (RekeyPolicy, {"jitter": 1}),
    (RekeyPolicy, {"jitter": float("nan")}),
    (RekeyPolicy, {"on_impossible": "shrug"}),
    (PeerLimits, {"key_updates": -1}),
    (PeerLimits, {"key_update_window_seconds": 0.5}),
    (PeerLimits, {"renegotiation": "sometimes"}),
]


@pytest.mark.parametrize(
    ("error", "cls", "wrong"),
    [(TypeError, *wrong) for wrong in WRONG_TYPES]
    + [(ValueError, *wrong) for wrong in WRONG_VALUES],
)
def test_wrong_numbers_are_named(error, cls, wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(error, match=f"^{cls.__name__}: {name} must be .*, not ") as no:
        cls(**wrong)
    given = value.total_seconds() if isinstance(value, timedelta) else value
    assert str(no.value).endswith(f", not {given!r}")
    preset = getattr(cls, "tiny", cls)
    with pytest.raises(error, match=f"^{cls.__name__}: {name} must be "):
        preset(**wrong)


def lying(base):
    """Return a class whose numbers or words are whatever is asked."""

    def lie(*arguments):
        raise ZeroDivisionError

    def agree(*arguments):
        return True

    compared = ["__lt__", "__le__", "__eq__", "__ne__", "__gt__", "__ge__"]
    converted = ["__int__", "__float__", "__index__", "__bool__", "__str__"]
    return [
        type("Liar", (base,), {**dict.fromkeys(compared, answer), **odd})
        for answer in (lie, agree)
        for odd in ({}, {"__hash__": lie}, dict.fromkeys(converted, lie))
    ]


@pytest.mark.parametrize("liar", lying(int) + lying(float) + lying(str))
@pytest.mark.parametrize(("cls", "wrong"), WRONG_VALUES)
def test_numbers_and_words_that_lie_are_known(cls, wrong, liar):
    ((name, value),) = wrong.items()
    if type(value) is not liar.__base__:
        return
    with pytest.raises(ValueError, match=f"^{cls.__name__}: {name} must be "):
        cls(**{name: liar(value)})


@pytest.mark.parametrize("number", [100_000, 100_000.0])
def test_the_plain_value_is_kept(number):
    for liar in lying(type(number)):
        policy = RekeyPolicy(age_seconds=liar(number), jitter=liar(0))
        assert type(policy.age_seconds) is type(policy.jitter) is type(number)
        assert policy.age_seconds == number
        pykeyupdate.rekey_all(per_second=liar(number))
        testing.advance_clock(liar(number))
    for liar in lying(int):
        assert type(RekeyPolicy(sent_records=liar(5)).sent_records) is int
    for liar in lying(str):
        assert type(PeerLimits(renegotiation=liar("once")).renegotiation) is str
        assert type(RekeyPolicy(on_impossible=liar("close")).on_impossible) is str


@pytest.mark.parametrize("kind", [bool, int, float, str, timedelta])
def test_what_says_it_is_of_another_class_is_known(kind):
    for name in ("request_peer", "sent_records", "age_seconds", "jitter"):
        with pytest.raises(TypeError, match=f"^RekeyPolicy: {name} must be "):
            RekeyPolicy(**{name: mock.Mock(spec=kind)})
    with pytest.raises(TypeError, match="^PeerLimits: renegotiation must be"):
        PeerLimits(renegotiation=mock.Mock(spec=kind))
    context = ssl.create_default_context()
    for name, cls in (("policy", RekeyPolicy), ("limits", PeerLimits)):
        with pytest.raises(TypeError, match=f"^{name} must be a "):
            pykeyupdate.manage(context, **{name: mock.Mock(spec=cls)})
    with pytest.raises(TypeError, match=r"takes an ssl\.SSLContext, not"):
        pykeyupdate.manage(mock.Mock(spec=ssl.SSLContext))


def test_times_may_be_timedeltas():
    hour = timedelta(hours=1)
    policy = RekeyPolicy(
        age_seconds=hour, idle_seconds=hour / 2, min_interval_seconds=hour / 4
    )
    assert policy == RekeyPolicy(
        age_seconds=3600.0, idle_seconds=1800.0, min_interval_seconds=900.0
    )
    assert policy.age_seconds == 3600
    limits = PeerLimits(
        key_update_window_seconds=hour, renegotiation_window_seconds=hour / 2
    )
    assert limits == PeerLimits(
        key_update_window_seconds=3600.0, renegotiation_window_seconds=1800.0
    )


def test_presets_take_what_is_to_be_otherwise():
    anssi = RekeyPolicy.anssi
    assert anssi(request_peer=True) == dataclasses.replace(anssi(), request_peer=True)
    assert RekeyPolicy.niap(sent_bytes=5).sent_bytes == 5
    assert RekeyPolicy.tiny(sent_records=None, jitter=0.5) == dataclasses.replace(
        RekeyPolicy.tiny(), sent_records=None, jitter=0.5
    )
    assert RekeyPolicy.rfc9846(jitter=0.5) == RekeyPolicy(jitter=0.5)
    with pytest.raises(TypeError, match="age"):
        anssi(age=5)


def test_policies_are_frozen_and_take_keywords_only():
    with pytest.raises(TypeError):
        RekeyPolicy(5)
    policy = RekeyPolicy(sent_records=5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.sent_records = 6
    assert dataclasses.replace(policy, jitter=0.5) == RekeyPolicy(
        sent_records=5, jitter=0.5
    )
    assert hash(policy) == hash(RekeyPolicy(sent_records=5))
    assert RekeyPolicy.rfc9846() == RekeyPolicy()
    assert RekeyPolicy.anssi().sent_bytes == 10**11
    assert RekeyPolicy.niap().age_seconds == 3600
    assert RekeyPolicy.tiny().min_interval_seconds == 0


@pytest.mark.parametrize(
    ("suite", "sent", "received"),
    [
        ("TLS_AES_128_GCM_SHA256", 17_794_924, 20_760_745),
        ("TLS_AES_256_GCM_SHA384", 17_794_924, 20_760_745),
        ("TLS_CHACHA20_POLY1305_SHA256", None, None),
    ],
)
def test_limits_of_the_cipher_suites(make_contexts, suite, sent, received):
    """RFC 9846 5.5: 2^24.5 records; NSS' margins. Nobody waits
    for so many here: tests/stress/aead.py does."""
    assert int(2**24.5) == 23_726_566
    client, server = make_contexts("tls13")
    wire = Wire((client, server), "object", "client")
    set_suites = libssl_table.libssl.SSL_set_ciphersuites
    set_suites.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    assert set_suites(libssl_table.pointer(wire.end), suite.encode()) == 1
    wire.handshake()
    assert wire.end.cipher()[0] == suite
    stats = pykeyupdate.stats(wire.end)
    assert stats.sent.most_records == sent
    assert stats.received.most_records == received
    assert stats.sent.most_bytes is None


def test_the_rules_are_those_of_the_context(make_contexts):
    client, _ = make_contexts("tls13")
    for wrong in ({"policy": 5}, {"limits": RekeyPolicy()}):
        with pytest.raises(TypeError, match="must be a .* or None"):
            pykeyupdate.manage(client, **wrong)
        with pytest.raises(TypeError, match="must be a .* or None"):
            pykeyupdate.install(**wrong)


# -- what is told ----------------------------------------------------------------------


def test_events_and_the_log(make_wire, caplog):
    caplog.set_level(logging.DEBUG, "pykeyupdate")
    seen = []
    remove = pykeyupdate.on_event(seen.append)
    broken = pykeyupdate.on_event(lambda event: 1 / 0)
    try:
        wire = make_wire(at_once(sent_records=1))
        wire.write(b"data")
        assert seen == []
        wire.write(b"data")
        pykeyupdate.key_update(wire.peer)
        wire.peer_writes(b"data")
    finally:
        remove()
        broken()
    wire.write(b"data")
    kind = pykeyupdate.EventKind
    assert seen == [
        (kind.KEY_UPDATE_SENT, wire.end, None),
        (kind.KEY_UPDATE_RECEIVED, wire.end, None),
    ]
    messages = [record.getMessage() for record in caplog.records]
    assert sum("sends under new keys" in message for message in messages) == 2
    assert sum("failed" in message for message in messages) == 2
    with pytest.raises(TypeError, match="takes a function"):
        pykeyupdate.on_event(None)


def test_what_would_have_to_be_awaited_is_no_function():
    """Its policy would be ignored, as to return is to ignore."""

    async def function(*arguments):
        raise AssertionError

    class Called:
        async def __call__(self, *arguments):
            raise AssertionError

    for wrong in (
        function,
        functools.partial(function, 1),
        Called(),
        Called().__call__,
    ):
        with pytest.raises(TypeError, match="takes a function, and no `async def`"):
            pykeyupdate.on_event(wrong)
        with pytest.raises(TypeError, match="or a function that is no `async def`"):
            RekeyPolicy(on_impossible=wrong)


def test_a_registration_that_is_taken_back_is_that_one(make_wire):
    seen = []

    def once(event):
        seen.append("once")

    def twice(event):
        seen.append("twice")

    def told():
        seen.clear()
        wire.write(b"data")
        return list(seen)

    wire = make_wire(at_once(sent_records=1))
    wire.write(b"data")
    first, between, last = map(pykeyupdate.on_event, (twice, once, twice))
    try:
        assert told() == ["twice", "once", "twice"]
        last()
        last()
        assert told() == ["twice", "once"]
        last = pykeyupdate.on_event(twice)
        first()
        assert told() == ["once", "twice"]
    finally:
        for remove in (first, between, last):
            remove()
    assert told() == []


def test_an_interrupt_in_a_handler_is_an_interrupt(make_wire):
    """And what was written has been written."""

    def handler(event):
        if event.kind is pykeyupdate.EventKind.KEY_UPDATE_SENT:
            raise KeyboardInterrupt

    remove = pykeyupdate.on_event(handler)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        wire = make_wire(at_once(sent_records=1))
        wire.write(b"one")
        with pytest.raises(KeyboardInterrupt):
            wire.write(b"two")
            for _ in range(1000):
                pass
    finally:
        signal.signal(signal.SIGINT, before)
        remove()
    wire.carry()
    assert wire.peer_read_all() in (b"two", b"")


@pytest.mark.parametrize("armed", [False, True])
def test_an_object_is_used_by_one_call_at_a_time(make_contexts, role, kind, armed):
    """ssl's own crashes in OpenSSL where a callback reads its own connection."""
    if kind == "socket":
        pytest.skip("tests/streams/test_managed_sockets.py")
    said = []

    def callback(conn, *_):
        if not armed:
            return
        for call in (lambda: conn.write(b"more"), lambda: conn.read(1)):
            with pytest.raises(
                pykeyupdate.AlreadyPendingError, match="from a callback"
            ):
                call()
            said.append(True)

    contexts = make_contexts("tls13")
    contexts[role == "server"]._msg_callback = callback
    wire = Wire(contexts, kind, role, policy=None).handshake()
    armed = True
    assert wire.write(b"data") == b"data"
    assert wire.peer_writes(b"data") == b"data"
    assert said


def test_nothing_is_done_to_an_object_in_the_middle_of_a_call(make_contexts, kind):
    """Of pykeyupdate's own calls as well, and of what a policy would do by itself."""
    if kind == "socket":
        pytest.skip("tests/streams/test_managed_sockets.py")
    seen = []

    def callback(conn, *_):
        if not armed:
            return
        for call in (
            lambda: conn.write(b"more"),
            conn.do_handshake,
            conn.unwrap,
            lambda: pykeyupdate.key_update(conn),
            lambda: pykeyupdate.rekey(conn),
            lambda: pykeyupdate.flush(conn),
        ):
            with pytest.raises(pykeyupdate.AlreadyPendingError):
                call()
        seen.append(pykeyupdate.stats(conn))
        pykeyupdate.request_rekey(conn)

    armed = False
    contexts = make_contexts("tls13")
    contexts[0]._msg_callback = callback
    wire = Wire(contexts, kind, "client", policy=at_once(sent_records=1)).handshake()
    wire.write(b"data")
    armed = True
    assert wire.peer_writes(b"data") == b"data"
    armed = False
    assert seen
    assert wire.write(b"data") == b"data"


@pytest.mark.parametrize("name", ["do_handshake", "unwrap", "read"])
def test_threads_that_meet_in_an_object_leave_it_free(make_contexts, kind, name):
    """One of them is refused; when all are gone, nobody is (without a GIL, too)."""
    if kind == "socket":
        pytest.skip("tests/streams/test_managed_sockets.py")
    wire = Wire(make_contexts("tls13"), kind, "client", policy=None).handshake()

    def call_often():
        barrier.wait(20)
        for _ in range(300):
            with contextlib.suppress(pykeyupdate.AlreadyPendingError, ssl.SSLError):
                getattr(wire.end, name)()

    barrier = threading.Barrier(2)
    threads = [threading.Thread(target=call_often) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    with contextlib.suppress(ssl.SSLError):
        getattr(wire.end, name)()


def test_a_full_duplex_object_survives_its_renegotiations(make_contexts, kind, role):
    """Data of the peer's is on its way while it writes: only reading survives that."""
    contexts = make_contexts("tls12")
    chance = random.Random(role)
    for context in contexts:
        policy = at_once(sent_records=5, renegotiate=True)
        pykeyupdate.manage(context, policy=policy, limits=None)
    link = Link(*contexts, over={"object": "memory", "socket": "socket"}[kind])
    link.handshake()
    sent, got = dict.fromkeys(("client", "server"), b""), {}
    got.update(sent)
    for number in range(300):
        end = chance.choice(("client", "server"))
        with contextlib.suppress(ssl.SSLWantReadError):
            data = b"%d " % number
            link.end(end).write(data)
            sent[end] += data
        if chance.random() < 0.3:
            for name, data in link.settle().items():
                got[name] += data
    for name, data in link.settle().items():
        got[name] += data
    assert got == {"client": sent["server"], "server": sent["client"]}
    assert link.said("client").count("ClientHello") > 3
    link.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
def test_rekey_all_in_a_child_leaves_the_parents_connections_alone(make_wire):
    wire = make_wire(RekeyPolicy())
    child = os.fork()
    if child == 0:
        os._exit(pykeyupdate.rekey_all())
    assert os.waitpid(child, 0)[1] == 0
    assert wire.write(b"data") == b"data"
    assert wire.key_updates() == 0


def test_a_handler_may_use_the_connection(make_wire):
    def handler(event):
        if event.kind is pykeyupdate.EventKind.KEY_UPDATE_SENT and not done:
            done.append(True)
            event.connection.write(b"from the handler")

    done = []
    remove = pykeyupdate.on_event(handler)
    try:
        wire = make_wire(at_once(sent_records=1))
        wire.write(b"one")
        assert wire.write(b"two") == b"twofrom the handler"
    finally:
        remove()
    assert [len(records) for records in wire.under_each_key()] == [1, 1, 1]


def test_stats_are_what_the_wire_has_seen(make_wire):
    wire = make_wire(at_once(sent_records=3))
    before = pykeyupdate.stats(wire.end)
    assert before.counts == (0,) * 10
    for piece in (b"a" * 10, b"b" * 40_000, b"c" * 20):
        wire.write(piece)
    for _ in range(4):
        wire.peer_writes(b"d" * 17_000)
    now = pykeyupdate.stats(wire.end)
    keys = wire.under_each_key()
    assert now.counts.key_updates_sent == len(keys) - 1
    assert now.sent.records == len(keys[-1])
    assert now.sent.bytes == sum(keys[-1])
    assert now.received.records == 8
    assert now.received.bytes == 4 * 17_000
    testing.advance_clock(100)
    assert 100 <= pykeyupdate.stats(wire.end).received.age_seconds < 130


def test_totals_count_what_has_been_and_what_is(make_contexts):
    before = pykeyupdate.totals()
    wire = Wire(make_contexts("tls13"), "object", "client", policy=RekeyPolicy.tiny())
    wire.handshake()
    for _ in range(9):
        wire.write(b"data")
    now = pykeyupdate.totals()
    assert now.open == before.open + 1
    assert now.opened == before.opened + 1
    assert now.counts.key_updates_sent == before.counts.key_updates_sent + 2
    del wire
    assert pykeyupdate.totals().open == before.open
    assert pykeyupdate.totals().opened == now.opened


def test_prometheus():
    prometheus = pytest.importorskip("prometheus_client")
    from pykeyupdate.prometheus import Collector

    registry = prometheus.CollectorRegistry()
    registry.register(Collector())
    text = prometheus.generate_latest(registry).decode()
    now = pykeyupdate.totals()
    for line in (
        f"pykeyupdate_key_updates_sent_total {float(now.counts.key_updates_sent)}",
        f"pykeyupdate_connections_opened_total {float(now.opened)}",
        f"pykeyupdate_connections {float(now.open)}",
    ):
        assert line in text.splitlines()
    with pytest.raises(ValueError, match="Duplicated.*pykeyupdate_key_updates_sent"):
        registry.register(Collector())


def test_prometheus_in_multiprocess_mode_is_refused(tmp_path):
    """As an endpoint of that mode shows a counter of prometheus_client's and not ours;
    what the error advises it shows."""
    pytest.importorskip("prometheus_client")
    script = """
import prometheus_client, pykeyupdate
from prometheus_client import multiprocess
from pykeyupdate.prometheus import Collector
try:
    Collector()
except RuntimeError as error:
    assert "PROMETHEUS_MULTIPROC_DIR" in str(error)
else:
    raise SystemExit("taken")
class Careless(Collector):
    def __init__(self):
        pass
prometheus_client.REGISTRY.register(Careless())
sent = prometheus_client.Gauge("sent", "-", multiprocess_mode="sum")
sent.set(pykeyupdate.totals().counts.key_updates_sent)
endpoint = prometheus_client.CollectorRegistry()
multiprocess.MultiProcessCollector(endpoint)
text = prometheus_client.generate_latest(endpoint).decode()
assert "pykeyupdate" not in text
assert "sent 0.0" in text
"""
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        environment = {**os.environ, name: str(tmp_path)}
        subprocess.run([sys.executable, "-c", script], env=environment, check=True)


# -- a peer that does not answer -------------------------------------------------------


def test_a_peer_that_only_reads_is_not_asked_by_age(make_wire):
    """It would never answer, and our keys would stay as they are."""
    wire = make_wire(RekeyPolicy.anssi())
    for _ in range(24):
        testing.advance_clock(3700)
        wire.write(b"data")
    counts = pykeyupdate.stats(wire.end).counts
    assert (counts.key_updates_sent, counts.requests_sent) == (24, 0)


def test_a_peer_that_writes_under_an_old_key_is_asked(make_wire):
    wire = make_wire(RekeyPolicy.anssi())
    wire.peer_writes(b"data")
    testing.advance_clock(4300)
    wire.peer_writes(b"data")
    assert pykeyupdate.stats(wire.end).counts.requests_sent == 1


def test_a_wish_goes_before_an_answer(make_wire):
    """`rekey_all()` is for an incident; a policy alone waits."""
    wire = make_wire(at_once(sent_records=2, request_peer=True))
    for _ in range(9):
        wire.write(b"data")
    assert pykeyupdate.stats(wire.end).counts.key_updates_sent == 1
    pykeyupdate.request_rekey(wire.end)
    wire.write(b"data")
    counts = pykeyupdate.stats(wire.end).counts
    assert (counts.key_updates_sent, counts.requests_sent) == (2, 1)


# -- a peer that is in the middle of a write -------------------------------------------

POLICIES = {
    "asks": at_once(sent_records=1, request_peer=True),
    "asks for received": at_once(sent_records=1, received_records=1),
    "of age": at_once(age_seconds=1e-6, request_peer=True),
    "tiny": RekeyPolicy.tiny(),
    "none of them": at_once(sent_records=1),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_stock_peer_with_a_write_pending_lives(make_contexts, name, role):
    """OpenSSL ends its connection (BAD_LENGTH) over any KeyUpdate that it reads behind
    one that asks, while a write of its is half-way. (mosquitto did, on large messages.)
    """
    contexts = dict(zip(("client", "server"), make_contexts("tls13")))
    peers = "server" if role == "client" else "client"
    pykeyupdate.manage(contexts[role], policy=POLICIES[name], limits=None)
    near, far = socket.socketpair()
    ends = {
        end: contexts[end].wrap_socket(
            sock,
            server_side=end == "server",
            server_hostname="localhost" if end == "client" else None,
            do_handshake_on_connect=False,
        )
        for end, sock in ((role, near), (peers, far))
    }
    for sock in (near, far):
        sock.close()
    end, peer = ends[role], ends[peers]
    for one in ends.values():
        one.setblocking(False)
    for _ in range(10):
        for one in ends.values():
            with contextlib.suppress(ssl.SSLWantReadError):
                one.do_handshake()
    half = bytes(1 << 18)  # more than the socket takes
    with end, peer:
        for number in range(50_000):
            if pykeyupdate.stats(end).counts.key_updates_sent >= 200:
                break
            with contextlib.suppress(ssl.SSLWantWriteError):
                while True:
                    peer.send(half)
            # now its write is pending; it reads all the same
            end.send(b"x")
            with contextlib.suppress(ssl.SSLWantReadError):
                while peer.recv(100):
                    pass
            if number % 3 == 0:
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.recv(1 << 16)
        else:
            pytest.fail(f"too few updates: {pykeyupdate.stats(end)}")


# -- beside the SSL --------------------------------------------------------------------


def test_a_copy_of_the_ssl_has_no_record_to_free(make_wire):
    """SSL_dup() would copy the pointer, and both would free it."""
    libssl = libssl_table.libssl
    libssl.SSL_dup.restype = ctypes.c_void_p
    libssl.SSL_dup.argtypes = libssl.SSL_free.argtypes = [ctypes.c_void_p]
    wire = make_wire(RekeyPolicy())
    copy = libssl.SSL_dup(libssl_table.pointer(inner_of(wire.end)))
    assert copy
    opened = pykeyupdate.totals().open
    libssl.SSL_free(copy)
    assert pykeyupdate.totals().open == opened
    assert wire.write(b"data") == b"data"


class Holder:
    def __init__(self, inner):
        self._sslobj = inner


def inner_of(end):
    return Holder(getattr(end._sslobj, "inner", end._sslobj))


def test_the_clock_goes_forward_only(make_wire):
    for error, wrong in [
        (ValueError, -1),
        (ValueError, timedelta(days=-1)),
        (ValueError, 1.5),
        (ValueError, timedelta(seconds=1.5)),
        (ValueError, float("nan")),
        (TypeError, "1"),
        (TypeError, True),
        (TypeError, None),
    ]:
        with pytest.raises(error, match=r"advance_clock\(\): seconds must be "):
            testing.advance_clock(wrong)
    wire = make_wire(RekeyPolicy())
    for step in (60, timedelta(minutes=1)):
        before = pykeyupdate.stats(wire.end).sent.age_seconds
        testing.advance_clock(step)
        now = pykeyupdate.stats(wire.end).sent.age_seconds
        assert 60 <= now - before < 60 + 30


def test_what_is_on_or_off_is_no_word(make_wire):
    wire = make_wire(RekeyPolicy())
    for call in (
        lambda value: pykeyupdate.install(managed=value),
        lambda value: pykeyupdate.rekey_all(request_peer=value),
        lambda value: pykeyupdate.request_rekey(wire.end, request_peer=value),
        lambda value: pykeyupdate.rekey(wire.end, request_peer=value),
    ):
        for wrong in ("no", 1, None):
            with pytest.raises(TypeError, match=f"True or False, not {wrong!r}"):
                call(wrong)
    assert wire.write(b"data") == b"data"
    assert wire.key_updates() == 0


def test_witnesses_agree(make_wire, role):
    """The message callback tells the types of what the wire has counted."""
    witness = Witness()
    wire = make_wire(
        at_once(sent_records=2, received_records=2, aead_limit=False), witness=witness
    )
    witness.wire.clear()
    for _ in range(5):
        wire.write(b"data")
    assert witness.said(role) == [NOT_REQUESTED] * 2
    wire.peer_writes(b"data")
    wire.peer_writes(b"data")
    assert witness.said(role) == [NOT_REQUESTED] * 2 + [REQUESTED]
    assert wire.key_updates() == 3
