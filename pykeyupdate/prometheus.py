"""``totals()`` for Prometheus: ``pip install pykeyupdate[prometheus]``.

::

    import prometheus_client
    import pykeyupdate

    prometheus_client.REGISTRY.register(pykeyupdate.prometheus.Collector())
"""

from collections.abc import Iterator

from .stats import totals

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
    "requests_sent": "Key updates sent that asked the peer for one",
    "requests_received": "Key updates received that asked for one",
    "renegotiations": "Renegotiations begun by this side, complete",
    "peer_renegotiations": "Renegotiations begun by the peer, complete",
    "refused": "Renegotiations that the peer was refused",
    "deferred": "Changes of keys that had to wait",
    "cut_off": "Connections whose peer exceeded PeerLimits",
}


class Collector(_Collector):
    """Exports ``pykeyupdate_..._total`` and ``pykeyupdate_connections``.

    The numbers are the whole process's, read when Prometheus asks. Thread-safe.
    """

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
