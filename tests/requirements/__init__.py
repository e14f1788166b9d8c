"""What standards and manuals require of a key change, sentence by sentence.

There is one module per source: ``ssl_key_update`` (OpenSSL's manual page), ``rfc9846``
(TLS 1.3) and ``rfc5746`` (renegotiation). Each entry says which code meets it and which
test shows that. ``test_requirements.py`` checks the entries against the code. It fails
if an entry names a test or function that does not exist, if a sentence is missing, or
if an entry has neither a test nor a reason.
"""

import importlib
import re
from collections import Counter
from typing import NamedTuple

OPENSSL = "OpenSSL"  # in met_by: the requirement is met without a line of ours
NOT_MET, NOT_APPLICABLE = "Not met: ", "Does not apply: "
SOURCES = ["ssl_key_update", "rfc9846", "rfc5746"]
# RFC 2119's, the longer ones first
KEYWORD = re.compile(
    r"\b(MUST NOT|MUST|SHALL NOT|SHALL|SHOULD NOT|SHOULD|"
    r"NOT RECOMMENDED|RECOMMENDED|REQUIRED)\b"
)


class Requirement(NamedTuple):
    """One sentence of a source, or the part of it that stands for itself.

    ``text`` is the source's, word for word. ``met_by`` names functions of ours, or
    OPENSSL; where it is empty, ``reason`` begins with NOT_MET or NOT_APPLICABLE.
    ``tests`` are "file::function", wherever in tests/ the file is. ``reason`` says what
    the tests do not: where it is not met after all, or why nobody tests it.
    """

    section: str
    text: str
    met_by: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    reason: str = ""


def load(source):
    """Return the module of a source."""
    return importlib.import_module(f"requirements.{source}")


def keywords(texts):
    """Return how often each keyword stands in them."""
    return Counter(word for text in texts for word in KEYWORD.findall(text))
