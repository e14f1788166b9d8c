"""Real libraries, as released on PyPI, against real servers."""

import contextlib
import importlib
import os
import threading

import pytest
from support.link import NOT_REQUESTED
from support.servers import HTTPServer


@pytest.fixture
def library():
    """Import a library; where CI says so, it has to be there."""

    def load(name):
        if os.environ.get("PYKEYUPDATE_REQUIRE_LIBRARIES"):
            return importlib.import_module(name)
        return pytest.importorskip(name)

    return load


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
