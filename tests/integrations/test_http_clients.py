"""HTTP clients rekey in the middle of a response, then use the connection again."""

import asyncio
import http.client
import sys
import urllib.request

import pytest
from support.link import NOT_REQUESTED
from support.servers import BODY, HALF, pass_on

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


# -- responses that outlive their connection -------------------------------------------


@pytest.fixture(params=["close", "old"])
def last(request, https):
    """The URL of a response after which the server closes the connection."""
    return https[0].url + request.param


def finish_last(server, version, response):
    """The server has heard of the new keys, and there is no connection any more."""
    with pytest.raises(pykeyupdate.ConnectionClosedError, match="read to its end"):
        pykeyupdate.rekey(response)
    heard = server.said("server", "received")
    if version == "tls13":
        assert heard.count(NOT_REQUESTED) == 1
    else:  # it is answered when the server reads, after the response
        assert heard.count("ClientHello") == 2


def rekey_in_the_middle(server, response, read):
    half = read(HALF)
    pykeyupdate.rekey(response)
    server.go.set()
    assert half + read() == BODY


def test_http_client_response(https, last, version, wait_for_end):
    server, context = https
    conn = http.client.HTTPSConnection("localhost", server.server_port, context=context)
    conn.request("GET", last[last.rindex("/") :])
    response = conn.getresponse()
    with pytest.raises(pykeyupdate.ConnectionClosedError):
        pykeyupdate.rekey(conn)  # which has let go of it
    rekey_in_the_middle(server, response, response.read)
    wait_for_end()
    finish_last(server, version, response)


def test_urlopen(https, last, version, wait_for_end):
    server, context = https
    with urllib.request.urlopen(last, context=context) as response:
        rekey_in_the_middle(server, response, response.read)
        wait_for_end()
        finish_last(server, version, response)


def test_urllib3_after_its_connection(https, last, version, library, wait_for_end):
    urllib3 = library("urllib3")
    server, context = https
    with urllib3.PoolManager(ssl_context=context) as pool:
        response = pool.urlopen("GET", last, preload_content=False)
        rekey_in_the_middle(server, response, response.read)
    wait_for_end()
    finish_last(server, version, response)


def test_requests_after_its_connection(
    https, last, version, library, trust_file, wait_for_end
):
    server, _ = https
    with library("requests").Session() as session:
        session.trust_env = False
        response = session.get(last, stream=True, verify=trust_file)
        rekey_in_the_middle(server, response, response.raw.read)
    wait_for_end()
    finish_last(server, version, response)


# -- TLS in TLS: through an https proxy ------------------------------------------------


@pytest.fixture
def proxy(make_server, version):
    """The URL of an https proxy, the context of its clients, and itself."""
    server, context = make_server(version, pass_on)
    return f"https://localhost:{server.address[1]}", context, server


def schedule_through_a_proxy(server, response, read, version):
    """Nothing is sent for it alone, and what the refusal names does work."""
    half = read(HALF)
    seen = len(server.said("server", "received"))
    for call in (pykeyupdate.rekey, pykeyupdate.flush):
        with pytest.raises(TypeError, match=r"`pykeyupdate.key_update\(\)` schedules"):
            call(response)
    if version == "tls13":
        pykeyupdate.key_update(response)
    else:
        pykeyupdate.renegotiate(response)
    assert len(server.said("server", "received")) == seen
    server.go.set()
    assert half + read() == BODY


def test_urllib3_through_a_proxy(https, proxy, library, version):
    urllib3 = library("urllib3")
    (server, context), (url, proxy_context, outer) = https, proxy
    with urllib3.ProxyManager(
        url, proxy_ssl_context=proxy_context, ssl_context=context
    ) as pool:
        response = pool.urlopen("GET", server.url, preload_content=False)
        schedule_through_a_proxy(server, response, response.read, version)
        assert pool.urlopen("GET", server.url).data == BODY
    finish_tunnel(server, outer, version)


def test_requests_through_a_proxy(https, proxy, library, version, trust_file):
    requests, adapters = library("requests"), library("requests.adapters")
    (server, _), (url, proxy_context, outer) = https, proxy

    class Adapter(adapters.HTTPAdapter):
        def proxy_manager_for(self, proxy, **keywords):
            return super().proxy_manager_for(
                proxy, proxy_ssl_context=proxy_context, **keywords
            )

    with requests.Session() as session:
        session.mount("https://", Adapter())
        session.verify, session.proxies = trust_file, {"https": url}
        session.trust_env = False
        response = session.get(server.url, stream=True)
        schedule_through_a_proxy(server, response, response.raw.read, version)
        assert session.get(server.url).content == BODY
    finish_tunnel(server, outer, version)


def test_httpx_through_a_proxy(https, proxy, library, version):
    httpx = library("httpx")
    (server, context), (url, proxy_context, outer) = https, proxy
    via = httpx.Proxy(url, ssl_context=proxy_context)
    with httpx.Client(verify=context, proxy=via, trust_env=False) as client:
        with client.stream("GET", server.url) as response:
            chunks = response.iter_raw(HALF)

            def read(size=None):
                return next(chunks) if size else b"".join(chunks)

            schedule_through_a_proxy(server, response, read, version)
        assert client.get(server.url).content == BODY
    finish_tunnel(server, outer, version)


def finish_tunnel(server, outer, version):
    """The server has heard of new keys; the proxy, of none of its own."""
    inside, outside = (end.said("server", "received") for end in (server, outer))
    if version == "tls13":
        assert inside.count(NOT_REQUESTED) == 1
        assert NOT_REQUESTED not in outside
    else:
        assert inside.count("ClientHello") > server.connections
        assert outside.count("ClientHello") == len(outer.sockets)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_httpx_async_through_a_proxy(https, proxy, library, version, backend):
    httpx = library("httpx")
    (server, context), (url, proxy_context, outer) = https, proxy

    async def main():
        via = httpx.Proxy(url, ssl_context=proxy_context)
        async with httpx.AsyncClient(verify=context, proxy=via) as client:
            async with client.stream("GET", server.url) as response:
                chunks = response.aiter_raw(HALF)
                half = await chunks.__anext__()
                await aio.rekey(response)
                server.go.set()
                assert half + b"".join([chunk async for chunk in chunks]) == BODY

    if backend == "trio":
        library("trio").run(main)
    else:
        asyncio.run(main())
    finish_tunnel(server, outer, version)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="aiohttp needs it for that")
def test_aiohttp_through_a_proxy(https, proxy, version, new_keys, library, run_on):
    aiohttp = library("aiohttp")
    (server, context), (url, _, outer) = https, proxy

    async def main():
        connector = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(connector=connector) as session:
            async with session.get(server.url, proxy=url) as response:
                half = await response.content.readexactly(HALF)
                await aio.rekey(response)
                transport = response.connection.transport
                server.go.set()
                assert half + await response.content.read() == BODY
                await aio.wait_for_renegotiation(transport)
        await asyncio.sleep(0.1)

    run_on("asyncio", main())
    finish(server, new_keys)
    finish_tunnel(server, outer, version)


def test_without_tls(library):
    """A plaintext connection says so."""
    conn = http.client.HTTPConnection("localhost")
    with pytest.raises(pykeyupdate.ConnectionClosedError):
        pykeyupdate.rekey(conn)
