"""Runs the code blocks of a page in Markdown, and compares what they print.

Blocks of a page run in order, in one namespace, like the cells of a notebook:

- ``python`` runs. If its first line is a file's name (``# app.py``), it is written to
  that file instead.
- ``text`` is what the blocks before it have printed since the last one; ``...`` stands
  for anything. Times, ports, descriptors and processes (``VARYING``) are not compared.
  Secrets (16 hexadecimal digits and more) differ from run to run, too: only which of
  them are the same is compared.
- ``console`` has commands (``$ command``), which run, and what they print.
- ``sh`` has commands that a reader types where a test cannot; bash must parse them,
  where there is one.
- ``toml`` must parse (Python 3.11 and newer).

A comment ``<!-- run ... -->`` has Python that readers do not see: it lays the table and
clears it.
"""

import contextlib
import doctest
import importlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import pykeyupdate

BLOCK = re.compile(
    r"^(?P<indent> *)(?:```(?P<kind>\w+)|<!-- (?P<hidden>run))\n"
    r"(?P<source>.*?)^ *(?:```|-->)$",
    re.MULTILINE | re.DOTALL,
)
FILE = re.compile(r"# (?P<name>[\w.-]+\.\w+)\n")
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
VARYING = re.compile(
    r"\d+(?:\.\d+)?(?= ?(?:s|ms|us)\b)"
    r"|(?<=127\.0\.0\.1:)\d+|(?<=fd=)\d+|(?<=process )\d+"
)
SECRET = re.compile(r"\b[0-9a-f]{16,}\b")
PACKAGE = Path(pykeyupdate.__file__).parent
BASH = sys.platform != "win32" and shutil.which("bash")


def comparable(text):
    """Return a text without what varies, and with its secrets numbered as they come."""
    seen = {}
    text = VARYING.sub("0", text)
    return SECRET.sub(lambda it: f"secret {seen.setdefault(it[0], len(seen))}", text)


class Block(NamedTuple):
    kind: str
    source: str
    line: int


def blocks_of(path):
    text = path.read_text("utf-8")
    for found in BLOCK.finditer(text):
        indent = len(found["indent"])
        lines = found["source"].splitlines(keepends=True)
        source = "".join(line[indent:] if line.strip() else "\n" for line in lines)
        line = text.count("\n", 0, found.start("source"))
        yield Block(found["kind"] or found["hidden"], source, line)


class Page:
    """A page, and what its blocks have made so far."""

    def __init__(self, path, folder, **names):
        self.path, self.folder = path, folder
        self.names = {"__name__": "__main__", "page": self, **names}
        self.printed = io.StringIO()
        self.real = {}
        """What stands for what the page shows, in commands: an address, mostly."""

    def run(self):
        """Run all blocks; what is printed must be on the page."""
        for block in blocks_of(self.path):
            run = getattr(self, f"_run_{block.kind}", None)
            if run is None:
                self._fail(block, f"tests/support/pages.py knows no {block.kind}")
            run(block)
        assert self.printed.getvalue() == "", f"{self.path}: it does not show this"

    def load(self, name):
        """Run a file that a block has written, and return its names."""
        names = {"__name__": name}
        source = (self.folder / name).read_text("utf-8")
        exec(compile(source, name, "exec"), names)
        return names

    def _run_python(self, block):
        if self._write(block):
            return
        source = "\n" * block.line + block.source
        with contextlib.redirect_stdout(self.printed):
            exec(compile(source, str(self.path), "exec"), self.names)

    _run_run = _run_python

    def _run_text(self, block):
        got = self.printed.getvalue()
        self.printed.seek(0)
        self.printed.truncate()
        self._compare(block, block.source, got)

    def _run_console(self, block):
        for part in re.split(r"^\$ ", block.source, flags=re.MULTILINE)[1:]:
            command, _, wanted = part.partition("\n")
            for shown, real in self.real.items():
                command = command.replace(shown, real)
            printed = self._bash(command).stdout
            for shown, real in self.real.items():
                printed = printed.replace(real, shown)
            self._compare(block, wanted, printed)

    def _run_sh(self, block):
        if not BASH:
            return
        done = subprocess.run(
            [BASH, "-n"],
            check=False,
            input=block.source,
            text=True,
            capture_output=True,
        )
        if done.returncode:
            self._fail(block, done.stderr)

    def _run_toml(self, block):
        if sys.version_info >= (3, 11):
            importlib.import_module("tomllib").loads(block.source)

    def _write(self, block):
        name = FILE.match(block.source)
        if name:
            (self.folder / name["name"]).write_text(block.source, "utf-8")
        return name is not None

    def _bash(self, command):
        python = self.folder / "bin" / "python"
        if not python.exists():
            python.parent.mkdir()
            python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
            python.chmod(0o755)
        paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join(paths),
            "COLUMNS": "80",
        }
        return subprocess.run(
            [BASH, "-c", command],
            check=False,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )

    def _compare(self, block, wanted, got):
        texts = comparable(wanted), comparable(got)
        if not doctest.OutputChecker().check_output(*texts, OPTIONS):
            self._fail(
                block, f"the page shows\n\n{wanted}\nand what ran printed\n\n{got}"
            )

    def _fail(self, block, why):
        pytest.fail(f"{self.path}, line {block.line}: {why}", pytrace=False)
