"""WebSockets of websockets (sync and asyncio) and of aiohttp, at both ends.

A sync connection has a thread that waits in recv(). On a stock socket, a key update is
as safe there as the connection's own send(), and a renegotiation is refused. On managed
sockets both are as safe as anywhere (test_threaded_clients.py).
"""

import re
import sys
import threading

import pytest
from support.link import NOT_REQUESTED, Witness

import pykeyupdate
from pykeyupdate import aio

MESSAGES = 20


@pytest.fixture
def contexts(make_contexts, version):
    client, server = make_contexts(version)
    witness = Witness()
    witness.watch("server", server)
    witness.watch("client", client)
    return client, server, witness


def test_sync(contexts, library, new_keys, version):
    client, context, witness = contexts
    context.num_tickets = 0  # which the reader thread may meet while another sends
    serve = library("websockets.sync.server").serve
    connect = library("websockets.sync.client").connect

    def handler(connection):
        for message in connection:
            connection.send(message)

    with serve(handler, "127.0.0.1", 0, ssl=context) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.socket.getsockname()[1]
        with connect(f"wss://localhost:{port}", ssl=client) as connection:
            for number in range(MESSAGES):
                if number == MESSAGES // 2 and version == "tls13":
                    pykeyupdate.rekey(connection)
                elif number == MESSAGES // 2:
                    with pytest.raises(pykeyupdate.SharedConnectionError):
                        pykeyupdate.rekey(connection)
                connection.send(str(number))
                assert connection.recv(20) == str(number)
        server.shutdown()
        thread.join(20)
    assert new_keys(witness, 1 if version == "tls13" else 0)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("end", ["client", "server"])
def test_asyncio(contexts, library, run_on, new_keys, version, loop, end):
    client, context, witness = contexts
    serve = library("websockets.asyncio.server").serve
    connect = library("websockets.asyncio.client").connect

    async def handler(connection):
        async for message in connection:
            if end == "server" and message == str(MESSAGES // 2):
                await aio.rekey(connection)
                await aio.wait_for_renegotiation(connection)
            await connection.send(message)

    async def main():
        async with serve(handler, "127.0.0.1", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            async with connect(f"wss://localhost:{port}", ssl=client) as connection:
                for number in range(MESSAGES):
                    if end == "client" and number == MESSAGES // 2:
                        await aio.rekey(connection)
                        if sys.version_info < (3, 11):
                            await aio.wait_for_renegotiation(connection)
                    await connection.send(str(number))
                    assert await connection.recv() == str(number)

    run_on(loop, main())
    if end == "server":
        if version == "tls12":
            assert witness.said("client", "received").count("HelloRequest") == 1
        else:
            assert new_keys(witness, end="client")
    else:
        assert new_keys(witness)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_aiohttp(contexts, library, run_on, new_keys, version, loop):
    """Its WebSockets cannot be told to send; what they name in their place can."""
    client, context, witness = contexts
    aiohttp, web = library("aiohttp"), library("aiohttp.web")

    async def rekey(websocket):
        with pytest.raises(
            TypeError, match=r"to `pykeyupdate.aio.rekey\(\)`"
        ) as caught:
            await aio.rekey(websocket)
        (way,) = re.findall("pass `(.*?)`", str(caught.value))
        await aio.rekey(eval(way, {"conn": websocket}))
        await aio.wait_for_renegotiation(eval(way, {"conn": websocket}))

    async def handler(request):
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        async for message in websocket:
            if message.data == "server":
                await rekey(websocket)
            await websocket.send_str(message.data)
        return websocket

    async def main():
        app = web.Application()
        app.router.add_get("/", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        connector = aiohttp.TCPConnector(ssl=client)
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"wss://localhost:{runner.addresses[0][1]}/"
            async with session.ws_connect(url) as websocket:
                for message in ("server", "client", "end"):
                    if message == "client":
                        await rekey(websocket)
                    await websocket.send_str(message)
                    assert await websocket.receive_str() == message
        await runner.cleanup()

    run_on(loop, main())
    name = NOT_REQUESTED if version == "tls13" else "HelloRequest"
    assert witness.said("client", "received").count(name) == 1
    assert new_keys(witness, 1 if version == "tls13" else 2)
