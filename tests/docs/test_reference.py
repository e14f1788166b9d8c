"""The reference has every public name, once, and nothing else."""

import ast
import collections
import dataclasses
import re
from pathlib import Path

import pytest

import pykeyupdate
from pykeyupdate import _cli, _metrics, aio, control, testing

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
pytestmark = pytest.mark.skipif(not REFERENCE.exists(), reason="no documentation here")


def text_of(page):
    return (REFERENCE / page).read_text("utf-8")


def described():
    """Return the names that the pages have Sphinx take from docstrings."""
    text = "\n".join(path.read_text("utf-8") for path in REFERENCE.glob("*.md"))
    return re.findall(r"^\.\. auto\w+:: (\S+)", text, re.MULTILINE)


def public():
    yield from (f"pykeyupdate.{name}" for name in pykeyupdate.__all__)
    for module in (aio, control, testing):
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) == module.__name__ and name[0] != "_":
                yield f"{module.__name__}.{name}"
    for module in ("prometheus", "opentelemetry"):
        source = (Path(pykeyupdate.__file__).parent / f"{module}.py").read_text("utf-8")
        for name in ast.literal_eval(re.search(r"^__all__ = (.*)$", source, re.M)[1]):
            yield f"pykeyupdate.{module}.{name}"


def test_it_has_every_public_name_once_and_nothing_else():
    assert collections.Counter(described()) == collections.Counter(public())


def test_every_exception_has_cause_what_was_sent_and_what_to_do():
    sections = re.split(r"^### ", text_of("errors.md"), flags=re.MULTILINE)[1:]
    found = {section.split("\n")[0]: section for section in sections}
    groups = {"PyKeyUpdateError", "NotNowError", "NotPossibleError"}
    errors = {
        name
        for name in pykeyupdate.__all__
        if isinstance(getattr(pykeyupdate, name), type)
        and issubclass(getattr(pykeyupdate, name), pykeyupdate.PyKeyUpdateError)
    }
    assert found.keys() == errors - groups
    for name, section in found.items():
        terms = re.findall(r"^(\S.*)\n: \S", section, re.MULTILINE)
        assert terms == ["Cause", "Sent", "What to do"], name
        assert f".. autoexception:: pykeyupdate.{name}\n" in section


@pytest.mark.parametrize(
    "error", [pykeyupdate.NotNowError, pykeyupdate.NotPossibleError]
)
def test_an_exception_stands_under_its_kind(error):
    """By the heading that names it."""
    text = text_of("errors.md")
    (section,) = re.findall(
        rf"^## [^\n]*`{error.__name__}`\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL
    )
    under = re.findall(r"^### (\w+)", section, re.MULTILINE)
    classes = [getattr(pykeyupdate, name) for name in pykeyupdate.__all__]
    derived = [
        cls.__name__
        for cls in classes
        if isinstance(cls, type) and issubclass(cls, error) and cls is not error
    ]
    assert sorted(under) == sorted(derived)


@pytest.mark.parametrize(
    "rules", [pykeyupdate.RekeyPolicy(), pykeyupdate.PeerLimits()], ids=type
)
def test_tables_of_rules_have_the_defaults(rules):
    text = text_of("policies.md")
    for field in dataclasses.fields(rules):
        (row,) = re.findall(rf"^\|[^|]*`{field.name}`.*$", text, re.MULTILINE)
        names, defaults = (cell.strip() for cell in row.split("|")[1:3])
        found = [ast.literal_eval(part.strip("` ")) for part in defaults.split(",")]
        place = re.findall(r"`(\w+)`", names).index(field.name)
        assert found[place % len(found)] == getattr(rules, field.name)


def test_the_table_of_metrics_has_all_of_them():
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", text_of("metrics.md"), re.M)
    assert [
        (name, re.findall(r"`(\w+)`", labels), text) for name, labels, text in rows
    ] == [
        (
            f"pykeyupdate_{metric.name}{'_total' * (metric.kind == 'counter')}",
            list(metric.labels),
            metric.text,
        )
        for metric in _metrics.METRICS
    ]


def test_every_command_has_its_section():
    headings = re.findall(r"^## `(\w+)`", text_of("command-line.md"), re.MULTILINE)
    assert sorted(headings) == sorted(_cli.COMMANDS)
