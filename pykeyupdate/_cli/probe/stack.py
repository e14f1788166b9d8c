"""A guess at the TLS library that a server uses, and what the server calls itself.

It rests on what libraries were seen to do with key updates and renegotiations. Several
do the same, so it names all that are known to.
"""

import re
from typing import Callable, NamedTuple, Optional

from . import limits
from .checks import ACCEPTED, ENDED, REFUSED, Baseline, Check
from .failures import printable

_LONGEST_NAME = 60


class _Seen(NamedTuple):
    """What the guess is made from."""

    checks: dict[str, Check]

    def result(self, check: str) -> Optional[str]:
        found = self.checks.get(check)
        return found.result if found else None

    def fact(self, check: str, name: str) -> object:
        found = self.checks.get(check)
        return found.facts.get(name) if found else None

    def refuses_with(self, alert: str) -> bool:
        return (
            self.result("renegotiation_full") == REFUSED
            and self.fact("renegotiation_full", "alert") == alert
        )

    @property
    def answers_at_once(self) -> bool:
        return self.fact("key_update_requested", "at_once") is True


_GUESSES: list[tuple[str, Callable[[_Seen], bool]]] = [
    (
        "Mbed TLS",
        lambda seen: (
            seen.result("key_update") == ENDED
            and (
                seen.fact("key_update", "alert") == "unexpected_message"
                or seen.refuses_with("no_renegotiation")
            )
        ),
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
        "NSS",
        lambda seen: seen.answers_at_once and seen.refuses_with("no_renegotiation"),
    ),
    (
        "Go or wolfSSL",
        lambda seen: seen.answers_at_once and seen.refuses_with("unexpected_message"),
    ),
    (
        "Java's JSSE",
        lambda seen: (
            seen.answers_at_once and seen.result("renegotiation_full") == ACCEPTED
        ),
    ),
    ("Java's JSSE, Go, NSS or wolfSSL", lambda seen: seen.answers_at_once),
    (
        "OpenSSL, Mbed TLS or their like",
        lambda seen: (
            seen.result("key_update") is None and seen.refuses_with("no_renegotiation")
        ),
    ),
    ("OpenSSL or its like", lambda seen: seen.refuses_with("no_renegotiation")),
]


def guess(base: Baseline, checks: list[Check]) -> str:
    """Return "library; server", as far as either is known."""
    seen = _Seen({check.name: check for check in checks})
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
