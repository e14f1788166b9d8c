"""Servers rekey from inside a request handler."""

import asyncio
import functools
import http.client
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from support.link import NOT_REQUESTED, Witness, der
from support.pages import blocks_of
from support.servers import HTTPServer, Uvicorn, aiohttp_serving, serving

import pykeyupdate
from pykeyupdate import aio

BODY = b"a body " * 1000
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "asyncio.md"


@pytest.fixture
def contexts(make_contexts, version):
    client, server = make_contexts(version)
    witness = Witness()
    witness.watch("client", client)
    return client, server, witness


@pytest.fixture
def heard(version):
    """Return whether a client heard of a server's wish for new keys so often."""

    def heard(witness, times):
        name = NOT_REQUESTED if version == "tls13" else "HelloRequest"
        return witness.said("client", "received").count(name) == times

    return heard


def fetch(port, context, times):
    """Make requests over one connection."""
    conn = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
    try:
        for _ in range(times):
            conn.request("POST", "/", b"hello")
            response = conn.getresponse()
            assert response.status == 200
            assert response.read() == BODY
            first = conn.sock
        assert conn.sock is first
    finally:
        conn.close()


def test_http_server(contexts, heard):
    client, context, witness = contexts

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_POST(self):
            self.rfile.read(5)
            pykeyupdate.rekey(self)
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

    server = HTTPServer(context, Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    fetch(server.server_port, client, 3)
    server.shutdown()
    server.server_close()
    thread.join(20)
    assert heard(witness, 3)


async def serve_aiohttp(web, handler, context, client, times):
    """Serve a client's requests, over one connection, with a handler."""
    async with aiohttp_serving(web, handler, context) as port:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, fetch, port, client, times)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_aiohttp(contexts, heard, library, run_on, loop):
    client, context, witness = contexts
    web = library("aiohttp.web")

    async def handler(request):
        assert await request.read() == b"hello"
        response = web.StreamResponse()
        response.content_length = len(BODY)
        await response.prepare(request)
        await response.write(BODY[:100])
        await aio.rekey(request)
        await response.write(BODY[100:])
        return response

    run_on(loop, serve_aiohttp(web, handler, context, client, 3))
    assert heard(witness, 3)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_aiohttp_asks_for_a_certificate(
    make_contexts, authority, version, library, run_on, loop
):
    """The oldest ask: a client certificate after the request was seen."""
    client, context = make_contexts(version)
    identity = authority.issue_cert("me@client")
    identity.configure_cert(client)
    authority.configure_trust(context)
    client.post_handshake_auth = True
    web = library("aiohttp.web")
    got = []

    async def handler(request):
        await request.read()
        got.append(await aio.request_client_certificate(request))
        return web.Response(body=BODY)

    run_on(loop, serve_aiohttp(web, handler, context, client, 2))
    assert got == [(der(identity), True), (der(identity), False)]


def skip_where_writes_wait(version, loop):
    if version == "tls12" and loop == "asyncio" and sys.version_info < (3, 11):
        pytest.skip("asyncio before 3.11 holds writes back in a renegotiation")


# The client's: one that can write in a renegotiation.
CLIENT_LOOP = "asyncio" if sys.version_info >= (3, 11) else "uvloop"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("implementation", ["h11", "httptools"])
def test_uvicorn_http(contexts, heard, library, loop, implementation):
    client, context, witness = contexts
    if implementation == "httptools":
        library("httptools")
    library(loop)

    async def app(scope, receive, send):
        while (await receive())["more_body"]:
            pass
        await aio.rekey(send)
        headers = [(b"content-length", str(len(BODY)).encode())]
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": BODY})

    with Uvicorn(library, app, context, loop, http=implementation, ws="none") as port:
        fetch(port, client, 3)
    assert heard(witness, 3)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto"])
def test_uvicorn_websocket(
    contexts, heard, library, run_on, version, loop, implementation
):
    """A live WebSocket is rekeyed from inside its handler, by a middleware's scope."""
    skip_where_writes_wait(version, loop)
    client, context, witness = contexts
    library(loop)
    websocket = library("starlette.websockets").WebSocket
    connect = library("websockets.asyncio.client").connect

    async def endpoint(scope, receive, send):
        connection = websocket(scope, receive, send)
        await connection.accept()
        async for message in connection.iter_text():
            if message == "rekey":
                await aio.rekey(connection.scope["tls"])
            await connection.send_text(message)

    async def app(scope, receive, send):
        await endpoint({**scope, "tls": send}, receive, send)

    async def use(port):
        async with connect(f"wss://localhost:{port}", ssl=client) as connection:
            for message in ("before", "rekey", "after", "rekey", "end"):
                await connection.send(message)
                assert await connection.recv() == message

    with Uvicorn(library, app, context, loop, ws=implementation) as port:
        run_on(CLIENT_LOOP, use(port))
    assert heard(witness, 2)


@pytest.fixture
def hypercorn(library, certificate, tmp_path, version):
    """Have an application of ASGI served by hypercorn, on asyncio, uvloop or trio."""
    key = tmp_path / "server.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(key))
    config = library("hypercorn.config").Config()
    config.keyfile = config.certfile = str(key)
    config.bind, config.accesslog, config.errorlog = ["127.0.0.1:0"], None, None
    sockets = config.create_sockets()
    config.create_sockets = lambda: sockets
    (listener,) = sockets.secure_sockets
    listener.listen()  # so that clients may come before it does so itself
    port = listener.getsockname()[1]
    stop = threading.Event()
    threads = []

    def serve(app, worker):
        async def stopped():
            while not stop.is_set():
                await library(worker.partition(" ")[0]).sleep(0.01)

        def run():
            if worker == "trio":
                serve = library("hypercorn.trio").serve
                library("trio").run(
                    functools.partial(serve, app, config, shutdown_trigger=stopped)
                )
            else:
                serve = library("hypercorn.asyncio").serve
                asyncio.run(serve(app, config, shutdown_trigger=stopped))

        threads.append(threading.Thread(target=run))
        threads[0].start()
        return port

    yield serve
    stop.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    listener.close()


@pytest.mark.filterwarnings("ignore")  # hypercorn's own
@pytest.mark.parametrize("worker", ["asyncio", "trio"])
@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2", "WebSocket"])
def test_hypercorn(contexts, heard, library, hypercorn, version, worker, protocol):
    """Its `send` is eight steps from the connection."""
    library(worker)
    client, _, witness = contexts

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise NotImplementedError
        while (await receive()).get("more_body"):
            pass  # below TLS 1.3 no data may come in the middle
        await aio.rekey(send)
        if scope["type"] == "http":
            headers = [(b"content-length", str(len(BODY)).encode())]
            start = {"type": "http.response.start", "status": 200, "headers": headers}
            await send(start)
            await send({"type": "http.response.body", "body": BODY})
        else:
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "hello"})
            await send({"type": "websocket.close"})

    port = hypercorn(app, worker)
    if protocol == "HTTP/1.1":
        fetch(port, client, 1)
    elif protocol == "HTTP/2":
        library("h2")
        httpx = library("httpx")
        with httpx.Client(verify=client, http1=False, http2=True) as session:
            assert session.post(f"https://localhost:{port}/").content == BODY
    else:
        connect = library("websockets.asyncio.client").connect
        assert asyncio.run(first_message(connect, port, client)) == "hello"
    assert heard(witness, 1)


async def first_message(connect, port, context):
    """Receive a message. (A client with a reader thread may meet a session ticket.)"""
    async with connect(f"wss://localhost:{port}", ssl=context) as connection:
        return await connection.recv()


def test_tornado(contexts, heard, library):
    """A handler, of HTTP or of a WebSocket, and a stream."""
    client, context, witness = contexts
    web, http = library("tornado.web"), library("tornado.httpserver")
    websocket = library("tornado.websocket")
    taken = []

    def rekey(conn):
        pykeyupdate.rekey(conn)
        taken.append(conn)

    class Handler(web.RequestHandler):
        def post(self):
            rekey(self)
            self.write(BODY)

    class WebSocket(websocket.WebSocketHandler):
        def open(self):
            rekey(self)
            self.write_message("hello")

    async def main():
        app = web.Application([("/", Handler), ("/ws", WebSocket)])
        server = http.HTTPServer(app, ssl_options=context)
        sockets = library("tornado.netutil").bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        port = sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, fetch, port, client, 1)
        request = library("tornado.httpclient").HTTPRequest(
            f"wss://localhost:{port}/ws", ssl_options=client
        )
        connection = await websocket.websocket_connect(request)
        assert await connection.read_message() == "hello"
        assert pykeyupdate.get_key_update_type(connection) in (-1, 0)
        connection.close()
        await asyncio.sleep(0.1)
        server.stop()

    asyncio.run(main())
    assert len(taken) == 2
    assert heard(witness, 2)


def test_wsgiref(contexts, heard, library):
    """`environ["wsgi.input"]` reads from the socket."""
    client, context, witness = contexts
    simple_server = library("wsgiref.simple_server")

    def app(environ, start_response):
        environ["wsgi.input"].read(5)
        pykeyupdate.rekey(environ["wsgi.input"])
        start_response("200 OK", [("Content-Length", str(len(BODY)))])
        return [BODY]

    class Handler(simple_server.WSGIRequestHandler):
        def log_message(self, *_):
            pass

    server = simple_server.make_server("127.0.0.1", 0, app, handler_class=Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server, 0.01):
        fetch(server.server_port, client, 1)
    server.server_close()
    assert heard(witness, 1)


@pytest.mark.skipif(not PAGE.exists(), reason="no documentation here")
def test_the_documentations_application(contexts, heard, library, run_on, version):
    """Its app.py, as it stands there, rekeys a live WebSocket on each version."""
    skip_where_writes_wait(version, "asyncio")
    client, context, witness = contexts
    library("starlette")
    connect = library("websockets.asyncio.client").connect
    names = {}
    (app,) = (it.source for it in blocks_of(PAGE) if it.source[:8] == "# app.py")
    exec(app, names)

    async def use(port):
        async with connect(f"wss://localhost:{port}", ssl=client) as connection:
            for message in ("before", "new keys", "after", "new keys", "end"):
                await connection.send(message)
                assert await connection.recv() == message

    application = names["app"]
    with Uvicorn(library, application, context, "asyncio", ws="wsproto") as port:
        run_on(CLIENT_LOOP, use(port))
    assert heard(witness, 2)


# -- keys of idle connections ----------------------------------------------------------


@pytest.fixture
def idle(make_contexts):
    """Return a client's context, that of a server whose idle keys change, a witness."""
    client, server = make_contexts("tls13")
    policy = pykeyupdate.RekeyPolicy(rotate_idle=True, age_seconds=1)
    pykeyupdate.manage(server, policy=policy)
    witness = Witness()
    witness.watch("client", client)
    return client, server, witness


def fetch_and_wait(port, context, witness, *, method="GET"):
    """Make a request, be idle for a while, and make another on the same connection."""
    conn = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
    for expected in (2, 4):
        conn.request(method, "/", b"hello" if method == "POST" else None)
        assert conn.getresponse().read() == BODY
        sock = conn.sock
        sock.settimeout(2.6)
        with pytest.raises(socket.timeout):
            sock.recv(1)
        sock.settimeout(20)
        updates = witness.said("client", "received").count(NOT_REQUESTED)
        assert expected <= updates <= expected + 1
    assert conn.sock is sock
    conn.close()


async def short_app(scope, receive, send):
    headers = [(b"content-length", str(len(BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("implementation", ["h11", "httptools"])
def test_uvicorn_keeps_keys_fresh(idle, library, loop, implementation):
    client, context, witness = idle
    library(loop)
    if implementation == "httptools":
        library("httptools")
    app = aio.FreshKeys(short_app)
    with Uvicorn(library, app, context, loop, http=implementation, ws="none") as port:
        fetch_and_wait(port, client, witness)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_aiohttp_keeps_keys_fresh(idle, library, run_on, loop):
    web = library("aiohttp.web")
    client, context, witness = idle

    async def handler(request):
        aio.keep_fresh_in_background(request)
        await request.read()
        return web.Response(body=BODY)

    async def main():
        async with aiohttp_serving(web, handler, context) as port:
            wait = functools.partial(fetch_and_wait, method="POST")
            await asyncio.get_running_loop().run_in_executor(
                None, wait, port, client, witness
            )

    run_on(loop, main())


def test_http_server_keeps_keys_fresh(idle):
    client, context, witness = idle

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

    with serving(HTTPServer(context, Handler), 0.01) as server:
        server.daemon_threads = True
        fetch_and_wait(server.server_port, client, witness)
        assert server.ended.wait(20)
    server.server_close()
