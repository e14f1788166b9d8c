"""README.md: runs its code, compares its outputs, checks its commands and tables."""

import ast
import asyncio
import contextlib
import dataclasses
import io
import json
import logging
import queue
import re
import shlex
import signal
import socket
import ssl
import sys
import threading
from pathlib import Path

import pytest
import trustme
from support import pace
from support.link import NOT_REQUESTED, REQUESTED, Witness
from support.servers import Server
from support.wire import Wire

import pykeyupdate
from pykeyupdate import _cli
from pykeyupdate._cli import ctl

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
PROGRAM, LIBRARY, REQUEST, ASYNCIO, UVICORN, POLICY, INCIDENT = PYTHON[:7]
JSON, CONTROL, IDLE, MANAGE, THREADS = PYTHON[7:]


@pytest.fixture
def example_org(monkeypatch):
    """An example.org of our own that answers anything, and what it saw."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("example.org").configure_cert(context)
    witness = Witness()
    witness.watch("server", context)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        requests = []

        def serve():
            plain, _ = listener.accept()
            plain.settimeout(20)
            with context.wrap_socket(plain, server_side=True) as tls:
                while data := tls.recv(1000):
                    requests.append(data)
                    tls.sendall(b"answer")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address, connect = listener.getsockname(), socket.create_connection

        def create_connection(wanted):
            assert wanted == ("example.org", 443)
            return connect(address)

        def create_default_context():
            client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            authority.configure_trust(client)
            return client

        monkeypatch.setattr(socket, "create_connection", create_connection)
        monkeypatch.setattr(ssl, "create_default_context", create_default_context)
        yield address, create_default_context(), witness, requests, thread
        thread.join(20)


def test_first_program_prints_what_the_readme_says(example_org, capsys):
    _, _, witness, requests, thread = example_org
    names = {}
    try:
        exec(PROGRAM, names)
        assert names["tls"].recv(100) == b"answer"
        pace.wait()
        exec(LIBRARY, names)
        names["tls"].do_handshake()
        pace.wait()
        exec(REQUEST, names)
    finally:
        names["tls"].close()
        pykeyupdate.uninstall()
    thread.join(20)
    expected = next(text for kind, text in BLOCKS if kind == "text")
    assert capsys.readouterr().out == expected
    assert [name for name in witness.said("server", "received") if "Key" in name] == [
        *[NOT_REQUESTED] * 2,
        REQUESTED,
    ]
    assert requests == [b"GET / HTTP/1.0\r\nHost: example.org\r\n\r\n"]


def test_asyncio_function_updates_before_its_data(example_org):
    (host, port), context, witness, requests, thread = example_org
    names = {"pykeyupdate": pykeyupdate}
    exec(ASYNCIO, names)

    async def talk():
        reader, writer = await asyncio.open_connection(
            host, port, ssl=context, server_hostname="example.org"
        )
        await names["rekey_and_send"](writer, b"hello")
        assert await reader.read(100) == b"answer"
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        writer.close()
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            await writer.wait_closed()

    asyncio.run(talk())
    thread.join(20)
    assert witness.said("server", "received")[-1] == NOT_REQUESTED
    assert requests == [b"hello"]


def test_a_reader_thread_and_a_writer_on_a_managed_socket(example_org):
    _, context, witness, requests, _ = example_org
    names = {"socket": socket, "pykeyupdate": pykeyupdate, "context": context}
    try:
        exec(MANAGE, names)
    finally:
        pykeyupdate.uninstall()
    exec(THREADS, names)
    got = queue.Queue()
    before = set(threading.enumerate())
    tls = names["start"](context, ("example.org", 443), "example.org", got.put)
    assert type(tls) is pykeyupdate.SSLSocket
    with tls:
        for number in range(3):
            pykeyupdate.rekey(tls)
            tls.sendall(b"%d" % number)
            assert got.get(timeout=20) == b"answer"
            pace.wait()
        (reader,) = set(threading.enumerate()) - before
    reader.join(20)
    assert not reader.is_alive()
    assert witness.said("server", "received").count(NOT_REQUESTED) == 3
    assert requests == [b"0", b"1", b"2"]


def test_one_line_for_the_process_and_new_keys_everywhere(example_org, capsys):
    _, context, witness, _, _ = example_org
    try:
        exec(POLICY, {})
        with context.wrap_socket(
            socket.create_connection(("example.org", 443)),
            server_hostname="example.org",
        ) as tls:
            assert type(tls) is pykeyupdate.SSLSocket
            assert pykeyupdate.stats(tls).sent.most_bytes == 10**11
            names = {}
            exec(INCIDENT, names)
            names["new_keys_everywhere"]()
            tls.sendall(b"hello")
            assert tls.recv(100) == b"answer"
    finally:
        pykeyupdate.uninstall()
    assert witness.said("server", "received").count(NOT_REQUESTED) == 1
    said = r"(\d+) have new keys, \d+ get them with their next I/O\n(\{.*\}\n)?"
    assert int(re.fullmatch(said, capsys.readouterr().out)[1]) >= 1


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
def test_two_lines_for_acting_from_outside(tmp_path):
    before = signal.getsignal(signal.SIGUSR2)
    names = {}
    try:
        exec(CONTROL.replace("/run/app", str(tmp_path)), names)
        assert signal.getsignal(signal.SIGUSR2) != before
        (shell,) = [text for kind, text in BLOCKS if "ctl" in text and kind == "sh"]
        for line in shell.splitlines()[1:]:
            arguments = [names["serving"].path, *shlex.split(line)[1:]]
            chosen = ctl.parser().parse_args(arguments)
            if chosen.command not in ("follow", "top"):
                assert ctl.main(arguments) == 0
    finally:
        signal.signal(signal.SIGUSR2, before)
        names["serving"].close()


def test_a_server_that_keeps_idle_keys_fresh(make_contexts):
    client, context = make_contexts("tls13")
    witness = Witness()
    witness.watch("client", client)
    names = {}
    exec(IDLE.replace("3600", "1").replace("8443", "0"), names)

    async def talk():
        server = await names["serve"](context)
        host, port = server.sockets[0].getsockname()[:2]
        reader, writer = await asyncio.open_connection(
            host, port, ssl=client, server_hostname="localhost"
        )
        await asyncio.sleep(2.5)
        assert witness.said("client", "received").count(NOT_REQUESTED) == 2
        writer.write(b"hello")
        assert await reader.read(100) == b"hello"
        writer.close()
        server.close()

    asyncio.run(talk())


NGINX = b"HTTP/1.1 200 OK\r\nServer: nginx/1.26.3\r\nContent-Length: 0\r\n\r\n"


def without_times(text):
    return re.sub(r"\d+(\.\d)? ms", "0 ms", text).split()


def test_probe_prints_what_the_readme_says(monkeypatch, capsys):
    """But for the times, and where they break its lines."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("example.org").configure_cert(context)

    def answer(tls):
        while tls.recv(1000):
            tls.sendall(NGINX)

    server = Server(context, answer)

    def create_connection(wanted, timeout):
        assert wanted == ("example.org", 443)
        return connect(server.address, timeout)

    def create_default_context():
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(client)
        return client

    connect = socket.create_connection
    with monkeypatch.context() as patch:
        patch.setattr(socket, "create_connection", create_connection)
        patch.setattr(ssl, "create_default_context", create_default_context)
        patch.setenv("COLUMNS", "80")
        assert _cli.main(["probe", "example.org"]) == 0
    server.close()
    (block,) = [text for kind, text in BLOCKS if kind == "console"]
    command, _, expected = block.partition("\n")
    assert command == "$ pykeyupdate probe example.org"
    assert without_times(capsys.readouterr().out) == without_times(expected)


def test_the_table_of_commands_has_all():
    text = README.read_text("utf-8")
    for command in _cli.COMMANDS:
        assert re.search(rf"^\| `{command}[ `]", text, re.MULTILINE), command


def test_tables_of_rules_have_the_defaults():
    text = README.read_text("utf-8")
    for rules in (pykeyupdate.RekeyPolicy(), pykeyupdate.PeerLimits()):
        for field in dataclasses.fields(rules):
            (row,) = re.findall(rf"^\|[^|]*`{field.name}`.*$", text, re.MULTILINE)
            names, defaults = (cell.strip() for cell in row.split("|")[1:3])
            found = [ast.literal_eval(part.strip("` ")) for part in defaults.split(",")]
            place = re.findall(r"`(\w+)`", names).index(field.name)
            assert found[place % len(found)] == getattr(rules, field.name)


def test_first_screen_is_one_screen():
    first = README.read_text("utf-8").split("\n## ")[0].splitlines()
    assert len(first) <= 30
    assert len([line for line in PROGRAM.splitlines() if line.strip()]) <= 8


def test_tables_name_what_exists_and_all_of_it():
    text = README.read_text("utf-8")
    for name in pykeyupdate.__all__:
        assert f"`{name}" in text or f"{name}(" in text or name == "PatchWarning", name


def test_links_work_on_pypi_too():
    """It has this page and no other file."""
    text = README.read_text("utf-8")
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {
        "#" + re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
        for heading in headings
    }
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert not {link for link in links if not link.startswith("https://")} - anchors


def test_log_lines_are_json_with_fields(make_contexts, monkeypatch):
    contexts = make_contexts("tls13")
    limits = pykeyupdate.PeerLimits(key_updates=0)
    wire = Wire(contexts, "object", "server", limits=limits).handshake()
    wire.end.label = "mine"
    logger = logging.getLogger("pykeyupdate")
    monkeypatch.setattr(logger, "handlers", [])
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    exec(JSON, {})
    pykeyupdate.key_update(wire.peer)
    with pytest.raises(pykeyupdate.PeerLimitError):
        wire.peer_writes(b"data")
    (line,) = map(json.loads, written.getvalue().splitlines())
    assert line.pop("message").startswith(repr(wire.end))
    assert line == {
        "level": "WARNING",
        "event": "CUT_OFF",
        "reason": None,
        "limit": "key_updates",
        "peer": None,
        "label": "mine",
        "connection": repr(wire.end),
    }
