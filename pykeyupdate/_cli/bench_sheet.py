"""What the benchmarks measured: shown line by line, as one table, as JSON or a plot."""

import importlib
import json
import math
import os
import platform
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple, Optional

from . import doctor, tables
from .exit_codes import CannotRun

_EXPLANATION = (
    "Each ratio is the median of paired ratios (each pair is measured in turns), with "
    "the quartiles; where there are none, of one pair. Of speeds more is better, of "
    "times and amounts less: the target says which."
)
_TICKS = (0.01, 0.1, 0.2, 0.5, 0.7, 0.9, 1, 1.1, 1.5, 2, 3, 5, 10, 20, 50, 100)
_FEW = 1000  # below it, numbers have a decimal
PLOTS = (".svg", ".png")
_MET, _MISSED, _NONE = "tab:green", "tab:red", "tab:gray"


class Row(NamedTuple):
    """A comparison: two figures, and the median of paired ratios with its quartiles."""

    benchmark: str
    label: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    low: float
    high: float
    at_least: Optional[float]
    at_most: Optional[float]

    def ratio_text(self) -> str:
        """Return the ratio, and the quartiles if it was measured more than once."""
        spread = f" ({self.low:.2f} to {self.high:.2f})" if self.low < self.high else ""
        return f"{self.ratio:6.2f}{spread}"

    def target(self) -> str:
        """Return the target in words."""
        if self.at_least is not None:
            return f"at least {self.at_least:.2f}"
        return "" if self.at_most is None else f"at most {self.at_most:.2f}"

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        figures = f"{_number(self.ours)} : {_number(self.theirs)} {self.unit}"
        text = f"{self.label}, {figures}".strip()
        return self.benchmark, self.ratio_text().strip(), self.target(), text

    def is_met(self) -> Optional[bool]:
        """Return whether the target is met; ``None`` if there is none."""
        if self.at_least is not None:
            return self.ratio >= self.at_least
        return None if self.at_most is None else self.ratio <= self.at_most


class Sheet:
    """Collects what the benchmarks measure; ``shows`` them as they come."""

    def __init__(self, *, shows: bool) -> None:
        self.rows: list[Row] = []
        self.left_out: dict[str, str] = {}
        self.benchmark = ""
        self._shows, self._has_begun = shows, False

    def say(self, text: str) -> None:
        """Print a line about what follows, unless only the whole is wanted."""
        if self._shows and not self._has_begun:
            print(doctor.version_line())
            self._has_begun = True
        if self._shows:
            print(text, flush=True)

    def add(  # noqa: PLR0913
        self,
        label: str,
        ours: float,
        theirs: float,
        unit: str,
        ratios: list[float],
        *,
        at_least: Optional[float] = None,
        at_most: Optional[float] = None,
    ) -> None:
        """Take a comparison. ``ratios`` has one for each round."""
        if math.isnan(ours):  # memory, where the system does not tell it
            return
        low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        row = Row(
            *(self.benchmark, label, ours, theirs, unit),
            *(median(ratios), low, high, at_least, at_most),
        )
        self.rows.append(row)
        target = f"  target: {row.target()}" if row.target() else ""
        self.say(
            f"  {label:<36}{_number(ours):>9} : {_number(theirs):>9} {unit:<5}"
            f"{row.ratio_text()}{target}"
        )

    def show_table(self) -> None:
        """Print all comparisons as one table, and the machine."""
        for text in machine().values():
            tables.say(text)
        tables.say(_EXPLANATION)
        print()
        headings = ("benchmark", "ratio", "target", "what, ours : theirs")
        tables.show(headings, [row.cells() for row in self.rows])
        for benchmark, reason in self.left_out.items():
            tables.say(f"{benchmark} was left out: {reason}")

    def show_json(self) -> None:
        """Print all comparisons, and the machine."""
        rows: list[dict[str, Any]] = [row._asdict() for row in self.rows]
        data = {"machine": machine(), "rows": rows, "left_out": self.left_out}
        print(json.dumps(data, indent=2))


def _number(value: float) -> str:
    return f"{value:.1f}" if value < _FEW else f"{value:.0f}"


def machine() -> dict[str, str]:
    """Return what figures depend on."""
    return {
        "versions": doctor.version_line(),
        "platform": platform.platform(),
        "processors": f"{os.cpu_count()}, {_processor()}",
    }


def _processor() -> str:
    """Return the processor's name, as Linux has it, or what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()


def need_matplotlib(path: str) -> Any:
    """Return matplotlib, before hours are spent on measuring."""
    if Path(path).suffix.lower() not in PLOTS:
        raise CannotRun(f"--plot writes {' and '.join(PLOTS)} files, not {path}")
    if Path(path).is_dir() or not os.access(Path(path).parent, os.W_OK):
        raise CannotRun(f"cannot write {path}: no file can be made there")
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        raise CannotRun(
            "--plot needs matplotlib: python -m pip install 'pykeyupdate[plot]'"
        ) from None
    matplotlib.use("Agg")
    importlib.import_module("matplotlib.figure")
    return matplotlib


def plot(matplotlib: Any, rows: list[Row], path: str) -> None:
    """Write a chart of all ratios: bars from 1.0, with quartiles and targets."""
    figure = matplotlib.figure.Figure(figsize=(9, 1.2 + 0.32 * len(rows)))
    axes = figure.subplots()
    places = range(len(rows))
    colours = {True: _MET, False: _MISSED, None: _NONE}
    axes.barh(
        places,
        [row.ratio - 1 for row in rows],
        left=1,
        color=[colours[row.is_met()] for row in rows],
        xerr=[
            [row.ratio - row.low for row in rows],
            [row.high - row.ratio for row in rows],
        ],
        ecolor="black",
        error_kw={"elinewidth": 1, "capsize": 2},
    )
    for place, row in zip(places, rows):
        target = row.at_most if row.at_least is None else row.at_least
        if target is not None:
            axes.plot([target] * 2, [place - 0.45, place + 0.45], color="black", lw=2)
    axes.axvline(1, color="black", lw=0.8)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xticks([tick for tick in _TICKS if low < tick < high])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_yticks(places, [f"{row.benchmark}: {row.label}" for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(
        "ratio, ours : theirs; median of pairs, with quartiles. Thick line: target "
        "(green: met)"
    )
    axes.set_title("\n".join(machine().values()), fontsize=8, loc="left")
    figure.savefig(path, bbox_inches="tight", dpi=120)
