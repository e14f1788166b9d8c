"""``totals()`` for Prometheus: ``pip install pykeyupdate[prometheus]``.

::

    import prometheus_client
    import pykeyupdate

    prometheus_client.REGISTRY.register(pykeyupdate.prometheus.Collector())

This does not work in prometheus_client's multiprocess mode (several processes behind
one endpoint, as under gunicorn): ``MultiProcessCollector`` adds up files that
prometheus_client's own metrics write, and calls no collector. There, give each process
its own endpoint, or have each process set a prometheus_client ``Gauge`` from
``pykeyupdate.totals()``.
"""

import os
from collections.abc import Iterator

from ._stats import totals

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector as _Collector
except ImportError as _error:
    raise ImportError(
        f"pykeyupdate.prometheus needs prometheus-client 0.20 or newer ({_error}). "
        "Install it with `python -m pip install 'pykeyupdate[prometheus]'`",
        name=_error.name,
    ) from _error

_HELP = {
    "key_updates_sent": "TLS 1.3 key updates sent",
    "key_updates_received": "TLS 1.3 key updates received",
    "requests_sent": "Key updates sent that requested one from the peer",
    "requests_received": "Key updates received that requested one",
    "renegotiations": "Completed renegotiations begun by this side",
    "peer_renegotiations": "Completed renegotiations begun by the peer",
    "refused": "Refused renegotiations of the peer",
    "deferred": "Key changes that had to wait",
    "cut_off": "Connections whose peer exceeded PeerLimits",
    "impossible": "Connections that cannot have the new keys their RekeyPolicy wants",
    "writes_refused": "Writes refused because keys could not be changed",
    "failed_after_update": "Connections that failed with nothing received since a "
    "key update",
}


_MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client/values.py


class Collector(_Collector):
    """Exports ``pykeyupdate_..._total`` and ``pykeyupdate_connections``.

    The numbers cover the whole process and are read when Prometheus scrapes. Register
    only one: for a second one in the same registry, ``register()`` raises
    ``ValueError``, because Prometheus would refuse the same metrics twice.

    Raises ``RuntimeError`` in multiprocess mode (``PROMETHEUS_MULTIPROC_DIR`` is set),
    where nothing would be exported. Thread-safe.
    """

    def __init__(self) -> None:
        if _MULTIPROCESS in os.environ or _MULTIPROCESS.lower() in os.environ:
            raise RuntimeError(
                "pykeyupdate.prometheus.Collector() exports nothing in multiprocess "
                f"mode, which {_MULTIPROCESS} sets: unset it and give each process an "
                "endpoint of its own, or have each set a prometheus_client.Gauge from "
                "pykeyupdate.totals()"
            )

    def describe(self) -> Iterator[Metric]:
        """Return the metrics; their names let a registry detect a second collector."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Return the metrics as they are now."""
        now = totals()
        for name, text in _HELP.items():
            yield CounterMetricFamily(
                f"pykeyupdate_{name}", text, value=getattr(now.counts, name)
            )
        yield CounterMetricFamily(
            "pykeyupdate_connections_opened",
            "Managed connections opened",
            value=now.opened,
        )
        yield GaugeMetricFamily(
            "pykeyupdate_connections", "Managed connections open", value=now.open
        )
