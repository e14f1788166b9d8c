"""_stats.py: the counts of one connection, and of all."""

from support.wire import Wire, at_once

import pykeyupdate
from pykeyupdate import RekeyPolicy, testing


def test_stats_are_what_the_wire_has_seen(make_wire):
    wire = make_wire(at_once(sent_records=3))
    before = pykeyupdate.stats(wire.end)
    assert before.counts == (0,) * len(pykeyupdate.Counts._fields)
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
