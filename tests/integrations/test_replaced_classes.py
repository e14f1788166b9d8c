"""gevent, eventlet and truststore, which replace ssl's classes with their own.

Each case is a program of its own, because replacing affects a whole process. Its peer
runs here.
"""

import importlib.util
import os
import subprocess
import sys

import pytest
from support import pace
from support.link import NOT_REQUESTED

PATCH = """
import sys

def patch():
    if LIBRARY == "gevent":
        import gevent.monkey
        gevent.monkey.patch_all()
    elif LIBRARY == "eventlet":
        import eventlet
        eventlet.monkey_patch()
    else:
        import truststore
        truststore.inject_into_ssl()

"""
BEGINNING = """
import asyncio, socket, ssl, time, warnings

PORT, TRUST, URL = int(sys.argv[1]), sys.argv[2], f"https://localhost:{sys.argv[1]}/"
FOLLOWED = "SSLContext", "SSLSocket", "SSLObject"
first = [getattr(ssl, name) for name in FOLLOWED]

def load():
    global pykeyupdate
    import pykeyupdate

def content():
    present = [getattr(ssl, name) for name in FOLLOWED]
    return [list(vars(cls).items()) for cls in first + present]

def warned(call, *args, **kwargs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*args, **kwargs)
    return [str(w.message) for w in caught if "PatchWarning" in w.category.__name__]

def refusal(context):
    before = dict(vars(context))
    try:
        pykeyupdate.manage(context)
    except TypeError as error:
        assert vars(context) == before
        return str(error)
    raise AssertionError("not refused")

def make_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(TRUST)
    return context

def connect(context):
    plain = socket.create_connection(("127.0.0.1", PORT), timeout=20)
    return context.wrap_socket(plain, server_hostname="localhost")

def echo(tls):
    tls.sendall(b"data")
    assert tls.recv(4) == b"data"

def is_managed(conn):
    try:
        return bool(pykeyupdate.stats(conn))
    except pykeyupdate.NotManagedError:
        return False

def connects(context, *, managed, methods):
    "Have a real connection change its keys; the test looks whether its peer heard it."
    with connect(context) as tls:
        pykeyupdate.rekey(tls)
        echo(tls)
        assert is_managed(tls) is managed
        assert hasattr(tls, "key_update") is methods
        time.sleep(PAUSE)
        if methods:
            tls.key_update()
        echo(tls)

"""

FIRST, BETWEEN = "patch(); load()", "load(); patch()"
# What comes before ssl is imported, and what after. ssl's own socket class derives from
# that of the library if the library came first, as it should.
orders = pytest.mark.parametrize(
    ("first", "order"), [("patch()\n", "load()"), ("", FIRST), ("", BETWEEN)]
)


@pytest.fixture
def start(trust_file, tmp_path):
    """Start a program, whose peer is at a port.

    The library is not imported here, where install() would find its classes.
    """

    def start_program(name, port, *parts, first=""):
        missing = importlib.util.find_spec(name) is None
        if missing and not os.environ.get("PYKEYUPDATE_REQUIRE_LIBRARIES"):
            pytest.skip(f"{name} is not installed")
        pause = f"PAUSE = {2 * pace.interval()}\n"  # between two updates
        path = tmp_path / "program.py"
        head = f"LIBRARY = {name!r}\n", pause, PATCH, first, BEGINNING
        path.write_text("".join((*head, *parts)))
        command = [sys.executable, path, str(port), trust_file]
        return subprocess.Popen(command, stdout=subprocess.PIPE)

    return start_program


@pytest.fixture
def run(make_server, start):
    """Run a program; return how often its peer has heard of new keys."""

    def run_program(name, program, **options):
        server, _ = make_server("tls13")
        with start(name, server.address[1], program, **options) as process:
            assert process.wait(60) == 0
        return server.said("server", "received").count(NOT_REQUESTED)

    return run_program


# -- gevent and eventlet: no managed sockets -------------------------------------------

green = pytest.mark.parametrize("name", ["gevent", "eventlet"])


@green
@orders
def test_management_is_refused_at_once(run, name, first, order):
    heard = run(
        name,
        f"""
{order}
before = content()
for _ in range(2):
    for keywords in {{"managed": True}}, {{"policy": pykeyupdate.RekeyPolicy.tiny()}}:
        said, = warned(pykeyupdate.install, **keywords)
        assert "did nothing" in said and LIBRARY in said and "rekey()" in said, said
        assert content() == before
        assert not pykeyupdate.is_installed()
context = make_context()
said = refusal(context)
assert LIBRARY in said and "rekey()" in said, said
connects(context, managed=False, methods=False)
assert warned(pykeyupdate.uninstall) == []
assert content() == before
""",
        first=first,
    )
    assert heard == 1


@green
@orders
def test_the_methods_work(run, name, first, order):
    heard = run(
        name,
        f"""
{order}
before = content()
context = make_context()
with connect(context) as open_already:
    assert warned(pykeyupdate.install) == []
    assert pykeyupdate.is_installed()
    open_already.key_update()
    echo(open_already)
connects(context, managed=False, methods=True)
pykeyupdate.uninstall()
assert not pykeyupdate.is_installed()
assert content() == before
""",
        first=first,
    )
    assert heard == 3


@green
def test_a_context_managed_before_the_patch_says_why_it_makes_no_sockets(run, name):
    """`ssl`'s own makes none either, and says something else."""
    run(
        name,
        """
load()
old = make_context()
pykeyupdate.manage(old)
patch()
near, far = socket.socketpair()
try:
    old.wrap_socket(near, server_hostname="localhost")
except TypeError as error:
    assert "let that patch ssl before" in str(error), error
else:
    raise AssertionError("made")
""",
    )


@green
def test_patched_after_install(run, name):
    """Nothing tells us then; all can be told and put right with the next call."""
    heard = run(
        name,
        """
load()
original = content()[:3]
old = make_context()
assert warned(pykeyupdate.install, managed=True) == []
assert pykeyupdate.is_installed()
patch()
assert not pykeyupdate.is_installed() or LIBRARY == "eventlet"
assert LIBRARY in refusal(make_context())
assert LIBRARY in refusal(old)
said, = warned(pykeyupdate.install, managed=True)
assert "did nothing" in said and LIBRARY in said, said
said, = warned(pykeyupdate.install)
assert "managed no longer" in said and LIBRARY in said, said
assert pykeyupdate.is_installed()
connects(make_context(), managed=False, methods=True)
assert warned(pykeyupdate.uninstall) == []
assert not pykeyupdate.is_installed()
assert content()[:3] == original
assert not any(hasattr(getattr(ssl, name), "key_update") for name in FOLLOWED)
connects(make_context(), managed=False, methods=False)
""",
    )
    assert heard == 3


@green
def test_patched_in_a_block(run, name):
    run(
        name,
        """
load()
before = content()[:3]
with pykeyupdate.installed():
    patch()
    with pykeyupdate.installed():
        assert pykeyupdate.is_installed()
assert content()[:3] == before
assert not pykeyupdate.is_installed()
assert not hasattr(ssl.SSLSocket, "key_update")
""",
    )


@green
@orders
def test_objects_can_be_managed_alone(run, name, first, order):
    """As the refusals say."""
    heard = run(
        name,
        f"""
{order}
context = make_context()
context.sslobject_class = pykeyupdate.SSLObject
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
plain = socket.create_connection(("127.0.0.1", PORT), timeout=20)
def step(function, *arguments):
    while True:
        try:
            return function(*arguments)
        except ssl.SSLWantReadError:
            plain.sendall(outgoing.read())
            incoming.write(plain.recv(65536))
step(tls.do_handshake)
assert pykeyupdate.stats(tls)
pykeyupdate.rekey(tls)
tls.write(b"data")
assert step(tls.read, 4) == b"data"
plain.close()
""",
        first=first,
    )
    assert heard == 1


@green
def test_their_contexts_without_a_patch(run, name):
    run(
        name,
        """
load()
if LIBRARY == "gevent":
    from gevent.ssl import SSLContext
else:
    from eventlet.green.ssl import SSLContext
assert LIBRARY in refusal(SSLContext(ssl.PROTOCOL_TLS_CLIENT))
said, = warned(pykeyupdate.install, managed=True)
assert "not reach" in said and LIBRARY in said, said
connects(make_context(), managed=True, methods=True)
pykeyupdate.uninstall()
""",
    )


# -- truststore: a context inside another ----------------------------------------------

has_truststore = pytest.mark.skipif(
    sys.version_info < (3, 10), reason="truststore needs Python 3.10"
)


@has_truststore
@pytest.mark.parametrize("order", [FIRST, BETWEEN, "load(); import truststore"])
def test_truststore_is_followed(run, order):
    """Its classes verify certificates, after the handshake on some systems."""
    heard = run(
        "truststore",
        f"""
{order}
import truststore
verified = []
inside = sys.modules[truststore.SSLContext.__module__]
verify = inside._verify_peercerts_impl
inside._verify_peercerts_impl = lambda *args, **rest: verified.append(args)
context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.load_verify_locations(TRUST)
connect(context).close()
usual = len(verified)
for policy in None, pykeyupdate.RekeyPolicy(sent_records=2, min_interval_seconds=0):
    pykeyupdate.manage(context, policy=policy)
    verified.clear()
    connect(context).close()
    assert len(verified) == usual > 0
    connects(context, managed=True, methods=True)
with connect(context) as tls:
    for _ in range(20):
        echo(tls)
        time.sleep(PAUSE)
    assert pykeyupdate.stats(tls).counts.key_updates_sent > 3
inside._verify_peercerts_impl = verify  # on Windows it alone verifies
wrong = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
pykeyupdate.manage(wrong)
try:
    connect(wrong)
except ssl.SSLCertVerificationError:
    pass
else:
    raise AssertionError("not verified")
assert not pykeyupdate.is_installed()
""",
    )
    assert heard > 8


@has_truststore
def test_truststore_injected_before_install(run):
    heard = run(
        "truststore",
        """
load()
old = make_context()
patch()
before = content()
said, = warned(pykeyupdate.install, managed=True)
assert "did nothing" in said and "truststore" in said and "manage()" in said, said
assert content() == before
assert warned(pykeyupdate.install) == []
connects(make_context(), managed=False, methods=True)
context = make_context()
pykeyupdate.manage(context)
connects(context, managed=True, methods=True)
pykeyupdate.manage(old)
connects(old, managed=True, methods=True)
pykeyupdate.uninstall()
assert content() == before
""",
    )
    assert heard == 6


@has_truststore
def test_truststore_injected_after_install(run):
    heard = run(
        "truststore",
        """
load()
before = content()[:3]
old = make_context()
assert warned(pykeyupdate.install, managed=True) == []
import truststore
said, = warned(pykeyupdate.install, managed=True)
assert "not reach" in said and "truststore" in said, said
patch()
connects(make_context(), managed=False, methods=True)
connects(old, managed=True, methods=True)
said, = warned(pykeyupdate.install)
assert "managed no longer" in said and "truststore" in said, said
context = make_context()
pykeyupdate.manage(context)
connects(context, managed=True, methods=True)
assert warned(pykeyupdate.uninstall) == []
assert content()[:3] == before
truststore.extract_from_ssl()
connects(make_context(), managed=False, methods=False)
""",
    )
    assert heard == 7


CLIENTS = {
    "urllib3": """
import urllib3
with urllib3.PoolManager(ssl_context=context) as pool:
    for last in False, True:
        response = pool.urlopen("GET", URL, preload_content=False)
        half(response.read(1000), response, last)
        response.read()
        response.release_conn()
""",
    "requests": """
import requests.adapters
class Adapter(requests.adapters.HTTPAdapter):
    def init_poolmanager(self, *arguments, **keywords):
        super().init_poolmanager(*arguments, ssl_context=context, **keywords)
with requests.Session() as session:
    session.mount("https://", Adapter())
    session.verify, session.trust_env = TRUST, False
    for last in False, True:
        response = session.get(URL, stream=True)
        half(response.raw.read(1000), response, last)
        response.raw.read()
""",
    "httpx": """
import httpx
with httpx.Client(verify=context, trust_env=False) as client:
    for last in False, True:
        with client.stream("GET", URL) as response:
            chunks = response.iter_raw(1000)
            half(next(chunks), response, last)
            assert len(b"".join(chunks)) > 1000
""",
    "aiohttp": """
import aiohttp
from pykeyupdate import aio
async def main():
    async with aiohttp.ClientSession() as session:
        for last in False, True:
            async with session.get(URL, ssl=context) as response:
                assert await response.content.readexactly(1000)
                if not last:  # which may be all here already, and let go of
                    assert is_managed(response)
                    await aio.rekey(response)
                print("go", flush=True)
                await response.read()
asyncio.run(main())
""",
}

HALF = """
def half(data, response, last):
    assert data
    if not last:
        assert is_managed(response)
        pykeyupdate.rekey(response)
    print("go", flush=True)

"""


@has_truststore
@pytest.mark.parametrize("version", ["tls13"])
@pytest.mark.parametrize("order", [FIRST, BETWEEN])
@pytest.mark.parametrize("client", CLIENTS)
def test_truststore_under_http_clients(https, new_keys, library, start, client, order):
    library(client)
    server, _ = https
    managed = "\ncontext = make_context()\npykeyupdate.manage(context)\n"
    parts = order, managed, HALF, CLIENTS[client]
    with start("truststore", server.server_port, *parts) as process:
        for line in process.stdout:
            assert line.strip() == b"go"
            server.go.set()
    assert process.returncode == 0
    assert server.connections == 1
    assert new_keys(server)
