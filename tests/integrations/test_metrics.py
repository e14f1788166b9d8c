"""Metrics of real servers with several workers, as a Prometheus scrapes them."""

import collections
import sys

import pytest
from support.https_programs import connect, free_port, get, running
from support.link import NOT_REQUESTED, Witness
from support.waiting import eventually

pytest.importorskip("prometheus_client")
from prometheus_client import parser

APPLICATION = """
import os
import pykeyupdate
import pykeyupdate.prometheus
import prometheus_client
from prometheus_client import multiprocess

pykeyupdate.install(policy=pykeyupdate.RekeyPolicy.tiny())
exported = pykeyupdate.prometheus.export(interval_seconds=0.2)


def body(path):
    if path != "/metrics":
        return str(os.getpid()).encode()
    registry = prometheus_client.CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return prometheus_client.generate_latest(registry)


def wsgi(environ, start_response):
    data = body(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", str(len(data)))])
    return [data]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    data = body(scope["path"])
    head = [(b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": data})
"""

GUNICORN = """
def child_exit(server, worker):
    from prometheus_client import multiprocess
    multiprocess.mark_process_dead(worker.pid)
"""


@pytest.fixture(params=["gunicorn gthread", "gunicorn preload", "uvicorn"])
def workers(request, library, certificate, tmp_path):
    """Start a server with two workers; return its port."""
    program, _, how = request.param.partition(" ")
    library(program)
    (tmp_path / "app.py").write_text(APPLICATION)
    (tmp_path / "conf.py").write_text(GUNICORN)
    (tmp_path / "metrics").mkdir()
    pem = tmp_path / "server.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
    port = free_port()
    files = ["--certfile", pem, "--keyfile", pem]
    if program == "gunicorn":
        options = ["-c", "conf.py", "-k", "gthread", "--threads", "4", "--keep-alive"]
        options += ["30", "-b", f"127.0.0.1:{port}", *files, "app:wsgi"]
        options += ["--preload"] if how == "preload" else []
    else:
        options = ["--port", str(port), "--timeout-keep-alive", "30", "app:asgi"]
        options += ["--ssl-certfile", pem, "--ssl-keyfile", pem]
    command = ["-m", program, "--workers", "2", *options]
    metrics = str(tmp_path / "metrics")
    with running(*command, folder=tmp_path, PROMETHEUS_MULTIPROC_DIR=metrics):
        yield port


def scrape(port, context):
    """Return what is scraped, and its sum by name and labels."""
    conn = connect(port, context)
    text = get(conn, "/metrics").decode()
    conn.close()
    samples = collections.Counter()
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, *sample.labels.values())
            samples[key] += sample.value
    return samples


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork()")
def test_all_workers_are_counted_wherever_it_is_scraped(workers, make_contexts):
    """The witness of how many keys were changed is the clients' OpenSSL."""
    context, _ = make_contexts("tls13")
    witness = Witness()
    witness.watch("client", context)
    by_worker = collections.defaultdict(list)
    while len(by_worker) < 2 or min(map(len, by_worker.values())) < 2:
        conn = connect(workers, context)
        by_worker[get(conn)].append(conn)
        assert sum(map(len, by_worker.values())) < 100
    conns = [conn for worker in by_worker.values() for conn in worker]
    for _ in range(5):
        for conn in conns:
            get(conn)
    seen = len([it for it in witness.said("client", "received") if it == NOT_REQUESTED])
    assert seen > len(conns)
    plain, _ = make_contexts("tls13")
    name = "pykeyupdate_key_changes_total", "records"

    def all_counted():
        samples = scrape(workers, plain)
        return samples if samples[name] == seen else None

    samples = eventually(all_counted, pause=0.1)
    assert seen == samples["pykeyupdate_key_updates_sent_total",]
    assert samples["pykeyupdate_connections",] >= len(conns)
    assert samples["pykeyupdate_connections_opened_total",] >= len(conns)
    assert samples["pykeyupdate_oldest_key_age_seconds", "sent"] > 0
    for conn in conns:
        conn.close()
