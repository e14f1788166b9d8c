"""``totals()`` for OpenTelemetry: ``pip install pykeyupdate[opentelemetry]``.

::

    import pykeyupdate.opentelemetry

    pykeyupdate.opentelemetry.instrument()

The instruments are observable: they are read when the program's SDK collects, and cost
nothing in between. Their names, units and attributes follow OpenTelemetry's conventions
(``network.io.direction`` is one of its own attributes).
"""

import time
from collections.abc import Iterable
from typing import Callable, NamedTuple, Optional

from ._finding import name_of
from ._fork_lock import make_lock
from ._identity_map import IdentityMap
from ._metrics import METRICS
from ._static_lookup import is_instance
from ._stats import Totals, totals

try:
    from opentelemetry import metrics
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
except ImportError as _error:
    raise ImportError(
        f"pykeyupdate.opentelemetry needs opentelemetry-api 1.25 or newer ({_error}). "
        "Install it with `python -m pip install 'pykeyupdate[opentelemetry]'`",
        name=_error.name,
    ) from _error

__all__ = ["instrument"]

_DIRECTIONS = {"sent": "transmit", "received": "receive"}
_SENT = {"network.io.direction": "transmit"}
_RECEIVED = {"network.io.direction": "receive"}
_OURS = {"pykeyupdate.initiator": "local"}
_PEERS = {"pykeyupdate.initiator": "peer"}


class _Instrument(NamedTuple):
    name: str  # without "pykeyupdate."
    unit: str
    text: str
    attributes: tuple[tuple[str, dict[str, str]], ...]
    """The metrics (``_metrics.py``) that are in it, and what tells them apart."""
    kind: str = "counter"


_INSTRUMENTS = (
    _Instrument(
        "key_update.messages",
        "{message}",
        "TLS 1.3 key updates.",
        (("key_updates_sent", _SENT), ("key_updates_received", _RECEIVED)),
    ),
    _Instrument(
        "key_update.requests",
        "{request}",
        "Key updates that requested one from the other side.",
        (("requests_sent", _SENT), ("requests_received", _RECEIVED)),
    ),
    _Instrument(
        "key_update.failures",
        "{connection}",
        "Connections that failed with nothing received since our last key update.",
        (("failed_after_update", {}),),
    ),
    _Instrument(
        "key.changes",
        "{change}",
        "Changes of this side's keys, by reason.",
        (("key_changes", {}),),
    ),
    _Instrument(
        "key.deferrals",
        "{change}",
        "Key changes that had to wait.",
        (("deferred", {}),),
    ),
    _Instrument(
        "key.impossible",
        "{connection}",
        "Connections that cannot have the new keys their RekeyPolicy wants.",
        (("impossible", {}),),
    ),
    _Instrument(
        "key.writes_refused",
        "{write}",
        "Writes refused because keys could not be changed.",
        (("writes_refused", {}),),
    ),
    _Instrument(
        "renegotiation.completions",
        "{renegotiation}",
        "Completed renegotiations.",
        (("renegotiations", _OURS), ("peer_renegotiations", _PEERS)),
    ),
    _Instrument(
        "renegotiation.refusals",
        "{renegotiation}",
        "Refused renegotiations of the peer.",
        (("refused", {}),),
    ),
    _Instrument(
        "connection.openings",
        "{connection}",
        "Managed connections opened.",
        (("connections_opened", {}),),
    ),
    _Instrument(
        "connection.cut_offs",
        "{connection}",
        "Connections whose peer exceeded PeerLimits.",
        (("cut_off", {}),),
    ),
    _Instrument(
        "connection.count",
        "{connection}",
        "Managed connections open.",
        (("connections", {}),),
        "up_down_counter",
    ),
    _Instrument(
        "key.oldest_age",
        "s",
        "Age of the oldest key in use.",
        (("oldest_key_age_seconds", {}),),
        "gauge",
    ),
    _Instrument(
        "key.ages",
        "{key}",
        "Keys in use that are at most so many seconds old.",
        (("key_age_seconds_bucket", {}),),
        "up_down_counter",
    ),
    _Instrument(
        "key.records",
        "{key}",
        "Keys in use that have protected at most so many records.",
        (("key_records_bucket", {}),),
        "up_down_counter",
    ),
)
_METRICS = {metric.name: metric for metric in METRICS}
_FRESH = 0.1  # seconds: all instruments of one collection show the same moment

_lock = make_lock()
_instrumented: "IdentityMap[bool]" = IdentityMap()  # by provider


def instrument(meter_provider: Optional[MeterProvider] = None) -> None:
    """Have a meter provider observe ``totals()``, until the process ends.

    meter_provider is the one to use (the global one, which may be set later). The
    numbers are the process's, so each worker of a server needs this call and an SDK of
    its own.

    Raises ``RuntimeError`` if this provider observes them already: they would be
    counted twice; ``TypeError`` for what is no meter provider. Thread-safe.
    """
    provider = meter_provider
    if provider is None:
        provider = metrics.get_meter_provider()
    if not is_instance(provider, MeterProvider):
        raise TypeError(
            "pykeyupdate.opentelemetry.instrument() takes an opentelemetry.metrics."
            f"MeterProvider, or None for the global one, not {name_of(provider)}"
        )
    with _lock:
        if _instrumented.get(provider):
            raise RuntimeError(
                "pykeyupdate.opentelemetry.instrument(): this meter provider observes "
                "totals() already; call it once in each process"
            )
        _instrumented.set(provider, True)
    try:
        _create_all(provider.get_meter("pykeyupdate"))
    except BaseException:
        _instrumented.remove(provider)
        raise


def _create_all(meter: metrics.Meter) -> None:
    snapshot = _Snapshot()
    for made in _INSTRUMENTS:
        create = getattr(meter, f"create_observable_{made.kind}")
        create(
            f"pykeyupdate.{made.name}",
            [_observer(made, snapshot)],
            unit=made.unit,
            description=made.text,
        )


class _Snapshot:
    """``totals()``, read once for all instruments of a collection."""

    def __init__(self) -> None:
        self._lock = make_lock()  # the SDK's thread may hold it while another forks
        self._read: Optional[tuple[float, Totals]] = None

    def get(self) -> Totals:
        with self._lock:
            now = time.monotonic()
            if self._read is None or now - self._read[0] > _FRESH:
                self._read = now, totals()
            return self._read[1]


def _observer(
    made: _Instrument, snapshot: _Snapshot
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        now = snapshot.get()
        for name, attributes in made.attributes:
            metric = _METRICS[name]
            for values, value in metric.read(now).items():
                labels = zip(metric.labels, values)
                found = dict(_attribute(*label) for label in labels)
                yield Observation(value, {**attributes, **found})

    return observe


def _attribute(label: str, value: str) -> tuple[str, str]:
    """Return what OpenTelemetry calls a label and its value."""
    if label == "direction":
        return "network.io.direction", _DIRECTIONS[value]
    return f"pykeyupdate.{label}", value
