"""pykeyupdate/_cli/tables.py: by rich on terminals, as plain text elsewhere."""

import contextlib
import io
import re
import sys

import pytest

from pykeyupdate._cli import tables

HEADINGS = ("check", "result", "")
LONG = "a text that is longer than what is left of forty columns, by far"
ROWS = [("KeyUpdate", "accepted", "data intact"), ("limit", "ended", LONG)]
BOLD_RED = "\x1b[1;31m"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def on_terminal(monkeypatch):
    """Show a table and progress on a terminal; return what it got, and stderr."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def show():
        out, err = Terminal(), Terminal()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            tables.show(HEADINGS, ROWS)
            with tables.progress("probing") as say:
                say("now")
        return out.getvalue(), err.getvalue()

    return show


def test_a_terminal_gets_colours_and_progress(on_terminal):
    pytest.importorskip("rich")
    out, err = on_terminal()
    assert BOLD_RED + "ended" in out
    assert LONG[:40] in out
    assert "probing" in err


def test_no_color_is_obeyed(on_terminal, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("NO_COLOR", "1")
    out, err = on_terminal()
    assert "ended" in out
    assert not re.search(r"\x1b\[[\d;]*3\d", out + err)  # bold is no colour


def test_without_rich_it_is_plain(on_terminal, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.box", None)
    out, err = on_terminal()
    assert "\x1b" not in out
    assert err == ""


def test_a_file_gets_plain_text(capsys):
    tables.show(HEADINGS, ROWS)
    with tables.progress("probing") as say:
        say("now")
    out, err = capsys.readouterr()
    assert out.splitlines()[1] == "KeyUpdate  accepted  data intact"
    assert err == ""


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 200])
def test_lines_are_folded(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = tables.plain_lines(HEADINGS, ROWS)
    widest = max(map(len, lines))
    assert widest <= columns or columns < len("KeyUpdate  accepted")
    assert " ".join(" ".join(lines).split()).endswith(LONG)
