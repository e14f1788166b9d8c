"""The tests of libraries that use TLS, with managed connections in place of ``ssl``'s.

    python tests/stress suites [--mode MODE] [LIBRARY...]  (forty minutes)

pip fetches each library's own tests, at the version named below, from its source
distribution (git fetches websockets', whose distribution has none). They run in their
own environment: with ``ssl`` as it is, and with ``pykeyupdate.install()`` called before
anything else, in each of three modes. ``limits`` is what ``install(managed=True)``
gives: the default policy and limits. ``free`` has the same policy and no limits, so
that a test that fails only with ``limits`` was cut off by them. ``tiny`` changes keys
with every record.

If a test fails in a mode and not with ``ssl``, the whole suite is run again both ways,
up to four times, because one test may spoil others. A test that then passes, or fails
with ``ssl`` too, is printed as unsteady. A test in CUT is what the default limits are
for. Any other is printed with its output, and makes the exit status 1. Each run's
numbers of managed connections and of their key changes are printed as well, because a
comparison of nothing would pass.

What is fetched stays in FOLDER (``build/suites``) for the next time; the unpacked
source of a library that is there already is used as it is. One to five minutes per
library and mode.
"""

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1800  # seconds for one run
AGAIN = 4

MODES = {
    "limits": "managed=True",
    "free": "limits=None",
    # "ignore": TLS 1.2 has no key updates
    "tiny": "limits=None, policy=pykeyupdate.RekeyPolicy.tiny("
    "sent_records=1, on_impossible='ignore')",
}

# Their server renegotiates a hundred times; more than three in ten minutes are cut.
CUT = {
    f"src/trio/_tests/test_ssl.py::test_renegotiation_randomized[{version}]"
    for version in ("tls12", "tls13")
}

# What a run does in its process: the totals go where its parent finds them, and
# threads that tests have left are not waited for.
PROGRAM = """
import json, os, sys
del sys.path[0]  # the source's folder: not all of it is to be imported
{install}
import pytest
code = pytest.main(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump({totals}, file)
sys.stdout.flush()
os._exit(code)
"""
INSTALL = "import pykeyupdate; pykeyupdate.install({})"
TOTALS = (
    "(lambda t, c: [t.opened, c.key_updates_sent, c.key_updates_received,"
    " c.renegotiations + c.peer_renegotiations, c.cut_off])"
    "(pykeyupdate.totals(), pykeyupdate.totals().counts)"
)


class Library(NamedTuple):
    """Where a library's tests are, and what they need, in words between blanks."""

    version: str
    tests: str
    needs: str
    path: str = "src"
    """What of its source is imported."""
    options: "tuple[str, ...]" = ()
    git: str = ""
    """Where a source distribution has no tests."""


LIBRARIES = {
    "trio": Library(
        "0.35.0",
        "src/trio/_tests",
        "async_generator pyOpenSSL trustme",
        options=(
            "--run-slow",
            "--ignore=src/trio/_tests/tools",
            "--deselect=src/trio/_tests/test_exports.py",  # asks type checkers
        ),
    ),
    "anyio": Library(
        "4.16.0",
        "tests",
        "blockbuster hypothesis psutil pytest-mock trio trustme truststore uvloop",
    ),
    "urllib3": Library(
        "2.8.0",
        "test",
        # 54 tests of certificates and ALPN fail without urllib3's fork of hypercorn,
        # both ways: install it in FOLDER/venv-urllib3 to have them compared
        "h2 httpx hypercorn pyOpenSSL pysocks pytest-socket quart quart-trio trio"
        " trustme",
    ),
    "aiohttp": Library(
        "3.14.5",
        # those with TLS; all of them take half an hour
        "tests/test_client_fingerprint.py tests/test_client_functional.py"
        " tests/test_client_request.py tests/test_client_ws_functional.py"
        " tests/test_connector.py tests/test_proxy_functional.py"
        " tests/test_web_functional.py tests/test_web_runner.py"
        " tests/test_web_sendfile_functional.py",
        "blockbuster coverage freezegun gunicorn isal proxy.py pytest-mock"
        " pytest-xdist python-on-whales re-assert trustme uvloop zlib_ng",
        path="none",  # it has a compiled part, which the installed one alone has
        options=(
            "--override-ini=addopts=",
            "-m=not dev_mode and not autobahn and not internal",
        ),
    ),
    "websockets": Library(
        "17.0.1",
        "tests",
        "python-socks[asyncio] trio werkzeug",
        git="https://github.com/python-websockets/websockets",
    ),
}

OK = ("ok", "skipped")
NO_END = "the process itself"


class Outcome(NamedTuple):
    tests: "dict[str, str]"
    """What became of each: "ok", "skipped" or what it said."""
    totals: "list[int]"

    @property
    def failed(self):
        return {name for name, said in self.tests.items() if said not in OK}


class Suite:
    """A library's source and environment, made when they are missing."""

    def __init__(self, name, folder):
        self.library = LIBRARIES[name]
        self.source = folder / f"{name}-{self.library.version}"
        self.python = folder / f"venv-{name}" / "bin" / "python"
        if not self.python.exists():
            venv.create(self.python.parent.parent, with_pip=True)
        wanted = f"{name}=={self.library.version}"
        needs = self.library.needs.split()
        self._pip("install", wanted, "pytest", "pytest-timeout", *needs)
        if not self.source.exists():
            self._fetch(wanted, folder)

    def _pip(self, *arguments):
        subprocess.run([self.python, "-m", "pip", "-q", *arguments], check=True)

    def _fetch(self, wanted, folder):
        if self.library.git:
            what = ["--depth=1", f"--branch={self.library.version}", self.library.git]
            subprocess.run(["git", "clone", "-q", *what, self.source], check=True)
            return
        alone = "--no-deps", "--no-binary=:all:"
        self._pip("download", *alone, f"--dest={folder}", wanted)
        archive = f"{self.source}.tar.gz"
        subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)

    def run(self, mode):
        """Run all of its tests in a process of their own."""
        report, totals = self.source / "report.xml", self.source / "totals.json"
        report.unlink(missing_ok=True)
        managed = mode in MODES
        program = PROGRAM.format(
            install=INSTALL.format(MODES[mode]) if managed else "",
            totals=TOTALS if managed else [],
        )
        options = ["-q", "-o", "junit_family=xunit1", f"--junitxml={report}"]
        options += ["-p", "no:cacheprovider", "--timeout=120", *self.library.options]
        command = [self.python, "-c", program, totals, *options]
        path = [str(ROOT), str(self.source / self.library.path)]
        try:
            done = subprocess.run(
                [*command, *self.library.tests.split()],
                cwd=self.source,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
                check=False,
                start_new_session=True,  # tests send signals
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=LIMIT,
            )
            output = done.stdout[-4000:]
        except subprocess.TimeoutExpired:
            output = f"no end after {LIMIT} seconds"
        if not report.exists():
            return Outcome({NO_END: output}, [])
        return Outcome(dict(_cases(report)), json.loads(totals.read_text()))


def _cases(report):
    """Yield pytest's name of each test and what became of it."""
    for case in ElementTree.parse(report).iter("testcase"):
        file = case.get("file", "")
        module = file.removesuffix(".py").replace("/", ".")
        classes = case.get("classname", "").removeprefix(module).split(".")
        name = "::".join([file, *filter(None, classes), case.get("name", "")])
        said = [child for child in case if child.tag in ("failure", "error")]
        if said:
            yield name, "\n".join(child.text or "" for child in said)
        else:
            yield name, "ok" if case.find("skipped") is None else "skipped"


def compare(suite, stock, mode):
    """Print how the tests fare in a mode; return whether none fails that did not."""
    ours = suite.run(mode)
    _print(mode, ours)
    new = ours.failed - stock.failed
    cut = new & CUT if mode == "limits" else set()
    worse = _steady(suite, mode, new - cut)
    for name in sorted(new):
        kind = "cut by the limits" if name in cut else "unsteady"
        said = f"  {name}\n{ours.tests[name]}"
        print(said if name in worse else f"  {kind}: {name}", flush=True)
    missing = stock.tests.keys() - ours.tests.keys()
    for name in sorted(missing):
        print(f"  not run in mode {mode}: {name}")
    return not worse and not missing


def _steady(suite, mode, names):
    """Return those that fail in a mode every time, and never with ssl."""
    for _ in range(AGAIN):
        if names:
            names = (names & suite.run(mode).failed) - suite.run("ssl").failed
    return names


def _print(mode, outcome):
    skipped = sum(said == "skipped" for said in outcome.tests.values())
    bad = len(outcome.failed)
    line = f"  {mode}: {len(outcome.tests) - skipped - bad} ok, {skipped} skipped, "
    line += f"{bad} failed"
    if outcome.totals:
        names = "managed", "updates sent", "received", "renegotiations", "cut off"
        figures = (f"{n} {what}" for n, what in zip(outcome.totals, names))
        line += f"; {', '.join(figures)}"
    print(line, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="LIBRARY", default=[*LIBRARIES])
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "suites")
    parser.add_argument("--mode", choices=MODES, action="append", dest="modes")
    chosen = parser.parse_args()
    folder = chosen.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    as_well = []
    for name in chosen.names:
        suite = Suite(name, folder)
        print(name, suite.library.version, "on Python", sys.version.split()[0])
        stock = suite.run("ssl")
        _print("ssl", stock)
        if NO_END in stock.tests:
            sys.exit(stock.tests[NO_END])
        as_well += [compare(suite, stock, mode) for mode in chosen.modes or MODES]
    return 0 if all(as_well) else 1


if __name__ == "__main__":
    sys.exit(main())
