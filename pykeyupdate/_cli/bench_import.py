"""``bench import``: what ``import pykeyupdate`` adds to ``import ssl``.

Each measurement is a fresh process, which measures itself.
"""

import subprocess
import sys
from statistics import median

from . import doctor, pairs

_ROUNDS = 15
_TIMED = (
    "import time{}; began = time.perf_counter(); {}; print(time.perf_counter() - began)"
)


def main() -> int:
    """Measure and print; return 0 if it ran."""
    _seconds(", ssl", "import pykeyupdate")  # so that all bytecode is written
    measured = pairs.take_turns(
        lambda: _seconds(", ssl", "import pykeyupdate"),
        lambda: _seconds("", "import ssl"),
        _ROUNDS,
    )
    ours, theirs = (median(times) * 1e3 for times in zip(*measured))
    print(doctor.version_line())
    print(f"Median of {_ROUNDS} pairs of fresh processes, in turns")
    print(
        f"  import pykeyupdate after ssl {ours:5.1f} ms : import ssl {theirs:5.1f} ms "
        f"{pairs.ratio_text([a / b for a, b in measured])}  target: at most 0.63"
    )
    return 0


def _seconds(before: str, statement: str) -> float:
    command = [sys.executable, "-c", _TIMED.format(before, statement)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)
