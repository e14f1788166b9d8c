"""ext/keys and _policy.py: keys change when they must, exact to the record.

Claims about TLS 1.3 are checked by counting on the wire (tests/support/wire.py).
"""

import contextlib
import ctypes
import dataclasses
import random
import socket
import ssl
import sys

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
from support.sockets import socket_pair
from support.wire import Wire, at_once

import pykeyupdate
from pykeyupdate import RekeyPolicy, testing

SIZES = [0, 1, 4, 100, 4096, 16383, 16384, 16385, 100_000]


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


# -- numbers and rules -----------------------------------------------------------------


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
    near, far = socket_pair()
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
