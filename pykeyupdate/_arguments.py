"""Checks arguments.

A value of the wrong type raises ``TypeError``, a value out of range ``ValueError``. The
message names the function or class and the argument, and says what the argument must be
and what it was.

A subclass of ``int``, ``float`` or ``str`` may redefine how it compares, converts and
prints. So these functions check the plain value inside it, and return that.
"""

import sys
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, NoReturn, Optional, Union

from ._finding import name_of
from ._fork_lock import importing
from ._static_lookup import is_instance

if TYPE_CHECKING:
    # Not imported at run time: a caller that passes a timedelta has imported datetime
    # already, and CPython 3.13 aborts if three interpreters import it at once.
    from datetime import timedelta

Seconds = Union[float, "timedelta"]


class Span(NamedTuple):
    """The range that a time must be in, as numbers of seconds and in words."""

    least: float
    most: float
    text: str


ANY = Span(0, 100 * 365 * 86400, "seconds from 0 to 100 years, or a timedelta")
WINDOW = Span(1, ANY.most, "seconds from 1 to 100 years, or a timedelta")
# poll() counts milliseconds, up to 2**31
WAIT = Span(0, 24 * 86400, "seconds from 0 to 24 days, or a timedelta")


def check_number(
    of: str, name: str, value: Any, wanted: str, fits: Callable[[float], bool]
) -> float:
    """Check a number and return it. A ``bool`` is not a number."""
    if not is_instance(value, int, float) or is_instance(value, bool):
        _refuse(TypeError, of, name, value, wanted)
    plain: float = (int if is_instance(value, int) else float).__pos__(value)
    if not fits(plain):
        _refuse(ValueError, of, name, value, wanted)
    return plain


def seconds(of: str, name: str, value: Seconds, span: Span = ANY) -> float:
    """Check a time, which may be a ``timedelta``, and return it in seconds."""
    datetime = sys.modules.get("datetime")
    if datetime is not None and is_instance(value, datetime.timedelta):
        value = datetime.timedelta.total_seconds(value)
    return check_number(
        of, name, value, span.text, lambda it: span.least <= it <= span.most
    )


def seconds_or_none(
    of: str, name: str, value: Optional[Seconds], span: Span = ANY
) -> Optional[float]:
    """Check a time that may be ``None``, and return it in seconds."""
    if value is None:
        return None
    return seconds(of, name, value, span._replace(text=f"{span.text}, or None"))


def whole_seconds(of: str, name: str, value: Seconds) -> int:
    """Check a time and return it in whole seconds."""
    given = seconds(of, name, value)
    if given != int(given):
        _refuse(ValueError, of, name, value, "whole seconds")
    return int(given)


def check_count(
    of: str, name: str, value: Optional[int], *, least: int
) -> Optional[int]:
    """Check a count and return it. ``None`` means any number."""
    wanted = f"a whole number from {least} up, or None"
    if value is None:
        return None
    if not is_instance(value, int):
        _refuse(TypeError, of, name, value, wanted)
    return int(check_number(of, name, value, wanted, lambda it: it >= least))


def check_flag(of: str, name: str, value: object) -> None:
    """Check that a flag is a ``bool``; ``"no"`` would count as true."""
    if not is_instance(value, bool):
        _refuse(TypeError, of, name, value, "True or False")


def is_function(value: Any) -> bool:
    """Return whether a value is callable and not a coroutine function."""
    if not callable(value):
        return False
    with importing:  # slow, and rarely needed
        from inspect import iscoroutinefunction

    called = (value, getattr(type(value), "__call__", None))  # noqa: B004
    return not any(map(iscoroutinefunction, called))


def check_word(
    of: str, name: str, value: Any, words: tuple[str, ...], or_else: str = ""
) -> str:
    """Check that a value is one of these words, and return it."""
    wanted = f"one of {', '.join(map(repr, words))}{or_else}"
    if not is_instance(value, str):
        _refuse(TypeError, of, name, value, wanted)
    plain = str.__str__(value)
    if plain not in words:
        _refuse(ValueError, of, name, value, wanted)
    return plain


def _refuse(
    error: type[Exception], of: str, name: str, value: object, wanted: str
) -> NoReturn:
    raise error(f"{of}: {name} must be {wanted}, not {name_of(value)}")
