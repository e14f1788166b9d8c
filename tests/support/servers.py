"""TLS servers in threads: the standard library's, with what they saw, and others."""

import contextlib
import select
import socket
import ssl
import threading
import time
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .link import Witness

HALF = 100_000
BODY = bytes(range(256)) * (2 * HALF // 256)


def echo(tls):
    """Send back what comes."""
    while data := tls.recv(65536):
        tls.sendall(data)


class Server(Witness):
    """Serves each connection with ``handler(SSLSocket)`` in a thread of its own."""

    def __init__(self, context, handler=echo):
        super().__init__()
        self.watch("server", context)
        self.context, self.handler = context, handler
        self.listener = socket.create_server(("127.0.0.1", 0))
        # so that a peer that does not read is soon noticed
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.address = self.listener.getsockname()
        self.threads, self.sockets, self.errors = [], [], []
        self.is_closing = False
        self.start(self.accept)

    def start(self, target, *arguments):
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self.threads.append(thread)
        thread.start()

    def accept(self):
        while True:
            plain, _ = self.listener.accept()
            if self.is_closing:
                plain.close()
                return
            self.start(self.serve, plain)

    def serve(self, plain):
        plain.settimeout(30)
        try:
            with self.context.wrap_socket(plain, server_side=True) as tls:
                self.sockets.append(tls)
                self.handler(tls)
        except (OSError, ssl.SSLError) as error:
            self.errors.append(error)

    def close(self):
        """Wait for the threads; the clients have closed their connections.

        A connection is what ends accept() on every system: on Windows shutdown() in
        another thread ends no call that waits.
        """
        self.is_closing = True
        socket.create_connection(self.address).close()
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()
        self.listener.close()


class Handler(BaseHTTPRequestHandler):
    """Sends half of a body, and the other half when it may.

    At ``/close`` it says ``Connection: close``, at ``/old`` it is an HTTP/1.0 server;
    there it reads what comes until its client closes.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == "/old":
            self.protocol_version = "HTTP/1.0"
            self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        if self.path == "/close":
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(BODY[:HALF])
        assert self.server.go.wait(20)
        self.wfile.write(BODY[HALF:])
        if self.close_connection:
            self.rfile.read()


class HTTPServer(ThreadingHTTPServer, Witness):
    """The standard library's, with TLS, and what it saw."""

    daemon_threads = True

    def __init__(self, context, handler=Handler):
        super().__init__(("127.0.0.1", 0), handler)
        Witness.__init__(self)
        self.watch("server", context)
        self.context = context
        self.connections = 0
        self.go, self.ended = threading.Event(), threading.Event()
        self.url = f"https://localhost:{self.server_port}/"

    def finish_request(self, request, address):
        self.connections += 1
        request.settimeout(20)
        with self.context.wrap_socket(request, server_side=True) as tls:
            try:
                super().finish_request(tls, address)
            finally:
                self.ended.set()

    def handle_error(self, request, address):
        pass


def pass_on(tls):
    """Be an https proxy: do a client's CONNECT, and carry what is in the tunnel."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += tls.recv(1)
    host, port = request.split()[1].rsplit(b":", 1)
    with socket.create_connection((host.decode(), int(port)), 20) as target:
        tls.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        ends = {tls: target, target: tls}
        while True:
            readable = [tls] if tls.pending() else select.select(ends, [], [], 20)[0]
            for end in readable:
                data = end.recv(65536)
                if not data:
                    return
                ends[end].sendall(data)


@contextlib.contextmanager
def serving(server, *arguments):
    """Have a server serve in a thread."""
    thread = threading.Thread(target=server.serve_forever, args=arguments)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(20)
        assert not thread.is_alive()


@contextlib.asynccontextmanager
async def aiohttp_serving(web, handler, context):
    """Have an application of aiohttp serve, with a handler; return its port."""
    app = web.Application()
    app.router.add_post("/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class Uvicorn:
    """uvicorn's server in a thread."""

    def __init__(self, library, app, certificate, loop, **settings):
        uvicorn = library("uvicorn")
        library("websockets")
        library("wsproto")
        self.config = uvicorn.Config(
            app, port=0, loop=loop, lifespan="off", log_level="critical", **settings
        )
        with warnings.catch_warnings():  # for 3.9, it imports websockets.legacy
            warnings.simplefilter("ignore", DeprecationWarning)
            self.config.load()
        self.config.ssl = certificate
        self.server = uvicorn.Server(self.config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            threading.Event().wait(0.01)
            assert self.thread.is_alive()
        return self.server.servers[0].sockets[0].getsockname()[1]

    def __exit__(self, *_):
        # It fails over a WebSocket that its client has just closed, if it is told to
        # close it before it has seen the connection's end.
        connections, deadline = self.server.server_state.connections, time.time() + 5
        while connections and time.time() < deadline:
            threading.Event().wait(0.01)
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()
