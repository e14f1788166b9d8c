"""The stress programs: list them, run one, or run all that can run here.

    python tests/stress                 list the programs
    python tests/stress NAME [ARGS]     run one (most accept --help)
    python tests/stress all             run all that can run here

They run from the checkout (built in place, or installed with ``pip install -e .``) on
the present interpreter, which needs trustme. Paths in PYTHONPATH precede the checkout.
The exit status of one program is its own: 0 if it found nothing, 77 if it cannot run
here. The exit status of ``all`` is 1 if any program that could run found something.

The list comes from the head of each program: its first line, its command and its
duration.
"""

import ast
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
CANNOT_RUN = 77  # as automake's tests say it
_SAID = {0: "ok", CANNOT_RUN: "cannot run here"}
_USAGE = re.compile(r"^ *python tests/stress (.+?) +\((.+)\)$", re.MULTILINE)


class Program(NamedTuple):
    """A program, and what its head says."""

    name: str
    path: Path
    summary: str
    usage: str
    takes: str


def head_of(path):
    """Return a Python program's docstring, or a shell script's first comment."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        return ast.get_docstring(ast.parse(text))
    comment = re.match(r"#!.*\n((?:#.*\n)+)", text)[1]
    return re.sub(r"^# ?", "", comment, flags=re.MULTILINE)


def programs(folder=HERE):
    """Return all of them, by name."""
    found = {}
    for path in sorted(folder.glob("[!_]*.*")):
        if path.suffix in (".py", ".sh"):
            head = head_of(path)
            usage, takes = _USAGE.search(head).groups()
            summary = head.partition("\n")[0]
            found[path.stem] = Program(path.stem, path, summary, usage, takes)
    return found


def table(found):
    """Return the programs for a person to read."""
    lines = []
    for program in found.values():
        lines += [f"{program.usage}  ({program.takes})", f"    {program.summary}"]
    return "\n".join(lines)


def run(program, arguments=()):
    """Run a program; return its exit status."""
    by = [sys.executable]
    if program.path.suffix == ".sh":
        by, arguments = ["bash"], arguments or [sys.executable]
    places = [os.environ.get("PYTHONPATH"), str(CHECKOUT), str(HERE.parent)]
    path = os.pathsep.join(filter(None, places))
    command = [*by, str(program.path), *arguments]
    try:
        return subprocess.call(command, env={**os.environ, "PYTHONPATH": path})
    except FileNotFoundError as error:
        print(f"{program.name} cannot run here: {error}")
        return CANNOT_RUN


def run_all(found):
    """Run them one after the other; return 1 if one has found anything."""
    ended, failed = [], False
    for program in found.values():
        print(f"== {program.name}: {program.summary}", flush=True)
        begun = time.monotonic()
        status = run(program)
        said = _SAID.get(status, f"FAILED ({status})")
        failed |= status not in _SAID
        ended.append(f"{program.name:<12} {said}, {time.monotonic() - begun:.0f} s")
    print("\n".join(ended))
    return int(failed)


def main(arguments):
    """List, run one, or run all; return the exit status."""
    found = programs()
    if not arguments:
        print(table(found))
        return 0
    name, *others = arguments
    if name == "all" and not others:
        return run_all(found)
    if name in found:
        return run(found[name], others)
    print(f"No stress program {name!r}; there are:\n{table(found)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
