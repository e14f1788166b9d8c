"""pykeyupdate/prometheus.py: totals() as metrics."""

import os
import subprocess
import sys

import pytest

import pykeyupdate


def test_prometheus():
    prometheus = pytest.importorskip("prometheus_client")
    from pykeyupdate.prometheus import Collector

    registry = prometheus.CollectorRegistry()
    registry.register(Collector())
    text = prometheus.generate_latest(registry).decode()
    now = pykeyupdate.totals()
    for line in (
        f"pykeyupdate_key_updates_sent_total {float(now.counts.key_updates_sent)}",
        f"pykeyupdate_connections_opened_total {float(now.opened)}",
        f"pykeyupdate_connections {float(now.open)}",
    ):
        assert line in text.splitlines()
    with pytest.raises(ValueError, match="Duplicated.*pykeyupdate_key_updates_sent"):
        registry.register(Collector())


def test_prometheus_in_multiprocess_mode_is_refused(tmp_path):
    """As an endpoint of that mode shows a counter of prometheus_client's and not ours;
    what the error advises it shows."""
    pytest.importorskip("prometheus_client")
    script = """
import prometheus_client, pykeyupdate
from prometheus_client import multiprocess
from pykeyupdate.prometheus import Collector
try:
    Collector()
except RuntimeError as error:
    assert "PROMETHEUS_MULTIPROC_DIR" in str(error)
else:
    raise SystemExit("taken")
class Careless(Collector):
    def __init__(self):
        pass
prometheus_client.REGISTRY.register(Careless())
sent = prometheus_client.Gauge("sent", "-", multiprocess_mode="sum")
sent.set(pykeyupdate.totals().counts.key_updates_sent)
endpoint = prometheus_client.CollectorRegistry()
multiprocess.MultiProcessCollector(endpoint)
text = prometheus_client.generate_latest(endpoint).decode()
assert "pykeyupdate" not in text
assert "sent 0.0" in text
"""
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        environment = {**os.environ, name: str(tmp_path)}
        subprocess.run([sys.executable, "-c", script], env=environment, check=True)
