"""What the examples of the documentation find around them: servers, names, files."""

import asyncio
import contextlib
import gc
import socket
import ssl
import time

import pykeyupdate

from .libraries import library
from .link import Witness
from .servers import HTTPServer, Server, Uvicorn, echo, serving


class World(contextlib.ExitStack):
    """The world of one page; hidden blocks of the page set it up."""

    def __init__(self, make_contexts, authority, folder, monkeypatch):
        super().__init__()
        gc.collect()  # connections() shall have those of this page alone
        self.make_contexts, self.authority = make_contexts, authority
        self.folder, self.monkeypatch = folder, monkeypatch
        self.server = None

    def contexts(self, version="tls13", *, managed=False):
        """Return a client's and a server's context, which trust each other."""
        contexts = self.make_contexts(version)
        if managed:
            for context in contexts:
                pykeyupdate.manage(context, limits=None)
        return contexts

    def serve(self, version="tls13", handler=echo):
        """Start a server; return the client's context and the server's address."""
        client, context = self.make_contexts(version)
        context.sslsocket_class = ssl.SSLSocket  # it is another program's
        self.server = Server(context, handler)
        self.callback(self.server.close)
        return client, ("localhost", self.server.address[1])

    def connect(self, context, address):
        """Return a connection, which is closed in the end."""
        plain = socket.create_connection(address)
        tls = context.wrap_socket(plain, server_hostname="localhost")
        tls.settimeout(20)
        return self.enter_context(tls)

    def key_updates(self):
        """Return how many the server has received."""
        return sum(
            "KeyUpdate" in name for name in self.server.said("server", "received")
        )

    def wait_for_key_updates(self, number):
        """Wait until the server has received so many: it reads when it likes."""
        deadline = time.monotonic() + 10
        while self.key_updates() < number and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.key_updates() == number

    def write_certificates(self, *names):
        """Write ``cert.pem`` and ``key.pem`` for these names, and ``ca.pem``."""
        made = self.authority.issue_cert(*names)
        made.private_key_pem.write_to_path(self.folder / "key.pem")
        for number, blob in enumerate(made.cert_chain_pems):
            blob.write_to_path(self.folder / "cert.pem", append=number > 0)
        self.authority.cert_pem.write_to_path(self.folder / "ca.pem")

    def is_example_org(self, address, context):
        """Have a program that connects to example.org reach our server instead."""
        connect = socket.create_connection

        def create_connection(wanted, *args, **kwargs):
            return connect(address if "example.org" in wanted[0] else wanted)

        self.monkeypatch.setattr(socket, "create_connection", create_connection)
        self.monkeypatch.setattr(
            ssl, "create_default_context", lambda *_, **__: context
        )

    def give_certificate(self, context):
        """Give a client's context a certificate of its own."""
        self.authority.issue_cert("client").configure_cert(context)

    def serve_http(self):
        """Start an HTTPS server; return the client's context and the URL."""
        client, context = self.make_contexts("tls13")
        self.server = self.enter_context(HTTPServer(context))
        self.enter_context(serving(self.server))
        self.server.go.set()
        return client, self.server.url

    def session(self, requests, context):
        """Return a session of requests that trusts our servers."""

        class Trusting(requests.adapters.HTTPAdapter):
            def init_poolmanager(self, *args, **kwargs):
                super().init_poolmanager(*args, ssl_context=context, **kwargs)

        session = self.enter_context(requests.Session())
        session.mount("https://", Trusting())
        return session

    def serve_asgi(self, app):
        """Start uvicorn; return the client's context and the address."""
        client, context = self.make_contexts("tls13")
        self.server = Witness()
        self.server.watch("server", context)
        uvicorn = Uvicorn(library, app, context, "asyncio", ws="wsproto")
        return client, ("localhost", self.enter_context(uvicorn))

    def chat_over_a_websocket(self, app):
        """Ask the chat of the page for new keys."""
        client = library("websockets.sync.client")
        context, address = self.serve_asgi(app)
        uri = f"wss://{address[0]}:{address[1]}/"
        with client.connect(uri, ssl=context) as websocket:
            for text in ("hello", "new keys", "under new keys"):
                websocket.send(text)
                assert websocket.recv(timeout=20) == text
        sent = self.server.said("server", "sent")
        assert sum("KeyUpdate" in name for name in sent) == 1

    def library(self, name):
        """Import what the page needs, or skip the page."""
        return library(name)

    def run(self, work):
        """Run a coroutine, as a program would."""
        return asyncio.run(work)
