"""CPython's own tests with pykeyupdate's classes in place of the standard library's.

    python tests/stress cpython [SUITE...]  (five minutes)

Each suite runs twice, each time in a process of its own: once with
``ssl.SSLContext.sslsocket_class`` and ``sslobject_class`` as they are, and once with
``pykeyupdate.SSLSocket`` and ``SSLObject``, set before a test is loaded. A test that
fails only with ours is printed with its output, and makes the exit status 1. Only tests
that CPython skips itself are skipped. They include those that need the internet, as
with ``python -m test`` by default.

A failing test is run again alone. If it then passes, it is printed as unsteady
(CPython's own runner has ``--rerun`` for such tests).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SUITES = [
    "test.test_ssl",
    "test.test_ftplib",
    "test.test_imaplib",
    "test.test_poplib",
    "test.test_smtplib",
    "test.test_httplib",
    "test.test_urllib2_localnet",
    "test.test_asyncio.test_ssl",
]
LIMIT = 900  # seconds for one suite; the slowest takes one minute


class Result(unittest.TextTestResult):
    """Remembers what became of every test."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.outcomes = {}

    def note(self, test, outcome):
        self.outcomes[test.id()] = outcome

    def addSuccess(self, test):
        super().addSuccess(test)
        self.outcomes.setdefault(test.id(), "ok")

    def addError(self, test, err):
        super().addError(test, err)
        self.note(test, self._exc_info_to_string(err, test))

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.note(test, self._exc_info_to_string(err, test))

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.note(test, self._exc_info_to_string(err, test))

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.note(test, "skipped")


def run_here(names, managed, report):
    """Run tests in this process and write what became of each."""
    if managed:
        import ssl

        import pykeyupdate

        ssl.SSLContext.sslsocket_class = pykeyupdate.SSLSocket
        ssl.SSLContext.sslobject_class = pykeyupdate.SSLObject
    from test import support

    support.use_resources = []
    tests = unittest.defaultTestLoader.loadTestsFromNames(names)
    runner = unittest.TextTestRunner(resultclass=Result, verbosity=2)
    Path(report).write_text(json.dumps(runner.run(tests).outcomes))


def run_apart(names, managed):
    """Run tests in another process; return what became of each."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-X", "faulthandler", __file__, "--report", report]
        command += ["--managed"] if managed else []
        try:
            done = subprocess.run(
                [*command, *names],
                check=False,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=LIMIT,
            )
            output = done.stdout + done.stderr
        except subprocess.TimeoutExpired as error:
            output = f"no end after {LIMIT} seconds\n{(error.stderr or b'')[-4000:]}"
        if report.exists():
            return json.loads(report.read_text())
    return {"the process itself": output[-4000:]}


def failures(outcomes):
    return {name for name, said in outcomes.items() if said not in ("ok", "skipped")}


def compare(suite):
    """Print how a suite fares with both; return whether ours does as well."""
    stock, ours = run_apart([suite], False), run_apart([suite], True)
    print(f"{suite}: {len(ours)} tests")
    print("  stock:", *describe(stock))
    print("  ours: ", *describe(ours), flush=True)
    worse = failures(ours) - failures(stock)
    missing = {name for name in stock if name not in ours}
    for name in sorted(worse):
        again = run_apart([name], True).get(name, ours[name])
        if again == "ok":
            print(f"  unsteady: {name}")
            worse.discard(name)
        else:
            print(f"  {name}\n{again}")
    for name in sorted(missing):
        print(f"  not run with ours: {name}")
    return not worse and not missing


def describe(outcomes):
    skipped = sum(said == "skipped" for said in outcomes.values())
    bad = failures(outcomes)
    yield f"{len(outcomes) - skipped - len(bad)} ok, {skipped} skipped,"
    yield f"{len(bad)} failed"
    yield from sorted(name.rpartition(".")[2] for name in bad)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="SUITE", default=SUITES)
    parser.add_argument("--report", help=argparse.SUPPRESS)
    parser.add_argument("--managed", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.report:
        run_here(chosen.names, chosen.managed, chosen.report)
        return 0
    print(sys.version.split()[0], "in", sys.executable)
    as_well = [compare(name) for name in chosen.names or SUITES]
    return 0 if all(as_well) else 1


if __name__ == "__main__":
    sys.exit(main())
