"""Policies under libraries that know nothing of them.

Each test only calls ``install(policy=...)``. A library then sends pieces of data over
one connection to a server that sends them back. Both ends are in this process, so both
are managed, and both count each end's keys by what OpenSSL says of its records. After
``uninstall()`` the test repeats this, and no key changes.

The test advances the clock between two pieces. Keys change with the next request and
not before, because a client's pool takes a connection for dead if something arrives on
it while it is idle.
"""

import contextlib
import http.client
import random
import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support import frameworks, pace
from support.link import REQUESTED
from support.servers import Uvicorn, aiohttp_serving, serving
from support.wire import RecordWitness

import pykeyupdate
from pykeyupdate import RekeyPolicy, testing

SIZES = [1, 100, 5_000, 16_384, 16_385, 100_000, 10, 70_000]
DATA = random.Random(0).randbytes(max(SIZES))
MOST_AROUND = 1000  # bytes of headers with a piece
MOST_RECORDS, MOST_BYTES, AGE = 4, 20_000, 3600

POLICIES = {
    "records": RekeyPolicy.tiny(),
    "bytes": RekeyPolicy(sent_bytes=MOST_BYTES, min_interval_seconds=0),
    "age": RekeyPolicy(age_seconds=AGE),
}
MANAGED = {pykeyupdate.SSLSocket, pykeyupdate.SSLObject}
STOCK = {ssl.SSLSocket, ssl.SSLObject}


def assert_changed(rule, keys):
    """See that keys were changed when the rule says, and not before.

    ``keys`` has for each key the lengths of the records of data under it. With a rule
    of age, each piece has a key of its own.
    """
    if rule == "age":
        around = [sum(key) - size for key, size in zip(keys, SIZES)]
        assert len(keys) == len(SIZES)
        assert 0 <= min(around) <= max(around) <= MOST_AROUND
    else:
        used = list(map(len if rule == "records" else sum, keys))
        most = MOST_RECORDS if rule == "records" else MOST_BYTES
        assert len(used) > 4
        assert used[:-1] == [most] * (len(used) - 1)
        assert used[-1] <= most


class Talk(RecordWitness):
    """A client's and a server's context, and what is seen of one connection."""

    def __init__(self, contexts):
        super().__init__()
        self.contexts = contexts
        self.watch("client", contexts[0])
        self.watch("server", contexts[1])

    def saw(self, *message):
        if not self.over:
            super().saw(*message)

    def run(self, talk, rule, classes):
        """Make a connection; see that it was one, and of which class its ends are."""
        self.clear()
        self.over = False
        talk(*self.contexts, self.pieces(rule))
        assert self.over
        assert self.said("server", "received").count("ClientHello") == 1
        for seen in self.classes.values():
            assert len(seen) == 1
            assert seen <= classes
        if "client" in self.classes:
            assert self.keys["client", "sent"] == self.keys["server", "received"]
            assert self.keys["server", "sent"] == self.keys["client", "received"]
        for keys in self.keys.values():
            assert sum(map(sum, keys)) >= sum(SIZES)

    def pieces(self, rule):
        """Give what is to be sent; where the rule is age, keys get old in between."""
        for number, size in enumerate(SIZES):
            if rule == "age" and number > 0:
                testing.advance_clock(AGE)
            yield DATA[:size]
        self.over = True  # each library closes in its own way


@pytest.fixture(params=POLICIES)
def keys_change(request, make_contexts):
    """Have keys change in what talks, and not after ``uninstall()``."""
    rule = request.param
    witness = Talk(make_contexts("tls13"))

    def check(talk, ends=("client", "server")):
        pykeyupdate.install(policy=POLICIES[rule])
        witness.run(talk, rule, MANAGED)
        assert witness.classes.keys() == set(ends)
        for keys in witness.keys.values():
            assert_changed(rule, keys)
        assert not any(name == REQUESTED for _, _, name in witness.wire)
        pykeyupdate.uninstall()
        # a thread that sends and another that reads one are too much for ssl's own
        witness.contexts[1].num_tickets = 0
        witness.run(talk, rule, STOCK)
        assert [len(keys) for keys in witness.keys.values()] == [1] * 2 * len(ends)

    yield check
    pykeyupdate.uninstall()


# -- threads ---------------------------------------------------------------------------


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        data = self.rfile.read(length)
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(data)


class HTTPServer(ThreadingHTTPServer):
    daemon_threads = False  # its end waits for theirs


def test_http_server(keys_change):
    """As its documentation has it: the socket that listens is a TLS socket."""

    def talk(client, server, pieces):
        with HTTPServer(("127.0.0.1", 0), Echo) as listening:
            listening.socket = server.wrap_socket(listening.socket, server_side=True)
            with serving(listening, 0.01):
                conn = http.client.HTTPSConnection(
                    "localhost", listening.server_port, context=client, timeout=20
                )
                with contextlib.closing(conn):
                    for piece in pieces:
                        conn.request("POST", "/", piece)
                        assert conn.getresponse().read() == piece

    keys_change(talk)


def test_websockets_sync(keys_change, library):
    serve = library("websockets.sync.server").serve
    connect = library("websockets.sync.client").connect

    def echo(connection):
        for message in connection:
            connection.send(message)

    def talk(client, server, pieces):
        with (
            serve(echo, "127.0.0.1", 0, ssl=server, compression=None) as listening,
            serving(listening),
        ):
            url = f"wss://localhost:{listening.socket.getsockname()[1]}"
            with connect(url, ssl=client, compression=None) as connection:
                for piece in pieces:
                    connection.send(piece)
                    assert connection.recv(20) == piece

    keys_change(talk)


# -- asyncio and uvloop ----------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_aiohttp(keys_change, library, run_on, loop):
    aiohttp, web = library("aiohttp"), library("aiohttp.web")

    async def echo(request):
        return web.Response(body=await request.read())

    async def talk(client, server, pieces):
        connector = aiohttp.TCPConnector(ssl=client)
        async with (
            aiohttp_serving(web, echo, server) as port,
            aiohttp.ClientSession(connector=connector) as session,
        ):
            for piece in pieces:
                url = f"https://localhost:{port}/"
                async with session.post(url, data=piece) as response:
                    assert await response.read() == piece

    keys_change(lambda *arguments: run_on(loop, talk(*arguments)))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_websockets(keys_change, library, run_on, loop):
    serve = library("websockets.asyncio.server").serve
    connect = library("websockets.asyncio.client").connect

    async def echo(connection):
        async for message in connection:
            await connection.send(message)

    async def talk(client, server, pieces):
        async with serve(
            echo, "127.0.0.1", 0, ssl=server, compression=None
        ) as listening:
            url = f"wss://localhost:{listening.sockets[0].getsockname()[1]}"
            async with connect(url, ssl=client, compression=None) as connection:
                for piece in pieces:
                    await connection.send(piece)
                    assert await connection.recv() == piece

    keys_change(lambda *arguments: run_on(loop, talk(*arguments)))


# -- uvicorn, in front of clients that keep connections in a pool ----------------------


async def echo_app(scope, receive, send):
    data, more = b"", True
    while more:
        message = await receive()
        data += message["body"]
        more = message["more_body"]
    headers = [(b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": data})


@pytest.fixture(params=["asyncio and h11", "uvloop and httptools"])
def uvicorn(request, library):
    """Return what serves ``echo_app`` with a context, and gives the URL."""
    loop, implementation = request.param.split(" and ")
    library(loop)
    library(implementation)

    @contextlib.contextmanager
    def serve(context):
        settings = {"http": implementation, "ws": "none"}
        with Uvicorn(library, echo_app, context, loop, **settings) as port:
            yield f"https://localhost:{port}/"

    return serve


def test_httpx(keys_change, library, uvicorn):
    httpx = library("httpx")

    def talk(client, server, pieces):
        with (
            uvicorn(server) as url,
            httpx.Client(verify=client, trust_env=False) as session,
        ):
            for piece in pieces:
                assert session.post(url, content=piece).content == piece

    keys_change(talk)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_httpx_async(keys_change, library, uvicorn, backend):
    httpx, anyio = library("httpx"), library("anyio")
    library(backend)

    async def use(url, client, pieces):
        async with httpx.AsyncClient(verify=client, trust_env=False) as session:
            for piece in pieces:
                assert (await session.post(url, content=piece)).content == piece

    def talk(client, server, pieces):
        with uvicorn(server) as url:
            anyio.run(use, url, client, pieces, backend=backend)

    keys_change(talk)


def test_requests(keys_change, library, uvicorn, trust_file):
    """With a context that it makes by itself: what is seen is the server's."""
    pace.skip_if_kept()  # nobody watches that context
    requests = library("requests")
    classes = []

    def sent_back(session, url, piece):
        response = session.post(url, piece, stream=True, timeout=20)
        classes.append(type(response.raw.connection.sock))
        return response.content  # a response that is kept keeps the connection open

    def talk(client, server, pieces):
        with uvicorn(server) as url, requests.Session() as session:
            session.verify, session.trust_env = trust_file, False
            for piece in pieces:
                assert sent_back(session, url, piece) == piece

    keys_change(talk, ends=["server"])
    both = [pykeyupdate.SSLSocket, ssl.SSLSocket]
    assert classes == [cls for cls in both for _ in SIZES]


# -- trio and anyio --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Trio", "Anyio"])
def test_streams(keys_change, library, name):
    library(name.lower())
    framework = getattr(frameworks, name)()

    async def echo(stream):
        left = sum(SIZES)
        while left > 0:
            data = await stream.receive()
            await stream.send(data)
            left -= len(data)

    async def talk(client, server, pieces):
        async with framework.serving(server, echo) as address:
            stream = await framework.connect(address[:2], client)
            for piece in pieces:
                await stream.send(piece)
                got = b""
                while len(got) < len(piece):
                    got += await stream.receive()
                assert got == piece
            await stream.close()

    keys_change(lambda *arguments: framework.run(lambda: talk(*arguments)))
