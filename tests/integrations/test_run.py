"""``pykeyupdate run`` with servers that start processes of their own, under load."""

import importlib.util
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support import pace
from support.link import NOT_REQUESTED, Witness

import pykeyupdate

pytestmark = pytest.mark.skipif(os.name == "nt", reason="ends a group of processes")
APPLICATION = """
async def asgi(scope, receive, send):
    if scope["type"] == "http":
        headers = [(b"content-length", b"0")]
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": b""})

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]
"""
SPAWNER = """
import http.server, multiprocessing, ssl, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

def serve(port):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("server.pem")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()

if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=serve, args=(int(sys.argv[1]),))
    process.start()
    process.join()
"""
PROGRAMS = {
    "uvicorn": "-m uvicorn application:asgi --workers 2 --port {port} "
    "--ssl-keyfile server.pem --ssl-certfile server.pem --log-level warning",
    "gunicorn": "-m gunicorn -k gthread --threads 4 --workers 2 -b 127.0.0.1:{port} "
    "--keyfile server.pem --certfile server.pem application:wsgi",
    "multiprocessing": "spawner.py {port}",
}
REQUESTS, CLIENTS, RECORDS = 100, 4, 10


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@pytest.fixture
def started(tmp_path, certificate):
    """Run a program with a policy of so many records; wait until it listens."""
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "spawner.py").write_text(SPAWNER)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    running = []

    def start(program):
        rules = f"sent_records={RECORDS},min_interval_seconds=0"
        command = [sys.executable, "-m", "pykeyupdate", "run", "--policy", rules, "--"]
        running.append(
            subprocess.Popen(
                [*command, *program.format(port=port).split()],
                cwd=tmp_path,
                env={
                    **os.environ,
                    "PYTHONPATH": str(Path(pykeyupdate.__file__).parents[1]),
                },
                start_new_session=True,
            )
        )
        deadline = time.monotonic() + 60
        while not listens(port):
            assert running[-1].poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return "127.0.0.1", port

    yield start
    for process in running:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("name", PROGRAMS)
def test_servers_rekey_under_load(started, authority, name):
    pace.skip_if_kept()
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    address = started(PROGRAMS[name])
    witnesses, errors = [], []

    def client():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(context)
        witness = Witness()
        witness.watch("client", context)
        try:
            ask_often(context, address)
        except BaseException as error:
            errors.append(error)
        witnesses.append(witness)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    for witness in witnesses:  # at least one record an answer
        updates = witness.said("client", "received").count(NOT_REQUESTED)
        assert updates >= REQUESTS // RECORDS - 1


def ask_often(context, address):
    with socket.create_connection(address, 30) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as tls:
            for _ in range(REQUESTS):
                tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = b""
                while b"\r\n\r\n" not in answer:
                    received = tls.recv(65536)
                    assert received
                    answer += received
