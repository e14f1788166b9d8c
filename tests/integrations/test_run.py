"""``pykeyupdate run`` with servers that start processes of their own, under load."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading

import pytest
from support import pace
from support.https_programs import environment, free_port
from support.link import NOT_REQUESTED, Witness
from support.waiting import eventually

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
TASKS = """
import os, time
from celery import Celery

url = "{url}"
app = Celery("tasks", broker=url, backend=url)
app.conf.broker_connection_retry_on_startup = True

@app.task
def add(one, other):
    time.sleep(0.005)  # both workers get tasks
    return os.getpid(), one + other
"""
SUBMIT = """
import collections, json, tasks

results = [tasks.add.delay(number, 1) for number in range({count})]
answers = [result.get(timeout=60) for result in results]
assert [sum for _, sum in answers] == [number + 1 for number in range({count})]
print(json.dumps(collections.Counter(worker for worker, _ in answers)))
"""
PROGRAMS = {
    "uvicorn": "-m uvicorn application:asgi --workers 2 --port {port} "
    "--ssl-keyfile server.pem --ssl-certfile server.pem --log-level warning",
    "gunicorn": "-m gunicorn -k gthread --threads 4 --workers 2 -b 127.0.0.1:{port} "
    "--keyfile server.pem --certfile server.pem application:wsgi",
    "multiprocessing": "spawner.py {port}",
}
REQUESTS, CLIENTS, RECORDS = 100, 4, 10
TASKS_TO_DO, FEWEST_TASKS = 200, 20


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def begin(tmp_path):
    """Start a program in the test's folder, to be killed with all its processes."""
    running = []

    def start(*command):
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), start_new_session=True
        )
        running.append(process)
        return process

    yield start
    for process in reversed(running):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def begin_managed(begin):
    """Start a Python program with a policy of so many records."""

    def start(*program, options=()):
        rules = f"sent_records={RECORDS},min_interval_seconds=0"
        command = [sys.executable, "-m", "pykeyupdate", "run", "--policy", rules]
        return begin(*command, *options, "--", *program)

    return start


@pytest.fixture
def started(tmp_path, certificate, begin_managed, port):
    """Run a server with a policy of so many records; wait until it listens."""
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "spawner.py").write_text(SPAWNER)

    def start(program):
        process = begin_managed(*program.format(port=port).split())
        wait_for(lambda: listens(port), process)
        return "127.0.0.1", port

    return start


def wait_for(happened, process):
    eventually(lambda: happened() or process.poll() is not None, pause=0.05)
    assert process.poll() is None


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


@pytest.fixture
def redis_url(certificate, authority, tmp_path, begin, port):
    """Start a Redis that speaks TLS alone; return its URL."""
    path = shutil.which("redis-server")
    if path is None and not os.environ.get("PYKEYUPDATE_REQUIRE_SERVERS"):
        pytest.skip("redis-server is not installed")
    assert path, "redis-server is not installed"
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
    (tmp_path / "chain.pem").write_bytes(chain)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    options = f"--port 0 --tls-port {port} --bind 127.0.0.1 --tls-auth-clients no"
    files = "--tls-cert-file chain.pem --tls-key-file key.pem --tls-ca-cert-file ca.pem"
    server = begin(path, "--save", "", *options.split(), *files.split())
    wait_for(lambda: listens(port), server)
    query = f"ssl_cert_reqs=required&ssl_ca_certs={tmp_path}/ca.pem"
    return f"rediss://localhost:{port}/0?{query}"


def test_celery_s_workers_rekey_under_load(redis_url, begin_managed, tmp_path, library):
    """Each process of a prefork pool has a connection of its own, for its results."""
    pace.skip_if_kept()
    library("celery")
    library("redis")
    (tmp_path / "tasks.py").write_text(TASKS.format(url=redis_url))
    sockets = tmp_path / "{pid}.sock"
    worker = "-m celery -A tasks worker --pool prefork --concurrency 2"
    process = begin_managed(*worker.split(), options=["--control", str(sockets)])
    done = subprocess.run(
        [sys.executable, "-c", SUBMIT.format(count=TASKS_TO_DO)],
        check=True,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        timeout=90,
    )
    assert process.poll() is None
    tasks = json.loads(done.stdout)
    assert len(tasks) == 2
    for worker, number in tasks.items():
        assert number > FEWEST_TASKS  # each result is at least one record
        assert updates_sent(tmp_path / f"{worker}.sock") >= number // RECORDS - 1
    assert updates_sent(tmp_path / f"{process.pid}.sock") > 0  # who takes the tasks


def updates_sent(path):
    """Ask a process through its control socket."""
    command = [sys.executable, "-m", "pykeyupdate", "ctl", str(path), "totals"]
    said = subprocess.run(
        [*command, "--json"], check=True, stdout=subprocess.PIPE, timeout=60
    )
    return json.loads(said.stdout)["totals"]["counts"]["key_updates_sent"]
