"""HTTP clients rekey in the middle of a response, and use the connection again."""

import asyncio
import http.client

import pytest
from servers import BODY, HALF

import pykeyupdate
from pykeyupdate import aio

# Below TLS 1.3 the server answers when it next reads, which is after the response. A
# pool takes a connection on which something arrives for dead and opens another, unless
# the renegotiation is ended before the pool looks (which httpcore's does at once).


def finish(server, new_keys):
    assert server.connections == 1
    assert new_keys(server)


def finish_httpcore(server, new_keys, version):
    if version == "tls13":
        finish(server, new_keys)
    else:
        assert server.said("server", "received").count("ClientHello") in (2, 3)


def test_http_client(https, new_keys):
    server, context = https
    conn = http.client.HTTPSConnection("localhost", server.server_port, context=context)
    with pytest.raises(pykeyupdate.ConnectionClosedError, match="not connected yet"):
        pykeyupdate.rekey(conn)
    for rekeys in (1, 0):
        conn.request("GET", "/")
        response = conn.getresponse()
        half = response.read(HALF)
        for _ in range(rekeys):
            pykeyupdate.rekey(conn)
        server.go.set()
        assert half + response.read() == BODY
    finish(server, new_keys)
    conn.close()
    with pytest.raises(pykeyupdate.ConnectionClosedError):
        pykeyupdate.rekey(conn)


@pytest.mark.parametrize("what", ["response", "connection"])
def test_urllib3(https, new_keys, library, what):
    urllib3 = library("urllib3")
    server, context = https
    with urllib3.PoolManager(ssl_context=context) as pool:
        for rekeys in (1, 0):
            response = pool.urlopen("GET", server.url, preload_content=False)
            half = response.read(HALF)
            connection = response.connection
            for _ in range(rekeys):
                pykeyupdate.rekey(response if what == "response" else connection)
            server.go.set()
            assert half + response.read() == BODY
            pykeyupdate.wait_for_renegotiation(connection, 20)
            response.release_conn()
        with pytest.raises(pykeyupdate.ConnectionClosedError, match="back in the pool"):
            pykeyupdate.rekey(response)
    finish(server, new_keys)


def test_requests(https, new_keys, library, trust_file):
    requests = library("requests")
    adapters = library("requests.adapters")
    server, context = https

    class Adapter(adapters.HTTPAdapter):
        def init_poolmanager(self, *arguments, **keywords):
            super().init_poolmanager(*arguments, ssl_context=context, **keywords)

    with requests.Session() as session:
        session.mount("https://", Adapter())
        session.verify = trust_file
        session.trust_env = False
        for rekeys in (1, 0):
            response = session.get(server.url, stream=True)
            half = response.raw.read(HALF)
            connection = response.raw.connection
            for _ in range(rekeys):
                pykeyupdate.rekey(response)
            server.go.set()
            assert half + response.raw.read() == BODY
            pykeyupdate.wait_for_renegotiation(connection, 20)
        with pytest.raises(pykeyupdate.ConnectionClosedError, match="streamed"):
            pykeyupdate.rekey(response)
    finish(server, new_keys)


def test_httpx(https, new_keys, library, version):
    httpx = library("httpx")
    server, context = https
    with httpx.Client(verify=context, trust_env=False) as client:
        for rekeys in (1, 0):
            with client.stream("GET", server.url) as response:
                chunks = response.iter_raw(HALF)
                half = next(chunks)
                for _ in range(rekeys):
                    pykeyupdate.rekey(response)
                    assert pykeyupdate.get_key_update_type(
                        response.extensions["network_stream"]
                    ) in (-1, 0)
                server.go.set()
                assert half + b"".join(chunks) == BODY
    finish_httpcore(server, new_keys, version)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_httpx_async(https, new_keys, version, library, backend):
    httpx = library("httpx")
    server, context = https

    async def main():
        async with httpx.AsyncClient(verify=context, trust_env=False) as client:
            for rekeys in (1, 0):
                async with client.stream("GET", server.url) as response:
                    chunks = response.aiter_raw(HALF)
                    half = await chunks.__anext__()
                    for _ in range(rekeys):
                        await aio.rekey(response)
                    server.go.set()
                    rest = [chunk async for chunk in chunks]
                    assert half + b"".join(rest) == BODY

    if backend == "trio":
        library("trio").run(main)
    else:
        asyncio.run(main())
    finish_httpcore(server, new_keys, version)


def test_httpcore(https, new_keys, library, version):
    httpcore = library("httpcore")
    server, context = https
    with httpcore.ConnectionPool(ssl_context=context) as pool:
        for rekeys in (1, 0):
            with pool.stream("GET", server.url) as response:
                got = b""
                chunks = response.iter_stream()
                while len(got) < HALF:
                    got += next(chunks)
                for _ in range(rekeys):
                    pykeyupdate.rekey(response)
                server.go.set()
                assert got + b"".join(chunks) == BODY
    finish_httpcore(server, new_keys, version)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_aiohttp(https, new_keys, library, run_on, loop):
    aiohttp = library("aiohttp")
    server, context = https

    async def main():
        connector = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(connector=connector) as session:
            for rekeys in (1, 0):
                async with session.get(server.url) as response:
                    half = await response.content.readexactly(HALF)
                    for _ in range(rekeys):
                        await aio.rekey(response)
                        transport = response.connection.transport
                    server.go.set()
                    assert half + await response.content.read() == BODY
                    await aio.wait_for_renegotiation(transport)
            with pytest.raises(pykeyupdate.ConnectionClosedError):
                await aio.rekey(response)
        await asyncio.sleep(0.1)

    run_on(loop, main())
    finish(server, new_keys)


def test_without_tls(library):
    """A plaintext connection says so."""
    conn = http.client.HTTPConnection("localhost")
    with pytest.raises(pykeyupdate.ConnectionClosedError):
        pykeyupdate.rekey(conn)
