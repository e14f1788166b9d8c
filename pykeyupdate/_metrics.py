"""What ``prometheus`` and ``opentelemetry`` export, and how ``totals()`` has it."""

from itertools import accumulate
from typing import Callable, Literal, NamedTuple

from ._stats import Histogram, Totals

Values = dict[tuple[str, ...], float]
"""By the values of the labels."""


class Metric(NamedTuple):
    """A number of the process for each combination of the labels' values."""

    name: str
    text: str
    read: Callable[[Totals], Values]
    labels: tuple[str, ...] = ()
    kind: Literal["counter", "gauge"] = "counter"
    of_several: Literal["sum", "max"] = "sum"
    """What makes one gauge of those of several processes."""


_COUNTS = {
    "key_updates_sent": "TLS 1.3 key updates sent",
    "key_updates_received": "TLS 1.3 key updates received",
    "requests_sent": "Key updates sent that requested one from the peer",
    "requests_received": "Key updates received that requested one",
    "renegotiations": "Completed renegotiations begun by this side",
    "peer_renegotiations": "Completed renegotiations begun by the peer",
    "refused": "Refused renegotiations of the peer",
    "deferred": "Key changes that had to wait",
    "writes_refused": "Writes refused because keys could not be changed",
    "failed_after_update": "Connections that failed with nothing received since our "
    "last key update",
}


def _count(name: str) -> Callable[[Totals], Values]:
    return lambda now: {(): getattr(now.counts, name)}


def _by_reason(name: str) -> Callable[[Totals], Values]:
    return lambda now: {
        (reason,): value for reason, value in getattr(now, name)._asdict().items()
    }


def _oldest(now: Totals) -> Values:
    return {
        ("sent",): now.sent.oldest_seconds or 0.0,
        ("received",): now.received.oldest_seconds or 0.0,
    }


def _buckets(name: str) -> Callable[[Totals], Values]:
    def read(now: Totals) -> Values:
        return {
            (direction, bound): count
            for direction in ("sent", "received")
            for bound, count in _cumulated(getattr(getattr(now, direction), name))
        }

    return read


def _cumulated(histogram: Histogram) -> "zip[tuple[str, int]]":
    """Return the buckets as Prometheus has them: all up to a bound."""
    bounds = [*map(str, map(float, histogram.bounds)), "+Inf"]
    return zip(bounds, accumulate(histogram.counts))


METRICS = (
    *(Metric(name, text, _count(name)) for name, text in _COUNTS.items()),
    Metric(
        "key_changes",
        "Changes of this side's keys, by reason",
        _by_reason("key_changes"),
        ("reason",),
    ),
    Metric(
        "impossible",
        "Connections that cannot have the new keys their RekeyPolicy wants, by cause",
        _by_reason("impossible"),
        ("reason",),
    ),
    Metric(
        "cut_off",
        "Connections whose peer exceeded PeerLimits, by limit",
        _by_reason("cut_off"),
        ("limit",),
    ),
    Metric(
        "connections_opened",
        "Managed connections opened",
        lambda now: {(): now.opened},
    ),
    Metric(
        "connections",
        "Managed connections open",
        lambda now: {(): now.open},
        kind="gauge",
    ),
    Metric(
        "oldest_key_age_seconds",
        "Age of the oldest key in use, by direction",
        _oldest,
        ("direction",),
        "gauge",
        "max",
    ),
    # Gauges, and not histograms, of which each observation counts for ever: these say
    # how the keys in use are now. histogram_quantile() takes both.
    Metric(
        "key_age_seconds_bucket",
        "Keys in use that are at most so old, by direction",
        _buckets("ages"),
        ("direction", "le"),
        "gauge",
    ),
    Metric(
        "key_records_bucket",
        "Keys in use that have protected at most so many records, by direction",
        _buckets("records"),
        ("direction", "le"),
        "gauge",
    ),
)
