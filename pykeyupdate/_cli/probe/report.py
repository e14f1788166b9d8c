"""What is printed: a table for people, JSON for programs, one line for monitoring."""

import json

from .. import tables
from ..exit_codes import complain
from . import verdicts
from .examine import Report

_LABELS = {
    "key_update": "KeyUpdate",
    "key_update_requested": "KeyUpdate, requested",
    "several_updates": "several KeyUpdates",
    "limit_in_a_row": "limit, in a row",
    "limit_with_data": "limit, with data",
    "update_behind_request": "update behind request",
    "tls13": "TLS 1.3",
    "tls12": "TLS 1.2",
    "rfc5746": "RFC 5746 (TLS 1.2)",
    "renegotiation_full": "renegotiation, full",
    "renegotiation_abbreviated": "  abbreviated",
    "client_certificate": "client certificate",
}
_EXIT_CODES = {
    verdicts.SAFE: 0,
    verdicts.LIMITED: 0,
    verdicts.IMPOSSIBLE_HERE: 1,
    verdicts.FATAL: 1,
    verdicts.UNKNOWN: 3,
}
_NAGIOS = {
    verdicts.SAFE: (0, "OK"),
    verdicts.LIMITED: (1, "WARNING"),
    verdicts.IMPOSSIBLE_HERE: (1, "WARNING"),
    verdicts.FATAL: (2, "CRITICAL"),
    verdicts.UNKNOWN: (3, "UNKNOWN"),
}


def exit_code(reports: list[Report]) -> int:
    """Return 3 if a host could not be probed, or 1 if one cannot change keys, or 0."""
    return max((_EXIT_CODES[report.verdict.grade] for report in reports), default=0)


def show_json(reports: list[Report]) -> int:
    """Print all reports as a JSON list."""
    print(json.dumps([report.as_data() for report in reports], indent=2))
    return exit_code(reports)


def show_check(reports: list[Report]) -> int:
    """Print one line for Nagios and its like; return its code, the worst of all."""
    worst, word = max(_NAGIOS[report.verdict.grade] for report in reports)
    texts = "; ".join(f"{r.target} {r.verdict.text}" for r in reports)
    taken = [
        f"'{r.target}'={check.facts['seconds']:.6f}s"
        for r in reports
        for check in r.checks
        if check.name == "key_update_requested" and "seconds" in check.facts
    ]
    data = f" | {' '.join(taken)}" if taken else ""
    print(f"KEYUPDATE {word}: {texts.replace('|', '/')}{data}")
    return worst


def show_one(report: Report) -> int:
    """Print everything about one host; an error goes to standard error, in one line."""
    base = report.baseline
    if report.error is not None or base is None:
        complain(f"{report.target}: {report.error}")
        return exit_code([report])
    verified = "not verified" if report.settings.insecure else "verified"
    certificate = f"certificate {verified}"
    tables.say(f"{report.target}: {base.version} {base.cipher}, {certificate}")
    if report.looks_like:
        tables.say(f"looks like {report.looks_like}")
    print()
    rows = [(_LABELS[c.name], c.result, c.text) for c in report.checks]
    tables.show(("check", "result", ""), rows)
    print()
    verdict = report.verdict
    advice = [("", line) for line in verdict.advice]
    print("\n".join(tables.plain_lines(("verdict", verdict.text), advice)))
    return exit_code([report])


def show_many(reports: list[Report]) -> int:
    """Print a line for each host."""
    rows = [_row(report) for report in reports]
    headings = ("host", "TLS", "KeyUpdate", "renegotiation", "verdict", "")
    tables.show(headings, rows)
    return exit_code(reports)


def _row(report: Report) -> tuple[str, ...]:
    results = {check.name: check.result for check in report.checks}
    return (
        str(report.target),
        report.baseline.version if report.baseline else "",
        results.get("key_update", ""),
        results.get("renegotiation_full", ""),
        report.verdict.grade,
        report.verdict.text,
    )
