"""What the checks mean for somebody who is about to turn a policy on."""

from collections.abc import Iterator
from typing import NamedTuple, Optional

from . import limits
from .checks import (
    ACCEPTED,
    ENDED,
    NO,
    NOT_TRIED,
    REFUSED,
    UNSEEN,
    Baseline,
    Check,
)
from .failures import ProbeError

SAFE, LIMITED, IMPOSSIBLE_HERE, FATAL, UNKNOWN = (
    "safe",
    "limited",
    "impossible",
    "fatal",
    "unknown",
)


class Verdict(NamedTuple):
    """A grade for programs, a sentence, and what to do."""

    grade: str
    text: str
    advice: list[str]


def of(
    base: Optional[Baseline], checks: list[Check], error: Optional[ProbeError]
) -> Verdict:
    """Return the verdict on one host."""
    if base is None or error is not None:
        return Verdict(UNKNOWN, f"not probed: {error}", [])
    found = {check.name: check for check in checks}
    if base.version == "TLSv1.3":
        return _of_key_updates(found)
    return _of_renegotiations(found)


def _of_key_updates(found: dict[str, Check]) -> Verdict:
    plain = found["key_update"]
    if plain.result == ENDED:
        return Verdict(
            FATAL,
            f"ends the connection on KeyUpdate ({plain.facts.get('how')})",
            [
                "Known for Mbed TLS, and for Kafka brokers before KAFKA-13418.",
                "Use no RekeyPolicy with this server; open new connections instead.",
            ],
        )
    if plain.result == NOT_TRIED:
        return Verdict(UNKNOWN, f"not probed: {plain.text}", [])
    troubles = [*_troubles(found)]
    advice = [*_advice_on_requests(found.get("key_update_requested")), *troubles]
    if plain.result == UNSEEN:
        text = "survives KeyUpdate, as far as can be seen without data"
        advice.append("Give --http PATH or --payload with a request that is answered.")
        return Verdict(LIMITED, text, advice)
    if troubles:
        return Verdict(LIMITED, "safe with RekeyPolicy(), within limits", advice)
    return Verdict(SAFE, "safe with RekeyPolicy()", advice)


def _advice_on_requests(check: Optional[Check]) -> Iterator[str]:
    """Say when ``request_peer=True`` is answered."""
    if check and check.result == ACCEPTED:
        when = "with the server's next data, so a server that only reads holds such a "
        when = "at once" if check.facts["at_once"] else f"{when}policy up"
        yield f"request_peer=True works, too: the answer comes {when}."


def _troubles(found: dict[str, Check]) -> Iterator[str]:
    """Say what a policy must not do with this server."""
    requested = found.get("key_update_requested")
    if requested and requested.result in (REFUSED, ENDED):
        yield f"Not request_peer=True: {requested.text}."
    several = found.get("several_updates")
    if several and several.result == ENDED:
        yield f"Several updates: {several.text}."
    in_a_row, with_data = found.get("limit_in_a_row"), found.get("limit_with_data")
    if in_a_row and in_a_row.result == ENDED:
        number = in_a_row.facts["updates"]
        whose = " (GnuTLS takes 8 a second)" if number in limits.GNUTLS else ""
        if with_data and with_data.result == ACCEPTED:
            yield (
                "Keys that change by age end a connection on which nothing is sent: "
                f"the server objects to update number {number} without data between."
            )
        else:
            yield (
                "Keep min_interval_seconds at 1.0, its default: the server objects to "
                f"number {number} in a row{whose}."
            )
    if with_data and with_data.result == ENDED:
        if with_data.facts["updates"] in limits.RUSTLS_AND_OTHERS:
            yield (
                "At most 32 updates in a connection's life: known for rustls before "
                "October 2025 and OpenSSL before 1.1.1b. Reconnect before."
            )
        elif in_a_row is None or in_a_row.result != ENDED:
            yield f"Keep updates rare: {with_data.text}."
    behind = found.get("update_behind_request")
    if behind and behind.result == ENDED:
        yield (
            "Keep one update under way at a time, as a policy does: the server ends "
            "the connection on an update behind a request (OpenSSL's BAD_LENGTH)."
        )


def _of_renegotiations(found: dict[str, Check]) -> Verdict:
    full = found.get("renegotiation_full")
    abbreviated = found.get("renegotiation_abbreviated")
    if full and full.result == ACCEPTED:
        advice = ["KeyUpdate needs TLS 1.3; renegotiation is the only way here."]
        if abbreviated and abbreviated.result != ACCEPTED:
            advice.append(f"Not renegotiate_abbreviated(): {abbreviated.text}.")
        return Verdict(LIMITED, "safe with RekeyPolicy(renegotiate=True)", advice)
    insecure = found["rfc5746"].result == NO
    if full is None or (full.result == NOT_TRIED and not insecure):
        why = full.text if full else "out of time"
        return Verdict(UNKNOWN, f"not probed: {why}", [])
    why = "refused"
    advice = [
        'A policy cannot change keys here: choose on_impossible ("ignore", "close"), '
        "or open new connections.",
    ]
    if full.result in (REFUSED, ENDED):
        advice.append("Not renegotiate=True: it would end the connection.")
    if insecure:
        advice.append("The server lacks RFC 5746: update it.")
        why = "insecure"
    text = f"no new keys on live connections: TLS 1.2 only, renegotiation {why}"
    return Verdict(IMPOSSIBLE_HERE, text, advice)
