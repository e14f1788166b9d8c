"""Certificates, connections, and the state that every test must leave behind."""

import contextlib
import ssl
import sys
import sysconfig

import pytest
import trustme
from support import pace
from support.link import Link
from support.page_world import World
from support.servers import Server, echo
from support.sockets import socket_pair
from support.threads import Threads
from support.wire import Wire

import pykeyupdate
from pykeyupdate import _events, _keyupdate

VERSIONS = {"tls13": ssl.TLSVersion.TLSv1_3, "tls12": ssl.TLSVersion.TLSv1_2}


def pytest_report_header():
    gil = "free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else "GIL"
    libssl = _keyupdate.libssl
    return [
        f"python: {sys.version.split()[0]} ({gil})",
        f"libssl: {libssl['version']}, {libssl['path']}, wants "
        f"{pace.interval():.3f} s between two key updates",
    ]


def pytest_make_parametrize_id(val):
    """Keep the names of tests short: on Windows, no variable has 32,768 characters."""
    if isinstance(val, (bytes, str)) and len(val) > 1000:
        return repr(val[:30])
    return None


@pytest.fixture(scope="session")
def authority():
    return trustme.CA()


@pytest.fixture(scope="session")
def certificate(authority):
    return authority.issue_cert("localhost", "127.0.0.1")


@pytest.fixture
def make_contexts(authority, certificate):
    """Make a client's and a server's context for a version: 'tls13' or 'tls12'."""

    def make(version):
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.configure_trust(client)
        certificate.configure_cert(server)
        server.options |= pykeyupdate.OP_ALLOW_CLIENT_RENEGOTIATION
        for context in (client, server):
            context.minimum_version = VERSIONS[version]
            context.maximum_version = VERSIONS[version]
            pace.keep(context)
        return client, server

    return make


@pytest.fixture
def make_link(make_contexts):
    """Make connections, after their handshake unless told otherwise."""
    links = []

    def make(version, over="memory", *, connected=True, client=0, server=0):
        contexts = make_contexts(version)
        contexts[0].options |= client
        contexts[1].options |= server
        link = Link(*contexts, over=over)
        links.append(link)
        return link.handshake() if connected else link

    yield make
    for link in links:
        link.close()


@pytest.fixture(params=["memory", "socket", "managed"])
def over(request):
    return request.param


@pytest.fixture(params=["client", "server"])
def role(request):
    """The end that calls; its peer is the other."""
    return request.param


@pytest.fixture
def tls13(make_link, over):
    return make_link("tls13", over)


@pytest.fixture
def tls12(make_link, over):
    return make_link("tls12", over)


@pytest.fixture(autouse=True)
def _nothing_left_installed():
    classes = (ssl.SSLSocket, ssl.SSLObject, ssl.SSLContext)
    before = [dict(vars(cls)) for cls in classes]
    yield
    assert not pykeyupdate.is_installed()
    assert [dict(vars(cls)) for cls in classes] == before


@pytest.fixture(autouse=True)
def _warnings_of_other_tests_do_not_count():
    _events._logged.clear()


@pytest.fixture
def make_server(make_contexts):
    """Start servers; return each with the context of its clients."""
    servers = []

    def make(version, handler=echo):
        client, server = make_contexts(version)
        servers.append(Server(server, handler))
        return servers[-1], client

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def threads():
    return Threads()


@pytest.fixture
def connect(make_contexts, threads):
    """Connect a managed client and server that block."""
    ends = []

    def make(
        version="tls13",
        *,
        managed="both",
        policy=None,
        plain=None,
        setup=None,
        **client_args,
    ):
        contexts = make_contexts(version)
        contexts[1].num_tickets = 0
        for name, context in zip(("client", "server"), contexts):
            if managed in (name, "both"):
                wanted = policy or pykeyupdate.RekeyPolicy()
                pykeyupdate.manage(context, policy=wanted, limits=None)
        if setup:
            setup(*contexts)
        near, far = plain or socket_pair()
        accepted = threads.start(lambda: contexts[1].wrap_socket(far, server_side=True))
        try:
            client = contexts[0].wrap_socket(
                near, server_hostname="localhost", **client_args
            )
        except BaseException:
            with contextlib.suppress(OSError):
                accepted().close()
            raise
        ends.extend([client, accepted()])
        return ends[-2:]

    yield make
    for end in ends:
        end.close()


@pytest.fixture(params=["object", "socket"])
def kind(request):
    """Of a managed connection: an SSLObject, or an SSLSocket."""
    return request.param


@pytest.fixture
def make_wire(make_contexts, kind, role):
    """Connect a managed end and a peer of ssl's, whose records are counted."""
    wires = []

    def make(policy, version="tls13", limits=None, *, witness=None):
        contexts = make_contexts(version)
        if witness is not None:
            witness.watch(role, contexts[role == "server"])
        wire = Wire(contexts, kind, role, policy=policy, limits=limits)
        wires.append(wire)
        return wire.handshake()

    yield make
    for wire in wires:
        wire.close()


@pytest.fixture
def world(make_contexts, authority, tmp_path, monkeypatch):
    """What the examples of the documentation find around them."""
    with World(make_contexts, authority, tmp_path, monkeypatch) as world:
        yield world
    pykeyupdate.uninstall()
