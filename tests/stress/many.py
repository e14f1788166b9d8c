"""Looks at 10,000 live connections: how long it takes, and whom it delays.

    python tests/stress many [--connections N]  (a minute)

It makes N managed connections in memory (``SSLObject``, 10,000) and a hundred managed
sockets. Then the main thread calls ``connections()`` and ``totals()`` again and again
and asks the control socket, while another thread sends small messages on a managed
socket to an echo in another process and notes each round trip. The table has the
medians of the calls, in time and in processor time, and the longest round trips, with
and without the calls. It fails if the median of a call is above 50 ms of processor
time, or if one round trip in a thousand takes 5 ms longer than without the calls.

The memory of a connection is what is resident of one end, ``ssl``'s and OpenSSL's
included; compare it with that of another version.
"""

import argparse
import contextlib
import gc
import os
import socket
import ssl
import statistics
import sys
import tempfile
import threading
import time

import trustme

import pykeyupdate

CALLS = 20
MOST_SECONDS = 0.050
MOST_DELAY = 0.005


def contexts():
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return client, server


def shake(*ends):
    for _ in range(3):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()


def make_object(client, server):
    """Return a server over memory, whose client is dropped after the handshake."""
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = server.wrap_bio(ours, theirs, server_side=True)
    shake(client.wrap_bio(theirs, ours, server_hostname="localhost"), end)
    return end


def make_socket(client, server):
    ours, theirs = socket.socketpair()
    ends = []
    thread = threading.Thread(
        target=lambda: ends.append(server.wrap_socket(ours, server_side=True))
    )
    thread.start()
    peer = client.wrap_socket(theirs, server_hostname="localhost")
    thread.join()
    return ends[0], peer


def echo_process(server):
    """Start a process that echoes; return the plain socket to it."""
    ours, theirs = socket.socketpair()
    if os.fork():
        theirs.close()
        return ours
    ours.close()
    with server.wrap_socket(theirs, server_side=True) as tls:
        while data := tls.recv(4096):
            tls.sendall(data)
    os._exit(0)


class Traffic:
    """Round trips on a managed socket, in a thread of their own."""

    def __init__(self, tls):
        self.tls, self.trips, self.stop = tls, [], False

    def run(self):
        while not self.stop:
            begin = time.perf_counter()
            self.tls.sendall(b"ping")
            self.tls.recv(100)
            self.trips.append(time.perf_counter() - begin)
            time.sleep(0.0005)

    def during(self, work):
        self.trips.clear()
        self.stop = False
        thread = threading.Thread(target=self.run)
        thread.start()
        work()
        self.stop = True
        thread.join()
        return sorted(self.trips)


def measured(call):
    """Return the medians of a call's time and processor time."""
    walls, processors = [], []
    for _ in range(CALLS):
        wall, processor = time.perf_counter(), time.thread_time()
        call()
        walls.append(time.perf_counter() - wall)
        processors.append(time.thread_time() - processor)
    return statistics.median(walls), statistics.median(processors)


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def ask(path):
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rb") as file:
        sock.connect(path)
        sock.sendall(b'{"do": "connections", "sort": "-sent.age_seconds"}\n')
        file.readline()


def report(name, trips, than=None):
    at = {part: trips[int(len(trips) * part)] for part in (0.5, 0.99, 0.999)}
    cells = [f"{part:g}: {1e3 * value:.2f} ms" for part, value in at.items()]
    print(f"{name:<34} {len(trips)} round trips, {', '.join(cells)}", end=", ")
    print(f"longest {1e3 * trips[-1]:.2f} ms")
    return at[0.999] - (0 if than is None else than)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=10_000)
    count = parser.parse_args().connections
    contexts_of_echo, (client, server) = contexts(), contexts()
    plain = echo_process(contexts_of_echo[1])
    pykeyupdate.manage(contexts_of_echo[0])
    pykeyupdate.manage(server)
    gc.collect()
    before = resident()
    kept = [make_object(client, server) for _ in range(count)]
    gc.collect()
    each = (resident() - before) / count
    kept += [make_socket(client, server) for _ in range(100)]
    tls = contexts_of_echo[0].wrap_socket(plain, server_hostname="localhost")
    calls = {
        "list(connections())": lambda: list(pykeyupdate.connections()),
        "totals()": pykeyupdate.totals,
    }
    traffic, failed = Traffic(tls), False
    print(
        f"{sys.version.split()[0]}, {len(kept) + 1} connections, load", os.getloadavg()
    )
    print(f"memory of a connection: {each:.0f} bytes")
    quiet = traffic.during(lambda: time.sleep(4))
    base = report("without calls", quiet)
    for name, call in calls.items():
        wall, processor = measured(call)
        print(f"{name:<34} {1e3 * wall:.1f} ms, processor {1e3 * processor:.1f} ms")
        failed |= processor > MOST_SECONDS

        def again(call=call):
            ends = time.monotonic() + 4
            while time.monotonic() < ends:
                call()
                time.sleep(0.01)

        more = report(f"during {name}", traffic.during(again), base)
        failed |= more > MOST_DELAY
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/control"
        serving = pykeyupdate.control.serve(path)
        wall, _ = measured(lambda: ask(path))
        print(f"{'the oldest 100 by control socket':<34} {1e3 * wall:.1f} ms")

        def asking():
            ends = time.monotonic() + 4
            while time.monotonic() < ends:
                ask(path)

        more = report("during requests", traffic.during(asking), base)
        failed |= more > MOST_DELAY
        serving.close()
    tls.close()
    os.wait()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
