"""``--limits``: how much the server takes before it ends a connection, bounded."""

import time

from .checks import (
    ACCEPTED,
    ENDED,
    NOT_TRIED,
    TOO_FEW,
    TWICE,
    UNSEEN,
    Baseline,
    Check,
    Connect,
    ends_anyway,
    ready,
)
from .connection import Ended

_IN_A_ROW = 100  # updates; BoringSSL and rustls take 32
_BETWEEN_DATA = 40  # updates; old rustls and OpenSSL 1.1.1a take 32 in all
_REQUESTS = 64  # whose answers we let wait
GNUTLS = range(9, 16)  # it objects to the ninth; busy machines notice that later
RUSTLS_AND_OTHERS = range(33, 48)
_LOOK = 0.02  # seconds, or two round trips: when an objection should be here
_LONGEST_LOOK = 0.1


def updates_in_a_row(connect: Connect, base: Baseline) -> Check:
    """Send KeyUpdates without data, until the server objects."""
    name = "limit_in_a_row"
    look = min(max(_LOOK, 2 * base.round_trip), _LONGEST_LOOK)
    with ready(connect, base) as connection:
        begin, sent = time.perf_counter(), 0
        try:
            while sent < _IN_A_ROW:
                connection.change_keys()
                sent += 1
                connection.receive(look)
            return _took_all(name, sent, begin, bool(base.answers))
        except Ended as end:
            return _objected(name, sent, begin, end)


def updates_between_data(connect: Connect, base: Baseline) -> Check:
    """Send KeyUpdates with data in between, until the server objects."""
    name = "limit_with_data"
    if base.answers < TWICE:
        return Check(name, NOT_TRIED, TOO_FEW)
    with ready(connect, base) as connection:
        begin, sent = time.perf_counter(), 0
        try:
            while sent < _BETWEEN_DATA:
                connection.change_keys()
                sent += 1
                if not connection.exchange(base.payload, base.patience):
                    text = f"no answer any more after {sent}"
                    return Check(name, ENDED, text, {"updates": sent})
            return _took_all(name, sent, begin, saw_data=True)
        except Ended as end:
            if ends_anyway(connect, base, sent + 1):
                return Check(name, NOT_TRIED, TOO_FEW)
            return _objected(name, sent, begin, end)


def update_behind_request(connect: Connect, base: Baseline) -> Check:
    """Send an update while an answer is owed and the server has much to write.

    OpenSSL ends its connection (``BAD_LENGTH``) if it reads both while one of its
    non-blocking writes is pending.
    """
    name = "update_behind_request"
    if base.answers < TWICE:
        return Check(name, NOT_TRIED, TOO_FEW)
    with ready(connect, base) as connection:
        try:
            connection.send(base.payload.request * _REQUESTS)
            connection.change_keys(request_peer=True)
            connection.change_keys()
            connection.wait(base.quiet, lambda: False)
            if not connection.exchange(base.payload, base.patience):
                return Check(name, ENDED, "no answer any more")
        except Ended as end:
            if ends_anyway(connect, base, _REQUESTS + 1):
                return Check(name, NOT_TRIED, TOO_FEW)
            facts = {"how": end.ending.text, "alert": end.ending.alert}
            return Check(name, ENDED, f"ended: {end}", facts)
    return Check(name, ACCEPTED, f"taken behind {_REQUESTS} requests; data intact")


def _took_all(name: str, sent: int, begin: float, saw_data: bool) -> Check:
    taken = time.perf_counter() - begin
    facts = {"updates": sent, "seconds": taken, "objected": False}
    text = f"took all {sent} that were tried, in {taken:.1f} s"
    return Check(name, ACCEPTED if saw_data else UNSEEN, text, facts)


def _objected(name: str, sent: int, begin: float, end: Ended) -> Check:
    taken = time.perf_counter() - begin
    facts = {
        "updates": sent,
        "seconds": taken,
        "objected": True,
        "how": end.ending.text,
        "alert": end.ending.alert,
    }
    text = f"objected to number {sent}, after {taken:.1f} s: {end}"
    return Check(name, ENDED, text, facts)
