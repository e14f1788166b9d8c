"""Why keys were changed, could not be, and peers were cut off: counted and told."""

import asyncio
import contextlib
import gc
import logging
import socket
import ssl
import sys
import threading

import pytest
from support.link import write_nothing
from support.sockets import close_with_reset
from support.waiting import eventually
from support.wire import Wire, at_once

import pykeyupdate
from pykeyupdate import EventKind, PeerLimitError, PeerLimits, RekeyPolicy, testing


@pytest.fixture
def told():
    """The events of a test."""
    seen = []
    remove = pykeyupdate.on_event(seen.append)
    yield seen
    remove()


@pytest.fixture
def more():
    """What a field of totals() has counted since the test began."""
    before = pykeyupdate.totals()

    def since(field):
        now = getattr(pykeyupdate.totals(), field)
        pairs = zip(now._fields, now, getattr(before, field))
        return {name: new - old for name, new, old in pairs if new != old}

    return since


def reasons_of(events, kind):
    return [event.reason for event in events if event.kind is kind]


# -- why keys are changed --------------------------------------------------------------


def by_the_program(wire):
    wire.end.rekey()


def by_key_update(wire):
    pykeyupdate.key_update(wire.end)


def by_the_peer(wire):
    pykeyupdate.key_update(wire.peer, 1)
    wire.peer_writes(b"asks")


def by_request(wire):
    pykeyupdate.request_rekey(wire.end)


def by_all(wire):
    pykeyupdate.rekey_all()


def by_waiting(wire):
    testing.advance_clock(100)


def by_nothing(wire):
    pass


def by_received_records(wire):
    for _ in range(4):
        wire.peer_writes(b"data")


CASES = {
    "explicit": (by_the_program, {}),
    "explicit, scheduled": (by_key_update, {}),
    "peer_asked": (by_the_peer, {}),
    "records": (by_nothing, {"sent_records": 2}),
    "records, received": (by_received_records, {"received_records": 3}),
    "bytes": (by_nothing, {"sent_bytes": 12}),
    "age": (by_waiting, {"age_seconds": 50}),
    "idle": (by_waiting, {"idle_seconds": 50}),
    "request_rekey": (by_request, {}),
    "rekey_all": (by_all, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_change_has_its_reason(make_wire, told, more, case):
    cause, rules = CASES[case]
    reason = case.partition(",")[0]
    wire = make_wire(at_once(**rules))
    assert pykeyupdate.stats(wire.end).last_change is None
    wire.write(b"123456")
    wire.write(b"123456")
    assert more("key_changes") == {}
    cause(wire)
    wire.write(b"123456")
    assert wire.key_updates() == 1
    assert more("key_changes") == {reason: 1}
    assert reasons_of(told, EventKind.KEY_UPDATE_SENT) == [reason]
    assert pykeyupdate.stats(wire.end).last_change == reason


def test_the_next_change_has_its_own_reason(make_wire, more):
    wire = make_wire(at_once(sent_records=1))
    wire.write(b"data")
    wire.write(b"data")
    wire.end.rekey()
    wire.carry()
    assert more("key_changes") == {"records": 1, "explicit": 1}
    assert pykeyupdate.stats(wire.end).last_change == "explicit"


def test_a_limit_with_jitter_is_still_the_policys(make_wire, more):
    """And not the cipher suite's, which tests/stress/aead.py reaches."""
    wire = make_wire(at_once(sent_records=2, received_records=2, jitter=0.5))
    for _ in range(4):
        wire.write(b"data")
        wire.peer_writes(b"data")
    assert set(more("key_changes")) == {"records"}


@pytest.mark.parametrize("who", ["end", "peer"])
def test_a_renegotiation_has_its_reason(make_contexts, role, told, more, who):
    wire = Wire(make_contexts("tls12"), "socket", role, limits=PeerLimits())
    wire.handshake()
    pykeyupdate.renegotiate(getattr(wire, who))
    for _ in range(6):
        for end in (wire.end, wire.peer):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
            with contextlib.suppress(ssl.SSLWantReadError):
                end.read(1)
            wire.carry()
    reason = {"end": "explicit", "peer": "peer_asked"}[who]
    assert more("key_changes") == {reason: 1}
    assert reasons_of(told, EventKind.RENEGOTIATED) == [reason]
    wire.close()


def test_a_deferral_says_what_waits(make_wire, told):
    wire = make_wire(RekeyPolicy(sent_bytes=3, min_interval_seconds=1000))
    wire.write(b"abc")
    wire.write(b"abc")
    assert wire.key_updates() == 1
    wire.write(b"abc")
    assert wire.key_updates() == 1
    assert reasons_of(told, EventKind.DEFERRED) == ["bytes"]


# -- why they cannot be, and what was refused ------------------------------------------


@pytest.mark.parametrize("kind", ["object", "socket"])
@pytest.mark.parametrize(
    ("option", "renegotiate", "cause"),
    [
        (0, False, "renegotiation_not_allowed"),
        (ssl.OP_NO_RENEGOTIATION, True, "renegotiation_forbidden"),
    ],
)
def test_a_refused_write_is_counted_and_its_cause(
    make_contexts, kind, told, more, option, renegotiate, cause
):
    contexts = make_contexts("tls12")
    contexts[1].options |= option
    contexts[1].options &= ~(option and pykeyupdate.OP_ALLOW_CLIENT_RENEGOTIATION)
    policy = at_once(sent_bytes=3, renegotiate=renegotiate)
    wire = Wire(contexts, kind, "server", policy=policy).handshake()
    wire.write(b"abc")
    for _ in range(3):
        with pytest.raises(pykeyupdate.RekeyImpossibleError) as caught:
            wire.end.write(b"d")
        assert caught.value.reason == cause
    assert more("impossible") == {cause: 1}
    assert more("counts") == {"impossible": 1, "writes_refused": 3}
    assert pykeyupdate.stats(wire.end).counts.writes_refused == 3
    assert reasons_of(told, EventKind.IMPOSSIBLE) == [cause]
    wire.close()


def test_what_may_go_on_is_not_refused(make_contexts, more):
    policy = at_once(sent_bytes=3, on_impossible="ignore")
    wire = Wire(make_contexts("tls12"), "object", "client", policy=policy).handshake()
    wire.write(b"abc")
    wire.write(b"abc")
    assert more("counts") == {"impossible": 1}


@pytest.mark.parametrize("limit", ["key_updates", "key_updates_in_a_row"])
def test_a_cut_has_its_limit(make_wire, more, limit):
    wire = make_wire(None, limits=PeerLimits(**{limit: 0}))
    pykeyupdate.key_update(wire.peer)
    with pytest.raises(PeerLimitError):
        wire.peer_writes(b"data")
    assert more("cut_off") == {limit: 1}


# -- failed after our update -----------------------------------------------------------


def fails(wire, how):
    """End a connection, and let the managed end notice."""
    if how == "alert":  # as of a peer that does not know the message
        wire.peer_out.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        wire.carry()
    elif wire.kind == "object":
        wire.incoming.write_eof()
    elif how == "end":
        wire.far.close()
    with contextlib.suppress(OSError):  # a socket's suppress_ragged_eofs
        while wire.end.read(100):
            pass


@pytest.mark.parametrize("how", ["alert", "end"])
def test_a_failure_is_told_once(make_wire, told, more, caplog, how):
    caplog.set_level(logging.WARNING, "pykeyupdate")
    """Behind the update there is data, unless the stream merely ends."""
    wire = make_wire(at_once(sent_records=1))
    wire.peer_writes(b"data before")
    wire.write(b"data")
    if how == "alert":
        wire.write(b"data")
    else:
        wire.end.rekey()
    testing.advance_clock(7)
    fails(wire, how)
    with contextlib.suppress(OSError):
        wire.end.read(1)
    assert more("counts")["failed_after_update"] == 1
    (failed,) = [it for it in told if it.kind is EventKind.FAILED_AFTER_UPDATE]
    assert failed.connection is wire.end
    why = "records" if how == "alert" else "explicit"
    assert failed.reason == why
    (record,) = caplog.records
    assert (record.event, record.reason) == ("FAILED_AFTER_UPDATE", why)
    assert "received since our last key update: 7." in record.getMessage()
    assert "some peers cannot take key updates" in record.getMessage()


@pytest.mark.parametrize("how", ["alert", "end"])
@pytest.mark.parametrize("what", ["no update", "data", "update"])
def test_other_failures_are_not_ours(make_wire, more, how, what):
    """With nothing sent, or something heard from the peer since."""
    wire = make_wire(None)
    if what != "no update":
        wire.end.rekey()
        wire.carry()
        wire.peer_read_all()
    if what == "data":
        wire.peer_writes(b"data")
    if what == "update":
        pykeyupdate.key_update(wire.peer)
        write_nothing(wire.peer)
        wire.carry()
        wire.read_all()
    fails(wire, how)
    assert "failed_after_update" not in more("counts")


def test_a_peer_that_has_its_data_and_just_closes_is_no_failure(make_wire, more):
    """As most HTTP clients do."""
    wire = make_wire(at_once(sent_records=1))
    wire.peer_writes(b"request")
    wire.write(b"response")
    wire.write(b"more of it, under a new key")
    fails(wire, "end")
    assert more("counts")["key_updates_sent"] == 1
    assert "failed_after_update" not in more("counts")


@pytest.mark.parametrize("who", ["end", "peer"])
def test_an_end_as_it_should_be_is_no_failure(make_wire, more, who):
    wire = make_wire(None)
    wire.end.rekey()
    wire.carry()
    wire.peer_read_all()
    for end in (getattr(wire, who), wire.end):
        with contextlib.suppress(OSError):
            end.unwrap()
        wire.carry()
    if wire.kind == "object":
        wire.incoming.write_eof()
    with contextlib.suppress(OSError, ValueError):
        wire.end.read(1)
    assert "failed_after_update" not in more("counts")


@pytest.mark.parametrize("way", ["recv", "send"])
def test_a_reset_is_a_failure(make_contexts, told, way):
    client, server = make_contexts("tls13")
    server.num_tickets = 0
    pykeyupdate.manage(client)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    far.settimeout(20)
    tls = client.wrap_socket(
        near, server_hostname="localhost", do_handshake_on_connect=False
    )
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = server.wrap_bio(incoming, outgoing, server_side=True)
    tls.settimeout(0)
    done = False
    while not done:
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
            done = True
        incoming.write(far.recv(65536))
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.do_handshake()
        far.sendall(outgoing.read())
    tls.settimeout(20)
    tls.rekey()
    close_with_reset(far)
    with pytest.raises(ConnectionError):
        if way == "recv":
            tls.recv(1)
        else:
            for _ in range(1000):
                tls.sendall(bytes(10000))
    tls.close()
    assert [event.kind for event in told].count(EventKind.FAILED_AFTER_UPDATE) == 1
    assert told[-1].connection.peer is not None


@pytest.mark.parametrize("way", ["reset", "end", "close", "unheard close"])
def test_what_asyncios_transport_has_lost_is_told(make_contexts, way):
    """Of a server that is left alone after its update; it does not tell the object."""
    if way == "unheard close" and sys.version_info < (3, 11):
        pytest.skip("asyncio sends a close_notify there, which nobody receives")
    client, server = make_contexts("tls13")
    pykeyupdate.manage(server)
    failures = []

    def handler(event):
        if (event.kind, event.connection.label) == (
            EventKind.FAILED_AFTER_UPDATE,
            "this test's",
        ):
            failures.append((event.connection.peer is not None, event.reason))

    async def main():
        ready, over = asyncio.Event(), asyncio.Event()

        async def serve(reader, writer):
            await reader.read(10)
            pykeyupdate.aio.label(writer, "this test's")  # older ones may go now, too
            await pykeyupdate.aio.rekey(writer)
            ready.set()
            with contextlib.suppress(OSError):
                await reader.read(10)
            if way == "unheard close":
                writer.close()
            over.set()

        made = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
        plain = socket.create_connection(made.sockets[0].getsockname())
        loop = asyncio.get_running_loop()
        tls = await loop.run_in_executor(
            None, lambda: client.wrap_socket(plain, server_hostname="localhost")
        )
        tls.sendall(b"hello")
        await ready.wait()
        if way == "reset":
            close_with_reset(tls)
        elif way == "end":
            tls.close()
        elif way == "close":
            tls.settimeout(5)
            with contextlib.suppress(OSError):  # asyncio 3.9 sends no close_notify
                await loop.run_in_executor(None, tls.unwrap)
        else:
            tls.shutdown(socket.SHUT_RDWR)
        await asyncio.wait_for(over.wait(), 20)
        tls.close()
        made.close()
        await asyncio.sleep(0.05)

    remove = pykeyupdate.on_event(handler)
    try:
        asyncio.run(main())
        gc.collect()
        assert way == "close" or eventually(lambda: failures)  # told in a thread by now
    finally:
        remove()
    assert failures == [(True, "explicit")] * (way != "close")


@pytest.mark.parametrize("runs", ["in the loop", "in another thread"])
def test_the_garbage_collector_calls_no_handler(make_contexts, threads, runs):
    """It may come while its thread holds a lock that the handler takes."""
    client, server = make_contexts("tls13")
    pykeyupdate.manage(client)
    lock, failures = threading.Lock(), []

    def handler(event):
        with lock:
            is_ours = event.connection.label == "this test's"
            if is_ours and event.kind is EventKind.FAILED_AFTER_UPDATE:
                failures.append(event.connection.peer is not None)

    def collect():
        with lock:
            gc.collect()

    async def main():
        async def serve(reader, writer):
            await reader.read(10)
            await asyncio.sleep(0.1)
            writer.transport.abort()

        made = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
        reader, writer = await asyncio.open_connection(
            *made.sockets[0].getsockname(), ssl=client, server_hostname="localhost"
        )
        gc.disable()
        try:
            writer.write(b"data")
            pykeyupdate.aio.label(writer, "this test's")
            await pykeyupdate.aio.rekey(writer)
            with contextlib.suppress(OSError):
                await reader.read()
            cycle = [reader, writer]
            cycle.append(cycle)
            del reader, writer, cycle
            await asyncio.sleep(0.1)
            assert failures == []
            if runs == "in the loop":
                collect()
            else:
                threads.start(collect)()
        finally:
            gc.enable()
        await asyncio.sleep(0.1)
        made.close()

    remove = pykeyupdate.on_event(handler)
    try:
        asyncio.run(main())
        assert eventually(lambda: failures)
    finally:
        remove()
    assert failures == [True]


# -- many warnings ---------------------------------------------------------------------


def test_a_flood_of_connections_does_not_fill_the_log(
    make_contexts, told, caplog, monkeypatch
):
    from pykeyupdate import _events

    caplog.set_level(logging.WARNING, "pykeyupdate")
    clock = [1000.0]
    monkeypatch.setattr(_events.time, "monotonic", lambda: clock[0])

    def flood(count):
        for _ in range(count):
            contexts = make_contexts("tls13")
            wire = Wire(contexts, "object", "server", limits=PeerLimits(key_updates=0))
            wire.handshake()
            pykeyupdate.key_update(wire.peer)
            with pytest.raises(PeerLimitError):
                wire.peer_writes(b"data")

    flood(25)
    assert len(caplog.records) == 20
    texts = [record.getMessage() for record in caplog.records]
    assert texts[-1].endswith(
        "(more like this are not logged for 60 s; totals() has them)"
    )
    assert not any("more like this" in text for text in texts[:-1])
    assert len([it for it in told if it.kind is EventKind.CUT_OFF]) == 25
    clock[0] += 61
    flood(2)
    texts = [record.getMessage() for record in caplog.records[20:]]
    assert texts[0].endswith("(and 5 more like this, which are not logged)")
    assert "more like this" not in texts[1]
