"""Threads, forks and sub-interpreters: none of them may take the process down.

    python tests/stress threads  (a minute)

It does no SSL I/O on one connection from two threads: OpenSSL forbids that, with
pykeyupdate or without. Each part ends after ``--seconds``. The exit status is 1 if a
call ends in anything but its value or a PyKeyUpdateError, if a child fails, or if the
connections do not talk to each other afterwards.
"""

import argparse
import contextlib
import faulthandler
import os
import random
import signal
import ssl
import sys
import threading
import time
import warnings
from collections import Counter

from support.world import BigSocketPair, Contexts, MemoryPair, connect, settle, talks

import pykeyupdate
from pykeyupdate import KeyUpdateType, PyKeyUpdateError

THREADS = 8
CHILD_SECONDS = 10  # after so long a child hangs
QUESTIONS = (
    pykeyupdate.get_key_update_type,
    pykeyupdate.renegotiate_pending,
    pykeyupdate.secure_renegotiation,
    pykeyupdate.total_renegotiations,
)
CONTROLS = (
    pykeyupdate.key_update,
    lambda conn: pykeyupdate.key_update(conn, KeyUpdateType.REQUESTED),
    pykeyupdate.renegotiate,
    pykeyupdate.renegotiate_abbreviated,
)
IN_SUBINTERPRETER = """
import sys
sys.path[:0] = {path!r}
import ssl
import pykeyupdate

def connection(protocol):
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())

conn = connection(ssl.PROTOCOL_TLS_CLIENT)
for _ in range({calls}):
    assert pykeyupdate.get_key_update_type(conn) is pykeyupdate.KeyUpdateType.NONE
    for refused in (pykeyupdate.key_update, pykeyupdate.renegotiate):
        for wrong in (conn, None, ssl):
            try:
                refused(wrong)
            except pykeyupdate.PyKeyUpdateError:
                pass
            else:
                raise AssertionError(refused, wrong)
with pykeyupdate.installed():
    conn.renegotiate_pending()
"""


class Stress:
    """Runs work in many threads for a while, and keeps what went wrong."""

    def __init__(self, contexts, seconds):
        self.contexts = contexts
        self.seconds = seconds
        self.outcomes = Counter()
        self.failures = []

    def in_threads(self, *works):
        """Repeat each work in threads of its own until the time is over."""
        end = time.monotonic() + self.seconds

        def repeat(work, seed):
            rng = random.Random(seed)
            counts = Counter()
            try:
                while time.monotonic() < end:
                    counts[work(rng)] += 1
            except BaseException as error:
                self.failures.append(error)
            for name, count in counts.items():
                self.outcomes[name] += count

        threads = [
            threading.Thread(target=repeat, args=(works[i % len(works)], i))
            for i in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def pairs(self, make, count=1):
        return [connect(make(*contexts)) for contexts in self.contexts.quiet[:count]]

    def expect_talk(self, pairs):
        for pair in pairs:
            for end in pair.ends:
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
            settle(pair)
            if not talks(pair):
                self.failures.append(AssertionError("ends no longer talk"))

    def _call(self, rng, functions, ends):
        try:
            rng.choice(functions)(rng.choice(ends))
        except PyKeyUpdateError as error:
            return type(error).__name__
        return "ok"

    def idle_connections(self):
        """Every function from every thread on the same connections, at rest."""
        pairs = self.pairs(MemoryPair, 6) + self.pairs(BigSocketPair, 6)
        ends = [end for pair in pairs for end in pair.ends]
        self.in_threads(lambda rng: self._call(rng, QUESTIONS + CONTROLS, ends))
        self.expect_talk(pairs)

    def own_connections(self):
        """Threads that open, update, use and drop connections of their own."""

        def work(rng):
            make = rng.choice((MemoryPair, BigSocketPair))
            pair = connect(make(*rng.choice(self.contexts.quiet)))
            for _ in range(rng.randrange(10)):
                self._call(rng, QUESTIONS + CONTROLS, pair.ends)
                with contextlib.suppress(ssl.SSLWantReadError):
                    rng.choice(pair.ends).do_handshake()
                settle(pair)
            if not talks(pair):
                raise AssertionError("ends no longer talk")
            pair.close()
            return "connection used"

        self.in_threads(work)

    def passed_around(self):
        """One thread's I/O and every thread's calls, under the connection's lock."""
        pairs = [(threading.Lock(), pair) for pair in self.pairs(MemoryPair, 6)]

        def work(rng):
            lock, pair = rng.choice(pairs)
            with lock:
                outcome = self._call(rng, QUESTIONS + CONTROLS, pair.ends)
                settle(pair, rounds=rng.randrange(1, 4))
            return outcome

        self.in_threads(work)
        self.expect_talk([pair for _, pair in pairs])

    def closing(self):
        """A connection is closed and dropped while others ask about it."""
        shelf = self.pairs(BigSocketPair, 6)

        def replace(rng):
            index = rng.randrange(len(shelf))
            pair, shelf[index] = (
                shelf[index],
                connect(BigSocketPair(*self.contexts.quiet[index])),
            )
            pair.close()
            return "connection closed"

        def ask(rng):
            functions = QUESTIONS + CONTROLS
            return self._call(rng, functions, rng.choice(shelf).ends)

        self.in_threads(replace, ask, ask, ask)

    def installing(self):
        """install(), uninstall() and installed() from everywhere, methods in use."""
        pair = self.pairs(MemoryPair)[0]
        warnings.simplefilter("ignore", pykeyupdate.PatchWarning)

        def work(rng):
            with pykeyupdate.installed():
                rng.choice((pykeyupdate.install, pykeyupdate.uninstall))()
                with contextlib.suppress(AttributeError):  # uninstalled by another
                    pair.ends[0].renegotiate_pending()
            return "installed and not"

        self.in_threads(work)
        pykeyupdate.uninstall()
        if pykeyupdate.is_installed():
            self.failures.append(AssertionError("still installed"))

    def forking(self):
        """Children use what they inherited, while threads go on, and exit."""
        pairs = self.pairs(BigSocketPair, 6)
        ends = [end for pair in pairs for end in pair.ends]
        lock = threading.Lock()

        def fork(rng):
            with lock, warnings.catch_warnings():
                # 3.12 warns of threads and fork, which is what is tried here
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                self._child(ends, rng, leave=rng.random() < 0.5)
            status = os.waitpid(pid, 0)[1]
            if status:
                raise AssertionError(f"a child ended with status {status}")
            return "child"

        def ask(rng):
            with pykeyupdate.installed():
                return self._call(rng, QUESTIONS, ends)

        self.in_threads(fork, ask)
        self.expect_talk(pairs)

    def _child(self, ends, rng, *, leave):
        """Use inherited connections without sending; then exit without returning."""
        status = 1
        with contextlib.suppress(BaseException):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(CHILD_SECONDS)
            for _ in range(200):
                self._call(rng, QUESTIONS + CONTROLS, ends)
            with pykeyupdate.installed():
                ends[0].renegotiate_pending()
            if leave:
                ends.clear()
            status = 0
        os._exit(status)

    def subinterpreters(self):
        """Other interpreters import and use it while this one does."""
        run = subinterpreter_runner()
        if run is None:
            print("    no sub-interpreters here")
            return
        code = IN_SUBINTERPRETER.format(path=sys.path, calls=200)
        ends = [end for pair in self.pairs(MemoryPair, 6) for end in pair.ends]

        def elsewhere(rng):
            run(code)
            return "interpreter"

        def here(rng):
            return self._call(rng, QUESTIONS + CONTROLS, ends)

        self.in_threads(elsewhere, here)


def subinterpreter_runner():
    """Return a function that runs code in a new interpreter and ends it, or None.

    None for Python 3.12 too: its own ssl module crashes there (measured: 3.12.1).
    """
    if sys.version_info[:2] == (3, 12):
        return None
    try:
        from concurrent import interpreters
    except ImportError:
        return _old_subinterpreter_runner()

    def run(code):
        interpreter = interpreters.create()
        try:
            interpreter.exec(code)
        finally:
            interpreter.close()

    return run


def _old_subinterpreter_runner():
    """The same before 3.14, by the private modules there were."""
    try:
        import _interpreters as private
    except ImportError:
        try:
            import _xxsubinterpreters as private
        except ImportError:
            return None

    def run(code):
        interpreter = private.create()
        try:
            failed = private.run_string(interpreter, code)
            if failed is not None:
                raise AssertionError(failed)
        finally:
            private.destroy(interpreter)

    return run


PARTS = [
    "idle_connections",
    "own_connections",
    "passed_around",
    "closing",
    "installing",
    "forking",
    "subinterpreters",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="for each part")
    parser.add_argument("parts", nargs="*", default=PARTS, metavar="part")
    options = parser.parse_args()
    faulthandler.enable()
    faulthandler.dump_traceback_later(
        (options.seconds + 60) * len(options.parts), exit=True
    )
    failed = False
    contexts = Contexts(on_message=None, on_name=None)
    for part in options.parts:
        stress = Stress(contexts, options.seconds)
        getattr(stress, part)()
        failed |= bool(stress.failures)
        failures = f"FAILED: {stress.failures[:3]!r}" if stress.failures else "fine"
        print(f"{part}: {failures}, {dict(stress.outcomes)}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
