"""``bench import``: what ``import pykeyupdate`` adds to ``import ssl``.

Each measurement is a fresh process, which measures itself.
"""

import subprocess
import sys
from statistics import median

from . import pairs
from .bench_sheet import Sheet

_ROUNDS = 15
_TIMED = (
    "import time{}; began = time.perf_counter(); {}; print(time.perf_counter() - began)"
)


def main(sheet: Sheet) -> None:
    """Measure."""
    _seconds(", ssl", "import pykeyupdate")  # so that all bytecode is written
    measured = pairs.take_turns(
        lambda: _seconds(", ssl", "import pykeyupdate"),
        lambda: _seconds("", "import ssl"),
        _ROUNDS,
    )
    ours, theirs = (median(times) * 1e3 for times in zip(*measured))
    sheet.say(f"Median of {_ROUNDS} pairs of fresh processes, in turns")
    ratios = [own / other for own, other in measured]
    label = "import pykeyupdate : import ssl"
    sheet.add(label, ours, theirs, "ms", ratios, at_most=0.63)


def _seconds(before: str, statement: str) -> float:
    command = [sys.executable, "-c", _TIMED.format(before, statement)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)
