"""_connections.py: every live managed connection, seen from outside."""

import contextlib
import gc
import os
import pickle
import ssl
import subprocess
import sys
import threading

import pytest
from support.wire import Wire, at_once

import pykeyupdate
from pykeyupdate import RekeyPolicy, _weak_list, testing


def info_of(conn):
    """Return the snapshot of one connection, or None."""
    found = [it for it in pykeyupdate.connections() if it.connection is conn]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.fixture(autouse=True)
def _watched():
    """Have the times of data noted, as after the first look."""
    list(pykeyupdate.connections())


def test_nobody_notes_times_before_the_first_look(authority, certificate, tmp_path):
    """And then nothing is older than that."""
    program = """
import ssl, sys, pykeyupdate
from pykeyupdate import testing
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_verify_locations(sys.argv[1])
server.load_cert_chain(sys.argv[2])
pykeyupdate.manage(context)
inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
end = context.wrap_bio(inward, outward, server_hostname="localhost")
peer = server.wrap_bio(outward, inward, server_side=True)
for _ in range(2):
    for one in (end, peer):
        try:
            one.do_handshake()
        except ssl.SSLWantReadError:
            pass
testing.advance_clock(100)
[info] = pykeyupdate.connections()
assert info.sent.age_seconds >= 100
assert info.idle_seconds < 50, info
testing.advance_clock(100)
[info] = pykeyupdate.connections()
assert 100 <= info.idle_seconds < 150, info
end.write(b"data")
[info] = pykeyupdate.connections()
assert info.idle_seconds < 50, info
"""
    authority.cert_pem.write_to_path(str(tmp_path / "authority"))
    both = certificate.private_key_and_cert_chain_pem
    both.write_to_path(str(tmp_path / "server"))
    files = [str(tmp_path / name) for name in ("authority", "server")]
    subprocess.run([sys.executable, "-c", program, *files], check=True)


@pytest.mark.parametrize("version", ["tls12", "tls13"])
def test_a_snapshot_is_what_the_connection_says_itself(make_wire, role, version):
    wire = make_wire(RekeyPolicy(), version)
    for size in (10, 40_000):
        wire.write(b"a" * size)
    wire.peer_writes(b"b" * 17_000)
    testing.advance_clock(60)
    info = info_of(wire.end)
    now = pykeyupdate.stats(wire.end)
    is_server = wire.end.server_side
    assert info.role == ("server" if is_server else "client")
    assert info.server_name == (None if is_server else "localhost")
    assert info.version == wire.end.version()
    assert info.cipher == wire.end.cipher()[0]
    for seen, own in ((info.sent, now.sent), (info.received, now.received)):
        assert seen._replace(age_seconds=0) == own._replace(age_seconds=0)
        assert 0 <= own.age_seconds - seen.age_seconds < 5
    assert info.counts == now.counts
    assert 60 <= info.idle_seconds < 90
    assert (info.obstacle is None) == (version == "tls13")


def test_a_snapshot_stays_as_it_is(make_wire):
    wire = make_wire(at_once(sent_records=2))
    before = info_of(wire.end)
    for _ in range(5):
        wire.write(b"data")
    after = info_of(wire.end)
    assert (before.sent.records, before.counts.key_updates_sent) == (0, 0)
    assert after.number == before.number
    assert after.sent.records == len(wire.under_each_key()[-1])
    assert after.counts.key_updates_sent == wire.key_updates() == 2


def test_data_ends_the_idleness(make_wire):
    wire = make_wire(None)
    testing.advance_clock(100)
    assert info_of(wire.end).idle_seconds >= 100
    wire.write(b"data")
    assert info_of(wire.end).idle_seconds < 50
    testing.advance_clock(100)
    wire.peer_writes(b"data")
    assert info_of(wire.end).idle_seconds < 50


def test_an_answer_is_owed_until_it_is_sent(make_wire):
    wire = make_wire(None)
    pykeyupdate.key_update(wire.peer, pykeyupdate.KeyUpdateType.REQUESTED)
    wire.peer_writes(b"data")
    assert info_of(wire.end).answer_owed
    wire.write(b"data")
    assert not info_of(wire.end).answer_owed


def test_a_request_is_outstanding_until_it_is_answered(make_wire):
    wire = make_wire(None)
    pykeyupdate.request_rekey(wire.end, request_peer=True)
    wire.write(b"data")
    assert info_of(wire.end).request_outstanding
    wire.peer_writes(b"data")
    assert not info_of(wire.end).request_outstanding


def test_a_first_handshake_is_no_obstacle(make_contexts, kind, role):
    wire = Wire(make_contexts("tls13"), kind, role)
    with pytest.raises(ssl.SSLWantReadError):
        wire.end.do_handshake()
    info = info_of(wire.end)
    assert (info.version, info.cipher, info.sent.age_seconds) == (None, None, 0)
    assert info.obstacle is None
    wire.handshake()
    assert info_of(wire.end).obstacle is None
    wire.close()


@pytest.mark.parametrize("renegotiate", [False, True])
def test_below_tls13_the_policy_decides(make_wire, renegotiate):
    wire = make_wire(RekeyPolicy(renegotiate=renegotiate), "tls12")
    obstacle = info_of(wire.end).obstacle
    assert obstacle is None if renegotiate else "TLSv1.2" in obstacle
    assert renegotiate or "renegotiate=True" in obstacle


@pytest.mark.parametrize("mode", ["never", "once", "option"])
def test_a_renegotiation_that_is_forbidden_is_an_obstacle(make_contexts, kind, mode):
    contexts = make_contexts("tls12")
    if mode == "option":
        contexts[1].options |= ssl.OP_NO_RENEGOTIATION
    policy = RekeyPolicy(renegotiate=True)
    limits = None if mode == "option" else pykeyupdate.PeerLimits(renegotiation=mode)
    wire = Wire(contexts, kind, "server", policy=policy, limits=limits).handshake()
    if mode == "once":
        assert info_of(wire.end).obstacle is None
        pykeyupdate.renegotiate(wire.peer)
        for _ in range(3):  # one flight after the other
            wire.handshake()
    assert "OP_NO_RENEGOTIATION" in info_of(wire.end).obstacle
    with pykeyupdate.allow_renegotiation(wire.end):
        assert info_of(wire.end).obstacle is None
    assert "OP_NO_RENEGOTIATION" in info_of(wire.end).obstacle
    wire.close()


def says_close_notify(end):
    with contextlib.suppress(ssl.SSLWantReadError):
        end.unwrap()


def get_junk(wire):
    wire.peer_out.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    wire.carry()
    with pytest.raises(ssl.SSLError):
        wire.end.read()


def get_an_alert(wire):
    wire.peer_in.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError):
        wire.peer.read()
    wire.carry()
    with pytest.raises(ssl.SSLError):
        wire.end.read()


def get_a_close_notify(wire):
    says_close_notify(wire.peer)
    wire.carry()
    assert wire.end.read(10) == b""


ENDS = {
    "we say so": lambda wire: says_close_notify(wire.end),
    "the peer says so": get_a_close_notify,
    "we fail": get_junk,
    "the peer fails": get_an_alert,
}


@pytest.mark.parametrize("version", ["tls12", "tls13"])
@pytest.mark.parametrize("how", ENDS)
def test_an_end_is_an_obstacle(make_wire, version, how):
    """But not the peer's own in TLS 1.3, in which what we send goes on."""
    wire = make_wire(RekeyPolicy(renegotiate=True), version)
    assert info_of(wire.end).obstacle is None
    ENDS[how](wire)
    obstacle = info_of(wire.end).obstacle
    result = pykeyupdate.rekey_all(lambda info: info.connection is wire.end)
    if how == "the peer says so" and version == "tls13":
        assert (obstacle, result.impossible) == (None, 0)
        return
    assert ("sent close_notify" if how == "the peer says so" else "ended") in obstacle
    assert (result, result.obstacles) == (0, {obstacle: 1})
    with pykeyupdate.allow_renegotiation(wire.end):
        assert info_of(wire.end).obstacle == obstacle


def test_a_cut_is_named(make_contexts, kind):
    limits = pykeyupdate.PeerLimits(key_updates=0)
    wire = Wire(make_contexts("tls13"), kind, "server", limits=limits).handshake()
    pykeyupdate.key_update(wire.peer)
    wire.peer.write(b"data")
    wire.carry()
    with pytest.raises(pykeyupdate.PeerLimitError):
        wire.end.read()
    assert "PeerLimits.key_updates" in info_of(wire.end).obstacle
    wire.close()


def test_those_that_have_gone_are_not_there(make_contexts, make_link, kind):
    wire = Wire(make_contexts("tls13"), kind, "client").handshake()
    stock = make_link("tls13")
    info = info_of(wire.end)
    assert info.connection is wire.end
    assert info_of(stock.client) is None
    wire.close()
    if kind == "object":
        del wire
        gc.collect()
        assert info.connection is None
    else:
        assert info_of(wire.end) is None
    assert info.number not in [it.number for it in pykeyupdate.connections()]


def test_a_snapshot_can_be_pickled_without_its_connection(make_wire):
    wire = make_wire(RekeyPolicy())
    info = info_of(wire.end)
    again = pickle.loads(pickle.dumps(info))
    assert again == info
    assert hash(again) == hash(info)
    assert repr(again) == repr(info)
    assert again.label == info.label
    assert again.as_dict() == info.as_dict()
    assert b"_Values" not in pickle.dumps(info)
    assert again.connection is None
    assert type(again) is pykeyupdate.ConnectionInfo


def test_a_snapshot_is_no_work_for_the_garbage_collector(make_wire):
    """10,000 of them would else have it look through the whole program."""
    wire = make_wire(RekeyPolicy())
    assert not gc.is_tracked(info_of(wire.end))
    before = sys.getallocatedblocks()
    for _ in range(200):
        for info in pykeyupdate.connections():
            assert info.number
    assert sys.getallocatedblocks() - before < 1000


def test_totals_survey_the_keys(make_contexts):
    gc.collect()
    before = pykeyupdate.totals()
    wires = [
        Wire(make_contexts("tls13"), kind, "client").handshake()
        for kind in ("object", "socket")
    ]
    for _ in range(101):
        wires[0].write(b"data")
    now = pykeyupdate.totals()
    new = [now.sent.records.counts[i] - before.sent.records.counts[i] for i in range(2)]
    assert new == [1, 1]
    assert sum(now.received.records.counts) - sum(before.received.records.counts) == 2
    everyone = sum(now.sent.ages.counts)
    assert everyone == sum(now.received.ages.counts) == sum(now.sent.records.counts)
    testing.advance_clock(8 * 86400)
    old = pykeyupdate.totals()
    assert old.sent.oldest_seconds >= 8 * 86400
    assert old.sent.ages.counts[-1] == old.received.ages.counts[-1] == everyone
    wires[1].write(b"data")
    pykeyupdate.rekey(wires[1].end)
    young = pykeyupdate.totals()
    assert young.sent.ages.counts[-1] == everyone - 1
    assert young.received.ages == old.received.ages
    for wire in wires:
        wire.close()


def test_without_connections_there_is_no_oldest_key():
    program = (
        "import pykeyupdate; sent = pykeyupdate.totals().sent; "
        "print(sent.oldest_seconds, sent.ages.counts, [*pykeyupdate.connections()])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert printed.stdout == f"None {(0,) * 8} []\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
def test_a_child_shows_what_it_inherited(make_wire):
    wire = make_wire(None)
    child = os.fork()
    if child == 0:
        info = info_of(wire.end)
        has_none = "forked" in info.obstacle and pykeyupdate.totals().open > 0
        os._exit(0 if has_none else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert info_of(wire.end).obstacle is None


IN_ANOTHER_INTERPRETER = """
import importlib, ssl, sys
code = f"import sys; sys.path[:] = {sys.path!r}" + sys.argv[1]
if sys.version_info >= (3, 14):
    from concurrent import interpreters
    other = interpreters.create()
    other.exec(code)
else:
    name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    interpreters = importlib.import_module(name)
    other = interpreters.create()
    assert interpreters.run_string(other, code) is None
exec(sys.argv[2])
"""
STOCK = """
import ssl
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
MANAGE
conn = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
"""
MANAGE = "import pykeyupdate; pykeyupdate.manage(context)"
THERE = """
[info] = pykeyupdate.connections()
assert info.connection is conn
assert pykeyupdate.totals().open == 1
"""
HERE = """
import pykeyupdate
assert [*pykeyupdate.connections()] == []
assert pykeyupdate.totals().open == 1
"""


def test_another_interpreters_connections_are_not_shown():
    """Only totals() counts them."""
    run = [sys.executable, "-c", IN_ANOTHER_INTERPRETER]
    stock = subprocess.run([*run, STOCK.replace("MANAGE", ""), ""], check=False)
    if stock.returncode not in (0, 1):
        pytest.skip(f"this Python's ssl module crashes there ({stock.returncode})")
    ours = STOCK.replace("MANAGE", MANAGE) + THERE
    subprocess.run([*run, ours, HERE], check=True)


def test_looking_from_another_thread_disturbs_nobody(make_contexts):
    """Connections come, talk, change keys and go; a thread looks all the time."""
    stop, seen, failures = threading.Event(), [], []

    def look():
        try:
            while not stop.is_set():
                seen.append(sum(1 for _ in pykeyupdate.connections()))
                assert pykeyupdate.totals().open >= 0
        except Exception as error:
            failures.append(error)

    looker = threading.Thread(target=look)
    looker.start()
    policy = at_once(sent_records=2)
    for _ in range(30):
        for kind in ("object", "socket"):
            wire = Wire(make_contexts("tls13"), kind, "client", policy=policy)
            wire.handshake()
            for _ in range(10):
                assert wire.write(b"data") == b"data"
                assert wire.peer_writes(b"data") == b"data"
            wire.close()
    stop.set()
    looker.join(20)
    assert not failures
    assert max(seen) > 0


class Thing:
    """Something that can be held weakly, and compares like nothing else."""

    __hash__ = None

    def __eq__(self, other):
        raise AssertionError


def alive(things):
    found = [reference() for reference in things.references()]
    return [thing for thing in found if thing is not None]


def test_a_weak_list_forgets_the_dead_and_nobody_else():
    things = _weak_list.WeakList()
    kept = []
    for number in range(1000):
        thing = Thing()
        things.add(thing)
        if number % 10 == 0:
            kept.append(thing)
    del thing
    assert [id(thing) for thing in alive(things)] == [id(thing) for thing in kept]
    assert len(things.references()) < 400


class Fragile:
    """A weak reference whose referent dies in the middle of the removal."""

    def __init__(self, thing):
        self.thing = thing

    def __call__(self):
        self.thing = None


def test_a_weak_list_keeps_nobody_waiting_for_a_finalizer(threads):
    """Which may want a lock that is held by a thread that adds to the list."""
    things, kept, finalized = _weak_list.WeakList(), [], []
    lock, is_held, is_wanted = threading.Lock(), threading.Event(), threading.Event()

    class Awkward(Thing):
        def __del__(self):
            is_wanted.set()
            is_held.wait(20)
            with lock:
                finalized.append(True)

    def add_many():
        for thing in [Thing() for _ in range(2 * things._FEW)]:
            kept.append(thing)
            things.add(thing)

    things._references.append(Fragile(Awkward()))
    removed = threads.start(add_many)
    assert is_wanted.wait(20)
    with lock:
        is_held.set()
        threads.start(add_many)()
    removed()
    assert finalized
    assert len(alive(things)) == 4 * things._FEW


def test_a_weak_list_takes_what_comes_while_it_removes_the_dead():
    """As a finalizer, or a signal handler, may add to it just then."""
    things = _weak_list.WeakList()
    late = [Thing() for _ in range(100)]

    class Awkward(Thing):
        def __del__(self):
            for thing in late:
                things.add(thing)

    kept = [Thing() for _ in range(things._FEW - 2)]
    things._references.append(Fragile(Awkward()))
    for thing in kept:
        things.add(thing)
    last = Thing()
    things.add(last)
    assert {*map(id, alive(things))} == {*map(id, [*kept, last, *late])}
