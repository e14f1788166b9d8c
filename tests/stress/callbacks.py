"""Every call in every callback: refused or done, never a crash, a hang or a loss.

    python tests/stress callbacks  (five minutes; --seconds 3600 plays all cases)

A case is a connection (and another one beside it, in the same process), a callback that
runs in the middle of something, and a call that the callback makes on its own
connection or on the other one. The program crosses these, in both roles, on TLS 1.3 and
1.2:

- connections: sockets and SSLObjects, managed and not; managed ones under asyncio,
  uvloop, trio and anyio (those that are installed);
- callbacks: OpenSSL's messages (written, read, in a handshake, in a rekey(), in an
  unwrap(), with a key log), SNI, PSK (Python 3.13), handlers of events and of the log,
  on_impossible functions, finalizers (``__del__``, weakref, the garbage collector's) in
  a message, and signal handlers that interrupt a wait or run in between; some callbacks
  return, some raise, and some signal handlers fork, and the child goes on;
- calls: all functions of pykeyupdate and pykeyupdate.aio, and all methods of SSLSocket
  and SSLObject (``tests/support/crossing``). On unmanaged connections, only the
  functions: ssl's own methods may crash OpenSSL there.

It checks that:

- the call returns, or raises PyKeyUpdateError, OSError, ValueError or
  NotImplementedError;
- a call that says that it did nothing has done nothing (no message with new keys has
  reached the peer), and a call that does not say so has sent its message (TLS 1.3);
- data arrives complete and in order on both connections, and no operation fails that
  succeeds without the call, unless the call itself was to end the connection;
- a callback's exception comes out where it does with ssl's own connections.

Other processes play the cases, many in each, so that a crash names its case. A case
that takes longer than ``--case-seconds`` is a hang, and its stacks are printed. Cases
are drawn at random (``--seed``) until the time is over or all have been played. The
exit status is 1 if any check fails.
"""

import argparse
import faulthandler
import json
import logging
import os
import random
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from support.crossing import judging
from support.crossing.scenes import Case, Certificates
from support.world import certificate_files

BATCH = 100  # cases of a process
FAILURES_SHOWN = 40


def play_some(options):
    """Be the child: play the cases that come on stdin, and tell of each."""
    faulthandler.enable()
    logging.getLogger("pykeyupdate").addHandler(logging.NullHandler())
    logging.getLogger("pykeyupdate").propagate = False
    sys.unraisablehook = lambda _: None  # finalizers and callbacks that raise
    chain, authority = options.certificate
    certificates = Certificates(chain, Path(authority).read_text())
    with tempfile.TemporaryDirectory() as folder:
        judge = judging.Judge(certificates, folder)
        for line in sys.stdin:
            case = Case(*json.loads(line))
            print(json.dumps(["begins", case]), flush=True)
            faulthandler.dump_traceback_later(options.case_seconds, exit=True)
            outcome, wrong, is_child = judge.judge(case)
            if is_child:
                if wrong:
                    print(json.dumps(["child", case, outcome, wrong]), flush=True)
                os._exit(1 if wrong else 0)
            print(json.dumps(["ended", case, outcome, wrong]), flush=True)
    return 0


# -- having them played ----------------------------------------------------------------


class Report:
    """What has come of all of them."""

    def __init__(self):
        self.lock = threading.Lock()
        self.outcomes = Counter()
        self.wrong = 0

    def ended(self, case, outcome, wrong):
        with self.lock:
            self.outcomes[outcome] += 1
            if wrong:
                self.violated(case, "; ".join(wrong))

    def violated(self, case, what):
        self.wrong += 1
        if self.wrong <= FAILURES_SHOWN:
            print(f"VIOLATED: {case}: {what}", flush=True)


def run_batch(batch, options, paths, report):
    """Have a child play a batch; return the cases that it did not come to."""
    command = [sys.executable, __file__, "--play"]
    command += ["--certificate", *map(str, paths)]
    command += ["--case-seconds", str(options.case_seconds)]
    left = list(batch)
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        said = []
        reader = threading.Thread(target=lambda: said.append(child.stderr.read()))
        reader.start()
        child.stdin.write("".join(json.dumps(case) + "\n" for case in batch))
        child.stdin.close()
        for line in child.stdout:
            kind, case, *rest = json.loads(line)
            case = Case(*case)
            if kind == "ended":
                del left[0]
                report.ended(case, *rest)
            elif kind == "child":
                report.ended(case, "in the child", rest[1])
        reader.join()
    if left and child.returncode != 0:
        with report.lock:
            report.outcomes["crash or hang"] += 1
            tail = "".join(said)[-4000:]
            report.violated(left[0], f"exit status {child.returncode}\n{tail}")
        return left[1:]
    return left


def run(options, paths):
    report = Report()
    cases = judging.all_cases(judging.carriers())
    if options.only:
        cases = [case for case in cases if options.only in str(case)]
    random.Random(options.seed).shuffle(cases)
    print(f"{len(cases)} cases, seed {options.seed}", flush=True)
    begun = time.monotonic()
    lock, waiting = threading.Lock(), cases

    def work():
        nonlocal waiting
        while time.monotonic() < begun + options.seconds:
            with lock:
                batch, waiting = waiting[:BATCH], waiting[BATCH:]
            if not batch:
                return
            while batch:
                batch = run_batch(batch, options, paths, report)

    threads = [threading.Thread(target=work) for _ in range(options.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begun
    outcomes = ", ".join(f"{k} {n}" for k, n in report.outcomes.most_common())
    print(
        f"{sum(report.outcomes.values())} of {len(cases)} cases in {seconds:.0f} s, "
        f"seed {options.seed}, Python {sys.version.split()[0]}, {ssl.OPENSSL_VERSION}: "
        f"{report.wrong} violated; {outcomes}"
    )
    return 1 if report.wrong else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300.0, help="stop after")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--only", help="cases that this is in the name of")
    parser.add_argument("--case-seconds", type=float, default=60.0)
    parser.add_argument("--play", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--certificate", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        return play_some(options)
    with certificate_files() as paths:
        return run(options, paths)


if __name__ == "__main__":
    sys.exit(main())
