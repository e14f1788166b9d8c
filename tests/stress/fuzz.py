"""Fuzz the seven functions: no argument and no order of calls may do harm.

    python tests/stress fuzz  (a minute)

The program passes hostile arguments and wrong signatures, between random operations on
real connections in every state. It checks at every call that:

- the call returns what it promises, or raises a PyKeyUpdateError with a message, a
  plain TypeError for a wrong signature, or what the argument's own code raised;
- OpenSSL's error queue is empty afterwards;
- a refused call changes nothing of what OpenSSL says of the connection, and no call
  writes a byte;
- a call is accepted only where the manual and the RFCs allow it.

From time to time it checks that two connected ends still talk to each other after such
calls, and that no data went over a wire in plaintext. The exit status is 1 if a check
fails; the seed and the number of the call are then printed. Python's faulthandler
reports a crash.
"""

import argparse
import contextlib
import faulthandler
import gc
import logging
import random
import resource
import ssl
import sys
import time
from collections import Counter

from support import hostile, openssl_witness
from support.world import (
    BigSocketPair,
    Contexts,
    ManagedPair,
    MemoryPair,
    World,
    connect,
    settle,
    talks,
)

import pykeyupdate
from pykeyupdate import KeyUpdateType, PyKeyUpdateError

FUNCTIONS = {
    "key_update": type(None),
    "get_key_update_type": KeyUpdateType,
    "renegotiate": type(None),
    "renegotiate_abbreviated": type(None),
    "renegotiate_pending": bool,
    "secure_renegotiation": bool,
    "total_renegotiations": int,
}
NAMES = list(FUNCTIONS)
_NESTED = 3  # calls that a call's own argument may begin, one in another


class Violation(BaseException):
    """Something promised does not hold; not for anybody's ``except Exception``."""


class Judge:
    """Makes the calls, counts how each ends, and knows how it may."""

    def __init__(self, rng):
        self.rng = rng
        self.calls = 0
        self.depth = 0
        self.violation = None
        self.outcomes = Counter()
        self.states = Counter()

    def violated(self, what):
        """Note the first violation: a callback's exception may not reach us."""
        self.violation = self.violation or Violation(f"call {self.calls}: {what}")
        raise self.violation

    def call(self, name, args, kwargs, *, signature_is_right=True):
        """Call a function and return its value, or the exception it raised."""
        self.calls += 1
        try:
            value = getattr(pykeyupdate, name)(*args, **kwargs)
        except Violation:
            raise
        except BaseException as error:
            value = error.with_traceback(None)
            self._judge_exception(name, value, signature_is_right)
        else:
            if type(value) is not FUNCTIONS[name]:
                self.violated(f"{name}() returned {value!r}")
        self.outcomes[type(value).__name__] += 1
        return value

    def _judge_exception(self, name, error, signature_is_right):
        kind = type(error)
        if not signature_is_right:
            if kind is not TypeError:
                self.violated(f"{name}() with a wrong signature: {error!r}")
        elif isinstance(error, PyKeyUpdateError):
            if name not in str(error):
                self.violated(f"{name}(): message {str(error)!r}")
        elif kind not in hostile.FOREIGN:
            self.violated(f"{name}(): {error!r}")

    def call_on(self, pair, which, target, name, args=()):
        """Call a function on a real connection."""
        if isinstance(pair, ManagedPair):
            return self._call_on_managed(target, name, args)
        return self._call_and_compare(pair, which, target, name, args)

    def _call_and_compare(self, pair, which, target, name, args):
        """Compare the connection before and after."""
        sslobj = pair.ends[which]._sslobj
        before = openssl_witness.state(sslobj) if sslobj is not None else None
        unsent = pair.unsent(which)
        self.clear_foreign_errors()
        value = self.call(name, (target, *args), {})
        if sslobj is None:
            return value
        after = openssl_witness.state(sslobj)
        if openssl_witness.leftover_error():
            self.violated(f"{name}{args} left an error behind: {value!r}, {before}")
        if pair.unsent(which) != unsent:
            self.violated(f"{name}{args} wrote to the wire: {before}")
        self.states[before.name, before.update_type, before.renegotiating] += 1
        if value is not None:
            if after != before:
                self.violated(f"{name}{args} {value!r}: {before} became {after}")
        elif name == "key_update":
            update_type = int(args[0]) if args else 0
            if not openssl_witness.may_key_update(before, update_type):
                self.violated(f"{name}{args} was accepted: {before}")
            if after.update_type != update_type or after.init_finished:
                self.violated(f"{name}{args}: {before} became {after}")
        elif not openssl_witness.may_renegotiate(before) or not after.renegotiating:
            self.violated(f"{name} was accepted: {before} became {after}")
        return value

    def _call_on_managed(self, target, name, args):
        """Received data may be processed on the way: only the error queue is told."""
        self.clear_foreign_errors()
        value = self.call(name, (target, *args), {})
        if openssl_witness.leftover_error():
            self.violated(f"{name}{args} left an error behind: {value!r}")
        return value

    def clear_foreign_errors(self):
        """Forget what the ssl module's own functions left behind: unwrap() does."""
        if openssl_witness.leftover_error():
            self.outcomes["(left behind by ssl)"] += 1
            openssl_witness.clear_errors()

    def random_call(self, target, arguments):
        """Call any function on anything, unless that is done too deep already."""
        if self.depth >= _NESTED:
            return
        self.depth += 1
        try:
            name = self.rng.choice(NAMES)
            args = [target]
            if name == "key_update" and self.rng.random() < 0.5:
                args.append(arguments.update_type())
            self.call(name, args, {})
        finally:
            self.depth -= 1


class Fuzzer:
    """The world, the arguments and the judge, and a step that takes from each."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.judge = Judge(self.rng)
        self.contexts = Contexts(self._on_message, self._on_name)
        self.arguments = None  # callbacks come before it is there
        self.world = World(self.rng, self.contexts)
        self.arguments = hostile.Arguments(self.rng, self.world, self._nested_call)

    def _nested_call(self, target):
        if self.arguments is not None:
            self.judge.random_call(target, self.arguments)

    def _on_message(self, conn, direction, version, content, message, data):
        """OpenSSL is in the middle of this very connection now."""
        if self.rng.random() < 0.2:
            self._nested_call(conn)

    def _on_name(self, conn, name, context):
        self._nested_call(conn)
        if self.rng.random() < 0.3:
            conn.context = self.contexts.another(self.rng, conn.context, 1)
            self._nested_call(conn._sslobj)

    def step(self):
        chance = self.rng.random()
        if chance < 0.15:
            self.judge.random_call(self.arguments.connection(), self.arguments)
        elif chance < 0.17:
            self._wrong_signature()
        elif chance < 0.50:
            self._call_on_connection()
        elif chance < 0.998:
            self._act()
        else:
            self._calm_connection()
        if self.judge.violation is not None:
            raise self.judge.violation

    def _wrong_signature(self):
        args, kwargs = self.arguments.wrong_signature()
        name = self.rng.choice(NAMES)
        self.judge.call(name, args, kwargs, signature_is_right=False)

    def _call_on_connection(self):
        pair, which = self.world.some_end()
        end = pair.ends[which]
        target = end._sslobj if end._sslobj and self.rng.random() < 0.3 else end
        name = self.rng.choice(NAMES)
        args = ()
        if name == "key_update":
            args = self.rng.choice(((), (0,), (1,), (KeyUpdateType.NOT_REQUESTED,)))
        self.judge.call_on(pair, which, target, name, args)

    def _act(self):
        pair = self.world.act()
        if pair.plaintext_seen:
            self.judge.violated("data went over the wire in plaintext")
        if self.world.wrong:
            self.judge.violated(self.world.wrong)

    def _calm_connection(self):
        """Only calls and reads happen here, so the two ends must still talk."""
        contexts = self.rng.choice(self.contexts.quiet)
        make = self.rng.choice((MemoryPair, MemoryPair, BigSocketPair))
        pair = connect(make(*contexts))
        history = []
        for _ in range(self.rng.randrange(1, 6)):
            try:
                self._calm_round(pair, history)
                fine = talks(pair)
            except OSError as error:
                states = [openssl_witness.state(end._sslobj) for end in pair.ends]
                self.judge.violated(
                    f"a calm connection fails: {error!r}, {states}, after {history}"
                )
            if not fine or pair.plaintext_seen:
                self.judge.violated(f"a calm connection loses data: {history}")
        pair.close()

    def _calm_round(self, pair, history):
        """Call, read what has come, in pieces, call again; then read everything."""
        for _ in range(self.rng.randrange(1, 12)):
            which = self.rng.randrange(2)
            end = pair.ends[which]
            name = self.rng.choice((*NAMES, "do_handshake", "read", "read"))
            with contextlib.suppress(ssl.SSLWantReadError):
                if name == "read":
                    count = self.rng.choice((1, 4, 15, 30, 100, -1))
                    history.append((which, name, count))
                    pair.carry(1 - which, count)
                    end.read(100)
                elif name == "do_handshake":
                    history.append((which, name))
                    end.do_handshake()
                else:
                    args = (self.rng.randrange(2),) if name == "key_update" else ()
                    value = self.judge.call_on(pair, which, end, name, args)
                    history.append((which, name, *args, type(value).__name__))
        settle(pair)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=1800.0, help="stop after")
    return parser.parse_args()


def run(fuzzer, calls, seconds):
    """Take steps until there were so many calls or so much time is over."""
    end = time.monotonic() + seconds
    while fuzzer.judge.calls < calls and time.monotonic() < end:
        for _ in range(100):
            fuzzer.step()
    fuzzer.world.close()
    gc.collect()


def summary(judge, seed, seconds):
    outcomes = ", ".join(
        f"{name} {count}" for name, count in judge.outcomes.most_common()
    )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return (
        f"{judge.calls} calls on {len(judge.states)} states in {seconds:.0f} s, "
        f"seed {seed}, {memory} MiB at most, Python {sys.version.split()[0]}, "
        f"{ssl.OPENSSL_VERSION}: {outcomes}"
    )


def main():
    options = parse_arguments()
    seed = options.seed if options.seed is not None else random.randrange(2**32)
    print(f"seed {seed}", flush=True)
    faulthandler.enable()
    logging.disable()  # peers that are cut off, and there are many
    faulthandler.dump_traceback_later(options.seconds + 300, exit=True)
    begun = time.monotonic()
    fuzzer = Fuzzer(seed)
    try:
        run(fuzzer, options.calls, options.seconds)
    except Violation as violation:
        print(f"VIOLATED: seed {seed}, {violation}", flush=True)
        return 1
    print(summary(fuzzer.judge, seed, time.monotonic() - begun))
    return 0


if __name__ == "__main__":
    sys.exit(main())
