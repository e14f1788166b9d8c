"""Peers that do nothing wrong, and signals: what managed connections must never spoil.

    python tests/stress honest  (a minute and a half)

There are three parts; ``--part`` selects one:

honest
    100 connections with the default ``PeerLimits``, managed at both ends or at one, on
    TLS 1.3 and 1.2. Both sides send all the time and ask for the other's keys as often
    as these limits allow (on TLS 1.2 they renegotiate). A managed side has a reader
    thread and a writer thread; half of those with a managed peer ask again before they
    are answered, which RFC 9846 forbids and the limits allow. A side of ``ssl``'s own
    has one thread that does not block, because two are not safe in it. It avoids what
    OpenSSL itself does not survive: to read a KeyUpdate that follows a requesting one
    while a write is half-way, and to write in the middle of a renegotiation. The data
    received is compared with the data sent.

mosquitto
    paho-mqtt, managed, has Debian's mosquitto send messages of 5 MB back to it: 50 with
    ``RekeyPolicy.tiny()``, 10 with each other policy that changes keys all the time.
    The broker reads while its own writes are half-way. Each message must come back, and
    the connection must live. (Skipped if either of the two is missing, unless
    ``PYKEYUPDATE_REQUIRE_PEERS`` is set.)

signals
    How long after a signal the exception of its handler comes out of a call, on a
    managed socket and on ``ssl``'s in the same place: in ``sendall()`` of a gigabyte,
    in ``recv()`` under an endless series of KeyUpdate messages, in calls on a
    renegotiation that does not end, and in ``rekey_all()``; without a timeout and with
    one. The median of five may exceed ``ssl``'s by 0.2 s at most: on a busy machine any
    single one may be late.

OpenSSL's message callback counts the key changes. The exit status is 1 if a connection
is lost, data is wrong or a handler is late. A part that makes no progress for long is a
deadlock, and the stacks of its threads are printed.
"""

import argparse
import contextlib
import faulthandler
import itertools
import os
import random
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Callable, NamedTuple

from peer_flood import ATTACKS, Connection
from support.sockets import socket_pair
from support.world import certificate_files

import pykeyupdate
from pykeyupdate import PeerLimits, RekeyPolicy

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
HANDSHAKE = 22
CLIENT_HELLO, KEY_UPDATE = 1, 24
LIMITS = PeerLimits()
DEADLOCK = 120  # seconds
AT_ONCE = 10  # connections
BLOCK = random.Random(0).randbytes(1 << 16)
PATTERN = BLOCK * 3  # any piece begins within the first
PIECES = [1, 90, 400, 1500, 20000]
MANAGED, PLAIN = "managed", "ssl"
ENDS = [(MANAGED, MANAGED), (MANAGED, PLAIN), (PLAIN, MANAGED)]
KINDS = list(itertools.product((TLS13, TLS12), ENDS))


class Seen(Counter):
    """What a context's message callback has seen of changes of keys."""

    def __call__(self, conn, direction, version, content_type, message_type, data):
        if content_type == HANDSHAKE and data[0] == KEY_UPDATE:
            self[direction, "request" if data[-1] else "update"] += 1
        elif content_type == HANDSHAKE and data[0] == CLIENT_HELLO:
            self[direction, "ClientHello"] += 1


def make_contexts(paths, version, ends=(PLAIN, PLAIN), **rules):
    """Return a client's and a server's, managed by these rules where ``ends`` says."""
    chain, trusted = paths
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(trusted)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain)
    server.options |= pykeyupdate.OP_ALLOW_CLIENT_RENEGOTIATION
    for context, end in zip((client, server), ends):
        context.minimum_version = context.maximum_version = version
        if end == MANAGED:
            pykeyupdate.manage(context, **rules)
    return client, server


def connect(contexts):
    """Return a client's and a server's end."""
    near, far = socket_pair()
    client = contexts[0].wrap_socket(
        near, server_hostname="localhost", do_handshake_on_connect=False
    )
    server = contexts[1].wrap_socket(
        far, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.do_handshake)
    thread.start()
    client.do_handshake()
    thread.join()
    return client, server


def in_thread(work, *args):
    thread = threading.Thread(target=work, args=args, daemon=True)
    thread.start()
    return thread


# -- honest peers ----------------------------------------------------------------------


class Side:
    """One end of a connection: what it sends and gets, and how often it asks."""

    def __init__(self, end, seen, lengths, to_get, *, is_eager):
        self.end, self.seen = end, seen
        self.lengths, self.to_get = lengths, to_get
        self.is_eager = is_eager
        self.is_tls13 = end.version() == "TLSv1.3"
        self.most = LIMITS.key_updates if self.is_tls13 else LIMITS.renegotiations
        self.asked = self.sent = self.got = 0
        self.refused = Counter()

    def ask(self):
        """Ask for the other's keys, unless that is too often or too early."""
        if self.asked == self.most or not self.may_ask():
            return
        try:
            self.change_keys()
        except pykeyupdate.NotNowError as refusal:
            self.refused[type(refusal).__name__] += 1
        else:
            self.asked += 1

    def take(self, data):
        if not data:
            raise EOFError(f"after {self.got} of {self.to_get} bytes")
        start = self.got % len(BLOCK)
        for offset in range(0, len(data), len(BLOCK)):
            piece = data[offset : offset + len(BLOCK)]
            if piece != PATTERN[start : start + len(piece)]:
                raise ValueError(f"other data than was sent, at {self.got}")
        self.got += len(data)

    def piece(self, length):
        start = self.sent % len(BLOCK)
        self.sent += length
        return PATTERN[start : start + length]


class ManagedSide(Side):
    """Two threads that block."""

    def works(self):
        return [self.write, self.read]

    def write(self):
        for length in self.lengths[:-1]:
            self.end.sendall(self.piece(length))
            self.ask()
        # behind the last piece the other reads no more, and could not renegotiate
        self.end.sendall(self.piece(self.lengths[-1]))

    def read(self):
        while self.got < self.to_get:
            self.take(self.end.recv(1 << 16))

    def may_ask(self):
        return self.is_eager or not pykeyupdate.stats(self.end).request_outstanding

    def change_keys(self):
        pykeyupdate.rekey(self.end, request_peer=self.is_tls13)


class PlainSide(Side):
    """One thread that does not block."""

    def works(self):
        return [self.run]

    def run(self):
        self.end.setblocking(False)
        pieces = [self.piece(length) for length in self.lengths]
        while pieces or self.got < self.to_get:
            self.read()
            is_renegotiating = not self.is_tls13 and self.end.version() is None
            if pieces and not is_renegotiating:
                self.write(pieces[0])
                pieces.pop(0)
                if pieces:
                    self.ask()
            else:
                select.select([self.end], [], [], 0.001)

    def write(self, piece):
        while True:
            try:
                self.end.send(piece)
            except ssl.SSLWantWriteError:
                select.select([], [self.end], [])
            else:
                return

    def read(self):
        with contextlib.suppress(ssl.SSLWantReadError):
            while self.got < self.to_get:
                self.take(self.end.recv(1 << 16))

    def may_ask(self):
        return self.seen["write", "request"] == self.seen["read", "update"]

    def change_keys(self):
        if self.is_tls13:
            pykeyupdate.key_update(self.end, pykeyupdate.KeyUpdateType.REQUESTED)
        else:
            pykeyupdate.renegotiate(self.end)


class Conversation:
    """One connection and its threads."""

    def __init__(self, paths, number, rounds):
        self.version, self.kinds = KINDS[number % len(KINDS)]
        chance = random.Random(number)
        contexts = make_contexts(paths, self.version, self.kinds)
        self.seen = Seen(), Seen()
        for context, seen in zip(contexts, self.seen):
            context._msg_callback = seen
        ends = connect(contexts)
        lengths = [[chance.choice(PIECES) for _ in range(rounds)] for _ in ends]
        is_eager = PLAIN not in self.kinds and number // len(KINDS) % 2 == 1
        self.sides = [
            (ManagedSide if kind == MANAGED else PlainSide)(
                end, seen, mine, sum(theirs), is_eager=is_eager
            )
            for kind, end, seen, mine, theirs in zip(
                self.kinds, ends, self.seen, lengths, lengths[::-1]
            )
        ]
        self.failures = []

    def start(self):
        self.threads = [
            in_thread(self.guarded, work)
            for side in self.sides
            for work in side.works()
        ]

    def guarded(self, work):
        try:
            work()
        except Exception:
            self.failures.append(traceback.format_exc())
            for side in self.sides:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(side.end, socket.SHUT_RDWR)

    def finish(self, limit):
        """Return the failures."""
        for thread in self.threads:
            thread.join(max(0.01, limit - time.monotonic()))
            if thread.is_alive():
                faulthandler.dump_traceback()
                return ["deadlock", *self.failures]
        for side in self.sides:
            side.end.close()
        return self.failures


def honest(options, paths):
    """Have connections talk; return whether all did to the end."""
    lost, moved = 0, 0
    asked, seen, refused = Counter(), Counter(), Counter()
    for first in range(0, options.connections, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, options.connections))
        some = [Conversation(paths, number, options.rounds) for number in numbers]
        for conversation in some:
            conversation.start()
        limit = time.monotonic() + DEADLOCK
        for number, conversation in zip(numbers, some):
            failures = conversation.finish(limit)
            what = conversation.version.name, *conversation.kinds
            if failures:
                lost += 1
                print(f"connection {number} {what} is lost:", *failures, sep="\n")
            for side in conversation.sides:
                asked[conversation.version.name] += side.asked
                refused += side.refused
                moved += side.got
            for counts in conversation.seen:
                seen += counts
    sent = {
        what: count for (direction, what), count in seen.items() if direction == "write"
    }
    print(
        f"honest: {options.connections} connections, {lost} lost; {moved / 1e6:.0f} MB;"
        f" asked {dict(asked)}; sent {sent}; not now: {dict(refused)}",
        flush=True,
    )
    return not lost


# -- mosquitto -------------------------------------------------------------------------

POLICIES = {
    "tiny": RekeyPolicy.tiny(),
    "asks": RekeyPolicy(sent_records=1, request_peer=True, min_interval_seconds=0),
    "asks for received": RekeyPolicy(
        sent_records=1, received_records=1, min_interval_seconds=0
    ),
    "of age": RekeyPolicy(age_seconds=1e-6, request_peer=True, min_interval_seconds=0),
    "none of them": RekeyPolicy(sent_records=1, min_interval_seconds=0),
}
IN_FLIGHT = 3  # messages: the broker writes one while it reads another


@contextlib.contextmanager
def broker(path, chain):
    """Start mosquitto; give its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder, "mosquitto.conf")
        configuration.write_text(
            f"listener {address[1]} 127.0.0.1\nallow_anonymous true\n"
            f"persistence false\nlog_type error\ncertfile {chain}\nkeyfile {chain}\n"
            "max_packet_size 268435455\n"  # by default 2 MB since mosquitto 2.1
            "user root\n"  # where it is root it would become another, who may not read
        )
        log = Path(folder, "log")
        with log.open("wb") as file:
            process = subprocess.Popen([path, "-c", configuration], stderr=file)
        try:
            limit = time.monotonic() + DEADLOCK
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(address).close()
                    break
                if process.poll() is not None or time.monotonic() > limit:
                    raise RuntimeError(f"mosquitto does not start: {log.read_text()}")
                time.sleep(0.01)
            yield address
        finally:
            process.kill()
            process.wait()


class Echo:
    """A client of paho-mqtt that publishes to itself, on one connection."""

    def __init__(self, mqtt, context, size):
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, reconnect_on_failure=False
        )
        self.client.tls_set_context(context)
        self.client.on_connect = lambda *_: self.client.subscribe("echo", qos=1)
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_disconnect = self.ended
        self.client.on_message = self.came
        self.subscribed = threading.Event()
        self.room = threading.Semaphore(IN_FLIGHT)
        self.filling = (BLOCK * (size // len(BLOCK) + 1))[: size - 8]
        self.ends, self.back = [], Counter()

    def ended(self, client, data, flags, reason, properties):
        self.ends.append(str(reason))
        self.room.release()

    def came(self, client, data, message):
        number, filling = message.payload[:8], message.payload[8:]
        self.back[int(number) if filling == self.filling else "damaged"] += 1
        self.room.release()

    def goes_on(self):
        """Wait for a message to come back, or the end."""
        return self.room.acquire(timeout=DEADLOCK) and not self.ends

    def run(self, address, count):
        """Return what is wrong with what came back, or nothing."""
        self.client.connect(*address)
        self.client.loop_start()
        try:
            if not self.subscribed.wait(DEADLOCK):
                return "no subscription"
            for number in range(count):
                if not self.goes_on():
                    break
                self.client.publish("echo", b"%08d" % number + self.filling, qos=1)
            else:
                all(self.goes_on() for _ in range(IN_FLIGHT))
            lost = list(self.ends)
        finally:
            self.client.disconnect()
            self.client.loop_stop()
        if lost:
            return f"LOST after {sum(self.back.values())} messages ({lost[0]})"
        if self.back != Counter(range(count)):
            return f"WRONG: {dict(self.back)} came back"
        return ""


def mosquitto(options, paths):
    """Publish with each policy; return whether all came back."""
    path = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    try:
        import paho.mqtt.client as mqtt
    except ImportError:
        mqtt = None
    if not path or not mqtt:
        print("mosquitto: passed over, as it or paho-mqtt is not installed")
        return not os.environ.get("PYKEYUPDATE_REQUIRE_PEERS")
    well = True
    for name, policy in POLICIES.items():
        count = options.messages if name == "tiny" else options.other_messages
        contexts = make_contexts(paths, TLS13, (MANAGED, PLAIN), policy=policy)
        contexts[0].check_hostname = False
        contexts[0]._msg_callback = seen = Seen()
        began = time.monotonic()
        with broker(path, paths[0]) as address:
            fault = Echo(mqtt, contexts[0], options.size).run(address, count)
        well = well and not fault
        sent, received = (
            f"{seen[direction, 'update']} updates and {seen[direction, 'request']}"
            for direction in ("write", "read")
        )
        print(
            f"mosquitto, {name}: {count} messages of {options.size / 1e6:g} MB in "
            f"{time.monotonic() - began:.1f} s; sent {sent} requests, received "
            f"{received}; {fault or 'all back, no connection lost'}",
            flush=True,
        )
    return well


# -- signals ---------------------------------------------------------------------------

MOST = 0.2  # seconds more than ssl's
BEFORE = 0.3  # seconds until the signal
ENDLESS = 4.0  # seconds of what has no end, for a call that waits for it
UPDATES = 100_000  # so many take a second at least


class Stop(Exception):
    """What the handler raises."""


def stop(*_):
    raise Stop


def delay(call):
    """Return how long after a signal its handler's exception has come out of a call.

    The kernel's timer sends it: a thread of ours might have to wait for its turn.
    """
    signal.signal(signal.SIGALRM, stop)
    due = time.monotonic() + BEFORE
    signal.setitimer(signal.ITIMER_REAL, BEFORE)
    try:
        call()
    except Stop:
        return time.monotonic() - due
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
    raise RuntimeError("the call ended before its signal")


def drain(end):
    room = bytearray(1 << 18)
    with contextlib.suppress(OSError):
        while end.recv_into(room):
            pass


def send_on(end):
    """Send data for a while, and follow no HelloRequest."""
    time.sleep(BEFORE / 3)  # it has been sent
    limit = time.monotonic() + ENDLESS
    with contextlib.suppress(OSError):
        while time.monotonic() < limit:
            end.sendall(b"data")
            time.sleep(0.001)


@contextlib.contextmanager
def pair(paths, kind, version=TLS12, *, is_client=True, peer=None):
    """Give an end of that kind, whose peer is ssl's; what that does, in a thread."""
    ends = (kind, PLAIN) if is_client else (PLAIN, kind)
    client, server = connect(make_contexts(paths, version, ends, limits=None))
    end, other = (client, server) if is_client else (server, client)
    working = in_thread(peer, other) if peer else None
    with end, other:
        try:
            yield end
        finally:
            for one in (end, other):
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(one, socket.SHUT_RDWR)
            if working:
                working.join(DEADLOCK)


@contextlib.contextmanager
def flooded(paths, kind):
    """Give an end that gets KeyUpdate messages alone, faster than it can take them."""
    contexts = make_contexts(paths, TLS13, (PLAIN, kind), limits=None)
    near, far = socket_pair()
    peer = Connection(near, contexts[0])
    shaking = in_thread(peer.handshake)
    with near, contexts[1].wrap_socket(far, server_side=True) as end:
        shaking.join()
        segments = peer.make(ATTACKS["segments"], UPDATES)
        sending = in_thread(send_all, near, segments)
        try:
            yield end
        finally:
            near.shutdown(socket.SHUT_RDWR)
            sending.join(DEADLOCK)


def send_all(plain, segments):
    with contextlib.suppress(OSError):
        for segment in segments:
            plain.sendall(segment)


@contextlib.contextmanager
def several(paths, kind):
    """Give one of three ends: the peer does not read, and nothing more can be sent."""
    with contextlib.ExitStack() as stack:
        end, *_ = [stack.enter_context(pair(paths, kind, TLS13)) for _ in range(3)]
        end.setblocking(False)
        with contextlib.suppress(ssl.SSLWantWriteError):
            while True:
                end.send(BLOCK)
        yield end


def send_a_gigabyte(end):
    end.sendall(memoryview(bytes(1 << 30)))


def receive(end):
    end.recv(10)


def renegotiate_and(call):
    def do(end):
        pykeyupdate.renegotiate(end)
        call(end)

    return do


def ask_and_wait(end):
    pykeyupdate.rekey(end)
    pykeyupdate.wait_for_renegotiation(end)


def rekey_all(end):
    pykeyupdate.rekey_all(per_second=1.0)


def send(end):
    end.sendall(b"data")


class Situation(NamedTuple):
    """A call that a signal interrupts."""

    text: str
    call: Callable[[Any], object]
    give: Callable[..., Any] = pair
    """How an end for it comes into being."""
    has_stock: bool = True
    """Whether ssl's own socket can be asked for the same."""


SITUATIONS = [
    Situation(
        "sendall() of a gigabyte",
        send_a_gigabyte,
        partial(pair, version=TLS13, peer=drain),
    ),
    Situation("recv() under KeyUpdates", receive, flooded),
    Situation(
        "do_handshake() of a renegotiation",
        renegotiate_and(ssl.SSLSocket.do_handshake),
    ),
    Situation("recv() in a renegotiation", renegotiate_and(receive)),
    Situation("sendall() in a renegotiation", renegotiate_and(send)),
    Situation("wait_for_renegotiation()", ask_and_wait),
    Situation(
        "wait_for_renegotiation() of a server",
        ask_and_wait,
        partial(pair, is_client=False),
    ),
    Situation(
        "wait_for_renegotiation() under data",
        ask_and_wait,
        partial(pair, is_client=False, peer=send_on),
        has_stock=False,  # ReadPendingError
    ),
    Situation("rekey_all()", rekey_all, several, has_stock=False),
]


def delay_in(situation, paths, kind, timeout):
    """Return the delay in a new connection."""
    with situation.give(paths, kind) as end:
        end.settimeout(timeout)
        return delay(lambda: situation.call(end))


def signals(options, paths):
    """Interrupt calls; return whether no handler was late."""
    longest = latest = 0.0
    for situation, timeout in itertools.product(SITUATIONS, (None, 60.0)):
        stock, ours = [0.0] * (not situation.has_stock), []
        for _ in range(options.signals):
            if situation.has_stock:
                stock.append(delay_in(situation, paths, PLAIN, timeout))
            ours.append(delay_in(situation, paths, MANAGED, timeout))
        more = median(ours) - median(stock)
        longest, latest = max(longest, *ours), max(latest, more)
        beside = f"ssl {median(stock):.3f} s, " if situation.has_stock else ""
        print(
            f"signal in {situation.text}, timeout {timeout}: {beside}managed "
            f"{median(ours):.3f} s, difference {more:+.3f} s"
            + ("  LATE" if more > MOST else ""),
            flush=True,
        )
    print(
        f"signals: managed {latest:.3f} s more than ssl, of {MOST} s; the longest of "
        f"all {longest:.3f} s",
        flush=True,
    )
    return latest <= MOST


PARTS = {"honest": honest, "mosquitto": mosquitto, "signals": signals}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", action="append", choices=PARTS, help="all")
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1500, help="pieces each way")
    parser.add_argument("--messages", type=int, default=50, help="with tiny()")
    parser.add_argument("--other-messages", type=int, default=10)
    parser.add_argument("--size", type=int, default=5_000_000, help="of a message")
    parser.add_argument("--signals", type=int, default=5, help="in each situation")
    options = parser.parse_args()
    faulthandler.enable()
    print(sys.version.split()[0], ssl.OPENSSL_VERSION, flush=True)
    with certificate_files() as paths:
        well = [PARTS[name](options, paths) for name in options.part or PARTS]
    print("well" if all(well) else "NOT WELL")
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
