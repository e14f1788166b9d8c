"""A guess at the TLS library that a server uses, and what the server calls itself.

It rests on what libraries were seen to do with key updates and renegotiations. Several
do the same, so it names all that are known to.
"""

import re
from typing import Callable, NamedTuple

from . import limits
from .checks import REFUSED, Baseline, Check
from .failures import printable

_LONGEST_NAME = 60


class _Seen(NamedTuple):
    """What the guess is made from."""

    base: Baseline
    checks: dict[str, Check]

    def fact(self, check: str, name: str) -> object:
        found = self.checks.get(check)
        return found.facts.get(name) if found else None

    def refuses_with(self, alert: str) -> bool:
        found = self.checks.get("renegotiation_full")
        return bool(
            found and found.result == REFUSED and found.facts.get("alert") == alert
        )


_GUESSES: list[tuple[str, Callable[[_Seen], bool]]] = [
    (
        "Mbed TLS",
        lambda seen: seen.fact("key_update", "alert") == "unexpected_message",
    ),
    (
        "GnuTLS",
        lambda seen: (
            seen.fact("limit_in_a_row", "updates") in limits.GNUTLS
            or seen.fact("renegotiation_abbreviated", "alert") == "internal_error"
        ),
    ),
    (
        "rustls, BoringSSL, or pykeyupdate's own limits",
        lambda seen: (
            seen.fact("limit_in_a_row", "updates") in limits.RUSTLS_AND_OTHERS
            and seen.fact("limit_in_a_row", "objected") is True
        ),
    ),
    (
        "Java's JSSE, or Go",
        lambda seen: (
            seen.fact("key_update_requested", "at_once") is True
            and seen.base.tickets == 1
        ),
    ),
    ("OpenSSL or its like", lambda seen: seen.refuses_with("no_renegotiation")),
]


def guess(base: Baseline, checks: list[Check]) -> str:
    """Return "library; server", as far as either is known."""
    seen = _Seen(base, {check.name: check for check in checks})
    library = next((name for name, fits in _GUESSES if fits(seen)), "")
    name = _name_of_server(base.banner)
    return "; ".join(part for part in (library, name and f"says {name}") if part)


def _name_of_server(banner: bytes) -> str:
    """Return what an HTTP answer or a greeting says about the server."""
    text = banner.decode("utf-8", "replace")
    if text.startswith("HTTP/"):
        header = re.search(r"^server:\s*(.*)$", text, re.IGNORECASE | re.MULTILINE)
        return printable(header[1])[:_LONGEST_NAME] if header else ""
    greeting = re.match(r"(?:220[ -]|\+OK |\* OK )(.*)", text)
    return printable(greeting[1])[:_LONGEST_NAME] if greeting else ""
