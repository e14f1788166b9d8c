"""Programs that serve HTTPS, maybe in several processes, and a client of theirs."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys

from .waiting import PATIENCE, eventually


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def environment(**more):
    """Return this process's environment, with what can be imported here."""
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "PYTHONPATH": path, **more}


@contextlib.contextmanager
def running(*arguments, folder, **variables):
    """Run Python in a folder, and end it with all processes that it has started."""
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)


def connect(port, context):
    """Return a connection to a server that may still be starting."""

    def connected():
        conn = http.client.HTTPSConnection(
            "localhost", port, context=context, timeout=PATIENCE
        )
        with contextlib.suppress(OSError):
            conn.connect()
            return conn

    return eventually(connected, pause=0.05)


def get(conn, path="/"):
    """Return the body of an answer."""
    conn.request("GET", path)
    response = conn.getresponse()
    assert response.status == 200
    return response.read()
