"""Tables and progress: by rich on a terminal, as plain text everywhere else.

rich is in the extra ``cli``. Colours go to terminals alone, and not if ``NO_COLOR`` is
set (https://no-color.org); rich sees to both.
"""

import contextlib
import importlib
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Callable

_GAP = "  "
_LEAST = 24  # columns that are worth a column of text
COLOURS = {
    "accepted": "green",
    "safe": "green",
    "ended": "bold red",
    "fatal": "bold red",
    "refused": "yellow",
    "limited": "yellow",
    "impossible": "yellow",
    "unknown": "magenta",
}


def show(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table. The last column may have long texts, which are folded."""
    rich = _rich() if sys.stdout is not None and sys.stdout.isatty() else None
    if rich is None or shutil.get_terminal_size().columns < 3 * _LEAST:
        print("\n".join(plain_lines(headings, rows)))
        return
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, no_wrap=number < len(headings) - 1)
    for row in rows:
        table.add_row(*(rich.text.Text(c, style=COLOURS.get(c, "")) for c in row))
    rich.console.Console(file=sys.stdout, highlight=False).print(table)


def plain_lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's lines, no wider than the terminal if that can be done."""
    width = shutil.get_terminal_size((80, 24)).columns
    *sizes, _ = (max(map(len, column)) for column in zip(headings, *rows))
    indent = sum(sizes) + len(_GAP) * len(sizes)
    lines = []
    for row in (headings, *rows):
        cells = [cell.ljust(size) for cell, size in zip(row, sizes)]
        if width - indent >= _LEAST:
            folded = fold(row[-1], width - indent) or [""]
            lines.append(_GAP.join([*cells, folded[0]]).rstrip())
            lines += [" " * indent + rest for rest in folded[1:]]
        else:
            lines.append(_GAP.join(cells).rstrip())
            lines += [_GAP * 2 + line for line in fold(row[-1], width - 4)]
    return lines


def say(text: str, indent: str = "") -> None:
    """Print a text, folded to the terminal's width."""
    width = shutil.get_terminal_size().columns - len(indent)
    print("\n".join(indent + line for line in fold(text, width)))


def fold(text: str, width: int) -> list[str]:
    """Wrap a text, but leave paths and options whole."""
    return textwrap.wrap(
        text, max(width, 1), break_long_words=False, break_on_hyphens=False
    )


@contextlib.contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal's standard error what is being done; give a way to say it."""
    rich = _rich() if sys.stderr is not None and sys.stderr.isatty() else None
    if rich is None:
        yield lambda _: None
        return
    console = rich.console.Console(stderr=True, highlight=False)
    with console.status(text) as status:
        yield lambda now: status.update(f"{text}: {now}")


def _rich() -> Any:
    """Return the library rich, or None where it is not installed."""
    try:
        for name in ("rich.box", "rich.console", "rich.table", "rich.text"):
            importlib.import_module(name)
    except ImportError:
        return None
    return sys.modules["rich"]
