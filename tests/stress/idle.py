"""Idle connections whose keys change all the same: ``RekeyPolicy(rotate_idle=True)``.

    python tests/stress idle  (a minute)

A server has ``--connections`` idle managed sockets, and then as many idle asyncio
connections, with ``age_seconds=2``. The peers are ``ssl``'s own sockets in another
process, and only wait. The message callback of each peer is the witness: between two
KeyUpdates there must be 2 to 2.5 seconds, for every one. Ten more peers do not read at
all, while the server has more to send to them than a socket takes; they may delay
nobody. When the last connection is closed, no thread and no timer may be left. The
exit status is 1 if any of that fails.
"""

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import json
import selectors
import socket
import ssl
import subprocess
import sys
import threading
import time

from support.world import certificate_files

import pykeyupdate
from pykeyupdate import _idle_objects, aio
from pykeyupdate._cli.bench_duplex import allow_descriptors

AGE, LEAST, MOST = (
    2.0,
    1.9,
    2.5,
)  # seconds; a peer may see one late, and the next in time
SECONDS = 13.0
DEAF = 10
LIMIT = 300
HANDSHAKE, KEY_UPDATE = 22, 24


# -- the peers, in their own process ---------------------------------------------------


class Peers:
    def __init__(self, port, certificate, count):
        self.context = ssl.create_default_context(cafile=certificate)
        self.context.check_hostname = False
        self.context._msg_callback = self.note
        self.seen = {}
        self.begin = float("inf")
        self.selector = selectors.DefaultSelector()
        self.sockets = [self.connect(port) for _ in range(count + DEAF)]

    def note(self, conn, direction, version, content_type, message_type, data):
        is_update = content_type == HANDSHAKE and data[0] == KEY_UPDATE
        if is_update and time.monotonic() > self.begin:
            self.seen.setdefault(conn, []).append(time.monotonic())

    def connect(self, port):
        plain = socket.create_connection(("127.0.0.1", port))
        return self.context.wrap_socket(plain)

    def wait(self, seconds):
        for tls in self.sockets[DEAF:]:
            tls.setblocking(False)
            self.selector.register(tls, selectors.EVENT_READ)
        # What has come while all were connecting is read at once, and late.
        self.begin = time.monotonic() + AGE / 4
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for key, _ in self.selector.select(0.1):
                with contextlib.suppress(ssl.SSLWantReadError):
                    key.fileobj.recv(1)

    def report(self):
        gaps = [
            later - earlier
            for times in self.seen.values()
            for earlier, later in zip(times, times[1:])
        ]
        each = [len(self.seen.get(tls, ())) for tls in self.sockets[DEAF:]]
        return {"fewest": min(each), "shortest": min(gaps), "longest": max(gaps)}


def be_the_peers(port, certificate, count):
    peers = Peers(port, certificate, count)
    print("connected", flush=True)
    sys.stdin.readline()
    peers.wait(SECONDS)
    print(json.dumps(peers.report()), flush=True)
    for tls in peers.sockets:
        tls.close()


@contextlib.contextmanager
def peers_of(port, certificate, count):
    """Start the peers; give a function that has them wait, and returns their report."""
    command = [sys.executable, __file__, "--peers", str(port), certificate, str(count)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def wait():
            assert process.stdout.readline() == "connected\n"
            process.stdin.write("go\n")
            process.stdin.flush()
            begin = time.process_time()
            report = json.loads(process.stdout.readline())
            report["processor"] = (time.process_time() - begin) / SECONDS
            return report

        yield wait
        assert process.wait(60) == 0


# -- the server ------------------------------------------------------------------------


def flood(tls):
    """Fill the buffers of one that does not read."""
    tls.settimeout(0.0)
    with contextlib.suppress(ssl.SSLWantWriteError):
        while True:
            tls.send(bytes(65536))


def with_sockets(context, certificate, count):
    ours = []
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        port = listener.getsockname()[1]
        with peers_of(port, certificate, count) as wait:
            for _ in range(count + DEAF):
                plain, _ = listener.accept()
                ours.append(context.wrap_socket(plain, server_side=True))
            for tls in ours[:DEAF]:
                flood(tls)
            report = wait()
            for tls in ours:
                tls.close()
    time.sleep(0.2)
    names = [thread.name for thread in threading.enumerate()]
    report["left"] = names.count("pykeyupdate")
    return report


async def with_asyncio(context, certificate, count):
    connected = []

    async def handler(reader, writer):
        aio.keep_fresh_in_background(writer)
        connected.append(writer)
        if len(connected) <= DEAF:
            writer.write(bytes(20_000_000))
        with contextlib.suppress(OSError):
            await reader.read()
        writer.transport.abort()

    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(
        handler, "127.0.0.1", 0, ssl=context, backlog=1024
    )
    port = server.sockets[0].getsockname()[1]

    def run():
        with peers_of(port, certificate, count) as wait:
            return wait()

    report = await loop.run_in_executor(None, run)
    server.close()
    for writer in connected:
        writer.transport.abort()
    await asyncio.sleep(1.5)
    gc.collect()
    report["left"] = len(_idle_objects._keepers)
    return report


def judge(name, report):
    is_fine = (
        report["fewest"] >= int(SECONDS / MOST) - 1
        and report["shortest"] >= LEAST
        and report["longest"] <= MOST
        and report["left"] == 0
    )
    print(
        f"{name}: every one had {report['fewest']} new keys or more, "
        f"{report['shortest']:.3f} to {report['longest']:.3f} s between two, "
        f"{report['processor']:.1%} of a processor, {report['left']} left behind: "
        + ("ok" if is_fine else "FAILED")
    )
    return is_fine


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--peers", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    count = options.connections
    allow_descriptors(2 * (count + DEAF) + 100)
    if options.peers:
        port, certificate, count = options.peers
        be_the_peers(int(port), certificate, int(count))
        return 0
    policy = pykeyupdate.RekeyPolicy(rotate_idle=True, age_seconds=AGE)
    with certificate_files() as (chain, authority):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        pykeyupdate.manage(context, policy=policy)
        fine = [
            judge("sockets", with_sockets(context, authority, count)),
            judge("asyncio", asyncio.run(with_asyncio(context, authority, count))),
        ]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
