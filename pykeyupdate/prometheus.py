"""``totals()`` for Prometheus: ``pip install pykeyupdate[prometheus]``.

::

    import pykeyupdate.prometheus

    pykeyupdate.prometheus.export()

That is all, in a single process and in each worker of several. There are two ways for
it to work:

In a single process, a ``Collector`` reads ``totals()`` when Prometheus scrapes.

In prometheus_client's multiprocess mode (several processes behind one endpoint, as
under gunicorn or uvicorn; ``PROMETHEUS_MULTIPROC_DIR`` is set), whichever worker is
scraped adds up files that prometheus_client's own metrics write, and calls no collector
in the other workers. So there each worker has a thread that sleeps, and every few
seconds brings metrics of prometheus_client up to date. What a worker has counted since
then is missing from a scrape, and for good if the worker is killed.
"""

import atexit
import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any, Optional, Union

from . import _arguments
from ._arguments import Seconds, Span
from ._finding import name_of
from ._fork_lock import make_lock
from ._identity_map import IdentityMap
from ._metrics import METRICS, Metric, Values
from ._static_lookup import is_instance
from ._stats import totals

try:
    import prometheus_client
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.core import Metric as Family
    from prometheus_client.registry import Collector as _Collector
    from prometheus_client.registry import CollectorRegistry
except ImportError as _error:
    raise ImportError(
        f"pykeyupdate.prometheus needs prometheus-client 0.20 or newer ({_error}). "
        "Install it with `python -m pip install 'pykeyupdate[prometheus]'`",
        name=_error.name,
    ) from _error

__all__ = ["Collector", "Export", "export"]

_MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client/values.py
_PREFIX = "pykeyupdate_"
_INTERVAL = Span(0.1, 86400, "seconds from 0.1 to a day, or a timedelta")
_lock = make_lock()
_exports: "IdentityMap[Export]" = IdentityMap()  # by registry


def export(
    registry: Optional[CollectorRegistry] = None, *, interval_seconds: Seconds = 10.0
) -> "Export":
    """Export ``totals()`` in this process, and in those that it forks.

    registry is the one to add the metrics to (``prometheus_client.REGISTRY``). In
    multiprocess mode, call this in each worker: where the application is made, or
    (gunicorn) in ``post_fork``. The endpoint is prometheus_client's own, with a
    ``MultiProcessCollector``; gunicorn's ``child_exit`` should call
    ``prometheus_client.multiprocess.mark_process_dead()``.

    interval_seconds is how old the numbers of other workers may be in multiprocess mode
    (10.0, as most servers are scraped every 15 seconds or more seldom; an update takes
    a millisecond or two). It has no effect in a single process.

    Raises ``RuntimeError`` if this registry has them already; ``TypeError`` for what is
    no registry, and ``TypeError`` and ``ValueError`` for a wrong interval. The registry
    is then as it was. Thread-safe.
    """
    interval = _arguments.seconds(
        "export()", "interval_seconds", interval_seconds, _INTERVAL
    )
    registry = prometheus_client.REGISTRY if registry is None else registry
    if not is_instance(registry, CollectorRegistry):
        raise TypeError(
            "pykeyupdate.prometheus.export() takes a prometheus_client."
            f"CollectorRegistry, or None for prometheus_client.REGISTRY, not "
            f"{name_of(registry)}"
        )
    with _lock:
        if _exports.get(registry) is not None:
            raise RuntimeError(_TWICE)
        made = Export(registry, interval)
        _exports.set(registry, made)
    return made


_TWICE = (
    "pykeyupdate.prometheus.export(): this registry exports totals() already, and "
    "Prometheus refuses a metric that comes twice; call it once in each process, or "
    "stop() the first"
)
_TAKEN = (
    "pykeyupdate.prometheus.export(): this registry has metrics of the same names "
    "already, of a Collector() or of the program; unregister them, or give another "
    "registry ({})"
)


class Export:
    """What ``export()`` has begun."""

    def __init__(self, registry: CollectorRegistry, interval: float) -> None:
        self._registry = registry
        self._collectors: list[_Collector] = []
        self._feeder: Optional[_Feeder] = None
        try:
            self._add(interval)
        except BaseException as error:
            self._remove()
            if is_instance(error, ValueError):  # of the registry
                raise RuntimeError(_TAKEN.format(error)) from error
            raise

    def _add(self, interval: float) -> None:
        if not _is_multiprocess():
            collector = Collector()
            self._registry.register(collector)
            self._collectors.append(collector)
            return
        metrics: dict[str, _Collector] = {}
        for metric in METRICS:
            metrics[metric.name] = _made(metric, self._registry)
            self._collectors.append(metrics[metric.name])
        self._feeder = _Feeder(metrics, interval)

    def _remove(self) -> None:
        while self._collectors:
            with contextlib.suppress(KeyError):  # somebody else has removed it
                self._registry.unregister(self._collectors.pop())

    def update(self) -> None:
        """Bring this worker's numbers up to date (multiprocess mode).

        An endpoint can call it before it answers, so that the numbers of the worker
        that is scraped are fresh. Thread-safe.
        """
        if self._feeder is not None:
            self._feeder.update()

    def stop(self) -> None:
        """End the thread, if there is one, and remove the metrics. Thread-safe."""
        if self._feeder is not None:
            self._feeder.stop()
        with _lock:
            if _exports.get(self._registry) is self:
                _exports.remove(self._registry)
            self._remove()


def _is_multiprocess() -> bool:
    return _MULTIPROCESS in os.environ or _MULTIPROCESS.lower() in os.environ


# -- a single process ------------------------------------------------------------------


class Collector(_Collector):
    """Exports ``totals()`` in a single process; ``export()`` registers one.

    The numbers cover the whole process and are read when Prometheus scrapes. Register
    only one: for a second one in the same registry, ``register()`` raises
    ``ValueError``, because Prometheus would refuse the same metrics twice.

    Raises ``RuntimeError`` in multiprocess mode (``PROMETHEUS_MULTIPROC_DIR`` is set),
    where nothing would be exported: ``export()`` works there. Thread-safe.
    """

    def __init__(self) -> None:
        if _is_multiprocess():
            raise RuntimeError(
                "pykeyupdate.prometheus.Collector() exports nothing in multiprocess "
                f"mode, which {_MULTIPROCESS} sets: call "
                "pykeyupdate.prometheus.export() in each worker"
            )

    def describe(self) -> Iterator[Family]:
        """Return the metrics; their names let a registry detect a second collector."""
        return self.collect()

    def collect(self) -> Iterator[Family]:
        """Return the metrics as they are now."""
        now = totals()
        for metric in METRICS:
            kind = _FAMILIES[metric.kind]
            family = kind(_PREFIX + metric.name, metric.text, labels=metric.labels)
            for labels, value in metric.read(now).items():
                family.add_metric(labels, value)
            yield family


_FAMILIES: dict[str, Union[type[CounterMetricFamily], type[GaugeMetricFamily]]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
}


# -- several processes -----------------------------------------------------------------


class _Feeder:
    """Brings prometheus_client's metrics up to date, in a thread that mostly sleeps."""

    def __init__(self, metrics: dict[str, _Collector], interval: float) -> None:
        self._metrics, self._interval = metrics, interval
        self._lock = make_lock()
        self._before: dict[str, Values] = {}
        self._stopped = threading.Event()
        self.update()
        self._start()
        atexit.register(self.update)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def _start(self) -> None:
        threading.Thread(
            target=self._run, name="pykeyupdate.prometheus", daemon=True
        ).start()

    def _run(self) -> None:
        stopped = self._stopped
        while not stopped.wait(self._interval):
            self.update()

    def _forked(self) -> None:
        """Begin anew in a child, which has its parent's counts, but not its thread.

        The metrics begin at 0 there (prometheus_client/values.py), and must not count
        again what the parent has counted.
        """
        if not self._stopped.is_set():
            now = totals()
            self._before = {metric.name: metric.read(now) for metric in METRICS}
            self._stopped = threading.Event()
            self._start()

    def update(self) -> None:
        now = totals()
        with self._lock:
            for metric in METRICS:
                values = metric.read(now)
                before = self._before.get(metric.name, {})
                self._before[metric.name] = values
                for labels, value in values.items():
                    self._set(metric, labels, value, before.get(labels, 0))

    def _set(
        self, metric: Metric, labels: tuple[str, ...], value: float, before: float
    ) -> None:
        child: Any = self._metrics[metric.name]
        if labels:
            child = child.labels(*labels)
        if metric.kind == "gauge":
            child.set(value)
        else:
            child.inc(max(value - before, 0))  # two updates at once

    def stop(self) -> None:
        self._stopped.set()
        atexit.unregister(self.update)


def _made(metric: Metric, registry: CollectorRegistry) -> Any:
    name = _PREFIX + metric.name
    if metric.kind == "counter":
        return prometheus_client.Counter(
            name, metric.text, metric.labels, registry=registry
        )
    return prometheus_client.Gauge(
        name,
        metric.text,
        metric.labels,
        registry=registry,
        multiprocess_mode="livesum" if metric.of_several == "sum" else "livemax",
    )
