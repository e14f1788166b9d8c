"""_describing.py: the peer, the label and the repr() of managed connections."""

import asyncio
import contextlib
import copy
import gc
import logging
import os
import pickle
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import weakref

import pytest
from support.frameworks import Asyncio, Uvloop
from support.link import write_nothing
from support.sockets import close_with_reset
from support.wire import Wire

import pykeyupdate
from pykeyupdate import PeerLimits, RekeyPolicy, aio

FAMILIES = [
    pytest.param(socket.AF_INET, "127.0.0.1", id="IPv4"),
    pytest.param(socket.AF_INET6, "::1", id="IPv6"),
]


@pytest.fixture
def listen():
    with contextlib.ExitStack() as stack:

        def make(family, *address):
            listener = stack.enter_context(socket.socket(family))
            listener.bind(*address)
            listener.listen()
            listener.settimeout(20)
            return listener

        yield make


@pytest.fixture
def wrap(make_contexts, threads):
    """Make both ends of a connection through a listener."""
    with contextlib.ExitStack() as stack:

        def make(listener, begin):
            """``begin(context)`` returns the client's end, connected."""
            client, server = make_contexts("tls13")
            for context in (client, server):
                pykeyupdate.manage(context)
            ends = []

            def accept():
                plain, _ = listener.accept()
                ends.append(server.wrap_socket(plain, server_side=True))

            accepted = threads.start(accept)
            near = stack.enter_context(begin(client))
            accepted()
            return near, stack.enter_context(ends[0])

        yield make


def wrap_connected(listener, **more):
    def begin(context):
        plain = socket.socket(listener.family)
        plain.connect(listener.getsockname())
        return context.wrap_socket(plain, server_hostname="localhost", **more)

    return begin


def connect_wrapped(listener, **more):
    def begin(context):
        plain = socket.socket(listener.family)
        tls = context.wrap_socket(plain, server_hostname="localhost", **more)
        assert tls.peer is None
        assert "peer" not in repr(tls)
        tls.connect(listener.getsockname())
        return tls

    return begin


# -- sockets ---------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "host"), FAMILIES)
@pytest.mark.parametrize("begin", [wrap_connected, connect_wrapped])
def test_a_socket_remembers_its_peer(listen, wrap, family, host, begin):
    try:
        listener = listen(family, (host, 0))
    except OSError as error:
        pytest.skip(str(error))
    near, far = wrap(listener, begin(listener))
    for end, other in ((near, far), (far, near)):
        assert end.peer == end.getpeername() == other.getsockname()
    host = f"[{host}]" if ":" in host else host
    text = f"peer {host}:{near.peer[1]}, "
    assert text in repr(near)
    close_with_reset(far)
    with contextlib.suppress(OSError):
        while near.recv(1000):
            pass
    near.close()
    assert text in repr(near)
    assert repr(near).endswith(", closed>")


def test_only_one_question_is_asked_of_the_system(listen, wrap, monkeypatch):
    asked = []

    class Counted(pykeyupdate.SSLSocket):
        def getpeername(self):
            asked.append(self)
            return super().getpeername()

    def begin(context):
        context.sslsocket_class = Counted
        return wrap_connected(listener)(context)

    listener = listen(socket.AF_INET, ("127.0.0.1", 0))
    near, _ = wrap(listener, begin)
    assert near.peer == listener.getsockname()
    assert asked == [near]  # by ssl itself


def test_a_socket_of_a_path_or_of_none(listen, wrap, tmp_path, connect):
    if hasattr(socket, "AF_UNIX") and sys.platform != "win32":
        path = str(tmp_path / "s")
        listener = listen(socket.AF_UNIX, path)
        near, far = wrap(listener, wrap_connected(listener))
        assert (near.peer, far.peer) == (path, "")
        assert f"peer {path}," in repr(near)
        assert "peer" not in repr(far)
        if sys.platform == "linux":
            listener = listen(socket.AF_UNIX, b"\0ab" + path.encode()[-20:])
            near, far = wrap(listener, wrap_connected(listener))
            assert near.peer == near.getpeername()
            assert type(near.peer) is bytes
            assert f"peer {near.peer!r}," in repr(near)


@pytest.mark.skipif(sys.platform != "linux", reason="needs such paths")
def test_no_name_ends_a_line_of_the_log(listen, wrap, tmp_path, monkeypatch):
    """A peer chooses its path; some programs have hosts from their users."""
    monkeypatch.chdir(tmp_path)
    listener = listen(socket.AF_UNIX, "s")
    path = "x\nCRITICAL fake\x1b[31m\udcff"

    def begin(context):
        context.check_hostname = False
        plain = socket.socket(socket.AF_UNIX)
        plain.bind(path)
        plain.connect("s")
        return context.wrap_socket(plain, server_hostname="a\nb")

    near, far = wrap(listener, begin)
    assert far.peer == path
    assert f"peer {path!r}," in repr(far)
    assert repr(near).isprintable()
    assert repr(far).isprintable()


def test_a_program_may_use_the_name_for_itself(connect):
    near, far = connect()
    before, address = repr(near), near.peer
    near.peer = far
    assert near.peer is far
    assert repr(near) == before
    del near.peer
    assert near.peer == address


@pytest.mark.parametrize("name", ["SSLSocket", "SSLObject"])
def test_help_describes_the_peer_and_the_label(name):
    """In a process of its own, because ``help()`` changes ``ssl``'s classes."""
    program = f"import pykeyupdate; help(pykeyupdate.{name})"
    text = subprocess.check_output([sys.executable, "-c", program], encoding="utf-8")
    text = text.replace(os.linesep, "\n")
    assert " |  peer\n |      The peer's address as ``getpeername()`` gives it" in text
    assert " |  label\n |      The program's own name for the connection" in text
    assert "pykeyupdate._describing._" not in text


def test_it_takes_little_memory(listen, wrap):
    """10,000 of them must not cost a server a megabyte."""
    listener = listen(socket.AF_INET, ("127.0.0.1", 0))
    near, _ = wrap(listener, wrap_connected(listener))
    assert sys.getsizeof(near._peer) <= sys.getsizeof(b"") + 15


# -- the text --------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["tls13", "tls12"])
@pytest.mark.parametrize("kind", ["object", "socket"])
def test_it_names_role_version_and_cipher(make_contexts, version, kind, role):
    wire = Wire(make_contexts(version), kind, role)
    whose = "server" if role == "server" else "client of localhost"
    name = "SSLObject" if kind == "object" else "SSLSocket"
    assert f"<pykeyupdate.{name} {whose}, no handshake yet, " in repr(wire.end)
    wire.handshake()
    cipher = wire.end.cipher()[0]
    assert f" {whose}, {wire.end.version()}, {cipher}, " in repr(wire.end)
    wire.close()
    if kind == "socket":
        without_peer = re.sub(", peer [^,]+", "", repr(wire.end))  # of a TCP pair
        assert f"{whose}, no TLS, closed>" in without_peer


def test_it_waits_for_no_other_thread(connect, threads):
    """Not for one that waits for data, nor for one that is inside OpenSSL."""
    inside, go_on = threading.Event(), threading.Event()
    armed = []

    def callback(*arguments):
        if armed:
            inside.set()
            assert go_on.wait(20)

    def setup(client, server):
        client._msg_callback = callback

    near, _ = connect(setup=setup)
    armed.append(True)
    sent = threads.start(near.send, b"x")
    try:
        assert inside.wait(20)
        texts = []
        looker = threading.Thread(target=lambda: texts.append(repr(near)))
        looker.start()
        looker.join(5)
        assert not looker.is_alive()
        assert "TLSv1.3" in texts[0]
    finally:
        go_on.set()
        armed.clear()
        sent()


def test_a_label(make_wire):
    wire = make_wire(None)
    before = repr(wire.end)
    assert wire.end.label is None
    wire.end.label = "upstream"
    assert wire.end.label == "upstream"
    assert ", 'upstream', " in repr(wire.end)
    with pytest.raises(TypeError) as refused:
        wire.end.label = 3
    assert str(refused.value) == (
        f"the label of {wire.end!r} must be a str or None, not 3: set `str(...)` of "
        "it, or a name of your own"
    )
    assert wire.end.label == "upstream"
    wire.end.label = None
    assert repr(wire.end) == before


def test_a_long_label_is_cut_in_the_text_alone(make_wire):
    wire = make_wire(None)
    for length in (200, 201, 10**6):
        wire.end.label = "x" * length
        assert wire.end.label == "x" * length
        shown = "x" * 200 + "'" + ("..." if length > 200 else "")
        assert f", '{shown}, " in repr(wire.end)


def test_a_label_of_a_derived_class_is_its_text(make_wire):
    class Strange(str):
        __slots__ = ()

        def __repr__(self):
            raise AssertionError

        __str__ = __eq__ = __hash__ = __format__ = __repr__

    wire = make_wire(None)
    wire.end.label = Strange("a\nb")
    assert type(wire.end.label) is str
    assert r", 'a\nb', " in repr(wire.end)


def test_errors_have_the_description_and_no_text_to_parse(make_contexts):
    wire = Wire(
        make_contexts("tls12"), "object", "client", policy=RekeyPolicy(sent_bytes=3)
    )
    wire.handshake()
    wire.end.label = "mine"
    wire.write(b"abc")
    with pytest.raises(pykeyupdate.RekeyImpossibleError) as caught:
        wire.end.write(b"more")
    assert repr(wire.end) in str(caught.value)
    for error in (
        caught.value,
        copy.copy(caught.value),
        pickle.loads(pickle.dumps(caught.value)),
    ):
        assert error.reason == "renegotiation_not_allowed"


# -- event loops -----------------------------------------------------------------------


async def connected(framework, contexts, use):
    """Use a managed client's stream; return what that gives."""

    async def serve(stream):
        with contextlib.suppress(Exception):
            while data := await stream.receive():
                await stream.send(data)

    client, server = contexts
    pykeyupdate.manage(client)
    async with framework.serving(server, serve) as address:
        stream = await framework.connect(address, client)
        try:
            return await use(stream, address)
        finally:
            await stream.close()


def managed(stream):
    """Return the managed object under a stream."""
    from pykeyupdate._finding import find_connection

    return find_connection(stream.conn, "test").tls


@pytest.mark.parametrize("how", ["label", "first call"])
def test_an_object_takes_its_peer_from_what_carries_it(framework, make_contexts, how):
    async def use(stream, address):
        conn = managed(stream)
        is_asyncios = type(framework) is Asyncio
        assert (conn.peer is not None) == is_asyncios
        if how == "label":
            aio.label(stream.conn, "mine")
            assert conn.label == "mine"
            aio.label(stream.conn)
            assert conn.label == "mine"
        else:
            await aio.rekey(stream.conn)
            assert conn.label is None
        assert conn.peer[:2] == tuple(address)[:2]
        assert f"peer {address[0]}:{address[1]}, " in repr(conn)
        return conn

    async def main():
        return await connected(framework, make_contexts("tls13"), use)

    conn = framework.run(main)
    assert conn.peer is not None  # though it is closed


def test_a_label_takes_a_managed_connection(make_contexts):
    async def use(stream, address):
        with pytest.raises(pykeyupdate.NotATLSConnectionError, match="label"):
            aio.label(object())
        with pytest.raises(TypeError, match="must be a str or None, not b'bytes'"):
            aio.label(stream.conn, b"bytes")

    async def main():
        contexts = make_contexts("tls13")
        await connected(framework, contexts, use)

    framework = Asyncio()
    framework.run(main)


def test_an_unmanaged_connection_is_refused(make_link):
    link = make_link("tls13")
    with pytest.raises(pykeyupdate.NotManagedError, match="not a managed connection"):
        aio.label(link.client, "name")


def test_a_label_keeps_no_transport_alive(make_contexts):
    framework = Asyncio()
    references = []

    async def use(stream, address):
        aio.label(stream.conn, "mine")
        references.append(weakref.ref(stream.conn.transport))
        return managed(stream)

    async def main():
        return await connected(framework, make_contexts("tls13"), use)

    conn = framework.run(main)
    deadline = time.monotonic() + 10
    while references[0]() is not None and time.monotonic() < deadline:
        time.sleep(0.01)  # something of asyncio's may hold it a moment longer
        gc.collect()
    assert references[0]() is None
    assert conn.peer is not None


@pytest.mark.parametrize("kind", [Asyncio, Uvloop])
def test_a_flooder_is_named_in_the_log_and_in_the_event(make_contexts, kind, caplog):
    try:
        framework = kind()
        framework.new_event_loop().close()
    except ImportError as error:
        pytest.skip(str(error))
    client, server = make_contexts("tls13")
    pykeyupdate.manage(server, limits=PeerLimits(key_updates_in_a_row=4))
    events, address = [], []

    async def serve(reader, writer):
        if kind is Uvloop:
            aio.label(writer)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await reader.read(100)
        writer.close()

    def flood(to):
        with socket.create_connection(to) as plain:
            with client.wrap_socket(plain, server_hostname="localhost") as tls:
                address.append(tls.getsockname())
                with contextlib.suppress(OSError):
                    for _ in range(5):
                        pykeyupdate.key_update(tls)
                        write_nothing(tls)
                    tls.recv(1)

    async def main():
        made = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
        to = made.sockets[0].getsockname()
        await asyncio.get_running_loop().run_in_executor(None, flood, to)
        made.close()

    remove = pykeyupdate.on_event(events.append)
    caplog.set_level(logging.WARNING, "pykeyupdate")
    try:
        framework.run(main)
    finally:
        remove()
    cut = next(it for it in events if it.kind is pykeyupdate.EventKind.CUT_OFF)
    assert cut.limit == "key_updates_in_a_row"
    assert cut.connection.peer == address[0]
    record = next(it for it in caplog.records if it.levelno == logging.WARNING)
    text = "{}:{}".format(*address[0])
    assert f"server, TLSv1.3, {cut.connection.cipher()[0]}, peer {text}, " in (
        record.getMessage()
    )
    assert record.connection == repr(cut.connection)
    assert (record.peer, record.label) == (text, None)
    assert (record.event, record.reason) == ("CUT_OFF", None)
    assert record.limit == "key_updates_in_a_row"
