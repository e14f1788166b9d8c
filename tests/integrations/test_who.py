"""The peers of real servers' connections, in events and in the log."""

import contextlib
import http.client
import logging
from http.server import BaseHTTPRequestHandler

import pytest
from support.link import write_nothing
from support.servers import HTTPServer, Uvicorn, aiohttp_serving, serving

import pykeyupdate
from pykeyupdate import EventKind, PeerLimits, RekeyPolicy, aio


@pytest.fixture
def told():
    seen = []

    def handler(event):
        conn = event.connection
        if event.kind is not EventKind.KEY_UPDATE_RECEIVED:
            seen.append((event.kind, conn.peer, conn.label, event.reason, event.limit))

    remove = pykeyupdate.on_event(handler)
    yield seen
    remove()


def fetch(port, context, times):
    """Make requests over one connection; return its address."""
    conn = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
    with contextlib.closing(conn):
        for _ in range(times):
            conn.request("GET", "/")
            assert conn.getresponse().read() == b"body"
        return conn.sock.getsockname()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_uvicorn_under_a_policy(make_contexts, library, told, loop):
    """With uvloop, once the application has said whose connection it is."""
    library(loop)
    client, context = make_contexts("tls13")
    pykeyupdate.manage(context, policy=RekeyPolicy.tiny())

    async def app(scope, receive, send):
        if loop == "uvloop":
            aio.label(send, "api")
        head = [(b"content-length", b"4")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"body"})

    with Uvicorn(library, app, context, loop) as port:
        address = fetch(port, client, 9)
    label = "api" if loop == "uvloop" else None
    assert set(told) == {(EventKind.KEY_UPDATE_SENT, address, label, "records", None)}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_aiohttp_under_a_policy(make_contexts, library, told, run_on, loop):
    web, client_of = library("aiohttp.web"), library("aiohttp")
    client, context = make_contexts("tls13")
    pykeyupdate.manage(context, policy=RekeyPolicy.tiny())

    async def handler(request):
        aio.label(request, "shop")
        return web.Response(text="body")

    async def main():
        connector = client_of.TCPConnector(ssl=client)
        async with (
            aiohttp_serving(web, handler, context) as port,
            client_of.ClientSession(connector=connector) as session,
        ):
            for _ in range(9):
                async with session.post(f"https://localhost:{port}/") as response:
                    assert await response.text() == "body"

    run_on(loop, main())
    ((kind, peer, label, reason, _),) = set(told)
    assert (kind, label, reason) == (EventKind.KEY_UPDATE_SENT, "shop", "records")
    assert peer[0] == "127.0.0.1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"body")


def test_a_flooder_of_http_server_is_in_the_log(make_contexts, told, caplog):
    client, context = make_contexts("tls13")
    pykeyupdate.manage(context, limits=PeerLimits(key_updates_in_a_row=4))
    caplog.set_level(logging.WARNING, "pykeyupdate")
    with HTTPServer(context, Handler) as server, serving(server, 0.01):
        honest = fetch(server.server_port, client, 3)
        conn = http.client.HTTPSConnection(
            "localhost", server.server_port, context=client, timeout=20
        )
        with contextlib.closing(conn):
            conn.connect()
            flooder = conn.sock.getsockname()
            with contextlib.suppress(OSError):
                for _ in range(6):
                    pykeyupdate.key_update(conn.sock)
                    write_nothing(conn.sock)
                conn.sock.recv(1)
    assert told == [(EventKind.CUT_OFF, flooder, None, None, "key_updates_in_a_row")]
    (record,) = caplog.records
    assert record.peer == "{}:{}".format(*flooder) != "{}:{}".format(*honest)
    assert record.limit == "key_updates_in_a_row"
    assert f"server, TLSv1.3, TLS_AES_256_GCM_SHA384, peer {record.peer}, " in (
        record.getMessage()
    )
