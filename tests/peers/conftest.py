"""Real programs as peers: how to start one, and how to be the peer of one."""

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest
from support.link import Witness

import pykeyupdate

VERSION = {"tls13": "-tls1_3", "tls12": "-tls1_2"}
PRIORITY = {
    "tls13": "NORMAL:-VERS-ALL:+VERS-TLS1.3",
    "tls12": "NORMAL:-VERS-ALL:+VERS-TLS1.2",
}
PATIENCE = 20.0  # seconds; what is waited for takes milliseconds


class Program:
    """A running program: what it printed, and lines typed into it."""

    def __init__(self, *arguments):
        self.output = ""
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        while chunk := os.read(self._process.stdout.fileno(), 65536):
            self.output += chunk.decode(errors="replace")

    def is_running(self):
        return self._process.poll() is None

    def type(self, line):
        self._process.stdin.write(line.encode() + b"\n")

    def wait_for(self, text):
        deadline = time.monotonic() + PATIENCE
        while text not in self.output:
            assert time.monotonic() < deadline, f"no {text!r} in {self.output!r}"
            self._reader.join(0.01)  # it ends behind the last output, not before
            assert self._reader.is_alive() or text in self.output, self.output
        return self.output

    def close(self):
        """End it; servers have processes of their own, which may outlive the first."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.terminate()
            self._process.wait(5)
        if os.name != "nt":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        self._process.stdin.close()
        self._process.stdout.close()


@pytest.fixture
def program():
    """Start a program; skip where it is not installed, unless it must be there."""
    running = []

    def start(name, *arguments):
        path = shutil.which(name)
        if path is None and not os.environ.get("PYKEYUPDATE_REQUIRE_PEERS"):
            pytest.skip(f"{name} is not installed")
        assert path, f"{name} is not installed"
        running.append(Program(path, *arguments))
        return running[-1]

    with pykeyupdate.installed():
        yield start
        for one in running:
            one.close()


@pytest.fixture
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


@pytest.fixture
def pem(authority, certificate, tmp_path):
    """Return the paths of the CA's certificate and of the server's chain and key."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    return str(tmp_path / "ca.pem"), str(tmp_path / "server.pem")


@pytest.fixture
def client_of(make_contexts):
    """Connect to a program on a port as a TLS client; give socket and witness."""
    with contextlib.ExitStack() as stack:

        def connect(port, version, allow=0):
            context, _ = make_contexts(version)
            context.options |= allow
            witness = Witness()
            witness.watch("client", context)
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    plain = socket.create_connection(("127.0.0.1", int(port)), PATIENCE)
                    break
                except OSError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            tls = context.wrap_socket(plain, server_hostname="localhost")
            return stack.enter_context(tls), witness

        yield connect


@pytest.fixture
def server_for(make_contexts):
    """Listen for a program; give its port and a function that accepts it."""
    with contextlib.ExitStack() as stack:

        def listen(version):
            _, context = make_contexts(version)
            witness = Witness()
            witness.watch("server", context)
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            listener.settimeout(PATIENCE)

            def accept():
                plain, _ = listener.accept()
                plain.settimeout(PATIENCE)
                tls = context.wrap_socket(plain, server_side=True)
                return stack.enter_context(tls), witness

            return str(listener.getsockname()[1]), accept

        yield listen


@pytest.fixture
def read_until():
    """Read from a socket until some bytes have come, or something has been said."""

    def read(connection, arrived):
        data = b""
        connection.settimeout(0.05)
        deadline = time.monotonic() + PATIENCE
        while not arrived(data):
            assert time.monotonic() < deadline, data
            with contextlib.suppress(
                TimeoutError, socket.timeout, ssl.SSLWantReadError
            ):
                data += connection.recv(65536)
        connection.settimeout(PATIENCE)
        return data

    return read


@pytest.fixture
def s_server(program, free_port, pem, client_of):
    def start(version, *options):
        server = program(
            *("openssl", "s_server", VERSION[version], *options),
            *("-accept", f"127.0.0.1:{free_port}", "-cert", pem[1], "-key", pem[1]),
        )
        return server, *client_of(free_port, version)

    return start


@pytest.fixture
def s_client(program, pem, server_for):
    def start(version):
        port, accept = server_for(version)
        client = program(
            *("openssl", "s_client", VERSION[version], "-connect", f"127.0.0.1:{port}"),
            *("-CAfile", pem[0], "-servername", "localhost"),
        )
        return client, *accept()

    return start


@pytest.fixture
def gnutls_serv(program, free_port, pem, client_of):
    def start(version, *options, priority="", allow=0):
        server = program(
            *("gnutls-serv", "--echo", "--port", free_port, *options),
            *("--priority", PRIORITY[version] + priority, "--disable-client-cert"),
            *("--x509certfile", pem[1], "--x509keyfile", pem[1]),
        )
        return server, *client_of(free_port, version, allow)

    return start


@pytest.fixture
def gnutls_cli(program, pem, server_for):
    def start(version, priority=""):
        port, accept = server_for(version)
        client = program(
            *("gnutls-cli", "--inline-commands", "--port", port),
            *("--priority", PRIORITY[version] + priority, "--x509cafile", pem[0]),
            *("--verify-hostname", "localhost", "127.0.0.1"),
        )
        return client, *accept()

    return start
