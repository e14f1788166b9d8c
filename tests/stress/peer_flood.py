"""A peer that changes keys and does nothing else, against ``PeerLimits``.

    python tests/stress peer_flood  (a minute)

The victim is a server in its own process, with a thread or an asyncio task for each
connection, that sends back what it receives. Its connections are managed, with the
default limits; the same is done to ``ssl``'s own for comparison. The attacker is a
third process. It prepares 100,000 KeyUpdate messages and then sends them as fast as it
can: each in its own segment, many in one, each with a request for an answer, and with a
byte of data after every 31, so that never too many are in a row. On TLS 1.2 it
renegotiates again and again.

For each connection the victim reports how many messages it processed, what its
application received, what the log contains and how much CPU time it used, from the end
of the handshake to the end of the connection. For a managed connection, OpenSSL's
message callback counts the messages (so a little of the time is the witness's); that
``ssl``'s processed all is shown by the data that comes last. The exit status is 1 if a
managed victim did not cut the peer off at the limit, with a ``PeerLimitError`` and one
warning.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import NamedTuple

from support.world import certificate_files

import pykeyupdate

TIMEOUT = 300  # seconds, for what takes a few
LAST = b"the last"
CLIENT_HELLO, KEY_UPDATE = 1, 24
LIMITS = pykeyupdate.PeerLimits()
OURS, SSLS = "managed", "stock"
SERVERS = ["threads", "asyncio"]


class Attack(NamedTuple):
    """What the peer sends."""

    text: str
    limit: int
    excess: int = 1
    """Of KeyUpdates the one too many is taken as well, of a handshake nothing."""
    update_type: int = 0
    in_segment: int = 1
    in_row: int = 0
    """So many, and then a byte of data; 0: no data."""
    regained: float = 0.0
    """So many more may come with each second: on a busy machine it lasts some."""


ATTACKS = {
    "plain": Attack("update_not_requested", LIMITS.key_updates_in_a_row),
    "requesting": Attack(
        "update_requested", LIMITS.key_updates_in_a_row, update_type=1
    ),
    "segments": Attack("40 in a segment", LIMITS.key_updates_in_a_row, in_segment=40),
    "data": Attack(
        "31 and a byte",
        LIMITS.key_updates,
        in_segment=32,
        in_row=31,
        regained=LIMITS.key_updates / LIMITS.key_update_window_seconds,
    ),
    "renegotiation": Attack("renegotiation", LIMITS.renegotiations, excess=0),
}


# -- the attacker ----------------------------------------------------------------------


class Connection:
    """A TLS client over memory: what it sends is made first and sent later."""

    def __init__(self, plain, context):
        self.plain = plain
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_hostname="localhost"
        )

    def handshake(self):
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
                break
            self.plain.sendall(self.outgoing.read())
            self.incoming.write(self.plain.recv(65536))
        self.plain.sendall(self.outgoing.read())

    def make(self, attack, count):
        """Return the records, in the segments that they shall go in."""
        segments, records = [], []
        for number in range(1, count + 1):
            pykeyupdate.key_update(self.tls, attack.update_type)
            self.tls.do_handshake()
            records.append(self.outgoing.read())
            if attack.in_row and number % attack.in_row == 0:
                self.tls.write(b"x")
                records.append(self.outgoing.read())
            if len(records) >= attack.in_segment:
                segments.append(b"".join(records))
                records.clear()
        self.tls.write(LAST)
        return [*segments, b"".join(records), self.outgoing.read()]

    def drain(self):
        """Take what comes, so that the victim is never held up by us."""
        with contextlib.suppress(OSError):
            while self.plain.recv(65536):
                pass


def flood(plain, context, attack, count):
    connection = Connection(plain, context)
    connection.handshake()
    segments = connection.make(attack, count)
    reader = threading.Thread(target=connection.drain)
    reader.start()
    with contextlib.suppress(OSError):  # cut
        for segment in segments:
            plain.sendall(segment)
        plain.shutdown(socket.SHUT_WR)
    reader.join()


def renegotiate(plain, context, count):
    with context.wrap_socket(plain, server_hostname="localhost") as tls:
        with contextlib.suppress(OSError):  # cut
            for _ in range(count):
                pykeyupdate.rekey(tls)
                pykeyupdate.wait_for_renegotiation(tls)
            tls.sendall(LAST)
            tls.recv(len(LAST))


def be_the_attacker(port, name, trusted, count):
    context = ssl.create_default_context(cafile=trusted)
    context.maximum_version = version_of(name)
    with socket.create_connection(("127.0.0.1", port)) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if name == "renegotiation":
            renegotiate(plain, context, count)
        else:
            flood(plain, context, ATTACKS[name], count)


# -- the victim ------------------------------------------------------------------------


class Warnings(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []
        logging.getLogger("pykeyupdate").addHandler(self)

    def emit(self, record):
        self.lines.append(record.getMessage())


class Victim:
    """A server of one connection, and what it tells about it."""

    def __init__(self, kind, name, chain):
        self.taken = Counter()
        self.warnings = Warnings()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(chain)
        self.context.options |= pykeyupdate.OP_ALLOW_CLIENT_RENEGOTIATION
        self.context.maximum_version = version_of(name)
        if kind == OURS:
            pykeyupdate.manage(self.context)
            self.context._msg_callback = self.saw

    def saw(self, conn, direction, version, content_type, message_type, data):
        if content_type == 22 and direction == "read":
            self.taken[data[0]] += 1

    def begin(self):
        """The handshake is done."""
        self.taken.clear()
        self.tail = b""
        self.before = resource.getrusage(resource.RUSAGE_SELF)
        self.begun = time.monotonic()

    def got(self, data):
        self.tail = (self.tail + data)[-len(LAST) :]

    def end(self, error):
        used = resource.getrusage(resource.RUSAGE_SELF)
        report = {
            "taken": self.taken[KEY_UPDATE] + self.taken[CLIENT_HELLO],
            "error": type(error).__name__ if error else "no error",
            "message": str(error),
            "whole": self.tail == LAST,
            "warnings": self.warnings.lines,
            "lasted": time.monotonic() - self.begun,
            "seconds": used.ru_utime
            + used.ru_stime
            - self.before.ru_utime
            - self.before.ru_stime,
        }
        print(json.dumps(report), flush=True)

    def serve(self, plain):
        """A thread's work."""
        with self.context.wrap_socket(plain, server_side=True) as tls:
            self.begin()
            error = None
            try:
                while data := tls.recv(65536):
                    self.got(data)
                    tls.sendall(data)
            except OSError as raised:
                error = raised
        self.end(error)

    def run_threads(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            print(listener.getsockname()[1], flush=True)
            thread = threading.Thread(target=self.serve, args=listener.accept()[:1])
        thread.start()
        thread.join()

    async def attend(self, reader, writer):
        """A task's work."""
        self.begin()
        error = None
        try:
            while data := await reader.read(65536):
                self.got(data)
                writer.write(data)
                await writer.drain()
        except OSError as raised:
            error = raised
        writer.close()
        self.end(error)
        self.done.set()

    async def run_asyncio(self):
        self.done = asyncio.Event()
        server = await asyncio.start_server(
            self.attend, "127.0.0.1", 0, ssl=self.context
        )
        print(server.sockets[0].getsockname()[1], flush=True)
        await self.done.wait()
        server.close()


def be_the_victim(server, kind, name, chain):
    victim = Victim(kind, name, chain)
    if server == "threads":
        victim.run_threads()
    else:
        asyncio.run(victim.run_asyncio())


# -- both ------------------------------------------------------------------------------


def version_of(name):
    return ssl.TLSVersion.TLSv1_2 if name == "renegotiation" else ssl.TLSVersion.TLSv1_3


def run(server, kind, name, paths, count):
    """Set the attacker on a victim; return the victim's report."""
    me = [sys.executable, __file__]
    victim = subprocess.Popen(
        [*me, "--victim", server, kind, name, str(paths[0])],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        port = victim.stdout.readline().strip()
        subprocess.run(
            [*me, "--attacker", port, name, str(paths[1]), str(count)],
            check=True,
            timeout=TIMEOUT,
        )
        return json.loads(victim.communicate(timeout=TIMEOUT)[0])
    finally:
        victim.kill()
        victim.wait()


def fault_of(report, attack):
    """What a managed victim did wrong, or None."""
    if report["error"] != "PeerLimitError":
        return f"the application got {report['error']}: {report['message']}"
    more = report["taken"] - attack.excess - attack.limit
    if not 0 <= more <= report["lasted"] * attack.regained:
        return f"the limit is {attack.limit}, and the peer was cut elsewhere"
    if len(report["warnings"]) != 1:
        return f"{len(report['warnings'])} warnings, not one: {report['warnings']}"
    return None


def compare(server, name, paths, count):
    """Print what both kinds of connections do; return whether ours did well."""
    attack = ATTACKS[name]
    ours = run(server, OURS, name, paths, count)
    stock = run(server, SSLS, name, paths, count)
    fault = fault_of(ours, attack)
    if not fault and not stock["whole"]:
        fault = f"ssl's own did not get all of it ({stock['error']})"
    print(
        f"{attack.text}, {server}: cut after {ours['taken'] - attack.excess} by "
        f"{ours['error']}, {ours['seconds'] * 1e3:.2f} ms; ssl's own: "
        f"{stock['error']} after {count}, {stock['seconds'] * 1e3:.0f} ms "
        f"({stock['seconds'] / ours['seconds']:.0f} times)",
        *[f"WRONG: {fault}"] * bool(fault),
        sep="\n",
        flush=True,
    )
    return not fault


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=100_000)
    parser.add_argument("--renegotiations", type=int, default=1000)
    parser.add_argument("--attacker", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--victim", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attacker:
        port, name, trusted, count = options.attacker
        be_the_attacker(int(port), name, trusted, int(count))
        return 0
    if options.victim:
        be_the_victim(*options.victim)
        return 0
    well = True
    with certificate_files() as paths:
        print(sys.version.split()[0], ssl.OPENSSL_VERSION, flush=True)
        for name in ATTACKS:
            count = (
                options.renegotiations if name == "renegotiation" else options.updates
            )
            for server in SERVERS:
                well = compare(server, name, paths, count) and well
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
