"""``pytest -p pykeyupdate.testing --rekey-everything``, as a user runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import pace

import pykeyupdate

PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "pykeyupdate.testing"]
TESTS = """
import socket, ssl, threading
import pytest

FOLDER = {folder!r}
SEEN = []

def talk(version):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(FOLDER + "/server.pem")
    server.maximum_version = version
    client = ssl.create_default_context(cafile=FOLDER + "/ca.pem")
    client._msg_callback = lambda *m: SEEN.append((m[1], m[3], m[5][:1]))
    near, far = socket.socketpair()

    def echo():
        with server.wrap_socket(far, server_side=True) as tls:
            while data := tls.recv(100):
                tls.sendall(data)

    thread = threading.Thread(target=echo)
    thread.start()
    with client.wrap_socket(near, server_hostname="localhost") as tls:
        for _ in range(5):
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
    thread.join()

def test_tls_1_3():
    talk(ssl.TLSVersion.TLSv1_3)
    assert SEEN.count(("write", 22, b"\\x18")) == 4

def test_tls_1_2_is_left_alone():
    talk(ssl.TLSVersion.TLSv1_2)
"""


@pytest.fixture
def suite(tmp_path, authority, certificate):
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    path = tmp_path / "test_it.py"
    path.write_text(TESTS.format(folder=str(tmp_path)))

    def run(*arguments, **environment):
        return subprocess.run(
            [*PYTEST, *arguments, str(path)],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(Path(pykeyupdate.__file__).parents[1]),
                **environment,
            },
        )

    return run


def test_keys_change_with_every_record_and_that_is_reported(suite):
    pace.skip_if_kept()
    result = suite("--rekey-everything")
    assert "2 passed" in result.stdout, result.stdout
    (line,) = re.findall(r"^\d+ ends of TLS.*$", result.stdout, re.MULTILINE)
    opened, sent, received = map(int, re.findall(r"\d+", line))
    assert opened == 4
    assert sent >= 8
    assert received == sent


def test_without_the_option_nothing_changes(suite):
    result = suite()
    assert "1 failed, 1 passed" in result.stdout  # it finds no key updates
    assert "ends of TLS connections" not in result.stdout


def test_a_suite_without_tls_is_told(suite, tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it():\n    pass\n")
    result = suite("--rekey-everything")
    assert result.returncode == 0
    assert "No keys changed" in result.stdout


def test_with_workers(suite):
    pytest.importorskip("xdist")
    pace.skip_if_kept()
    result = suite("--rekey-everything", "-n", "2")
    (line,) = re.findall(r"^\d+ ends of TLS.*$", result.stdout, re.MULTILINE)
    assert line.startswith("4 ends of TLS connections")
