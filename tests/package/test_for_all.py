"""_for_all.py: what is done to all managed connections, or to some."""

import asyncio
import contextlib
import gc
import os
import pickle
import socket
import ssl
import threading
import time

import pytest
from support import frameworks
from support.link import NOT_REQUESTED, REQUESTED
from support.servers import echo
from support.wire import Wire

import pykeyupdate
from pykeyupdate import RekeyPolicy, aio

AT_ONCE = float("inf")


def among(*conns):
    """Return a filter that takes these connections."""
    return lambda info: any(info.connection is conn for conn in conns)


# -- rekey_all() -----------------------------------------------------------------------


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


def test_rekey_all_takes_its_time(make_contexts):
    wires = [
        Wire(make_contexts("tls13"), "socket", "client").handshake() for _ in range(4)
    ]
    pace = []
    real = pykeyupdate._for_all.time.sleep
    pykeyupdate._for_all.time.sleep = pace.append
    try:
        assert pykeyupdate.rekey_all(per_second=1) >= 4
    finally:
        pykeyupdate._for_all.time.sleep = real
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
def test_rekey_all_in_a_child_leaves_the_parents_connections_alone(make_wire):
    wire = make_wire(RekeyPolicy())
    child = os.fork()
    if child == 0:
        os._exit(pykeyupdate.rekey_all())
    assert os.waitpid(child, 0)[1] == 0
    assert wire.write(b"data") == b"data"
    assert wire.key_updates() == 0


def test_rekey_all_says_what_it_did_and_what_it_could_not(make_contexts):
    policies = {"tls13": None, "tls12": None, "tls12 by renegotiation": None}
    policies["tls12 by renegotiation"] = RekeyPolicy(renegotiate=True)
    wires = {
        (version, kind): Wire(
            make_contexts(version[:5]), kind, "client", policy=policy
        ).handshake()
        for version, policy in policies.items()
        for kind in ("object", "socket")
    }
    which = among(*[wire.end for wire in wires.values()])
    result = pykeyupdate.rekey_all(which, per_second=AT_ONCE)
    assert (result.done, result.waiting, result.impossible) == (1, 3, 2)
    assert result == 4
    assert f"{result}" == str(result) == "4"
    assert "1 done, 3 waiting, 2 impossible" in repr(result)
    [(obstacle, count)] = result.obstacles.items()
    assert "TLSv1.2" in obstacle
    assert count == 2
    again = pickle.loads(pickle.dumps(result))
    assert (again, again.obstacles, again.done) == (4, result.obstacles, 1)
    wires["tls13", "socket"].carry()
    assert wires["tls13", "socket"].key_updates() == 1
    for wire in wires.values():
        wire.close()


def test_rekey_all_takes_what_its_filter_takes(make_contexts, kind):
    wires = [Wire(make_contexts("tls13"), kind, "client").handshake() for _ in "123"]
    asked = []

    def which(info):
        asked.append(info.connection)
        return info.connection is wires[1].end

    assert pykeyupdate.rekey_all(which, per_second=AT_ONCE) == 1
    assert {*map(id, asked)} >= {id(wire.end) for wire in wires}
    for wire in wires:
        wire.carry()
        assert wire.write(b"data") == b"data"
    assert [wire.key_updates() for wire in wires] == [0, 1, 0]
    for wire in wires:
        wire.close()


def test_a_socket_whose_policy_makes_it_wait_is_not_done(make_contexts):
    policy = RekeyPolicy(min_interval_seconds=3600)
    wire = Wire(make_contexts("tls13"), "socket", "client", policy=policy).handshake()
    first, second = (
        pykeyupdate.rekey_all(among(wire.end), per_second=AT_ONCE) for _ in range(2)
    )
    assert (first.done, first.waiting) == (1, 0)
    assert (second.done, second.waiting) == (0, 1)
    wire.carry()
    assert wire.key_updates() == 1
    wire.close()


async def forever(info):
    """No filter: nobody would await it."""


@pytest.mark.parametrize("act", [pykeyupdate.rekey_all, pykeyupdate.close_all])
def test_a_filter_is_a_function_and_its_errors_come_out(make_wire, act):
    wire = make_wire(None)
    for wrong in (3, "tls12", forever):
        with pytest.raises(TypeError, match=rf"{act.__name__}\(\) takes a function"):
            act(wrong)
    with pytest.raises(ZeroDivisionError):
        act(lambda _: 1 / 0)
    assert wire.write(b"data") == b"data"
    assert wire.key_updates() == 0
    with pytest.raises(TypeError, match="close_all"):
        pykeyupdate.close_all()


# -- aio.rekey_all() -------------------------------------------------------------------


def updates(server):
    said = server.said("server", "received")
    return [name for name in said if name in (NOT_REQUESTED, REQUESTED)]


@pytest.mark.parametrize("per_second", [1000, AT_ONCE])
def test_idle_connections_of_asyncios_loop_get_new_keys(
    framework, make_server, per_second
):
    """Others get them with their owner's next write."""
    server, context = make_server("tls13")
    pykeyupdate.manage(context)
    reaches = type(framework) is frameworks.Asyncio

    async def main():
        streams = [await framework.connect(server.address, context) for _ in "123"]
        result = await aio.rekey_all(
            lambda info: info.number > before,
            per_second=per_second,
        )
        assert (result.done, result.waiting) == ((3, 0) if reaches else (0, 3))
        deadline = time.monotonic() + 20
        while reaches and len(updates(server)) < 3 and time.monotonic() < deadline:
            await framework.sleep(0.01)
        assert updates(server) == [NOT_REQUESTED] * (3 if reaches else 0)
        for stream in streams:
            await stream.send(b"data")
            assert await stream.receive() == b"data"
        assert updates(server) == [NOT_REQUESTED] * 3
        for stream in streams:
            await stream.close()

    before = pykeyupdate.totals().opened
    framework.run(main)


def test_the_loop_goes_on_meanwhile(make_contexts):
    wires = [
        Wire(make_contexts("tls13"), "object", "client").handshake() for _ in range(30)
    ]
    turns = []

    async def count():
        while True:
            turns.append(time.monotonic())
            await asyncio.sleep(0)

    async def main():
        counting = asyncio.ensure_future(count())
        await aio.rekey_all(among(*[wire.end for wire in wires]), per_second=300)
        counting.cancel()

    asyncio.run(main())
    gaps = [after - before for before, after in zip(turns, turns[1:])]
    assert len(turns) > 100
    assert max(gaps) < 0.05


def test_tls12_objects_of_the_loop_wait(make_server):
    server, context = make_server("tls12")
    pykeyupdate.manage(context, policy=RekeyPolicy(renegotiate=True))

    async def main():
        _, writer = await asyncio.open_connection(
            *server.address, ssl=context, server_hostname="localhost"
        )
        mine = among(writer.get_extra_info("ssl_object"))
        result = await aio.rekey_all(mine, per_second=AT_ONCE)
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()
        return result.done, result.waiting

    assert asyncio.run(main()) == (0, 1)


@pytest.mark.parametrize("per_second", [1e-12, 1e-300])
def test_no_pause_is_too_long_for_the_system(make_contexts, monkeypatch, per_second):
    wires = [Wire(make_contexts("tls13"), "socket", "client").handshake() for _ in "12"]
    sleep, slept = time.sleep, []
    monkeypatch.setattr(time, "sleep", lambda it: slept.append(it) or sleep(0))
    pykeyupdate.rekey_all(among(*[wire.end for wire in wires]), per_second=per_second)
    assert 3600 <= max(slept) < 1e6
    for wire in wires:
        wire.close()


# -- close_all() -----------------------------------------------------------------------


def test_close_all_ends_a_socket_for_its_owner_who_closes_it(make_server):
    """A reader that waits finds the end, as if the peer had closed."""
    gone = threading.Event()

    def handler(tls):
        echo(tls)
        gone.set()

    server, context = make_server("tls12", handler)
    pykeyupdate.manage(context)
    ends = []
    for _ in range(2):
        plain = socket.create_connection(server.address)
        ends.append(context.wrap_socket(plain, server_hostname="localhost"))
        ends[-1].settimeout(30)
    found = []

    def read():
        with contextlib.suppress(OSError):
            found.append(ends[0].recv(100))
        found.append("end")

    reader = threading.Thread(target=read)
    reader.start()
    mine = among(ends[0])
    impossible = pykeyupdate.rekey_all(mine).impossible
    assert impossible == 1
    result = pykeyupdate.close_all(
        lambda info: mine(info) and info.obstacle is not None
    )
    assert (result.closed, result.unreachable) == (1, 0)
    reader.join(20)
    assert found[-1] == "end"
    assert gone.wait(20)
    assert ends[0].fileno() >= 0
    with pytest.raises(OSError):
        ends[0].sendall(b"data" * 100)
    ends[1].sendall(b"data")
    assert ends[1].recv(100) == b"data"
    for end in ends:
        end.close()


def test_close_all_has_asyncio_close_its_transports(make_server):
    server, context = make_server("tls13")
    pykeyupdate.manage(context)

    async def main():
        reader, writer = await asyncio.open_connection(
            *server.address, ssl=context, server_hostname="localhost"
        )
        mine = among(writer.get_extra_info("ssl_object"))
        loop = asyncio.get_running_loop()
        closing = loop.run_in_executor(None, pykeyupdate.close_all, mine)
        assert await asyncio.wait_for(reader.read(), 20) == b""
        assert writer.transport.is_closing()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()
        return await closing

    assert asyncio.run(main()) == (1, 0)


def test_what_nobody_can_close_is_said(make_contexts):
    wire = Wire(make_contexts("tls13"), "object", "client").handshake()
    assert pykeyupdate.close_all(among(wire.end)) == (0, 1)
    assert wire.write(b"data") == b"data"


def test_close_all_of_those_with_an_obstacle_ends_no_handshake(make_contexts):
    """It has new keys anyway, and its peer is honest."""
    wire = Wire(make_contexts("tls13"), "socket", "client")
    with pytest.raises(ssl.SSLWantReadError):
        wire.end.do_handshake()
    pykeyupdate.close_all(lambda info: info.obstacle is not None)
    wire.handshake()
    assert wire.write(b"data") == b"data"
    wire.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
def test_close_all_in_a_child_leaves_the_parents_connections_alone(make_contexts):
    wire = Wire(make_contexts("tls13"), "socket", "client").handshake()
    child = os.fork()
    if child == 0:
        result = pykeyupdate.close_all(lambda info: True)
        os._exit(0 if result == (0, 0) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert wire.write(b"data") == b"data"
    wire.close()


def test_a_socket_is_closed_whatever_has_become_of_it(make_contexts):
    wires = [Wire(make_contexts("tls13"), "socket", "client") for _ in "12"]
    wires[0].handshake()
    wires[0].far.close()
    with pytest.raises(ssl.SSLWantReadError):
        wires[1].end.do_handshake()
    ends = [wire.end for wire in wires]
    assert pykeyupdate.close_all(among(*ends)) == (2, 0)
    for wire in wires:
        wire.close()
