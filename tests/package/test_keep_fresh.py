"""``aio.keep_fresh()`` and its like: new keys for idle connections of event loops.

The server's message callback is the witness, or the client's where the server is ours.
"""

import asyncio
import contextlib
import gc
import socket
import time

import pytest
from support import frameworks
from support.link import NOT_REQUESTED, REQUESTED, Witness
from support.servers import echo

import pykeyupdate
from pykeyupdate import RekeyImpossibleError, RekeyPolicy, _idle_objects, aio
from pykeyupdate.testing import advance_clock

HOUR = 3600
PATIENCE = 20.0


@pytest.fixture
def on_asyncio(framework):
    return isinstance(framework, frameworks.Asyncio)


@pytest.fixture
def make(make_server):
    """Start a server, and have the clients of it be managed."""

    def make(version="tls13", handler=echo, **rules):
        server, context = make_server(version, handler)
        policy = RekeyPolicy(**{"rotate_idle": True, "age_seconds": 1, **rules})
        pykeyupdate.manage(context, policy=policy)
        return server, context

    return make


def heard(server):
    return [name for name in server.said("server", "received") if "KeyUpdate" in name]


async def hears(framework, server, count, most=PATIENCE):
    deadline = time.monotonic() + most
    while len(heard(server)) < count and time.monotonic() < deadline:
        await framework.sleep(0.01)
    return heard(server)


def lock_of(framework):
    return (
        None if isinstance(framework, frameworks.Asyncio) else framework.library.Lock()
    )


def nothing_is_left(loop):
    gc.collect()
    timers = [it for it in getattr(loop, "_scheduled", ()) if not it.cancelled()]
    return not list(_idle_objects._keepers) and not any(
        "_Keeper" in repr(timer) for timer in timers
    )


async def talks(stream):
    await stream.send(b"data")
    return await stream.receive() == b"data"


# -- keep_fresh() ----------------------------------------------------------------------


def test_idle_keys_are_changed(framework, make):
    server, context = make()

    async def main():
        stream = await framework.connect(server.address, context)
        begin = time.monotonic()

        async def keep():
            await aio.keep_fresh(stream.conn, lock=lock_of(framework))

        async with framework.beside(keep) as cancel:
            assert await hears(framework, server, 3) == [NOT_REQUESTED] * 3
            assert 2.9 < time.monotonic() - begin < 5
            assert await talks(stream)
            cancel()
        await stream.close()

    framework.run(main)


def test_who_is_cancelled_ends_it_for_no_other(framework, make, on_asyncio):
    if not on_asyncio:
        pytest.skip("there, each call works for itself")
    server, context = make()

    async def main():
        stream = await framework.connect(server.address, context)
        first = asyncio.ensure_future(aio.keep_fresh(stream.conn))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(aio.keep_fresh(stream.conn), 0.1)
        await asyncio.sleep(0.1)
        assert not first.done()
        aio.keep_fresh_in_background(stream.conn)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await hears(framework, server, 2) == [NOT_REQUESTED] * 2
        await stream.close()

    framework.run(main)


def test_what_it_takes(framework, make, make_server, on_asyncio):
    server, context = make()
    _, plain = make_server("tls13")
    _, without = make(rotate_idle=False)

    async def refused(context, error, words, **options):
        stream = await framework.connect(server.address, context)
        for call in (aio.keep_fresh, aio.keep_fresh_in_background):
            with pytest.raises(error, match=words):
                made = call(stream.conn, **(options if call == aio.keep_fresh else {}))
                if made is not None:
                    await made
        await stream.close()

    async def main():
        wrong = plain, without
        for it in wrong:
            it.load_verify_locations(
                cadata=b"".join(context.get_ca_certs(binary_form=True))
            )
        await refused(plain, pykeyupdate.NotManagedError, "not a managed connection")
        await refused(without, ValueError, "rotate_idle=True")
        if not on_asyncio:
            await refused(context, TypeError, "lock")

    framework.run(main)


class NoLock:
    """asyncio needs none."""

    async def __aenter__(self):
        pass

    async def __aexit__(self, *_):
        pass


def test_sockets_change_theirs_by_themselves(make_link):
    for over in ("memory", "socket", "managed"):
        conn = make_link("tls13", over).client
        for call in (aio.keep_fresh_in_background, lambda it: asyncio.run(keep(it))):
            with pytest.raises(TypeError, match="change by themselves"):
                call(conn)


async def keep(conn):
    await aio.keep_fresh(conn)


def test_with_a_sender_beside(framework, make):
    """Streams of trio and anyio take one at a time: the lock says whose turn it is."""
    server, context = make()
    lock = lock_of(framework) or NoLock()

    async def main():
        stream = await framework.connect(server.address, context)

        async def keep():
            await aio.keep_fresh(stream.conn, lock=lock)

        async with framework.beside(keep) as cancel:
            end = time.monotonic() + 2.5
            while time.monotonic() < end:
                async with lock:
                    await stream.send(b"data")
                got = b""
                while len(got) < 4:
                    got += await stream.receive(4 - len(got))
            cancel()
        await stream.close()

    framework.run(main)
    assert len(heard(server)) >= 2


def test_it_ends_with_the_connection(framework, make, on_asyncio):
    server, context = make(age_seconds=1)

    async def main():
        stream = await framework.connect(server.address, context)

        async def end():
            await framework.sleep(0.2)
            await stream.close()

        async with framework.beside(end):
            begin = time.monotonic()
            await aio.keep_fresh(stream.conn, lock=lock_of(framework))
            assert time.monotonic() - begin < 3

    framework.run(main)


def test_a_request_is_not_repeated(framework, make):
    server, context = make(request_peer=True)

    async def main():
        stream = await framework.connect(server.address, context)

        async def keep():
            await aio.keep_fresh(stream.conn, lock=lock_of(framework))

        async with framework.beside(keep) as cancel:
            await framework.sleep(2.5)
            assert heard(server) == [REQUESTED]
            cancel()
        await stream.close()

    framework.run(main)


def test_what_is_too_old_is_closed(framework, make, caplog):
    server, context = make(
        "tls12", max_key_age_seconds=1, on_impossible="close", age_seconds=None
    )

    async def main():
        stream = await framework.connect(server.address, context)
        with pytest.raises(RekeyImpossibleError, match="does not allow"):
            await aio.keep_fresh(stream.conn, lock=lock_of(framework))
        with contextlib.suppress(Exception):
            assert await stream.receive() == b""
        await stream.close()

    framework.run(main)
    assert "does not allow" in caplog.text


# -- in the background, on asyncio -----------------------------------------------------


@pytest.fixture
def loops(framework, on_asyncio):
    if not on_asyncio:
        pytest.skip("there is no background")
    return framework


def test_in_the_background(loops, make):
    server, context = make()

    async def main():
        loop = asyncio.get_running_loop()
        streams = [await loops.connect(server.address, context) for _ in range(3)]
        for stream in streams * 2:
            aio.keep_fresh_in_background(stream.conn)
        assert await hears(loops, server, 6) == [NOT_REQUESTED] * 6
        for stream in streams[:2]:
            await stream.close()
        assert await hears(loops, server, 8) == [NOT_REQUESTED] * 8
        assert await talks(streams[2])
        await streams[2].close()
        await asyncio.sleep(1.2)
        assert nothing_is_left(loop)

    loops.run(main)


def test_a_peer_that_does_not_read(loops, make):
    done = []

    def deaf(tls):
        while not done:
            time.sleep(0.05)

    server, context = make(handler=deaf)
    other, second = make()
    second.load_verify_locations(cadata=b"".join(context.get_ca_certs(True)))

    async def main():
        stuck = await loops.connect(server.address, context)
        fine = await loops.connect(other.address, second)
        stuck.conn.write(bytes(20_000_000))
        for it in (stuck, fine):
            aio.keep_fresh_in_background(it.conn)
        assert await hears(loops, other, 4) == [NOT_REQUESTED] * 4
        tls = stuck.conn.get_extra_info("ssl_object")
        assert pykeyupdate.stats(tls).counts.key_updates_sent == 1
        stuck.conn.transport.abort()
        await fine.close()

    loops.run(main)
    done.append(True)


def test_a_loop_that_ends_leaves_nothing(loops, make):
    _, context = make()
    server, _ = make()
    context.load_verify_locations(cadata=b"".join(context.get_ca_certs(True)))

    async def main():
        stream = await loops.connect(server.address, context)
        aio.keep_fresh_in_background(stream.conn)
        stream.conn.transport.abort()

    for _ in range(3):
        loops.run(main)
    gc.collect()
    assert not list(_idle_objects._keepers)


# -- servers ---------------------------------------------------------------------------


def idle_client(port, context):
    """Connect and be idle for a while; return what has been heard."""
    witness = Witness()
    witness.watch("client", context)
    with context.wrap_socket(
        socket.create_connection(("127.0.0.1", port)), server_hostname="localhost"
    ) as client:
        client.settimeout(2.6)
        with pytest.raises(socket.timeout):
            client.recv(65536)
    return [it for it in witness.said("client", "received") if "KeyUp" in it]


@pytest.fixture
def contexts(make_contexts):
    client, server = make_contexts("tls13")
    policy = RekeyPolicy(rotate_idle=True, age_seconds=1)
    pykeyupdate.manage(server, policy=policy)
    return client, server


def test_start_server(loops, contexts):
    async def handler(reader, writer):
        aio.keep_fresh_in_background(writer)
        await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=contexts[1])
        port = server.sockets[0].getsockname()[1]
        run = asyncio.get_running_loop().run_in_executor
        updates = await run(None, idle_client, port, contexts[0])
        assert updates == [NOT_REQUESTED] * 2
        server.close()

    loops.run(main)


def test_middleware_passes_on_what_has_no_tls():
    passed = []

    async def app(*given):
        passed.append(given)

    async def send(message):
        raise AssertionError(message)

    async def main():
        scopes = {"type": "lifespan"}, {"scheme": "http"}, {"scheme": "https"}
        for scope in scopes:
            await aio.FreshKeys(app)(scope, None, send)
        assert passed == [(scope, None, send) for scope in scopes]

    asyncio.run(main())


def test_the_clock_of_tests_waits_for_its_time(loops, make):
    """The loop has its own clock; the next look is in time all the same."""
    server, context = make(age_seconds=2)

    async def main():
        stream = await loops.connect(server.address, context)
        aio.keep_fresh_in_background(stream.conn)
        advance_clock(HOUR)
        assert await hears(loops, server, 1) == [NOT_REQUESTED]
        await stream.close()

    loops.run(main)


# -- the timer -------------------------------------------------------------------------


def kept(loop, number, look, has_ended=lambda: False):
    """Keep many connections, whose keys are due one after the other."""
    for each in range(number):
        end = loop.create_future()
        _idle_objects.keep(
            _idle_objects.Idle(object(), look, has_ended, end), 0.5 * each / number
        )


def test_many_connections_cost_a_loop_little():
    """It looks at the one that is due, and at all of them once a second."""
    asked = []

    async def main():
        kept(
            asyncio.get_running_loop(), 200, lambda: 0.5, lambda: bool(asked.append(1))
        )
        await asyncio.sleep(2.2)

    asyncio.run(main())
    assert 200 <= len(asked) <= 3 * 200


def test_an_interrupted_look_is_not_the_last():
    loop, looks = asyncio.new_event_loop(), []

    def look():
        looks.append(1)
        if len(looks) == 1:
            raise KeyboardInterrupt

    try:
        loop.call_soon(kept, loop, 1, look)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        loop.call_later(PATIENCE, loop.stop)
        [idle] = _idle_objects._keepers[id(loop)]._kept.values()
        loop.run_until_complete(idle.end)
    finally:
        loop.close()
    assert len(looks) == 2


@pytest.mark.parametrize("error", [None, ValueError])
def test_a_look_may_end_it(error):
    """As an event's handler does that no longer wants it."""
    complaints = []

    def look():
        idle.release()
        if error is not None:
            raise error

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: complaints.append(context))
        kept(loop, 1, look)
        nonlocal idle
        [idle] = _idle_objects._keepers[id(loop)]._kept.values()
        with pytest.raises(asyncio.CancelledError):
            await idle.end

    idle = None
    asyncio.run(main())
    assert not complaints
