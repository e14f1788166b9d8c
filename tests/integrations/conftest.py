"""Real libraries, as released on PyPI, against real servers."""

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time

import pytest
from support import libraries
from support.link import NOT_REQUESTED
from support.servers import HTTPServer

STALLED = 30  # seconds, for what takes less than one


@pytest.fixture
def library():
    return libraries.library


@pytest.fixture(params=["tls13", "tls12"])
def version(request):
    return request.param


@pytest.fixture
def https(make_contexts, version):
    """Start a server; return it and its clients' context."""
    client, context = make_contexts(version)
    server = HTTPServer(context)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server, client
    server.shutdown()
    server.server_close()
    thread.join(20)


@pytest.fixture
def wait_for_end(https):
    """Wait until the server has read to the end of its last connection."""
    server, _ = https

    def wait():
        assert server.ended.wait(20)

    return wait


@pytest.fixture
def new_keys(version):
    """Return whether a witness at the server saw a client get new keys so often."""

    def saw(witness, times=1, end="server"):
        heard = witness.said(end, "received")
        if version == "tls13":
            return heard.count(NOT_REQUESTED) == times
        return heard.count("Finished") == 1 + times

    return saw


@pytest.fixture
def run_on(library):
    """Run a coroutine on a loop of asyncio or uvloop."""

    def run(loop, main):
        with contextlib.closing(main):  # it never runs where there is no such loop
            event_loop = library(loop).new_event_loop()
            event_loop.run_until_complete(main)
            event_loop.close()

    return run


@pytest.fixture
def trust_file(authority, tmp_path):
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def mosquitto(certificate, tmp_path):
    """Start the broker; return its port."""
    path = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if path is None and not os.environ.get("PYKEYUPDATE_REQUIRE_PEERS"):
        pytest.skip("mosquitto is not installed")
    assert path, "mosquitto is not installed"
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    (tmp_path / "mosquitto.conf").write_text(
        f"listener {address[1]} 127.0.0.1\nallow_anonymous true\npersistence false\n"
        f"certfile {tmp_path}/both.pem\nkeyfile {tmp_path}/both.pem\n"
        "user root\n"  # where it is root it would become another, who may not read here
    )
    process = subprocess.Popen([path, "-c", tmp_path / "mosquitto.conf"])
    try:
        limit = time.monotonic() + STALLED
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(address).close()
                break
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.01)
        yield address
    finally:
        process.kill()
        process.wait()
