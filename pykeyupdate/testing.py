"""For tests of programs: policies act at once, without waiting for the clock.

``RekeyPolicy.tiny()`` has limits that a few messages reach.
"""

from . import _keyupdate
from .policy import LONGEST


def advance_clock(seconds: int) -> None:
    """Put the clock of ages, intervals and windows forward, for all of the process.

    Keys are then so much older: ``age_seconds`` and ``idle_seconds`` are reached, and
    ``min_interval_seconds`` is over. Whole seconds, up to 100 years. Nothing else looks
    at this clock, and it cannot be put back: a negative number raises ``ValueError``,
    and what is no whole number ``TypeError``. On the wire: nothing by itself.
    Thread-safe.
    """
    if not 0 <= seconds <= LONGEST:
        raise ValueError(
            f"advance_clock(): seconds must be from 0 to 100 years: {seconds!r}"
        )
    _keyupdate.put_forward(seconds)
