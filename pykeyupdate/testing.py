"""For tests of programs: policies act at once, without waiting for the clock.

``RekeyPolicy.tiny()`` has limits that a few messages reach.
"""

from . import _arguments, _keyupdate
from ._arguments import Seconds


def advance_clock(seconds: Seconds) -> None:
    """Put the clock of ages, intervals and windows forward, for all of the process.

    Keys are then so much older: ``age_seconds`` and ``idle_seconds`` are reached, and
    ``min_interval_seconds`` is over. Whole seconds, up to 100 years, or a
    ``datetime.timedelta``. Nothing else looks at this clock, and it cannot be put back:
    a negative number raises ``ValueError``, and so does a part of a second; what is no
    number raises ``TypeError``. On the wire: nothing by itself. Thread-safe.
    """
    number = _arguments.whole_seconds("advance_clock()", "seconds", seconds)
    _keyupdate.put_forward(number)
