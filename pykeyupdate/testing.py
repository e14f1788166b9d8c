"""Helpers to test programs: make policies act at once, without waiting.

``RekeyPolicy.tiny()`` has limits that a few messages reach. With ``pytest -p
pykeyupdate.testing --rekey-everything`` a whole suite runs under changing keys.
"""

from . import _arguments, _idle_sockets, _keyupdate
from ._arguments import Seconds

pytest_plugins = ("pykeyupdate._pytest_plugin",)  # what -p pykeyupdate.testing loads


def advance_clock(seconds: Seconds) -> None:
    """Advance the clock of ages, intervals and windows, for the whole process.

    Keys are then that much older: they reach ``age_seconds`` and ``idle_seconds``, and
    ``min_interval_seconds`` has passed. With ``rotate_idle``, idle sockets get new keys
    at once, but the connections of event loops only at their time. seconds is a whole
    number, up to 100 years, or a ``datetime.timedelta``. Nothing else uses this clock,
    and it cannot be put back: a negative number or a fraction of a second raises
    ``ValueError``; a value that is not a number raises ``TypeError``. On the wire:
    nothing by itself. Thread-safe.
    """
    number = _arguments.whole_seconds("advance_clock()", "seconds", seconds)
    _keyupdate.put_forward(number)
    _idle_sockets.look_again()
