"""``pykeyupdate serve`` with real clients."""

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading

import pytest
from support import pace
from support.waiting import eventually

from pykeyupdate._cli import serve as serve_command

NODE = """
const https = require("https"), fs = require("fs");
const agent = new https.Agent({keepAlive: true, maxSockets: 1});
const ca = fs.readFileSync(process.argv[1]);
const get = path => new Promise(done => https.get(
    {host: "localhost", port: process.argv[2], path, agent, ca},
    answer => answer.on("data", text => console.log(String(text))).on("end", done)));
(async () => {
    for (const path of ["/rekey", "/request", "/rekey"]) await get(path);
    process.exit();
})();
"""


PAGE = """
<script>
(async () => {{
    const said = [];
    for (const path of ["rekey", "request", "rekey", ""])
        said.push((await fetch("https://localhost:{port}/" + path,
                               {{mode: "no-cors"}})).type);
    document.title = said.join();
}})();
</script>
"""


@pytest.fixture
def client_program(program):
    """Start a client that not every machine has, which ``.ci/run`` does not install."""

    def start(name, *arguments):
        if not shutil.which(name) and not os.environ.get("PYKEYUPDATE_REQUIRE_SERVERS"):
            pytest.skip(f"{name} is not installed")
        return program(name, *arguments)

    return start


@pytest.fixture
def serve(program, pem, free_port):
    """Start it; give the program and its port."""
    pytest.importorskip("termios")  # a key is one byte of a pipe anywhere else, too

    def start(*options):
        command = [sys.executable, "-u", "-m", "pykeyupdate", "serve", free_port]
        files = ["--cert", pem[1], "--cafile", pem[0]]
        server = program(*command, *files, *options)
        server.wait_for("keys:")
        return server, free_port

    return start


def closed(server, number=1):
    """Wait until a client has gone, and return what was done to it."""
    line = re.compile(rf"\[{number}\] closed; (.*)\n")
    said = eventually(lambda: line.search(server.output))
    return [int(count) for count in re.findall(r"\d+", said[1])]


def ask(port, pem, paths, version=None, certificate=None):
    context = ssl.create_default_context(cafile=pem[0])
    context.post_handshake_auth = True
    if version:
        context.maximum_version = version
    if certificate:
        context.load_cert_chain(certificate)
    connection = http.client.HTTPSConnection(
        "localhost", int(port), context=context, timeout=20
    )
    answers = []
    for path in paths:
        connection.request("GET", path)
        answers.append(connection.getresponse().read().decode())
    connection.close()
    return answers


def test_python(serve, pem):
    pace.skip_if_kept()
    server, port = serve()
    paths = ["/rekey", "/request", "/renegotiate", "/certificate", "/", "/none"]
    answers = ask(port, pem, paths, certificate=pem[1])
    assert answers[0] == "sent new keys\n"
    assert answers[1] == "sent new keys, and asked for the client's\n"
    assert answers[2].startswith("TLS 1.3 has no renegotiation")
    assert answers[3].startswith("got the certificate with the SHA-256 fingerprint ")
    assert all(f"/{path}" in answers[4] for path in ("rekey", "request", "certificate"))
    assert answers[5] == "not here\n"
    server.wait_for("received KeyUpdate(update_not_requested), ")
    assert closed(server) == [2, 1, 0]


def test_python_with_tls_1_2(serve, pem):
    server, port = serve("--tls", "1.2")
    paths = ["/rekey", "/renegotiate", "/request", "/certificate"]
    answers = ask(port, pem, paths)
    assert answers[:2] == ["renegotiated\n"] * 2
    assert answers[2].startswith("KeyUpdate needs TLS 1.3")
    assert answers[3] == "asked for a certificate; the client has none\n"
    assert closed(server) == [0, 0, 3]


def test_curl(serve, client_program, pem):
    pace.skip_if_kept()
    server, port = serve()
    base = f"https://localhost:{port}"
    urls = [f"{base}{path}" for path in ("/rekey", "/request", "/rekey")]
    client = client_program("curl", "-sS", "--cacert", pem[0], *urls)
    client.wait_for("asked for the client's")
    sent, received, _ = closed(server)
    assert (sent, received) == (3, 1)


def test_node(serve, client_program, pem):
    server, port = serve()
    client = client_program("node", "-e", NODE, pem[0], port)
    client.wait_for("asked for the client's")
    assert closed(server)[:2] == [3, 1]


def test_chromium(serve, client_program, tmp_path):
    server, port = serve()
    page = tmp_path / "page.html"
    page.write_text(PAGE.format(port=port))
    options = "--no-sandbox --disable-gpu --ignore-certificate-errors --dump-dom"
    client = client_program(
        *("chromium-headless-shell", *options.split(), "--virtual-time-budget=8000"),
        *(f"--user-data-dir={tmp_path}", f"file://{page}"),
    )
    client.wait_for("<title>opaque,opaque,opaque,opaque</title>")
    client.close()
    assert closed(server)[:2] == [3, 1]


def test_s_client_and_keys(serve, program, pem):
    pace.skip_if_kept()
    server, port = serve()
    connect = ["s_client", "-quiet", "-connect", f"localhost:{port}"]
    client = program("openssl", *connect, "-CAfile", pem[0])
    client.type("hello")
    client.wait_for("hello")
    server.type("k")
    server.wait_for("[1] sent new keys\n")
    server.type("K")
    server.wait_for("asked for the client's")
    client.type("still here")
    client.wait_for("still here")
    server.wait_for("received KeyUpdate(update_not_requested), ")
    server.type("r")
    server.wait_for("TLS 1.3 has no renegotiation")
    server.type("q")


def test_gnutls_cli(serve, program, pem):
    server, port = serve()
    client = program("gnutls-cli", "--x509cafile", pem[0], "-p", port, "localhost")
    client.wait_for("Simple Client Mode")
    client.type("hello")
    client.wait_for("hello")
    server.type("K")
    server.wait_for("asked for the client's")
    client.type("still here")
    client.wait_for("still here")
    server.wait_for("received KeyUpdate(update_not_requested)")


def test_every(serve, pem):
    server, port = serve("--every", "0.2", "--action", "request")
    context = ssl.create_default_context(cafile=pem[0])
    with socket.create_connection(("localhost", int(port)), 20) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as tls:
            while server.output.count("received KeyUpdate") < 3:
                tls.sendall(b"x")
                assert tls.recv(1) == b"x"


def test_a_port_that_is_taken(program, pem):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        command = [sys.executable, "-m", "pykeyupdate", "serve", port, "--cert", pem[1]]
        said = program(*command).wait_for("\n")
    assert said.startswith(f"cannot listen on 127.0.0.1 port {port}: ")
    assert said.count("\n") == 1


def test_its_own_certificates(program, free_port):
    pytest.importorskip("trustme")
    server = program(sys.executable, "-u", "-m", "pykeyupdate", "serve", free_port)
    server.wait_for("keys:")
    ca = re.search(r"to be trusted by (\S+)", server.output)[1]
    assert ask(free_port, [ca], ["/rekey"]) == ["sent new keys\n"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_output_that_nobody_reads_any_more(serve, pem, program, free_port):
    """It ends although a thread prints."""
    reads, writes = os.pipe()
    command = [sys.executable, "-u", "-m", "pykeyupdate", "serve", free_port]
    pid = os.posix_spawn(
        sys.executable,
        [*command, "--cert", pem[1]],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, writes, 1)],
    )
    os.close(writes)
    try:
        said = b""
        while b"keys:" not in said:
            said += os.read(reads, 1000)
        os.close(reads)
        with pytest.raises((OSError, http.client.HTTPException)):
            ask(free_port, pem, ["/rekey"])
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 141
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise


def test_more_clients_than_it_has_room_for(program, pem, free_port):
    """They wait, and those that come later are served."""
    limited = "ulimit -n 30; exec " + " ".join(
        [
            sys.executable,
            "-u",
            "-m",
            "pykeyupdate",
            "serve",
            free_port,
            "--cert",
            pem[1],
        ]
    )
    server = program("sh", "-c", limited)
    server.wait_for("keys:")
    with contextlib.ExitStack() as crowd:
        for _ in range(40):
            one = socket.create_connection(("localhost", int(free_port)))
            crowd.enter_context(one)
        server.wait_for("[Errno 24]")
    assert ask(free_port, pem, ["/rekey"]) == ["sent new keys\n"]
    assert "Traceback" not in server.output


def test_a_certificate_that_has_gone(program, pem, free_port, tmp_path):
    own = tmp_path / "own.pem"
    shutil.copy(pem[1], own)
    command = [sys.executable, "-u", "-m", "pykeyupdate", "serve", free_port]
    server = program(*command, "--cert", str(own))
    server.wait_for("keys:")
    own.unlink()
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(free_port, pem, ["/"])
    server.wait_for("[1] 127.0.0.1: not served: cannot load the certificates")
    shutil.copy(pem[1], own)
    assert ask(free_port, pem, ["/rekey"]) == ["sent new keys\n"]


def test_a_key_that_is_no_utf_8(serve, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")
    server, _ = serve()
    server._process.stdin.write(b"\xffk")
    server.wait_for("no client is connected")
    server.type("q")
    assert server._process.wait(20) == 0


def test_keys_that_are_pressed_before_it_is_ready(pem):
    pytest.importorskip("termios")
    terminal, keyboard = os.openpty()
    os.write(terminal, b"kq")
    command = [sys.executable, "-m", "pykeyupdate", "serve", "0", "--cert", pem[1]]
    done = subprocess.run(
        command, stdin=keyboard, check=True, capture_output=True, text=True, timeout=30
    )
    os.close(terminal)
    os.close(keyboard)
    assert "no client is connected" in done.stdout


def test_a_host_that_is_no_utf_8(program, pem):
    command = [sys.executable, "-m", "pykeyupdate", "serve", "0", "--cert", pem[1]]
    said = program(*command, "--host", "\udcff").wait_for("\n")
    assert said.startswith("cannot listen on ")


@pytest.mark.skipif(sys.platform == "win32", reason="no process is told there")
def test_it_leaves_no_files_when_it_is_terminated(program, monkeypatch, tmp_path):
    pytest.importorskip("trustme")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    server = program(sys.executable, "-u", "-m", "pykeyupdate", "serve", "0")
    server.wait_for("keys:")
    assert list(tmp_path.iterdir())
    server._process.terminate()
    assert server._process.wait(20) == 143
    server.wait_for("terminated\n")
    assert not list(tmp_path.iterdir())


def test_the_end_while_it_accepts(pem):
    """Its thread sees the listener closed, and that is no error."""
    chosen = serve_command.parser().parse_args(["--cert", pem[1]])
    server = serve_command._Server(chosen, pem[1], None, pem[0])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.accept, args=(listener,))
        thread.start()
        with contextlib.suppress(OSError):  # Windows: not connected
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(20)
    assert not thread.is_alive()
