"""A control socket under clients that do what they should not.

    python tests/stress hostile [--requests 1000]  (a quarter of a minute)

A process serves a control socket, and a thread of it sends messages on a managed socket
to and fro. Another process makes a thousand connections to the control socket, up to a
hundred at a time, and does one of these with each: junk; half a line, and then nothing;
a megabyte without an end; a byte at a time; half a JSON object and the end; a thousand
requests at once whose answers are not read; `follow` without reading; the deepest JSON
and the longest numbers; nothing at all. Meanwhile an honest client asks for the totals
and the connections, twenty times a second.

It fails if an honest client is not answered within two seconds, if a message takes more
than a quarter of a second longer than without the hostile clients (they need a
processor, too), if the process has more threads or descriptors at the end than before,
or more than 50 MB more memory at any time.
"""

import argparse
import contextlib
import json
import os
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

from support.world import certificate_files

import pykeyupdate

PATIENCE = 2.0
LONGER = 0.25
MORE_MEMORY = 50e6
AT_ONCE = 100

JUNK = [
    os.urandom(3000) + b"\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"[" * 60_000 + b"\n",
    b'{"do": ' + b"9" * 60_000 + b"}\n",
    b'{"do": "connections", "where": [["sent.records", ">", 1e999]]}\n',
    b'{"do": "connections", "sort": "__class__"}\n',
    b'{"do": "rekey", "per_second": -1}\n' * 100,
    b'{"do": null}\n',
    b"\0" * 1000 + b"\n",
]


def send_junk(sock):
    sock.sendall(random.choice(JUNK))
    sock.recv(1000)


def stop_in_a_line(sock):
    sock.sendall(b'{"do": "tot')
    time.sleep(1)


def send_a_megabyte(sock):
    sock.sendall(b"x" * 2**20)
    time.sleep(0.2)


def send_a_byte_at_a_time(sock):
    for byte in b'{"do": "totals"} ' * 5:
        sock.sendall(bytes([byte]))
        time.sleep(0.01)


def end_in_a_line(sock):
    sock.sendall(b'{"do": "totals"')
    sock.shutdown(socket.SHUT_WR)
    sock.recv(1000)


def ask_and_not_read(sock):
    sock.settimeout(1)
    for _ in range(1000):
        sock.sendall(b'{"do": "connections", "limit": 1000}\n')


def follow_and_not_read(sock):
    sock.sendall(b'{"do": "follow"}\n')
    time.sleep(1)


def do_nothing(sock):
    time.sleep(1)


def go_at_once(sock):
    sock.sendall(b'{"do": "connections"}\n')


ATTACKS = [
    send_junk,
    send_junk,
    stop_in_a_line,
    send_a_megabyte,
    send_a_byte_at_a_time,
    end_in_a_line,
    ask_and_not_read,
    follow_and_not_read,
    do_nothing,
    go_at_once,
]


def connect(path):
    """Connect when there is room; without a timeout, connect() waits for it."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    sock.settimeout(5)
    return sock


def attack(path, count):
    """Make hostile connections, in threads, as fast as they come."""
    room = threading.Semaphore(AT_ONCE)
    threads = []

    def one(number):
        with room, contextlib.suppress(OSError), connect(path) as sock:
            ATTACKS[number % len(ATTACKS)](sock)

    for number in range(count):
        threads.append(threading.Thread(target=one, args=(number,)))
        threads[-1].start()
    for thread in threads:
        thread.join()


def ask(path, **request):
    """Ask as an honest client does; return the answer and how long it took."""
    begin = time.monotonic()
    with connect(path) as sock, sock.makefile("rb") as file:
        sock.sendall(json.dumps(request).encode() + b"\n")
        answer = json.loads(file.readline())
    return answer, time.monotonic() - begin


class Traffic:
    """Messages to and fro on managed sockets, in two threads."""

    def __init__(self):
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with certificate_files() as (chain, authority):
            client.load_verify_locations(authority)
            server.load_cert_chain(chain)
        pykeyupdate.manage(client, policy=pykeyupdate.RekeyPolicy(sent_records=100))
        pykeyupdate.manage(server, limits=None)
        ours, theirs = socket.socketpair()
        self.echo = threading.Thread(
            target=self.send_back, args=(server, theirs), daemon=True
        )
        self.echo.start()
        self.tls = client.wrap_socket(ours, server_hostname="localhost")
        self.trips, self.is_over = [], False
        self.thread = threading.Thread(target=self.talk, daemon=True)
        self.thread.start()

    def send_back(self, context, plain):
        with context.wrap_socket(plain, server_side=True) as tls:
            while data := tls.recv(1000):
                tls.sendall(data)

    def talk(self):
        with self.tls:
            while not self.is_over:
                begin = time.perf_counter()
                self.tls.sendall(b"ping")
                assert self.tls.recv(100) == b"ping"
                self.trips.append(time.perf_counter() - begin)
                time.sleep(0.001)

    def take(self):
        trips, self.trips = self.trips, []
        return max(trips), len(trips)

    def close(self):
        self.is_over = True
        self.thread.join()
        self.echo.join()


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def look():
    return len(os.listdir("/proc/self/fd")), threading.active_count()


def besiege(path, traffic, count):
    """Return what went wrong while the other process does its worst."""
    time.sleep(2)
    longest, quiet = traffic.take()
    before, memory, most = look(), resident(), 0
    slowest = 0.0
    honest = 0
    attacker = subprocess.Popen(
        [sys.executable, __file__, "--attack", path, str(count)]
    )
    while attacker.poll() is None:
        for request in ({"do": "totals"}, {"do": "connections"}):
            answer, took = ask(path, **request)
            assert answer["ok"]
            slowest = max(slowest, took)
            honest += 1
        most = max(most, resident() - memory)
        time.sleep(0.05)
    longer, busy = traffic.take()
    deadline = time.monotonic() + 20
    while look() != before and time.monotonic() < deadline:
        time.sleep(0.1)
    print(
        f"{sys.version.split()[0]}: {count} hostile connections, {honest} honest "
        f"requests, the slowest {1e3 * slowest:.0f} ms; longest round trip "
        f"{1e3 * longest:.1f} ms of {quiet} before, {1e3 * longer:.1f} ms of {busy} "
        f"meanwhile; {most / 1e6:.1f} MB more memory; descriptors and threads "
        f"{before} before, {look()} after"
    )
    return {
        "slow answers": slowest > PATIENCE,
        "slow messages": longer > longest + LONGER,
        "descriptors or threads": look() != before,
        "memory": most > MORE_MEMORY,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--attack", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.attack:
        attack(chosen.attack[0], int(chosen.attack[1]))
        return 0
    traffic = Traffic()
    with tempfile.TemporaryDirectory() as folder:
        with pykeyupdate.control.serve(f"{folder}/control") as serving:
            wrong = besiege(serving.path, traffic, chosen.requests)
    traffic.close()
    said = [name for name, is_wrong in wrong.items() if is_wrong]
    print("FAILED: " + ", ".join(said) if said else "ok")
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
