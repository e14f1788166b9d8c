"""What may be given as an argument, and what is said of all else.

``TypeError`` for what is of another type and ``ValueError`` for what is out of range:
both say which argument of what it is, what it must be and what it was.
"""

import sys
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, NoReturn, Optional, Union

from ._finding import name_of

if TYPE_CHECKING:
    # Not imported: who gives one has done that, and three interpreters of CPython 3.13
    # that import it at once abort the process.
    from datetime import timedelta

Seconds = Union[float, "timedelta"]


class Span(NamedTuple):
    """What a time may be, in seconds and in words."""

    least: float
    most: float
    text: str


ANY = Span(0, 100 * 365 * 86400, "seconds from 0 to 100 years, or a timedelta")
WINDOW = Span(1, ANY.most, "seconds from 1 to 100 years, or a timedelta")
# poll() counts milliseconds, up to 2**31
WAIT = Span(0, 24 * 86400, "seconds from 0 to 24 days, or a timedelta")


def check_number(
    of: str, name: str, value: Any, wanted: str, fits: Callable[[float], bool]
) -> None:
    """Check a number; ``True`` is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        _refuse(TypeError, of, name, value, wanted)
    if not fits(value):
        _refuse(ValueError, of, name, value, wanted)


def seconds(of: str, name: str, value: Seconds, span: Span = ANY) -> float:
    """Return a time in seconds, which may be given as a ``timedelta``."""
    datetime = sys.modules.get("datetime")
    if datetime is not None and isinstance(value, datetime.timedelta):
        value = value.total_seconds()
    given: Any = value
    check_number(of, name, given, span.text, lambda it: span.least <= it <= span.most)
    return given  # type: ignore[no-any-return]


def seconds_or_none(
    of: str, name: str, value: Optional[Seconds], span: Span = ANY
) -> Optional[float]:
    """Return a time in seconds, or ``None``."""
    if value is None:
        return None
    return seconds(of, name, value, span._replace(text=f"{span.text}, or None"))


def whole_seconds(of: str, name: str, value: Seconds) -> int:
    """Return a time in whole seconds."""
    given = seconds(of, name, value)
    if given != int(given):
        _refuse(ValueError, of, name, value, "whole seconds")
    return int(given)


def check_count(of: str, name: str, value: Optional[int], *, least: int) -> None:
    """Check a number of things; ``None`` is any number."""
    wanted = f"a whole number from {least} up, or None"
    if value is None:
        return
    if not isinstance(value, int):
        _refuse(TypeError, of, name, value, wanted)
    check_number(of, name, value, wanted, lambda it: it >= least)


def check_flag(of: str, name: str, value: object) -> None:
    """Check what is on or off; nobody who writes ``"no"`` means ``True``."""
    if not isinstance(value, bool):
        _refuse(TypeError, of, name, value, "True or False")


def check_word(
    of: str, name: str, value: object, words: tuple[str, ...], or_else: str = ""
) -> None:
    """Check that it is one of these words."""
    wanted = f"one of {', '.join(map(repr, words))}{or_else}"
    if not isinstance(value, str):
        _refuse(TypeError, of, name, value, wanted)
    if value not in words:
        _refuse(ValueError, of, name, value, wanted)


def _refuse(
    error: type[Exception], of: str, name: str, value: object, wanted: str
) -> NoReturn:
    raise error(f"{of}: {name} must be {wanted}, not {name_of(value)}")
