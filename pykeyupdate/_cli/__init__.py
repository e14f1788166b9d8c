"""``pykeyupdate``, ``python -m pykeyupdate``: one module per command.

A command's module is imported only when the user chooses it: ``doctor`` must run even
if the rest of the package, or ``ssl`` itself, cannot be imported.
"""

import argparse
import importlib
import sys
from typing import Optional

from . import completion, doctor, exit_codes

COMMANDS = {
    "demo": "use every control on real TLS connections and show what went on the wire",
    "probe": "find out whether a server survives key updates and renegotiation",
    "serve": "serve connections whose keys change on command, to try a client",
    "run": "run a program with managed connections, without a change to it",
    "doctor": "report whether and how pykeyupdate works on this interpreter",
    "ctl": "show and change a running process through its control socket",
    "bench": "measure speed, compared with the ssl module, ctypes and C",
}


def main(argv: Optional[list[str]] = None) -> int:
    """Run one command and return its exit code.

    2 means that the command cannot run here, 130 that it was interrupted, 141 that
    nobody read its output to the end, 143 that it was terminated; other codes come from
    the command's ``main()``.
    """
    exit_code = exit_codes.guarded(lambda: _main(argv))
    if argv is None:  # as a program
        exit_codes.leave_threads(exit_code)
    return exit_code


def _main(argv: Optional[list[str]]) -> int:
    if completion.is_asked_for():
        completion.complete(_parser(), COMMANDS, __name__)
    arguments = sys.argv[1:] if argv is None else argv
    chosen = _parser().parse_args(arguments[:1])
    if chosen.command is None:
        _parser().print_help()
        return 0
    report = doctor.examine()
    if chosen.command != "doctor" and not report["works"]:
        raise exit_codes.CannotRun(doctor.render(report))
    command = importlib.import_module(f".{chosen.command}", __name__)
    exit_code: int = command.main(arguments[1:])
    return exit_code


def _parser() -> argparse.ArgumentParser:
    """Return a parser of the command's name alone: each command parses the rest."""
    parser = argparse.ArgumentParser(
        prog=exit_codes.program(),
        description="TLS key update and renegotiation for Python's own ssl sockets.",
        epilog="Each command has a --help of its own.",
    )
    parser.add_argument("--version", action="version", version=doctor.version_line())
    commands = parser.add_subparsers(
        dest="command", metavar="command", title="commands"
    )
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser
