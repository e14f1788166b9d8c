"""Completion in shells, by argcomplete if it is installed.

``eval "$(register-python-argcomplete pykeyupdate)"`` turns it on in bash and zsh. The
shell then runs this program with the line so far in its environment.
"""

import argparse
import importlib
import os
from collections.abc import Iterable


def is_asked_for() -> bool:
    """Return whether a shell runs this program to complete a line."""
    return "_ARGCOMPLETE" in os.environ


def complete(
    parser: argparse.ArgumentParser, commands: Iterable[str], package: str
) -> None:
    """Print what can follow, and end the process; return without argcomplete.

    A command has a parser of its own. argcomplete skips as many words of the line as
    ``_ARGCOMPLETE`` says: those up to the command, if there is one.
    """
    try:
        argcomplete = importlib.import_module("argcomplete")
    except ImportError:
        return
    skipped = int(os.environ["_ARGCOMPLETE"])
    end = int(os.environ.get("COMP_POINT", "0"))
    line = os.environ.get("COMP_LINE", "")[:end]
    done = line.split() if line.endswith(" ") else line.split()[:-1]
    command = "".join(done[skipped : skipped + 1])
    if command in commands:
        os.environ["_ARGCOMPLETE"] = str(skipped + 1)
        parser = importlib.import_module(f".{command}", package).parser()
    argcomplete.autocomplete(parser)
