"""``SSLObject``: its read() and write(), and calls that collide on one object."""

import contextlib
import random
import ssl
import threading

import pytest
from support.link import Link
from support.wire import Wire, at_once

import pykeyupdate
from pykeyupdate import RekeyPolicy


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


def test_a_call_reports_no_events_of_the_one_that_it_is_in(make_contexts, kind):
    """OpenSSL may be adding to them at that moment, in another thread."""
    if kind == "socket":
        pytest.skip("tests/streams/test_managed_sockets.py")
    inside, told = [], []

    def callback(conn, *_):
        inside.append(True)
        for call in (lambda: conn.write(b"more"), lambda: pykeyupdate.rekey(conn)):
            if armed:
                with pytest.raises(pykeyupdate.AlreadyPendingError):
                    call()
        inside.pop()

    armed = False
    contexts = make_contexts("tls13")
    contexts[0]._msg_callback = callback
    wire = Wire(contexts, kind, "client", policy=None).handshake()
    armed = True
    remove = pykeyupdate.on_event(lambda event: told.append((event.kind, *inside)))
    try:
        pykeyupdate.key_update(wire.peer)
        assert wire.peer_writes(b"data") == b"data"
    finally:
        remove()
        armed = False
    assert told == [(pykeyupdate.EventKind.KEY_UPDATE_RECEIVED,)]


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
