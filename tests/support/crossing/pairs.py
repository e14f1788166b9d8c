"""Plays a case with sockets or SSLObjects; while an end waits, a thread is its peer."""

import contextlib
import ssl
import threading
import time

import pykeyupdate

from ..sockets import socket_pair
from . import calls
from .books import Books
from .scenes import (
    CHILD_SECONDS,
    DATA,
    MESSAGES,
    Result,
    Trap,
    contexts_for,
    set_up,
    signal_soon,
)

ROUNDS = 20  # tries to send
WAITS = 5.0  # seconds, of sockets that wait
LARGE = 300_000  # bytes, more than a small send buffer takes


class Pair(Books):
    """Two ends in this thread; neither waits, but where it is told to."""

    def __init__(self, contexts, carrier, seen):
        super().__init__(seen)
        self.is_socket = carrier == "socket"
        self.threads = []
        make = _sockets if self.is_socket else _objects
        self.ends = make(*contexts)

    def close(self):
        for end in self.ends if self.is_socket else ():
            end.close()

    def wait(self, seconds):
        for end in self.ends if self.is_socket else ():
            with contextlib.suppress(OSError):  # closed
                end.settimeout(seconds)

    def start(self, work):
        """Have another thread do something at the peer's end."""
        self.threads.append(threading.Thread(target=work, daemon=True))
        self.threads[-1].start()

    def join(self):
        for thread in self.threads:
            thread.join(CHILD_SECONDS)

    def handshake(self):
        for _ in range(4):
            for end in (0, 1):
                if not self.ended[end]:
                    with self.operation("do_handshake", end):
                        self.ends[end].do_handshake()
        self.settle()

    def progress(self):
        return len(self.got[0]), len(self.got[1]), len(self.seen.came_out)

    def settle(self):
        """Read at both ends until neither gets anything; answers go along with it."""
        quiet = 0
        while quiet < 3:
            before = self.progress()
            self.read(0)
            self.read(1)
            quiet = quiet + 1 if self.progress() == before else 0

    def read(self, end, size=65536):
        if self.ended[end]:
            return
        with self.operation("read", end):
            data = self.ends[end].read(size)
            if data:
                self.got[end].append(data)
            else:
                self.ended[end] = True

    def send(self, end, data):
        """Send all of it, as often as it takes."""
        for _ in range(ROUNDS):
            if self.ended[end] or not data:
                return
            written, raised = 0, len(self.seen.came_out)
            with self.operation("write", end):
                written = self.ends[end].write(data)
            if len(self.seen.came_out) > raised:
                written = len(data)  # it has been encrypted before
            self.sent[end] += data[:written]
            data = data[written:]
            self.settle()
        self.seen.failures.append((f"write of end {end}", TimeoutError("never done")))

    def send_now(self, end, data):
        """Send it, and nobody reads meanwhile."""
        with self.operation("write", end):
            self.sent[end] += data[: self.ends[end].write(data)]

    def talk(self):
        for end in (0, 1, 0, 1):
            self.send(end, f"after that, from {end}. ".encode() * 30)
            self.settle()


def _sockets(client, server):
    near, far = socket_pair(8192)
    for sock in (near, far):
        sock.setblocking(False)
    options = {"do_handshake_on_connect": False}
    return [
        client.wrap_socket(near, server_hostname="localhost", **options),
        server.wrap_socket(far, server_side=True, **options),
    ]


def _objects(client, server):
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    return [
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]


# -- the moments -----------------------------------------------------------------------


def _in_handshake(case, trap, pair):
    trap.arm((case.role, "write") if case.moment in MESSAGES else None)
    pair.handshake()


def _in_write(case, trap, pair):
    trap.arm((case.role, "write"))
    pair.send(case.role, DATA)


def _in_read(case, trap, pair):
    trap.arm((case.role, "read"))
    pair.send(1 - case.role, DATA)


def _in_rekey(case, trap, pair):
    trap.arm((case.role, "write"))
    with pair.operation("rekey", case.role):
        pykeyupdate.rekey(pair.ends[case.role])


def _in_unwrap(case, trap, pair):
    trap.arm((case.role, "write"))
    pair.breaks_off = True
    for end in (case.role, 1 - case.role, case.role):
        with pair.operation("unwrap", end):
            pair.ends[end].unwrap()


def _in_event(case, trap, pair):
    trap.arm()
    pykeyupdate.request_rekey(pair.ends[case.role])
    pair.send(case.role, DATA)


def _in_impossible(case, trap, pair):
    trap.arm()
    for _ in range(3):
        pair.send(case.role, DATA)


def _in_waiting_recv(case, trap, pair):
    trap.then = lambda: pair.send_now(1 - case.role, DATA)
    pair.wait(WAITS)
    with pair.operation("read", case.role):
        signal_soon(trap)
        pair.read(case.role)


def _in_waiting_sendall(case, trap, pair):
    end, peer = case.role, 1 - case.role
    data = bytes(range(256)) * (LARGE // 256)

    over = threading.Event()

    def drain():
        time.sleep(calls.BRIEFLY)
        while not over.is_set() and sum(map(len, pair.got[peer])) < len(data):
            pair.read(peer)
            if pair.ended[peer]:
                break

    trap.before = lambda: pair.start(drain)  # for what waits until there is room
    pair.wait(WAITS)
    pair.ends[peer].settimeout(calls.BRIEFLY)
    pair.sent[end] += data
    pair.breaks_off = case.after == "raise"
    sent = False
    with pair.operation("sendall", end):
        signal_soon(trap)
        pair.ends[end].sendall(data)
        sent = True
    if not sent:
        over.set()


def _in_waiting_handshake(case, trap, pair):
    def follow():
        with pair.operation("do_handshake", 1 - case.role):
            pair.ends[1 - case.role].do_handshake()

    trap.then = lambda: pair.start(follow)
    pair.wait(WAITS)
    with pair.operation("do_handshake", case.role):
        signal_soon(trap)
        pair.ends[case.role].do_handshake()
    if case.after == "raise":
        with pair.operation("do_handshake", case.role):
            pair.ends[case.role].do_handshake()
    pair.join()
    pair.wait(0)
    pair.settle()


def _between(case, trap, pair):
    """A signal handler runs between any two steps of a program."""
    end = time.monotonic() + WAITS
    with pair.operation("something", case.role):
        signal_soon(trap)
        while not trap.result.sprung and time.monotonic() < end:
            pair.send(case.role, DATA)
            pair.send(1 - case.role, DATA)
    if case.after == "raise":  # out of this very function, perhaps
        pair.settle()
        pair.forget()


_HANDSHAKES = {
    "handshake": _in_handshake,
    "sni": _in_handshake,
    "psk": _in_handshake,
    "keylog": _in_handshake,
    "signal in do_handshake": _in_waiting_handshake,
}
_LATER = {
    "write": _in_write,
    "read": _in_read,
    "keys": _in_rekey,
    "unwrap": _in_unwrap,
    "__del__": _in_write,
    "weakref": _in_write,
    "gc": _in_write,
    "event": _in_event,
    "log": _in_event,
    "impossible": _in_impossible,
    "signal in recv": _in_waiting_recv,
    "signal in sendall": _in_waiting_sendall,
    "signal": _between,
}
MOMENTS = [*_HANDSHAKES, *_LATER]


def play(case, do, certificates, folder):
    """Play a case of sockets or objects."""
    result = Result()
    trap = Trap(case, result)
    trap.do = do
    contexts, others = contexts_for(case, trap, certificates)
    with set_up(case, trap, contexts, folder):
        other = Pair(others, case.carrier, result.other)
        other.handshake()
        pair = Pair(contexts, case.carrier, result.own)
        trap.other, trap.ends = other.ends[case.role], list(pair.ends)
        _HANDSHAKES.get(case.moment, lambda *_: pair.handshake())(case, trap, pair)
        _LATER.get(case.moment, lambda *_: None)(case, trap, pair)
        pair.join()
    pykeyupdate.uninstall()
    _look_back(case, trap, pair, other)
    return result


def _look_back(case, trap, pair, other):
    """Let both pairs talk, and compare what they said and heard."""
    for each in (pair, other):
        each.wait(0)
        each.settle()
        if not each.breaks_off:
            each.talk()
    nothing = calls.Hands()
    own = case.target == "own"
    pair.compare(case.role, trap.hands if own else nothing)
    other.compare(case.role, nothing if own else trap.hands)
    pair.close()
    other.close()
