"""Real servers, seen and changed through their control sockets and by a signal."""

import contextlib
import json
import os
import queue
import signal
import ssl
import subprocess
import sys
import threading
import time

import pytest
from support.https_programs import connect, environment, free_port, get, running
from support.link import NOT_REQUESTED, Witness
from support.waiting import eventually

import pykeyupdate

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="needs Unix sockets and fork()"
)

STALLED = 30  # seconds, for what takes less than one

APPLICATION = """
import os
import pykeyupdate

pykeyupdate.install(managed=True)
control = pykeyupdate.control.serve(f"{os.getpid()}.sock")
restore = pykeyupdate.control.on_signal("SIGUSR2", per_second=1e6)
BODY = str(os.getpid()).encode()
"""

SERVERS = {
    "http.server": """
import ssl, sys
from app import BODY
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    log_message = lambda *given: None

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

class Server(ThreadingHTTPServer):
    def finish_request(self, request, address):
        with context.wrap_socket(request, server_side=True) as tls:
            super().finish_request(tls, address)

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.pem")
Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
""",
    "aiohttp": """
import ssl, sys
from app import BODY
from aiohttp import web

async def answer(request):
    return web.Response(body=BODY)

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.pem")
app = web.Application()
app.add_routes([web.get("/", answer)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), ssl_context=context)
""",
    "gunicorn": """
from app import BODY

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Length", str(len(BODY)))])
    return [BODY]
""",
    "uvicorn": """
import pykeyupdate
from app import BODY

async def asgi(scope, receive, send):
    if scope["type"] == "http":
        pykeyupdate.aio.label(send, scope["path"])  # uvloop does not tell the peer
        head = [(b"content-length", str(len(BODY)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": BODY})
""",
}
COMMANDS = {
    "http.server": "program.py PORT",
    "aiohttp": "program.py PORT",
    "gunicorn": "-m gunicorn -w 2 -k gthread --threads 4 --keep-alive 30 "
    "-b 127.0.0.1:PORT --certfile server.pem --keyfile server.pem program:wsgi",
    "uvicorn": "-m uvicorn --workers 2 --port PORT --timeout-keep-alive 30 "
    "--ssl-certfile server.pem --ssl-keyfile server.pem program:asgi",
}
IDLE_TOO = {"http.server", "gunicorn"}  # sockets; asyncio's objects wait for I/O


@pytest.fixture(params=SERVERS)
def kind(request):
    return request.param


@pytest.fixture
def server(kind, library, certificate, tmp_path):
    """Start a server in a folder, where its processes have their sockets."""
    if kind != "http.server":
        library(kind)
    (tmp_path / "app.py").write_text(APPLICATION)
    (tmp_path / "program.py").write_text(SERVERS[kind])
    pem = tmp_path / "server.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
    port = free_port()
    command = COMMANDS[kind].replace("PORT", str(port)).split()
    with running(*command, folder=tmp_path):
        yield port


def pid_of(conn):
    """Return the number of the process that answers."""
    return int(get(conn))


def ctl(folder, pid, *arguments):
    """Ask a process by the command line."""
    done = subprocess.run(
        [sys.executable, "-m", "pykeyupdate", "ctl", f"{pid}.sock", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def seen(witness):
    return [it for it in witness.said("client", "received") if it == NOT_REQUESTED]


def read_what_came(conn):
    """Let OpenSSL see what the server has sent beside its answers."""
    conn.sock.settimeout(0)
    deadline = time.monotonic() + STALLED
    with contextlib.suppress(ssl.SSLWantReadError, BlockingIOError):
        while time.monotonic() < deadline:
            conn.sock.recv(1)
    conn.sock.settimeout(20)


@pytest.fixture
def clients(server, make_contexts):
    """Three connections to each server, with the process that serves each."""
    context, _ = make_contexts("tls13")
    witness = Witness()
    witness.watch("client", context)
    conns = [connect(server, context) for _ in range(3)]
    try:
        yield [(conn, pid_of(conn)) for conn in conns], witness
    finally:
        for conn in conns:
            conn.close()


def test_each_connection_is_shown_by_its_process_with_its_peer(clients, tmp_path):
    conns, _ = clients
    for conn, pid in conns:
        port = conn.sock.getsockname()[1]
        where = ["--where", f"peer~:{port}"]
        answer = json.loads(ctl(tmp_path, pid, "connections", *where, "--json"))
        [row] = answer["connections"]
        assert answer["pid"] == pid
        assert row["peer"] == f"127.0.0.1:{port}"
        assert (row["role"], row["version"]) == ("server", "TLSv1.3")
        assert row["sent"]["records"] >= 1
        assert row["peer"] in ctl(tmp_path, pid, "connections", *where)
        assert "managed connections open" in ctl(tmp_path, pid, "totals")


def test_new_keys_by_the_control_socket(kind, clients, tmp_path):
    """Only for the connection that a condition chooses; idle sockets at once."""
    conns, witness = clients
    conn, pid = conns[0]
    port = conn.sock.getsockname()[1]
    text = ctl(tmp_path, pid, "rekey", "--where", f"peer~:{port}")
    done = 1 if kind in IDLE_TOO else 0
    assert text.startswith(f"{done} have new keys, {1 - done} get them")
    if done:
        eventually(lambda: read_what_came(conn) or seen(witness))
        assert len(seen(witness)) == 1
    for other, _ in conns:
        get(other)
    assert len(seen(witness)) == 1


def test_new_keys_by_a_signal(clients):
    """To each process that serves one; the next answer is under the new key."""
    conns, witness = clients
    for pid in {pid for _, pid in conns}:
        os.kill(pid, signal.SIGUSR2)

    def all_have():
        assert all(pid_of(conn) == pid for conn, pid in conns)
        return len(seen(witness)) >= len(conns)

    eventually(all_have)
    assert len(seen(witness)) == len(conns)


# -- paho-mqtt, a client with a thread of its own --------------------------------------


def test_a_client_of_paho_is_seen_and_rekeyed(
    library, mosquitto, make_contexts, tmp_path
):
    """It is idle: the broker gets the key update at once, and talks on."""
    mqtt = library("paho.mqtt.client")
    context, _ = make_contexts("tls13")
    witness = Witness()
    witness.watch("client", context)
    pykeyupdate.manage(context)
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    subscribed, came = threading.Event(), queue.Queue()
    client.on_connect = lambda *args: client.subscribe("echo", qos=1)
    client.on_subscribe = lambda *args: subscribed.set()
    client.on_message = lambda client, data, got: came.put(got.payload)
    client.tls_set_context(context)
    client.connect(*mosquitto)
    client.loop_start()
    pid = os.getpid()
    try:
        assert subscribed.wait(STALLED)
        with pykeyupdate.control.serve(tmp_path / f"{pid}.sock"):
            port = mosquitto[1]
            where = ["--where", "role==client", "--where", f"peer==127.0.0.1:{port}"]
            assert "1 of 1 connections" in ctl(tmp_path, pid, "connections", *where)
            text = ctl(tmp_path, pid, "rekey", *where)
        assert text.startswith("1 have new keys")
        client.publish("echo", b"data", qos=1)
        assert came.get(timeout=STALLED) == b"data"
    finally:
        client.disconnect()
        client.loop_stop()
    assert witness.said("client", "sent").count(NOT_REQUESTED) == 1
