"""Run any Python program with managed connections, without a change to it.

PROGRAM is a script, a console script (uvicorn, gunicorn, celery, ...) or -m MODULE. All
its processes are included, forked or spawned. Nothing is left behind when it ends.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from ... import _running
from ..exit_codes import CannotRun, program
from . import settings

_EPILOG = """\
RULES are fields of RekeyPolicy and PeerLimits: "age_seconds=3600,sent_bytes=1000000",
"anssi,request_peer=true" (a preset, and what overrides it), "none". Without --policy
and --limits these are RekeyPolicy() and PeerLimits(), the defaults of manage().

The same can be said by the variables PYKEYUPDATE_POLICY, _LIMITS, _LOG, _CONTROL,
_SIGNAL and _CONFIG, and in a TOML file by tables [policy] and [limits]
([tool.pykeyupdate.policy] in pyproject.toml). Options come first.

examples:
  %(prog)s -- uvicorn app:app --ssl-keyfile key.pem --ssl-certfile cert.pem
  %(prog)s --policy age_seconds=3600 --log json -- -m my.service
  %(prog)s --config pyproject.toml -- gunicorn --config gunicorn.py app:app

The exit code is the program's; 2 means that it was not started.
"""
_BOOTSTRAP = Path(__file__).with_name("bootstrap")
_PYTHON = re.compile(rb"#!\s*(?:\S*/)?(?:env\s+(?:-S\s+)?)?(?:\S*/)?python\S*(.*)")


def main(argv: list[str]) -> int:
    """Check the settings, and become the program."""
    chosen = parser().parse_args(argv)
    command = _command(chosen.program[chosen.program[:1] == ["--"] :])
    environment = {
        **os.environ,
        _running.VARIABLE: json.dumps(settings.gather(chosen)),
        "PYTHONPATH": os.pathsep.join(
            filter(None, (str(_BOOTSTRAP), os.environ.get("PYTHONPATH")))
        ),
        _running.FIRST: str(os.getpid()),
    }
    sys.stdout.flush()
    if os.name == "nt":  # exec() there starts another process, and the shell goes on
        return subprocess.run(command, env=environment, check=False).returncode
    try:
        os.execve(command[0], command, environment)  # noqa: S606
    except OSError as error:
        raise CannotRun(f"cannot run {command[0]}: {error}") from None


def parser() -> argparse.ArgumentParser:
    """Return the parser of this command's options."""
    made = argparse.ArgumentParser(
        prog=f"{program()} run",
        usage="%(prog)s [options] -- PROGRAM [its arguments]",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--policy", metavar="RULES", help="when keys change, or none")
    add("--limits", metavar="RULES", help="how much peers may make us rekey, or none")
    add("--config", metavar="FILE", help="a TOML file with these settings")
    add("--log", choices=settings.LOGS, help="what happens, on standard error")
    add(
        "--control",
        metavar="PATH",
        help="serve a control socket (see ctl); {pid} in "
        "PATH gives each process one of its own",
    )
    add("--signal", metavar="NAME", help="this signal gives all connections new keys")
    add("program", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return made


def _command(arguments: list[str]) -> list[str]:
    """Return what to execute: an absolute path, and arguments."""
    if not arguments:
        raise CannotRun("nothing to run: give -- PROGRAM")
    name, *rest = arguments
    if name == "-m":
        return [sys.executable, *arguments]
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise CannotRun(f"there is no script {name}")
        return [sys.executable, *arguments]
    beside = os.path.dirname(sys.executable)
    found = shutil.which(name) or shutil.which(name, path=beside)
    if found is None:
        raise CannotRun(f"there is no program {name} on PATH or beside {program()}")
    _refuse_isolated(found)
    return [found, *rest]


def _refuse_isolated(path: str) -> None:
    """Refuse a script whose first line has Python ignore the environment."""
    with open(path, "rb") as file:
        first = _PYTHON.match(file.readline(1000))
    options = first[1].split() if first else []
    if any(o.startswith(b"-") and set(o) & set(b"EI") for o in options):
        raise CannotRun(
            f"{path} cannot be reached: its first line has Python ignore PYTHONPATH "
            f"({b' '.join(options).decode()}). Run it with -m, or with its own Python"
        )
