"""Managed objects under asyncio and uvloop: events that their transports do not expect.

``asyncio``'s transports are written for ``ssl``'s objects, which change no keys, have
no limits and call no handlers.
"""

import asyncio
import contextlib
import gc
import importlib.util
import socket
import ssl
import threading
import warnings

import pytest

import pykeyupdate
import pykeyupdate.aio
from pykeyupdate import EventKind, PeerLimits, RekeyPolicy

LOOPS = ["asyncio"]
if importlib.util.find_spec("uvloop"):
    LOOPS.append("uvloop")


@pytest.fixture(params=LOOPS)
def run(request):
    """Run a coroutine function, with a time limit, in a loop of that kind."""

    def run_it(main, *args):
        if request.param == "uvloop":
            import uvloop

            loop = uvloop.new_event_loop()
        else:
            loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(asyncio.wait_for(main(*args), 20))
        finally:
            loop.run_until_complete(asyncio.sleep(0.01))
            loop.close()
            with warnings.catch_warnings():  # of transports that were still closing
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()

    run_it.kind = request.param
    return run_it


@pytest.fixture
def contexts(make_contexts):
    """Make a client's context, and a server's, of which some are managed."""

    def make(version, **rules):
        client, server = make_contexts(version)
        for name, context in (("client", client), ("server", server)):
            if name in rules:
                pykeyupdate.manage(context, **rules[name])
        return client, server

    return make


class Failures(list):
    """What the loop's exception handler is told."""

    def __init__(self):
        super().__init__()
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: self.append(context)
        )


async def serve(handler, server):
    listener = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=server)
    return listener, listener.sockets[0].getsockname()


async def read_to_the_end(reader):
    """Return what came, and what ended it."""
    got = b""
    try:
        while data := await reader.read(65536):
            got += data
    except OSError as error:
        return got, type(error)
    return got, None


def at_once(**limits):
    return {
        "policy": RekeyPolicy(min_interval_seconds=0.0, **limits),
        "limits": None,
    }


# -- a handler of an event -------------------------------------------------------------


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("kind", [EventKind.KEY_UPDATE_SENT, None])
def test_a_handler_writes_and_closes(run, contexts, kind, closes):
    """Between the program's own data, each piece once and in order."""
    client, server = contexts("tls13", client=at_once(sent_records=2))

    async def main():
        failures, done = Failures(), asyncio.get_running_loop().create_future()

        async def handle(reader, writer):
            done.set_result(await read_to_the_end(reader))
            writer.close()

        listener, address = await serve(handle, server)
        _, writer = await asyncio.open_connection(
            *address, ssl=client, server_hostname="localhost"
        )
        told = []

        def handler(event):
            if event.kind is EventKind.KEY_UPDATE_SENT and not told:
                told.append(event)
                writer.write(b"[new keys]")
                if closes:
                    writer.close()

        remove = pykeyupdate.on_event(handler if kind else lambda event: None)
        try:
            for i in range(6):
                writer.write(b"<%d>" % i)
            await asyncio.sleep(0.1)
            if not writer.is_closing():
                writer.write(b"<end>")
                writer.close()
            got = await done
        finally:
            remove()
            listener.close()
        return got, failures

    (data, end), failures = run(main)
    mine = data.replace(b"[new keys]", b"")
    assert not failures
    assert end is None
    assert data.count(b"[new keys]") == (kind is not None)
    if kind is None or not closes:
        assert mine == b"<0><1><2><3><4><5><end>"
    else:
        assert mine in (b"<0><1><2><3><4><5>", b"<0><1><2>")


def test_a_handler_may_rekey_from_within(run, contexts):
    client, server = contexts("tls13", client=at_once(sent_records=3))

    async def main():
        failures = Failures()

        async def handle(reader, writer):
            while data := await reader.read(100):
                writer.write(data)
            writer.close()

        listener, address = await serve(handle, server)
        reader, writer = await asyncio.open_connection(
            *address, ssl=client, server_hostname="localhost"
        )
        refused = []

        def handler(event):
            try:
                pykeyupdate.request_rekey(event.connection)
                pykeyupdate.stats(event.connection)
                event.connection.version()
            except pykeyupdate.PyKeyUpdateError as error:
                refused.append(error)

        remove = pykeyupdate.on_event(handler)
        try:
            for i in range(20):
                writer.write(b"%4d" % i)
                assert await reader.readexactly(4) == b"%4d" % i
        finally:
            remove()
        writer.close()
        listener.close()
        return failures, refused

    assert run(main) == ([], [])


def test_an_object_of_a_programs_own_is_not_its_transports(run, contexts):
    """Also where it is made inside a callback of a transport's."""
    client, server = contexts("tls13", client={}, server={})
    made = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            made.append(transport.get_extra_info("ssl_object"))
            mine = client.wrap_bio(
                ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost"
            )
            made.append(mine)
            transport.close()

    async def main():
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(Protocol, "127.0.0.1", 0, ssl=server)
        reader, writer = await asyncio.open_connection(
            *listener.sockets[0].getsockname(), ssl=client, server_hostname="localhost"
        )
        assert await reader.read() == b""
        writer.close()
        listener.close()

    run(main)
    theirs, mine = made
    assert (theirs._transport is not None) == (run.kind == "asyncio")
    assert mine._transport is None


# -- new keys that cannot be had -------------------------------------------------------


def refuse(writer, error):
    raise error


DECISIONS = {
    "returns": lambda writer, error: None,
    "writes": lambda writer, error: writer.write(b"[asked]"),
    "closes": lambda writer, error: writer.close(),
    "raises": refuse,
}


@pytest.mark.parametrize("does", DECISIONS)
def test_an_on_impossible_function(run, contexts, does):
    """TLS 1.2 without renegotiate=True: no new keys."""
    if (run.kind, does) == ("uvloop", "closes"):
        pytest.skip("uvloop's transport then waits for its peer: documented")
    asked = []

    def decide(conn, error):
        asked.append(error)
        DECISIONS[does](writers[0], error)

    writers = []
    rules = at_once(sent_records=2, on_impossible=decide)
    client, server = contexts("tls12", client=rules)

    async def main():
        failures, done = Failures(), asyncio.get_running_loop().create_future()

        async def handle(reader, writer):
            done.set_result(await read_to_the_end(reader))
            writer.close()

        listener, address = await serve(handle, server)
        _, writer = await asyncio.open_connection(
            *address, ssl=client, server_hostname="localhost"
        )
        writers.append(writer)
        for i in range(6):
            writer.write(b"<%d>" % i)
        await asyncio.sleep(0.1)
        if not writer.is_closing():
            writer.close()
        got = await asyncio.wait_for(done, 10)
        listener.close()
        return got, failures

    (data, _), failures = run(main)
    assert len(asked) == 1 or does == "raises"
    if does in ("returns", "writes"):
        assert data.replace(b"[asked]", b"") == b"<0><1><2><3><4><5>"
        assert data.count(b"[asked]") == (does == "writes")
        assert not failures
    else:
        assert b"<0><1><2><3><4><5>".startswith(data)


def test_impossible_is_told_and_logged_once_a_connection(run, contexts, caplog):
    told = []
    rules = at_once(sent_records=1, on_impossible="ignore")
    client, server = contexts("tls12", client=rules)

    async def main():
        async def handle(reader, writer):
            with contextlib.suppress(OSError):
                while data := await reader.read(100):
                    writer.write(data)
            writer.close()

        listener, address = await serve(handle, server)
        remove = pykeyupdate.on_event(told.append)
        reader, writer = await asyncio.open_connection(
            *address, ssl=client, server_hostname="localhost"
        )
        for _ in range(20):
            writer.write(b"data")
            assert await reader.readexactly(4) == b"data"
        await asyncio.sleep(0)
        remove()
        counts = pykeyupdate.stats(writer).counts
        writer.close()
        listener.close()
        return counts

    counts = run(main)
    assert counts.impossible == 1
    assert [event.kind for event in told] == [EventKind.IMPOSSIBLE]
    assert "renegotiate=True" in told[0].detail
    assert [record.levelname for record in caplog.records] == ["WARNING"]


# -- renegotiations --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "size"), [(1, 100), (1, 100_000), (1, 3_000_000), (40, 65536)]
)
@pytest.mark.parametrize("asks", ["policy", "rekey"])
def test_data_written_in_a_renegotiation_arrives_before_the_close(
    run, contexts, pieces, size, asks
):
    policy = at_once(sent_records=10, renegotiate=True)
    rules = policy if asks == "policy" else {"policy": None, "limits": None}
    client, server = contexts("tls12", server=rules)
    last = b"b" * size

    async def main():
        failures = Failures()

        async def handle(reader, writer):
            tls = writer.get_extra_info("ssl_object")
            for _ in range(11):
                writer.write(b"a" * 100)
            if asks == "rekey":
                await pykeyupdate.aio.rekey(writer)
            while tls.version():  # until the ClientHello is here
                await asyncio.sleep(0)
            for _ in range(pieces):
                writer.write(last)
            if pieces == 1:
                await writer.drain()
            writer.close()

        listener, address = await serve(handle, server)
        reader, writer = await asyncio.open_connection(
            *address, ssl=client, server_hostname="localhost"
        )
        got = await read_to_the_end(reader)
        writer.close()
        listener.close()
        return got, failures

    (data, end), failures = run(main)
    assert (len(data), end) == (1100 + pieces * size, None)
    assert data == b"a" * 1100 + pieces * last
    assert not failures


def test_data_in_a_renegotiation_goes_on_in_order(run, contexts):
    client, server = contexts(
        "tls12",
        server=at_once(sent_records=5, renegotiate=True),
        client={"policy": None, "limits": None},
    )
    pieces = [b"%06d," % i for i in range(3000)]

    async def main():
        failures = Failures()

        async def handle(reader, writer):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            writer.close()

        listener, address = await serve(handle, server)
        reader, writer = await asyncio.open_connection(
            *address, ssl=client, server_hostname="localhost"
        )

        async def send():
            for _ in range(200):
                writer.write(b"from the client")
                await asyncio.sleep(0)

        sending = asyncio.ensure_future(send())
        got = await read_to_the_end(reader)
        await sending
        count = pykeyupdate.stats(writer).counts.peer_renegotiations
        writer.close()
        listener.close()
        return got, failures, count

    got, failures, count = run(main)
    assert got == (b"".join(pieces), None)
    assert not failures
    assert count > 1  # how many depends on the event loop


# -- a cut -----------------------------------------------------------------------------


def exceed_in_one_segment(listener, server):
    """Send data, and updates behind it, at once."""
    conn, _ = listener.accept()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = server.wrap_bio(incoming, outgoing, server_side=True)
    with conn:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                conn.sendall(outgoing.read())
                incoming.write(conn.recv(65536))
        conn.sendall(outgoing.read())
        tls.write(b"hello")
        for _ in range(40):
            pykeyupdate.key_update(tls)
            tls.do_handshake()
        conn.sendall(outgoing.read())
        with contextlib.suppress(OSError):
            while conn.recv(65536):
                pass


def test_data_that_came_before_a_cut_is_received(run, contexts):
    client, server = contexts("tls13", client={"policy": None, "limits": PeerLimits()})
    if run.kind == "uvloop":
        pytest.skip("uvloop drops what it has read in that turn: documented")
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=exceed_in_one_segment, args=(listener, server))
    thread.start()

    class Protocol(asyncio.Protocol):
        def __init__(self):
            self.got = b""
            self.lost = asyncio.get_running_loop().create_future()

        def data_received(self, data):
            self.got += data

        def connection_lost(self, error):
            self.lost.set_result(error)

    async def main():
        Failures()
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(
            Protocol, *listener.getsockname(), ssl=client, server_hostname="localhost"
        )
        return await protocol.lost, protocol.got

    try:
        error, got = run(main)
    finally:
        listener.close()
        thread.join()
    assert got == b"hello"
    assert isinstance(error, pykeyupdate.PeerLimitError)
