"""Ends a command that cannot finish: with one line of text and an exit code.

A traceback means a bug in the program. It would be wrong when somebody presses Ctrl-C,
stops reading the output (``| head``), or has a full disk or no network.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, Callable, NoReturn

from .._import_error import PACKAGE, is_console_script

_CANNOT_RUN = 2
_INTERRUPTED, _NOBODY_READS, _TERMINATED = 128 + 2, 128 + 13, 128 + 15  # as in shells


def program() -> str:
    """Return what the user typed to run this program."""
    return PACKAGE if is_console_script() else f"python -m {PACKAGE}"


class CannotRun(Exception):  # noqa: N818
    """A command cannot run on this machine; the text gives the reason and remedy."""


class _OutputError(Exception):
    """Standard output cannot be written; its cause is the ``OSError``."""


class _Termination(BaseException):
    """SIGTERM, as an exception, so that temporary files are removed."""


class _Output:
    """Standard output whose errors cannot be mistaken for a socket's."""

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
    """Run a command and return its exit code, or that of its early end."""
    try:
        with _termination_raised():
            return _run(command)
    except CannotRun as error:
        return _say(str(error), _CANNOT_RUN)
    except KeyboardInterrupt:
        return _say(f"{program()}: interrupted", _INTERRUPTED)
    except _Termination:
        return _say(f"{program()}: terminated", _TERMINATED)
    except _OutputError as error:
        return _end_without_output(error)


@contextlib.contextmanager
def _termination_raised() -> Iterator[None]:
    """Have SIGTERM raise, unless the program was told to ignore it."""

    def end(_number: int, _frame: object) -> NoReturn:
        raise _Termination

    is_ours = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    )
    if is_ours:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def start_thread(target: Callable[..., object], *arguments: Any) -> None:
    """Run a function in the background, in a thread that may print.

    If that fails, the whole process ends, as it would if the main thread had printed.
    """

    def run() -> None:
        try:
            target(*arguments)
        except _OutputError as error:
            os._exit(_end_without_output(error))

    threading.Thread(target=run, daemon=True).start()


def leave_threads(exit_code: int) -> None:
    """End the process at once if a thread is left in the background.

    Otherwise OpenSSL would be cleaned up while that thread uses it, which aborts the
    process (``double free or corruption``).
    """
    if any(thread.daemon for thread in threading.enumerate()):
        os._exit(exit_code)


def _end_without_output(error: _OutputError) -> int:
    _forget_output()
    if _nobody_reads(error.__cause__):
        return _NOBODY_READS
    return _say(f"{program()}: cannot write its output: {error}", 1)


def _run(command: Callable[[], int]) -> int:
    if sys.stdout is None:  # closed from the start: print() does nothing
        return command()
    with contextlib.suppress(AttributeError):  # a terminal that knows ASCII only
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    with contextlib.redirect_stdout(_Output(sys.stdout)) as output:
        try:
            return command()
        finally:
            output.flush()  # or Python flushes at exit, where nobody can catch errors


def complain(text: str) -> None:
    """Print a line on standard error, if there is one and it takes any."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr)


def _say(text: str, exit_code: int) -> int:
    complain(text)
    return exit_code


def _nobody_reads(error: object) -> bool:
    # Windows reports an invalid argument
    return isinstance(error, BrokenPipeError) or (
        sys.platform == "win32" and isinstance(error, OSError)
    )


def _forget_output() -> None:
    """Discard the rest of the output, which Python tries to write again at exit."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
