"""How a command ends that cannot come to its own end: in one line, and by a number.

A traceback says that a program is wrong. None is where somebody presses Ctrl-C, reads
no further (``| head``), has a full disk or no network.
"""

import contextlib
import os
import sys
from typing import Any, Callable, NoReturn

_CANNOT_RUN, _INTERRUPTED, _NOBODY_READS = 2, 128 + 2, 128 + 13  # as shells number them
_NAME = "python -m pykeyupdate"


class CannotRun(Exception):  # noqa: N818
    """A command cannot run on this machine; its text says why, and the remedy."""


class _OutputError(Exception):
    """Standard output cannot be written; its cause is the ``OSError``."""


class _Output:
    """Standard output whose errors are not taken for those of a command's sockets."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(text))
        except OSError as error:
            _refuse(error)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            _refuse(error)


def _refuse(error: OSError) -> NoReturn:
    raise _OutputError(str(error)) from error


def guarded(command: Callable[[], int]) -> int:
    """Run a command and return its exit code, or the one that its early end has."""
    try:
        return _run(command)
    except CannotRun as error:
        return _say(str(error), _CANNOT_RUN)
    except KeyboardInterrupt:
        return _say(f"{_NAME}: interrupted", _INTERRUPTED)
    except _OutputError as error:
        _forget_output()
        if _nobody_reads(error.__cause__):
            return _NOBODY_READS
        return _say(f"{_NAME}: cannot write its output: {error}", 1)


def _run(command: Callable[[], int]) -> int:
    if sys.stdout is None:  # closed from the beginning: print() does nothing
        return command()
    with contextlib.redirect_stdout(_Output(sys.stdout)) as output:
        try:
            return command()
        finally:
            output.flush()  # or Python does at its exit, where nobody can catch it


def _say(text: str, exit_code: int) -> int:
    print(text, file=sys.stderr)
    return exit_code


def _nobody_reads(error: object) -> bool:
    # Windows calls it an invalid argument
    return isinstance(error, BrokenPipeError) or (
        sys.platform == "win32" and isinstance(error, OSError)
    )


def _forget_output() -> None:
    """Have Python, which tries once more at its exit, write what is left to nowhere."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
