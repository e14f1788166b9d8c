"""Checks the entries of ``requirements/`` against the present tests and sources."""

import ast
import functools
import re
from collections import Counter
from pathlib import Path

import pytest
from requirements import (
    NOT_APPLICABLE,
    NOT_MET,
    OPENSSL,
    SOURCES,
    keywords,
    load,
)

TESTS = Path(__file__).parent
ROOT = TESTS.parent

ENTRIES = [
    pytest.param(
        entry,
        id=f"{source} {entry.section} {number} {' '.join(entry.text.split()[:6])}",
    )
    for source in SOURCES
    for number, entry in enumerate(load(source).REQUIREMENTS, 1)
]
EACH = pytest.mark.parametrize("entry", ENTRIES)
EACH_SOURCE = pytest.mark.parametrize("source", SOURCES)


@functools.cache
def defined_in(path):
    """Return the names of the functions and classes that a Python file defines."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, definitions)}


@functools.cache
def ours():
    """Return all names that the package and the extension define, wherever they do."""
    names = set()
    for path in (ROOT / "pykeyupdate").rglob("*.py"):
        names |= defined_in(path)
    for path in (ROOT / "ext").rglob("*.c"):
        names.update(DEFINITION.findall(path.read_text(encoding="utf-8")))
    return names


# at the beginning of a line, its type before it or on the line above
DEFINITION = re.compile(r"^(?:\w[\w \t*]*[ \t*])?(\w+)\([^;{}]*\)\s*\{", re.MULTILINE)


@EACH
def test_an_entry_has_a_test_or_a_reason(entry):
    assert entry.tests or entry.reason
    met = not entry.reason.startswith((NOT_MET, NOT_APPLICABLE))
    assert met == bool(entry.met_by), "who meets it, or why nobody does"


@EACH
def test_the_named_tests_exist(entry):
    assert len(set(entry.tests)) == len(entry.tests)
    for test in entry.tests:
        file, _, name = test.partition("::")
        assert name.startswith("test_"), test
        where = [path for path in TESTS.rglob(file) if name in defined_in(path)]
        assert len(where) == 1, test


@EACH
def test_the_named_functions_exist(entry):
    if not (ROOT / "ext").is_dir():
        pytest.skip("the sources are not here")
    assert set(entry.met_by) - {OPENSSL} <= ours()


def test_no_two_entries_are_of_one_sentence():
    texts = Counter(
        (source, entry.section, entry.text)
        for source in SOURCES
        for entry in load(source).REQUIREMENTS
    )
    assert [text for text, count in texts.items() if count > 1] == []


@EACH_SOURCE
def test_no_sentence_is_lost(source):
    """Each source says how many entries, and keywords, a section has."""
    module = load(source)
    texts = {}
    for entry in module.REQUIREMENTS:
        texts.setdefault(entry.section, []).append(entry.text)
    assert {section: len(texts[section]) for section in texts} == module.ENTRIES
    assert {
        section: found for section in texts if (found := keywords(texts[section]))
    } == module.KEYWORDS
