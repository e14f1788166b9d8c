"""What others require of a change of keys, sentence by sentence.

One module a source: ``ssl_key_update`` (OpenSSL's manual page), ``rfc9846`` (TLS 1.3)
and ``rfc5746`` (renegotiation). Each entry says who meets it and which test shows it.
``test_requirements.py`` holds them to the code: a test or a function that is named here
and is there no more, a sentence that has gone, and an entry without a test or a reason
are failures.
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
