"""socket_fields.c: a managed socket's descriptor and timeout are those of Python."""

import socket
import ssl
import subprocess
import sys
import time

import pytest

from pykeyupdate import _keyupdate


def test_the_fields_are_where_we_look():
    """Where they are not, every call asks the socket by its methods."""
    assert _keyupdate.reads_socket_fields, (
        "CPython has moved the descriptor or the timeout of a socket: open "
        "ext/streams/socket_fields.c, struct socket_prefix"
    )


def test_a_timeout_counts_at_once_however_it_is_set(connect):
    client, _ = connect()
    for set_timeout in (
        client.settimeout,
        lambda it: socket.socket.settimeout(client, it),
    ):
        for seconds in (0.1, 0.05):
            set_timeout(seconds)
            began = time.perf_counter()  # monotonic() takes steps on Windows
            with pytest.raises(socket.timeout):
                client.recv(1)
            assert seconds <= time.perf_counter() - began < seconds + 5
    client.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        client.recv(1)


REFUSING = """
import sys
def hook(event, arguments):
    if event == "socket.__new__":
        raise {error}
sys.addaudithook(hook)
import pykeyupdate
print(pykeyupdate._keyupdate.reads_socket_fields)
"""


@pytest.mark.parametrize("error", ["PermissionError", "RuntimeError"])
def test_a_process_that_may_have_no_socket_can_import_the_package(error):
    done = subprocess.run(
        [sys.executable, "-c", REFUSING.format(error=error)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
