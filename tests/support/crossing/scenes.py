"""One case: two connections, and a callback that makes a call in the middle of another.

A ``Case`` describes it completely, a ``Trap`` makes the call at the right moment, and
``Seen`` and ``Result`` hold what was observed. Ends are numbered: 0 is the client, 1
the server.
"""

import contextlib
import gc
import logging
import os
import signal
import ssl
import sys
import time
import weakref
from collections import Counter
from typing import NamedTuple

import pykeyupdate

from . import calls

HANDSHAKE, KEY_UPDATE = 22, 24  # TLS content type, handshake message
NEW_KEYS = {KEY_UPDATE: "KeyUpdate", 0: "HelloRequest", 1: "ClientHello"}
VERSIONS = {"tls13": ssl.TLSVersion.TLSv1_3, "tls12": ssl.TLSVersion.TLSv1_2}
SOON = 0.005  # seconds until a signal
CHILD_SECONDS = 15.0
DATA = b"around the call. " * 20
MESSAGES = ("write", "read", "handshake", "keys", "unwrap", "keylog")
FINALIZERS = ("__del__", "weakref", "gc")  # in a message that is written
EVENTS = ("event", "log")
SIGNALS = ("signal in recv", "signal in sendall", "signal in do_handshake", "signal")


class Marker(Exception):
    """What the callback itself raises."""


class Case(NamedTuple):
    carrier: str  # socket, object; or an event loop
    managed: bool
    version: str
    role: int
    moment: str
    call: str  # "" for none
    target: str  # own, other
    after: str  # return, raise, fork

    def __str__(self):
        words = [
            self.carrier,
            "managed" if self.managed else "stock",
            self.version,
            ("client", "server")[self.role],
            f"[{self.moment}]",
            f"{self.call or 'nothing'}",
            self.target,
            self.after,
        ]
        return " ".join(words)


class Seen:
    """What was seen of a pair."""

    def __init__(self):
        self.came_out = set()  # operations that raised what the callback raised
        self.failures = []  # operations that raised something else: name, exception
        self.heard = Counter()  # messages of new keys: (end that heard it, name)
        self.lost = []  # data that did not arrive as it was sent, in words


class Result:
    """What was seen in a case."""

    def __init__(self):
        self.sprung = False
        self.value = self.error = None  # of the call
        self.own, self.other = Seen(), Seen()
        self.is_child = False  # of a fork in the callback: what follows is the child's
        self.child_status = None


class Trap:
    """Makes the call, once, where it has been set."""

    def __init__(self, case, result):
        self.case, self.result = case, result
        self.hands = calls.Hands()
        self.inside = 0
        self.message = None  # (end, direction) of the message that springs it
        self.ends = [None, None]  # of the own pair, as far as they are known
        self.other = None
        self.do = None
        self.before = self.then = lambda: None  # and what goes on around the call
        self.armed = False

    def arm(self, message=None):
        self.message, self.armed = message, True

    def spring(self, *_):
        if not self.armed:
            return
        self.armed = False
        if self.case.moment in SIGNALS:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.result.sprung = True
        if self.case.after != "fork" or self._is_child():
            self.before()
            self._call()
        self.then()
        if self.case.after == "raise":
            raise Marker

    def _call(self):
        end = self.ends[self.case.role] if self.case.target == "own" else self.other
        try:
            if self.do is not None:
                self.result.value = self.do(end, self.hands)
        except Exception as error:
            self.result.error = error

    def _is_child(self):
        """Fork; the parent waits for the child's end."""
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            self.result.is_child = True
            return True
        end = time.monotonic() + CHILD_SECONDS
        while time.monotonic() < end and self.result.child_status is None:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                self.result.child_status = status
            time.sleep(0.001)
        if self.result.child_status is None:
            os.kill(child, signal.SIGABRT)  # faulthandler shows where it is
            self.result.child_status = os.waitpid(child, 0)[1]
        return False

    def saw(self, end, direction, conn):
        self.ends[end] = conn
        if not self.armed or self.message != (end, direction):
            return
        if self.case.moment in FINALIZERS:
            finalize(self.case.moment, self.spring)
        else:
            self.spring()


class _Finalized:
    """Calls a function when it goes."""

    def __init__(self, function):
        self.function = function
        self.cycle = None

    def __del__(self):
        if self.function is not None:
            self.function()


def finalize(kind, function):
    """Have a finalizer call a function, in this thread and now."""
    thing = _Finalized(None if kind == "weakref" else function)
    if kind == "weakref":
        reference = weakref.ref(thing, function)
    elif kind == "gc":
        thing.cycle = thing
    del thing
    if kind == "gc":
        gc.collect(0)
    elif kind == "weakref":
        assert reference() is None


# -- contexts --------------------------------------------------------------------------


class Certificates(NamedTuple):
    chain: str  # a file's path
    authority: str  # PEM


def make_contexts(certificates, version):
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=certificates.authority)
    client.post_handshake_auth = True
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificates.chain)
    server.load_verify_locations(cadata=certificates.authority)
    server.options |= pykeyupdate.OP_ALLOW_CLIENT_RENEGOTIATION
    for context in (client, server):
        context.minimum_version = context.maximum_version = VERSIONS[version]
    return client, server


def watch(contexts, heard, trap=None):
    """Count the messages of new keys that each end hears, and tell the trap."""

    def watched(end):
        def callback(conn, direction, version, content_type, message_type, data):
            if content_type == HANDSHAKE and direction == "read":
                heard[end, NEW_KEYS.get(data[0])] += 1
            if trap is not None:
                trap.saw(end, direction, conn)

        return callback

    for end, context in enumerate(contexts):
        context._msg_callback = watched(end)


def policy_for(case, trap):
    """A policy that renews on demand, or one that cannot and asks the trap."""
    if case.moment == "impossible":
        return pykeyupdate.RekeyPolicy(
            sent_records=1, min_interval_seconds=0, on_impossible=trap.spring
        )
    return pykeyupdate.RekeyPolicy(min_interval_seconds=0, renegotiate=True)


def contexts_for(case, trap, certificates):
    """Return contexts for the pair of a case, and for the one beside it."""
    pairs = []
    for seen, told in ((trap.result.own, trap), (trap.result.other, None)):
        contexts = make_contexts(certificates, case.version)
        watch(contexts, seen.heard, told)
        for context in contexts if case.managed else ():
            pykeyupdate.manage(context, policy=policy_for(case, trap), limits=None)
        pairs.append(contexts)
    return pairs


@contextlib.contextmanager
def set_up(case, trap, contexts, folder):
    """Put the trap where the case has it, but for messages and signals."""
    with contextlib.ExitStack() as stack:
        if case.moment == "sni":

            def on_name(conn, name, context):
                trap.ends[1] = conn
                trap.spring()

            contexts[1].sni_callback = on_name
        elif case.moment == "psk":
            _use_psk(contexts, case.role, trap)
        elif case.moment == "keylog":
            contexts[case.role].keylog_filename = os.path.join(folder, "keys")
        elif case.moment == "event":

            def on_event(event):
                if event.connection is trap.ends[case.role]:
                    trap.spring()

            stack.callback(pykeyupdate.on_event(on_event))
        elif case.moment == "log":
            handler = logging.Handler()
            handler.emit = trap.spring
            log = logging.getLogger("pykeyupdate")
            log.addHandler(handler)
            log.setLevel(logging.DEBUG)
            stack.callback(log.setLevel, logging.NOTSET)
            stack.callback(log.removeHandler, handler)
        elif case.moment in SIGNALS:
            before = signal.signal(signal.SIGALRM, trap.spring)
            stack.callback(signal.signal, signal.SIGALRM, before)
        yield


def _use_psk(contexts, role, trap):
    def spring(answer):
        if trap.ends[role] is not None:
            trap.spring()
        return answer

    of_client = [lambda: ("me", b"secret"), lambda: spring(("me", b"secret"))]
    of_server = [lambda: b"secret", lambda: spring(b"secret")]
    contexts[0].set_psk_client_callback(lambda hint: of_client[role == 0]())
    contexts[1].set_psk_server_callback(lambda identity: of_server[role == 1](), "hint")
    contexts[0].check_hostname = False
    for context in contexts:
        context.verify_mode = ssl.CERT_NONE
        if context.maximum_version == VERSIONS["tls12"]:
            context.set_ciphers("PSK")


def signal_soon(trap):
    """Have signals come until the trap is sprung.

    One that comes right before a thread waits in the system does not wake it: Python's
    handlers, ssl's too, then run when the next one comes.
    """
    trap.arm()
    signal.setitimer(signal.ITIMER_REAL, SOON, SOON)
