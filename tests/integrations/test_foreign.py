"""The refusal of another library's TLS names the library, and nothing is touched."""

import asyncio

import pytest

import pykeyupdate
from pykeyupdate import aio


def test_pyopenssl(library):
    openssl = library("OpenSSL.SSL")
    conn = openssl.Connection(openssl.Context(openssl.TLS_METHOD))
    for call in (pykeyupdate.key_update, pykeyupdate.rekey, pykeyupdate.flush):
        with pytest.raises(TypeError, match="its TLS is pyOpenSSL's"):
            call(conn)
    with pytest.raises(TypeError, match="its TLS is pyOpenSSL's"):
        asyncio.run(aio.rekey(conn))


def test_twisted(library):
    tls, protocol = (
        library("twisted.protocols.tls"),
        library("twisted.internet.protocol"),
    )
    mine = type("Mine", (protocol.Protocol,), {})()
    mine.transport = tls.TLSMemoryBIOProtocol(protocol.Factory(), mine, False)
    for conn in (mine, mine.transport):
        with pytest.raises(TypeError, match="its TLS is pyOpenSSL's"):
            pykeyupdate.rekey(conn)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_urllib3_over_pyopenssl(library):
    openssl = library("OpenSSL.SSL")
    wrapped = library("urllib3.contrib.pyopenssl").WrappedSocket
    conn = wrapped(openssl.Connection(openssl.Context(openssl.TLS_METHOD)), None)
    with pytest.raises(TypeError, match="its TLS is pyOpenSSL's"):
        pykeyupdate.rekey(conn)


def test_plaintext_aiohttp(library):
    web, aiohttp = library("aiohttp.web"), library("aiohttp")
    seen = []

    async def handler(request):
        for conn in (request, request.transport):
            with pytest.raises(TypeError, match="carries no TLS"):
                await aio.rekey(conn)
        seen.append(True)
        return web.Response()

    async def main():
        app = web.Application()
        app.router.add_get("/", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert response.status == 200
        await runner.cleanup()

    asyncio.run(main())
    assert seen == [True]


def test_plaintext_httpx(library):
    httpx = library("httpx")
    transport = httpx.MockTransport(lambda request: httpx.Response(200))
    with httpx.Client(transport=transport) as client:
        with pytest.raises(TypeError, match="carries no TLS"):
            pykeyupdate.rekey(client.get("http://localhost"))


def test_plaintext_requests(library):
    response = library("requests").Response()
    with pytest.raises(pykeyupdate.ConnectionClosedError, match="no connection now"):
        pykeyupdate.rekey(response)
