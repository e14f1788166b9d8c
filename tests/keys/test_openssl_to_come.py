"""Managed connections on an OpenSSL that limits key updates, and sends its own.

No release does so yet. ``tests/platforms/openssl_to_come`` builds an imitation, whose
limits the environment sets, and runs these tests with it; elsewhere they are skipped.
"""

import logging
import os
import ssl
import time

import pytest
from support import pace
from support.wire import Wire, at_once

import pykeyupdate
from pykeyupdate import RekeyPolicy

LIMITS = {
    "sent_ms": "OPENSSL_TO_COME_SENT_MS",
    "received_ms": "OPENSSL_TO_COME_RECEIVED_MS",
    "records": "OPENSSL_TO_COME_RECORDS",
}
OFF = at_once(aead_limit=False)
INTERVAL = 100  # ms, as proposed

pytestmark = pytest.mark.skipif(
    LIMITS["sent_ms"] not in os.environ,
    reason="for an OpenSSL with limits (tests/platforms/openssl_to_come)",
)


@pytest.fixture
def openssl_with(monkeypatch):
    """Set OpenSSL's limits; those that are not named are off."""
    pace.interval()  # that of all other tests, asked before it is changed

    def set_limits(**limits):
        for name, variable in LIMITS.items():
            monkeypatch.setenv(variable, str(limits.get(name, 0)))

    return set_limits


@pytest.fixture
def make_hasty(make_contexts, kind, role):
    """As ``make_wire()``, but nobody keeps OpenSSL's pace."""
    wires = []

    def make(policy, limits=None):
        contexts = make_contexts("tls13")
        pace.let_go(*contexts)
        wires.append(Wire(contexts, kind, role, policy=policy, limits=limits))
        return wires[-1].handshake()

    yield make
    for wire in wires:
        wire.close()


def write_pieces(wire, count):
    """Write so many records, and see all of them arrive."""
    for number in range(count):
        piece = number.to_bytes(4, "big") * 5
        assert wire.write(piece) == piece


# -- OpenSSL's own update at the end of a key ------------------------------------------


@pytest.mark.parametrize("ours", [None, 10, 20, 21, 50])
def test_an_update_of_openssls_is_counted_once(openssl_with, make_hasty, ours):
    """A policy whose limit comes first leaves OpenSSL nothing to do, and none has two
    updates where one is due."""
    openssl_with(records=20)
    wire = make_hasty(OFF if ours is None else at_once(sent_records=ours))
    write_pieces(wire, 200)
    stats = pykeyupdate.stats(wire.end)
    keys = wire.under_each_key()
    assert stats.counts.key_updates_sent == wire.key_updates() > 0
    assert stats.sent.records == len(keys[-1])
    assert max(map(len, keys)) == (min(ours, 20) if ours else 20)
    assert all(keys)
    assert stats.counts.requests_sent == stats.counts.deferred == 0
    assert not stats.answer_owed
    assert not stats.request_outstanding


def test_a_key_of_openssls_begins_anew_for_the_policy(openssl_with, make_hasty):
    openssl_with(records=20)
    wire = make_hasty(at_once(sent_bytes=1000))
    write_pieces(wire, 200)
    stats = pykeyupdate.stats(wire.end)
    keys = wire.under_each_key()
    assert {len(records) for records in keys[1:-1]} == {20}
    assert stats.sent.bytes == sum(keys[-1])
    assert stats.sent.age_seconds < 60


def test_the_peers_automatic_updates_are_counted(openssl_with, make_hasty):
    openssl_with(records=20)
    wire = make_hasty(OFF)
    for _ in range(90):
        assert wire.peer_writes(b"a piece") == b"a piece"
    stats = pykeyupdate.stats(wire.end)
    assert stats.counts.key_updates_received == 4
    assert stats.received.records in range(1, 21)
    assert stats.counts.requests_received == 0
    assert not stats.answer_owed


def test_an_answer_is_the_update_that_is_due(openssl_with, make_hasty):
    openssl_with(records=20)
    wire = make_hasty(OFF)
    write_pieces(wire, 20)
    pykeyupdate.key_update(wire.peer, pykeyupdate.KeyUpdateType.REQUESTED)
    wire.peer.do_handshake()
    wire.carry()
    wire.read_all()
    before = wire.key_updates()
    assert pykeyupdate.stats(wire.end).answer_owed
    write_pieces(wire, 10)
    assert wire.key_updates() == before + 1
    stats = pykeyupdate.stats(wire.end)
    assert not stats.answer_owed
    assert stats.counts.key_updates_sent == wire.key_updates()


# -- OpenSSL refuses an update that comes too soon -------------------------------------


def test_a_policy_waits_and_nothing_is_lost(openssl_with, make_hasty, caplog):
    """One wait is counted, reported and logged once, however many writes it lasts."""
    caplog.set_level(logging.DEBUG, "pykeyupdate")
    openssl_with(sent_ms=60_000)
    wire = make_hasty(at_once(sent_records=5))
    write_pieces(wire, 100)
    counts = pykeyupdate.stats(wire.end).counts
    assert counts.key_updates_sent == wire.key_updates() == 1
    assert counts.deferred == 1
    assert [len(records) for records in wire.under_each_key()] == [5, 95]
    said = [record.getMessage() for record in caplog.records]
    assert sum("has to wait for new keys" in line for line in said) == 1
    openssl_with()
    write_pieces(wire, 1)
    assert wire.key_updates() == 2
    assert pykeyupdate.stats(wire.end).counts.deferred == 1


def test_a_wish_waits(openssl_with, make_hasty):
    openssl_with(sent_ms=60_000)
    wire = make_hasty(OFF)
    pykeyupdate.rekey(wire.end)
    pykeyupdate.request_rekey(wire.end)
    write_pieces(wire, 3)
    counts = pykeyupdate.stats(wire.end).counts
    assert (wire.key_updates(), counts.deferred) == (1, 1)
    openssl_with()
    write_pieces(wire, 3)
    counts = pykeyupdate.stats(wire.end).counts
    assert (wire.key_updates(), counts.deferred) == (2, 1)


@pytest.mark.parametrize("request_peer", [False, True])
def test_rekey_is_deferred_and_the_connection_is_fine(
    openssl_with, make_hasty, request_peer
):
    openssl_with(sent_ms=INTERVAL)
    wire = make_hasty(OFF)
    pykeyupdate.rekey(wire.end)
    with pytest.raises(pykeyupdate.DeferredByOpenSSLError) as caught:
        pykeyupdate.rekey(wire.end, request_peer=request_peer)
    assert caught.value.reason == "TOO_MANY_KEY_UPDATES"
    write_pieces(wire, 3)
    time.sleep(1.5 * INTERVAL / 1000)
    pykeyupdate.rekey(wire.end, request_peer=request_peer)
    write_pieces(wire, 3)
    assert wire.key_updates() == 2
    assert pykeyupdate.stats(wire.end).counts.requests_sent == request_peer


def test_a_second_request_waits_for_the_answer(openssl_with, make_hasty):
    """A policy asks for one answer at a time by itself; rekey() is refused."""
    openssl_with(sent_ms=1)
    wire = make_hasty(at_once(sent_records=5, request_peer=True))
    pykeyupdate.rekey(wire.end, request_peer=True)
    time.sleep(0.01)
    with pytest.raises(pykeyupdate.DeferredByOpenSSLError):
        pykeyupdate.rekey(wire.end, request_peer=True)
    write_pieces(wire, 20)
    assert wire.key_updates() == 1
    assert wire.peer_writes(b"the answer") == b"the answer"
    time.sleep(0.01)
    write_pieces(wire, 1)
    counts = pykeyupdate.stats(wire.end).counts
    assert counts.key_updates_sent == counts.requests_sent == wire.key_updates() == 2


# -- OpenSSL ends a connection whose peer updates too often ----------------------------


def test_two_updates_too_soon_end_the_connection(openssl_with, make_hasty):
    """As an older OpenSSL's may be: the error is ssl's own, and fatal."""
    openssl_with(received_ms=INTERVAL)
    wire = make_hasty(OFF)
    for data in (b"one", b"two"):
        pykeyupdate.rekey(wire.peer)
        wire.peer.write(data)
    wire.carry()
    with pytest.raises(ssl.SSLError) as caught:
        while wire.end.read(3) == b"one":
            pass
    assert caught.value.reason == "TOO_MANY_KEY_UPDATES"
    assert not isinstance(caught.value, pykeyupdate.PyKeyUpdateError)
    with pytest.raises(pykeyupdate.ConnectionFailedError):
        pykeyupdate.rekey(wire.end)
    wire.carry()
    with pytest.raises(ssl.SSLError, match="(?i)unexpected message"):
        wire.peer.read(1)


def test_the_least_interval_of_a_policy_keeps_the_peer_content(
    openssl_with, make_hasty
):
    """The default of a second is more than a peer wants that reads as we write."""
    openssl_with(sent_ms=INTERVAL, received_ms=INTERVAL)
    wire = make_hasty(RekeyPolicy(sent_records=5, min_interval_seconds=0.15))
    ends = time.monotonic() + 0.8
    while time.monotonic() < ends:
        write_pieces(wire, 10)
    assert 3 <= wire.key_updates() <= 6
