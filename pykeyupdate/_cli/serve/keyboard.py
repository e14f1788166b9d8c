"""Keys as they are pressed; from a pipe, as they come."""

import contextlib
import sys
from collections.abc import Iterator


def pressed_keys() -> Iterator[str]:
    """Yield each key; on a terminal without waiting for Enter, where that can be."""
    if sys.stdin is None:
        return
    with contextlib.suppress(AttributeError):  # a key may be no UTF-8
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
    with _without_enter():
        while key := sys.stdin.read(1):
            yield key


@contextlib.contextmanager
def _without_enter() -> Iterator[None]:
    """Have the terminal give each key at once, and put it back at the end."""
    try:
        import termios
        import tty
    except ImportError:  # Windows
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin, termios.TCSANOW)  # the default drops earlier keys
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
