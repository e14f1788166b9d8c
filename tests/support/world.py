"""Real connections in every possible state, and the operations on them.

Nothing blocks: there are memory BIOs, whose bytes the test moves in pieces, and socket
pairs with small send buffers. Another process makes the certificates, so that a
sanitizer or valgrind examines only the ssl module and pykeyupdate.
"""

import contextlib
import functools
import gc
import itertools
import os
import socket
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

import pykeyupdate.testing

from .sockets import socket_pair

_CERTIFICATE = """\
import sys, trustme
ca = trustme.CA()
chain = ca.issue_cert("localhost").private_key_and_cert_chain_pem.bytes()
sys.stdout.buffer.write(chain + b"====" + ca.cert_pem.bytes())
"""
CANARY = b"never in plaintext "  # in all data, and never seen on the wire
SMALL_BUFFER = 4096
_ROUNDS = 12  # two renegotiations, one after the other, are through in eight


def make_certificate():
    """Return a server's key and chain, and the authority's certificate, as PEM.

    By the interpreter that TRUSTME_PYTHON names, where trustme is not to be had for
    this one.
    """
    made = subprocess.run(
        [os.environ.get("TRUSTME_PYTHON", sys.executable), "-c", _CERTIFICATE],
        check=True,
        capture_output=True,
        timeout=300,
    )
    chain, _, authority = made.stdout.partition(b"====")
    return chain, authority.decode()


@contextlib.contextmanager
def certificate_files():
    """Have ``make_certificate()``'s two in files for others; give their paths."""
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder, "chain.pem"), Path(folder, "ca.pem")
        chain, authority = make_certificate()
        paths[0].write_bytes(chain)
        paths[1].write_text(authority)
        yield paths


class Contexts:
    """Contexts of both sides, one pair for each way to configure a connection."""

    def __init__(self, on_message, on_name):
        chain, authority = make_certificate()
        self.pairs = []  # all of them
        self.quiet = []  # those without callbacks
        tls12, tls13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "chain.pem")
            path.write_bytes(chain)
            for lowest, highest in [(tls12, tls12), (tls13, tls13), (tls12, tls13)]:
                for options, callbacks in [
                    (0, False),
                    (0, True),
                    (ssl.OP_NO_RENEGOTIATION, False),
                    (ssl.OP_NO_TICKET, False),
                ]:
                    pair = self._pair(path, authority, options)
                    for context in pair:
                        context.minimum_version = lowest
                        context.maximum_version = highest
                        if callbacks:
                            context._msg_callback = on_message
                    if callbacks:
                        pair[1].sni_callback = on_name
                    else:
                        self.quiet.append(pair)
                    self.pairs.append(pair)

    def another(self, rng, context, which):
        """Return a context to put in this one's place.

        Both have callbacks or both have none: CPython up to 3.9 deadlocks on its own
        GIL where a context without ``_msg_callback`` takes the place of one with it.
        """
        loud = context._msg_callback is not None
        pairs = [pair for pair in self.pairs if (pair not in self.quiet) == loud]
        return rng.choice(pairs)[which]

    @staticmethod
    def _pair(path, authority, options):
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.load_verify_locations(cadata=authority)
        client.post_handshake_auth = True
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(path)
        server.load_verify_locations(cadata=authority)
        server.options |= pykeyupdate.OP_ALLOW_CLIENT_RENEGOTIATION
        for context in (client, server):
            context.options |= options
        return client, server


class MemoryPair:
    """Two SSLObjects; bytes go over when ``carry()`` is called, and not before."""

    def __init__(self, client_context, server_context):
        self.incoming = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ends = (
            client_context.wrap_bio(
                self.incoming[0], self.outgoing[0], server_hostname="localhost"
            ),
            server_context.wrap_bio(
                self.incoming[1], self.outgoing[1], server_side=True
            ),
        )
        self.plaintext_seen = False

    def carry(self, which, count=-1):
        """Take bytes that one end has sent to the other."""
        data = self.outgoing[which].read(count)
        self.plaintext_seen |= CANARY in data
        if data:
            self.incoming[1 - which].write(data)

    def unsent(self, which):
        return self.outgoing[which].pending

    def corrupt(self, which, data):
        self.incoming[which].write(data)

    def lose(self, which, count):
        self.incoming[which].read(count)

    def end_of_file(self, which):
        self.incoming[which].write_eof()

    def close(self):
        self.ends = self.incoming = self.outgoing = ()


class SocketPair:
    """Two SSLSockets that never block, over a pair of sockets."""

    def __init__(self, client_context, server_context, buffer=SMALL_BUFFER):
        sockets = socket_pair(buffer)
        for sock in sockets:
            sock.setblocking(False)
        self.ends = (
            client_context.wrap_socket(
                sockets[0], server_hostname="localhost", do_handshake_on_connect=False
            ),
            server_context.wrap_socket(
                sockets[1], server_side=True, do_handshake_on_connect=False
            ),
        )
        self.plaintext_seen = False

    def carry(self, which, count=-1):
        """The system carries; only a socket detached from its file does not."""

    def unsent(self, which):
        return 0

    def corrupt(self, which, data):
        with contextlib.suppress(OSError):
            socket.socket.send(self.ends[1 - which], data)

    def lose(self, which, count):
        with contextlib.suppress(OSError):
            socket.socket.recv(self.ends[which], count)

    def end_of_file(self, which):
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.ends[1 - which], socket.SHUT_WR)

    def close(self):
        for end in self.ends:
            end.close()


_POLICIES = [
    None,
    pykeyupdate.RekeyPolicy(),
    pykeyupdate.RekeyPolicy.tiny(),
    pykeyupdate.RekeyPolicy(
        sent_records=2,
        received_records=3,
        age_seconds=60,
        idle_seconds=30,
        min_interval_seconds=0,
        request_peer=True,
        renegotiate=True,
        on_impossible=lambda conn, error: conn.version(),
    ),
    pykeyupdate.RekeyPolicy(sent_bytes=50, jitter=0.5, on_impossible="close"),
    pykeyupdate.RekeyPolicy(sent_bytes=5000, on_impossible="ignore"),
]
_LIMITS = [
    None,
    None,
    pykeyupdate.PeerLimits(renegotiation="once"),
    pykeyupdate.PeerLimits(renegotiation="never"),
    pykeyupdate.PeerLimits(key_updates=3, key_updates_in_a_row=2, renegotiations=1),
]


@contextlib.contextmanager
def managed(contexts):
    """Have contexts make managed connections, each time with other rules."""
    for context in contexts:
        pykeyupdate.manage(context, policy=next(_policies), limits=next(_limits))
    yield
    for context in contexts:
        del context.sslsocket_class, context.sslobject_class


_policies, _limits = itertools.cycle(_POLICIES), itertools.cycle(_LIMITS)


class ManagedPair(SocketPair):
    """Two managed sockets, otherwise the same."""

    def __init__(self, client_context, server_context, buffer=SMALL_BUFFER):
        with managed((client_context, server_context)):
            super().__init__(client_context, server_context, buffer)


class ManagedMemoryPair(MemoryPair):
    """Two managed SSLObjects, otherwise the same."""

    def __init__(self, client_context, server_context):
        with managed((client_context, server_context)):
            super().__init__(client_context, server_context)


def BigSocketPair(client_context, server_context):  # noqa: N802
    """Make a SocketPair with room for all that a test of good conduct sends."""
    return SocketPair(client_context, server_context, buffer=1 << 18)


def settle(pair, rounds=_ROUNDS):
    """Let both ends read what there is, a bounded number of times."""
    got = [b"", b""]
    for _ in range(rounds):
        for which in (0, 1):
            pair.carry(1 - which)
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                while len(got[which]) < 1 << 20:
                    data = pair.ends[which].read(65536)
                    if not data:
                        break
                    got[which] += data
    return got


def connect(pair):
    """Complete the first handshake and take the session tickets."""
    for _ in range(_ROUNDS):
        for which in (0, 1):
            pair.carry(1 - which)
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pair.ends[which].do_handshake()
    settle(pair)
    return pair


def talks(pair):
    """Return whether data goes both ways, complete."""
    for which in (0, 1):
        data = CANARY * 20
        if pair.ends[which].write(data) != len(data):
            return False
        if settle(pair)[1 - which] != data:
            return False
    return True


class World:
    """A pool of connections that come, are treated badly, and go."""

    def __init__(self, rng, contexts, size=16):
        self.rng = rng
        self.contexts = contexts
        self.sessions = []
        self.wrong = None  # what a function of pykeyupdate's did that it may not
        self.pairs = [self.new_pair() for _ in range(size)]
        self.lives = [rng.randrange(20, 200) for _ in range(size)]

    def new_pair(self):
        contexts = self.rng.choice(self.contexts.pairs)
        make = self.rng.choice((MemoryPair, SocketPair, ManagedPair, ManagedMemoryPair))
        pair = make(*contexts)
        if self.sessions and self.rng.random() < 0.3:
            with contextlib.suppress(ValueError):
                pair.ends[0].session = self.rng.choice(self.sessions)
        if self.rng.random() < 0.7:
            with contextlib.suppress(OSError):
                connect(pair)
        return pair

    def some_pair(self):
        index = self.rng.randrange(len(self.pairs))
        self.lives[index] -= 1
        if self.lives[index] < 0:
            self.pairs[index].close()
            self.pairs[index] = self.new_pair()
            self.lives[index] = self.rng.randrange(20, 400)
        return self.pairs[index]

    def some_end(self):
        """Return a pair that is not closed, and which of its ends."""
        pair = self.some_pair()
        while not pair.ends:
            pair = self.some_pair()
        return pair, self.rng.randrange(2)

    def close(self):
        for pair in self.pairs:
            pair.close()

    def act(self):
        """Do something to a connection.  What the ssl module says does not matter."""
        pair, which = self.some_end()
        action = self.rng.choices(_ACTIONS, cum_weights=_WEIGHTS)[0]
        # Closed and failed connections answer in many ways, AttributeError too.
        with contextlib.suppress(Exception):
            action(self, pair, which)
        return pair


def _handshake(world, pair, which):
    pair.ends[which].do_handshake()


def _read(world, pair, which):
    pair.carry(1 - which)
    pair.ends[which].read(world.rng.choice((0, 1, 100, 65536)))


def _write(world, pair, which):
    # A retry of an incomplete write is bytes of the same length or more: mostly so.
    count = world.rng.choice((0, 1, 10, 10, 2000))
    pair.ends[which].write(CANARY * count)


def _carry(world, pair, which):
    pair.carry(which, world.rng.choice((1, 5, 30, 300, -1)))


def _carry_all_and_read(world, pair, which):
    settle(pair, rounds=1)


def _unwrap(world, pair, which):
    pair.ends[which].unwrap()


def _corrupt(world, pair, which):
    junk = world.rng.choice(
        (
            b"\x17\x03\x03\x00\x20" + bytes(32),
            b"\x15\x03\x03\x00\x02\x02\x28",
            b"HTTP/1",
        )
    )
    pair.corrupt(which, junk)


def _lose(world, pair, which):
    pair.lose(which, world.rng.randrange(1, 60))


def _end_of_file(world, pair, which):
    pair.end_of_file(which)


def _close(world, pair, which):
    if isinstance(pair, SocketPair):
        world.rng.choice((pair.ends[which].close, pair.ends[which].detach))()
    else:
        pair.close()


def _replace_context(world, pair, which):
    end = pair.ends[which]
    end.context = world.contexts.another(world.rng, end.context, which)


def _verify_client(world, pair, which):
    pair.ends[1].context.verify_mode = ssl.CERT_OPTIONAL
    pair.ends[1]._sslobj.verify_client_post_handshake()


def _keep_session(world, pair, which):
    session = pair.ends[0].session
    if session is not None:
        world.sessions = [session, *world.sessions[:7]]


def _look(world, pair, which):
    end = pair.ends[which]
    world.rng.choice(
        (end.version, end.cipher, end.pending, end.getpeercert, end.get_channel_binding)
    )()


def _collect(world, pair, which):
    gc.collect(world.rng.choice((0, 0, 0, 1)))


def _connect(world, pair, which):
    connect(pair)


PERFORMING = [
    pykeyupdate.rekey,
    pykeyupdate.flush,
    pykeyupdate.wait_for_renegotiation,
    pykeyupdate.request_client_certificate,
]
_RENEWALS = [*PERFORMING, functools.partial(pykeyupdate.rekey, request_peer=True)]


def _renew(world, pair, which):
    """Do what does I/O: pykeyupdate's errors, ssl's and the system's, and no others."""
    renew = world.rng.choice(_RENEWALS)
    try:
        renew(pair.ends[which])
    except (pykeyupdate.PyKeyUpdateError, OSError):
        pass
    except Exception as error:
        world.wrong = f"{renew}: {error!r}"


def _ask_a_managed_one(world, pair, which):
    """Do what only managed connections do: the same errors, and no others."""
    end = pair.ends[which]
    ask = world.rng.choice(_MANAGING)
    try:
        ask(end)
    except (pykeyupdate.PyKeyUpdateError, OSError):
        pass
    except Exception as error:
        world.wrong = f"{ask}: {error!r}"


def _allow_renegotiation(end):
    with pykeyupdate.allow_renegotiation(end):
        end.read(100)


def _rekey_all(end):
    pykeyupdate.rekey_all(per_second=1e9)


def _advance_clock(end):
    pykeyupdate.testing.advance_clock(20)


_MANAGING = [
    pykeyupdate.stats,
    pykeyupdate.request_rekey,
    functools.partial(pykeyupdate.request_rekey, request_peer=True),
    _allow_renegotiation,
    _rekey_all,
    _advance_clock,
]

_ACTIONS, _EACH = zip(
    (_handshake, 10),
    (_read, 16),
    (_write, 16),
    (_carry, 16),
    (_carry_all_and_read, 16),
    (_unwrap, 1.5),
    (_corrupt, 0.5),
    (_lose, 0.3),
    (_end_of_file, 0.3),
    (_close, 1),
    (_replace_context, 2),
    (_verify_client, 1),
    (_keep_session, 2),
    (_look, 4),
    (_collect, 1),
    (_connect, 5),
    (_renew, 12),
    (_ask_a_managed_one, 6),
)
_WEIGHTS = list(itertools.accumulate(_EACH))
