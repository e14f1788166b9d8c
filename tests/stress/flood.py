"""A peer in another process that changes keys as fast as it can, against threads.

    python tests/stress flood  (a minute)

The server has a reader thread and a writer thread. Its client sends KeyUpdate messages
without a pause (TLS 1.3), or renegotiates without a pause (TLS 1.2), with data in
between, and compares what it receives. The server's socket is a managed one; the result
with ``ssl.SSLSocket`` is printed beside it. The exit status is 1 if ours fails.
"""

import argparse
import contextlib
import faulthandler
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter

from storm import BLOCK, PATTERN
from support.world import certificate_files

import pykeyupdate

VERSIONS = {"TLSv1.3": ssl.TLSVersion.TLSv1_3, "TLSv1.2": ssl.TLSVersion.TLSv1_2}
CHUNK = 4000


def check(data, position):
    """Compare with what was sent from there on; return the position behind it."""
    for offset in range(0, len(data), len(BLOCK)):
        piece = data[offset : offset + len(BLOCK)]
        start = (position + offset) % len(BLOCK)
        if piece != PATTERN[start : start + len(piece)]:
            raise ValueError(f"other data than was sent, at {position}")
    return position + len(data)


def be_the_peer(port, trusted, version, seconds):
    """Connect and change keys until the time is over."""
    context = ssl.create_default_context(cafile=trusted)
    context.maximum_version = VERSIONS[version]
    with socket.create_connection(("127.0.0.1", port)) as plain:
        conn = context.wrap_socket(plain, server_hostname="localhost")
    sent = got = changes = 0
    end = time.monotonic() + seconds
    with conn:
        while time.monotonic() < end:
            if version == "TLSv1.3":
                for number in range(20):
                    pykeyupdate.rekey(conn, request_peer=number == 0)
                changes += 20
            else:
                with contextlib.suppress(pykeyupdate.NotNowError):
                    pykeyupdate.rekey(conn)
                    changes += 1
                while pykeyupdate.renegotiate_pending(conn):
                    got = check(conn.recv(65536), got)
            start = sent % len(BLOCK)
            sent += conn.send(PATTERN[start : start + 100])
            got = check(conn.recv(65536), got)
    print(changes, sent, got)


class Server:
    """A connection with a thread that reads and one that writes, and how both end."""

    def __init__(self, conn):
        self.conn = conn
        self.ends = Counter()
        self.threads = [
            threading.Thread(target=work, daemon=True)
            for work in (self.write, self.read)
        ]
        for thread in self.threads:
            thread.start()

    def write(self):
        sent = 0
        try:
            while True:
                start = sent % len(BLOCK)
                sent += self.conn.send(PATTERN[start : start + CHUNK])
        except OSError as error:
            self.ends["writer: " + type(error).__name__] += 1

    def read(self):
        got = 0
        try:
            while data := self.conn.recv(65536):
                got = check(data, got)
            self.ends["reader: the end"] += 1
        except ConnectionResetError:  # our writer's data was unread: also an end
            self.ends["reader: the end"] += 1
        except Exception as error:
            self.ends[f"reader: {error}"[:90]] += 1

    def join(self):
        for thread in self.threads:
            thread.join(30)
            self.ends["deadlock"] += thread.is_alive()
        self.conn.close()
        return self.ends


def serve(managed, version, paths, seconds):
    """Run one peer against a server; print what became, and return whether all well."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paths[0])
    context.options |= pykeyupdate.OP_ALLOW_CLIENT_RENEGOTIATION
    context.maximum_version = VERSIONS[version]
    if managed:
        pykeyupdate.manage(context, limits=None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        command = [sys.executable, __file__, "--peer", port, str(paths[1]), version]
        peer = subprocess.Popen(
            [*command, str(seconds)],
            stdout=subprocess.PIPE,
            stderr=None if managed else subprocess.DEVNULL,
            text=True,
        )
        plain = listener.accept()[0]
    conn = context.wrap_socket(plain, server_side=True)
    conn.settimeout(20)
    server = Server(conn)
    try:
        output = peer.communicate(timeout=seconds + 40)[0]
    except subprocess.TimeoutExpired:
        peer.kill()
        output = "hung"
    ends = server.join()
    well = (
        peer.returncode == 0 and ends["reader: the end"] == 1 and not ends["deadlock"]
    )
    kind = "managed" if managed else "ssl.SSLSocket"
    changes, sent, got = output.split() if well else ("?", "?", "?")
    print(
        f"{version} {kind}: peer's exit status {peer.returncode}, {changes} changes of "
        f"keys, {sent} bytes in, {got} bytes out; {dict(+ends)}",
        flush=True,
    )
    return well


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--peer", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--stock", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    faulthandler.enable()
    if options.peer:
        port, trusted, version, seconds = options.peer
        be_the_peer(int(port), trusted, version, float(seconds))
        return 0
    if options.stock:
        version, *paths = options.stock
        return 0 if serve(False, version, paths, options.seconds) else 1
    with certificate_files() as paths:
        print(sys.version.split()[0], ssl.OPENSSL_VERSION, flush=True)
        well = True
        for version in VERSIONS:
            command = [sys.executable, __file__, "--seconds", "3", "--stock", version]
            done = subprocess.run(
                [*command, *map(str, paths)], check=False, stderr=subprocess.DEVNULL
            )
            if done.returncode < 0:
                print(f"{version} ssl.SSLSocket: killed by signal {-done.returncode}")
            well = serve(True, version, paths, options.seconds) and well
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
