"""An incident: new keys for ten thousand connections of one process, all at once.

    python tests/stress incident  (half a minute, 3 GB of memory)

A server has half of them in asyncio (managed ``SSLObject``), and half as managed,
non-blocking ``SSLSocket`` in a loop of ``selectors``. The peers are ``ssl``'s own
sockets, in this process. When all have talked and are idle, the server's main thread
calls ``rekey_all()``.

The message callback of each peer is the witness: it must see one KeyUpdate message from
the server. The peer of an ``SSLSocket`` must have it before the peer sends anything
more, the peer of an ``SSLObject`` with the answer to its next message. Every peer must
then still talk, both ways. Time and memory are printed. The exit status is 1 if a
single peer misses any of that, or if it all takes longer than ``LIMIT``.
"""

import argparse
import asyncio
import faulthandler
import json
import resource
import selectors
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from support.world import certificate_files

import pykeyupdate
from pykeyupdate._cli.bench_duplex import allow_descriptors, resident

LIMIT = 300  # seconds, for all of it
PATIENCE = 60  # seconds, for the answers of all
BACKLOG = 1024
OTHERS = 100  # files besides the connections
TICK = 0.01
HANDSHAKE, KEY_UPDATE = 22, 24
MB = 1e6


# -- the server ------------------------------------------------------------------------


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Loop(threading.Thread):
    """asyncio with its half of the connections, and by how much it was ever late."""

    def __init__(self, context):
        super().__init__(daemon=True)
        self.context = context
        self.port, self.late = None, 0.0
        self.listens = threading.Event()

    def run(self):
        asyncio.run(self.serve())

    async def serve(self):
        server = await asyncio.get_running_loop().create_server(
            Echo, "127.0.0.1", 0, ssl=self.context, backlog=BACKLOG
        )
        self.port = server.sockets[0].getsockname()[1]
        self.listens.set()
        while True:
            due = time.monotonic() + TICK
            await asyncio.sleep(TICK)
            self.late = max(self.late, time.monotonic() - due)


class Sockets(threading.Thread):
    """The other half, in a loop of selectors."""

    def __init__(self, context):
        super().__init__(daemon=True)
        self.context = context
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.port = self.listener.getsockname()[1]

    def run(self):
        selector = selectors.DefaultSelector()
        selector.register(self.listener, selectors.EVENT_READ, self.accept)
        while True:
            for key, _ in selector.select():
                key.data(selector, key.fileobj)

    def accept(self, selector, listener):
        plain = listener.accept()[0]
        plain.settimeout(PATIENCE)
        conn = self.context.wrap_socket(plain, server_side=True)
        conn.setblocking(False)
        selector.register(conn, selectors.EVENT_READ, self.echo)

    def echo(self, selector, conn):
        try:
            data = conn.recv(65536)
        except ssl.SSLWantReadError:
            return
        if data:
            conn.sendall(data)  # a few bytes, which its buffer takes
        else:
            selector.unregister(conn)
            conn.close()


def serve(chain, per_second):
    """Tell the ports, then do what each line says and tell what came of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    pykeyupdate.manage(context)
    loop, sockets = Loop(context), Sockets(context)
    loop.start()
    sockets.start()
    loop.listens.wait(PATIENCE)
    say(ports={"SSLObject": loop.port, "SSLSocket": sockets.port}, memory=resident())
    for line in sys.stdin:
        loop.late, began, count = 0.0, time.monotonic(), 0
        if line == "rekey\n":
            count = pykeyupdate.rekey_all(per_second=per_second)
        say(
            count=count,
            seconds=time.monotonic() - began,
            late=loop.late,
            memory=resident(),
            sent=pykeyupdate.totals().counts.key_updates_sent,
        )


def say(**what):
    print(json.dumps(what), flush=True)


# -- the peers -------------------------------------------------------------------------


class Peer(ssl.SSLSocket):
    """What a peer has seen, of keys and of data."""

    updates = 0
    got = b""
    sent = b""

    def take(self):
        try:
            while data := self.recv(65536):
                self.got += data
        except ssl.SSLWantReadError:
            return
        raise EOFError(f"{self!r}: closed by the server")

    def say(self, message):
        self.got, self.sent = b"", message
        self.sendall(message)

    def has_heard(self):
        return self.got == self.sent


def saw(peer, direction, version, content_type, message_type, data):
    """The message callback: the witness."""
    if content_type == HANDSHAKE and direction == "read" and data[0] == KEY_UPDATE:
        peer.updates += 1


class Peers:
    """All of them, of the server's sockets and of its objects."""

    def __init__(self, trusted, ports, number):
        self.context = ssl.create_default_context(cafile=trusted)
        self.context.sslsocket_class = Peer
        self.context._msg_callback = saw
        self.ports = ports
        self.selector = selectors.DefaultSelector()
        kinds = [kind for _ in range(number // 2) for kind in ports]
        with ThreadPoolExecutor(4) as pool:
            self.all = list(pool.map(self.connect, kinds))
        self.of = {kind: [] for kind in ports}
        for kind, peer in zip(kinds, self.all):
            self.of[kind].append(peer)
            self.selector.register(peer, selectors.EVENT_READ)

    def connect(self, kind):
        plain = socket.create_connection(("127.0.0.1", self.ports[kind]), PATIENCE)
        peer = self.context.wrap_socket(plain, server_hostname="localhost")
        peer.setblocking(False)
        return peer

    def wait_for(self, has_come, some):
        """Read on all of them until it has for each of these; return how many miss."""
        missing = {peer for peer in some if not has_come(peer)}
        limit = time.monotonic() + PATIENCE
        while missing and time.monotonic() < limit:
            for key, _ in self.selector.select(1):
                key.fileobj.take()
                if has_come(key.fileobj):
                    missing.discard(key.fileobj)
        return len(missing)

    def talk(self, word):
        """Have each say something else, and hear it again; return how many do not."""
        for number, peer in enumerate(self.all):
            peer.say(b"%s %d" % (word, number))
        return self.wait_for(Peer.has_heard, self.all)


def order(server, what):
    server.stdin.write(what + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


def memory(what, now, before, number):
    print(
        f"{what:<36}{now / MB:8.1f} MB, {(now - before) / number:+9.0f} bytes "
        "each since the line above",
        flush=True,
    )


def incident(server, trusted, number):
    """Let it happen and print it; return whether all is well."""
    first = json.loads(server.stdout.readline())
    print(f"{'server without connections':<36}{first['memory'] / MB:8.1f} MB")
    began = time.monotonic()
    peers = Peers(trusted, first["ports"], number)
    failed = {"did not talk at first": peers.talk(b"before")}
    print(f"{number} connections after {time.monotonic() - began:.1f} s", flush=True)
    failed["had a KeyUpdate before"] = sum(peer.updates > 0 for peer in peers.all)
    idle = order(server, "look")
    memory("server with them", idle["memory"], first["memory"], number)
    done = order(server, "rekey")
    print(
        f"rekey_all(): {done['count']} connections in {done['seconds']:.2f} s; the "
        f"event loop was late by {done['late'] * 1000:.0f} ms at most"
    )
    memory("after rekey_all()", done["memory"], idle["memory"], number)
    failed["of an idle SSLSocket got no KeyUpdate"] = peers.wait_for(
        lambda peer: peer.updates, peers.of["SSLSocket"]
    )
    began = time.monotonic()
    failed["did not talk afterwards"] = peers.talk(b"after")
    print(f"all have talked again after {time.monotonic() - began:.1f} s")
    last = order(server, "look")
    memory("after that", last["memory"], done["memory"], number)
    for kind, some in peers.of.items():
        seen = Counter(peer.updates for peer in some)
        print(f"KeyUpdate messages seen by the peers of {kind}: {dict(seen)}")
        failed[f"of {kind} did not see one KeyUpdate"] = len(some) - seen[1]
    print(f"and sent, as totals() has it: {last['sent']}")
    for what, count in failed.items():
        if count:
            print(f"{count} peers {what}")
    return not any(failed.values()) and done["count"] == len(peers.all)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=10_000, help="even")
    parser.add_argument("--per-second", type=float, default=1000.0)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    files = options.connections + OTHERS
    allow_descriptors(files)
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < files:
        sys.exit(f"this system allows fewer than {files} open files")
    if options.serve:
        serve(options.serve, options.per_second)
        return 0
    print(sys.version.split()[0], ssl.OPENSSL_VERSION, flush=True)
    with certificate_files() as (chain, trusted):
        command = [sys.executable, __file__, "--serve", str(chain)]
        command += ["--connections", str(options.connections)]
        command += ["--per-second", str(options.per_second)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server:
            try:
                well = incident(server, str(trusted), options.connections)
            finally:
                server.kill()
    print("well" if well else "NOT WELL")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
