"""Threads that read, write and change keys on both ends of a connection at once.

    python tests/stress storm  (a minute)

Every run is one connection. Each end has a reader thread and a writer thread, and one
more thread changes keys, as the writers do too. Sockets block or have a timeout, over
TCP or with small buffers. Runs use TLS 1.3 (key updates of both kinds) and TLS 1.2
(renegotiations, from both ends), with the default policy and with one that changes keys
every few records. The data received is compared with the data sent, byte for byte.
OpenSSL's message callback counts the key changes.

The same is done with the standard library's own sockets, each run in a process of its
own, and printed beside it. The exit status is 1 if a run of ours fails. A run that
makes no progress for a minute counts as a deadlock, and the stacks of its threads are
printed.
"""

import argparse
import contextlib
import faulthandler
import itertools
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

from support.sockets import socket_pair
from support.world import certificate_files

import pykeyupdate

BLOCK = random.Random(0).randbytes(1 << 16)
PATTERN = BLOCK * 3  # any slice of a message begins within the first
DEADLOCK = 60  # seconds without an end
STOCK_LIMIT = 30
TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
KEY_UPDATE, CLIENT_HELLO = 24, 1
POLICIES = [
    pykeyupdate.RekeyPolicy(),
    pykeyupdate.RekeyPolicy(
        sent_records=25,
        received_records=40,
        min_interval_seconds=0,
        request_peer=True,
        renegotiate=True,
    ),
]
KINDS = [
    (version, timeout, over, policy)
    for policy in (0, 1)
    for version in (TLS13, TLS12)
    for timeout in (None, 20.0)
    for over in ("tcp", "small")
]


class Contexts:
    """A client's and a server's context for each version, and what they saw."""

    def __init__(self, managed, chain_path, authority, *, witness=True):
        self.seen = Counter()
        self.pairs = {}
        for version, policy in itertools.product((TLS12, TLS13), (0, 1)):
            client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            client.load_verify_locations(cadata=authority)
            server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.load_cert_chain(chain_path)
            server.options |= pykeyupdate.OP_ALLOW_CLIENT_RENEGOTIATION
            for context in (client, server):
                context.minimum_version = context.maximum_version = version
                if managed:
                    rules = {"policy": POLICIES[policy], "limits": None}
                    pykeyupdate.manage(context, **rules)
                if witness:
                    context._msg_callback = self._saw
            self.pairs[version, policy] = client, server

    def _saw(self, conn, direction, version, content_type, message_type, data):
        if content_type == 22 and direction == "write":
            if data[0] == KEY_UPDATE:
                self.seen["requested" if data[-1] else "not requested"] += 1
            elif data[0] == CLIENT_HELLO:
                self.seen["ClientHello"] += 1


def sockets(over):
    """Return two plain sockets that are connected."""
    if over == "tcp":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            return near, listener.accept()[0]
    return socket_pair(4096)


def connect(contexts, kind):
    version, timeout, over, policy = kind
    client, server = contexts.pairs[version, policy]
    near, far = sockets(over)
    accepted = []

    def accept():
        accepted.append(server.wrap_socket(far, server_side=True))

    thread = threading.Thread(target=accept)
    thread.start()
    ends = [client.wrap_socket(near, server_hostname="localhost")]
    thread.join()
    ends += accepted
    for end in ends:
        end.settimeout(timeout)
    return ends


class Run:
    """One connection and its threads."""

    def __init__(self, contexts, kind, seed, size):
        self.random = random.Random(seed)
        self.kind = kind
        self.size = size if kind[2] == "tcp" else size // 4
        self.is_tls13 = kind[0] == TLS13
        self.ends = connect(contexts, kind)
        self.failures = []
        self.refused = Counter()
        self.done = threading.Event()

    def guarded(self, work, *args):
        try:
            work(*args)
        except Exception:
            if self.done.is_set():
                return  # closed under the third thread, or after a failure
            self.failures.append(traceback.format_exc())
            self.done.set()
            for end in self.ends:
                with contextlib.suppress(OSError, ValueError):
                    socket.socket.shutdown(end, socket.SHUT_RDWR)

    def change_keys(self, end, request_peer):
        """Change the keys; "not now" is an answer, and counted."""
        try:
            pykeyupdate.rekey(end, request_peer=request_peer)
        except pykeyupdate.NotNowError as refusal:
            self.refused[type(refusal).__name__] += 1

    def write(self, end, seed):
        chance = random.Random(seed)
        sent = 0
        while sent < self.size:
            length = min(chance.choice([1, 90, 1500, 16384, 70000]), self.size - sent)
            start = sent % len(BLOCK)
            data = PATTERN[start : start + length]
            end.sendall(data)
            sent += len(data)
            # behind the last data the other end's reader is done: who waits for room
            # in a full send buffer then waits for nobody
            if sent < self.size and (self.is_tls13 or chance.random() < 0.02):
                self.change_keys(end, chance.random() < 0.5)

    def read(self, end, seed):
        chance = random.Random(seed)
        got = 0
        while got < self.size:
            data = end.recv(chance.choice([1, 1024, 16384, 100000]))
            if not data:
                raise EOFError(f"after {got} of {self.size}")
            start = got % len(BLOCK)
            for offset in range(0, len(data), len(BLOCK)):
                piece = data[offset : offset + len(BLOCK)]
                if piece != PATTERN[start : start + len(piece)]:
                    raise ValueError(f"other data than was sent, at {got}")
            got += len(data)

    def disturb(self, seed):
        """The third thread: keys of both ends, at any time."""
        chance = random.Random(seed)
        while not self.done.wait(0.002 if self.is_tls13 else 0.02):
            end = chance.choice(self.ends)
            self.change_keys(end, chance.random() < 0.5)
            end.version(), end.pending(), end.cipher()
            if isinstance(end, pykeyupdate.SSLSocket):
                pykeyupdate.stats(end)
                pykeyupdate.request_rekey(end)
            with contextlib.suppress(ValueError):  # a handshake is under way
                end.getpeercert()

    def go(self):
        """Return the failures, of which there are none."""
        work = [(self.disturb, self.random.random())]
        busy = [
            (method, end, self.random.random())
            for end in self.ends
            for method in (self.write, self.read)
        ]
        threads = [
            threading.Thread(target=self.guarded, args=args, daemon=True)
            for args in busy + work
        ]
        for thread in threads:
            thread.start()
        limit = time.monotonic() + DEADLOCK
        for thread in threads[: len(busy)]:
            thread.join(max(0.01, limit - time.monotonic()))
            if thread.is_alive():
                faulthandler.dump_traceback()
                return ["deadlock", *self.failures]
        # Nobody reads now, so the third thread may be waiting in the middle of a call.
        self.done.set()
        for end in self.ends:
            end.close()
        threads[-1].join(DEADLOCK)
        if threads[-1].is_alive():
            faulthandler.dump_traceback()
            return ["deadlock", *self.failures]
        return self.failures


def runs(managed, count, first_seed, size, certificate, *, witness):
    """Do them here; return how many failed."""
    failed = 0
    totals, refused = Counter(), Counter()
    began = time.monotonic()
    contexts = Contexts(managed, *certificate, witness=witness)
    for number in range(count):
        seed = first_seed + number
        kind = KINDS[seed % len(KINDS)]
        run = Run(contexts, kind, seed, size)
        failures = run.go()
        refused += run.refused
        if failures:
            failed += 1
            print(f"run {seed} {kind} failed:", *failures[:3], sep="\n", flush=True)
            if "deadlock" in failures:
                break
        totals["bytes"] += 2 * run.size
    seconds = time.monotonic() - began
    print(
        f"{count} runs, {failed} failed; {totals['bytes'] / 1e6:.0f} MB in "
        f"{seconds:.0f} s; sent {dict(contexts.seen)}; not now: {dict(refused)}",
        flush=True,
    )
    return failed


def stock(count, options, certificate):
    """Do the same with ssl.SSLSocket, each run in a process; print what became."""
    ends = Counter()
    for seed in range(options.seed, options.seed + count):
        command = [sys.executable, __file__, "--one-stock", str(seed)]
        command += ["--size", str(options.size), "--certificate", *certificate]
        try:
            done = subprocess.run(
                command,
                check=False,
                capture_output=True,
                text=True,
                timeout=STOCK_LIMIT,
            )
        except subprocess.TimeoutExpired:
            ends["hung"] += 1
            continue
        if done.returncode < 0:
            ends[f"killed by signal {-done.returncode}"] += 1
        elif done.returncode == 0:
            ends["ok"] += 1
        else:
            said = [
                line
                for line in done.stdout.splitlines()
                if line and not line[0].isspace() and "Error" in line
            ]
            ends[said[0].partition(" (_ssl")[0][:70] if said else "failed"] += 1
    print(f"{count} runs with ssl.SSLSocket:", dict(ends.most_common()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--stock-runs", type=int, default=16)
    parser.add_argument("--size", type=int, default=1_000_000, help="bytes each way")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-witness", action="store_true", help="no callbacks")
    parser.add_argument("--one-stock", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--certificate", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    faulthandler.enable()
    if options.one_stock is not None:
        chain, trusted = options.certificate
        certificate = chain, Path(trusted).read_text()
        failed = runs(
            False, 1, options.one_stock, options.size, certificate, witness=False
        )
        return 1 if failed else 0
    with certificate_files() as paths:
        print(sys.version.split()[0], ssl.OPENSSL_VERSION, flush=True)
        stock(options.stock_runs, options, paths)
        failed = runs(
            True,
            options.runs,
            options.seed,
            options.size,
            (paths[0], paths[1].read_text()),
            witness=not options.no_witness,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
