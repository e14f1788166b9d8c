"""pykeyupdate/prometheus.py: totals() as metrics."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import pace
from support.wire import Wire, at_once

import pykeyupdate
from pykeyupdate import PeerLimits

prometheus_client = pytest.importorskip("prometheus_client")
from prometheus_client import parser  # noqa: E402

from pykeyupdate import prometheus  # noqa: E402

TESTS = Path(__file__).parents[1]


@pytest.fixture
def registry():
    return prometheus_client.CollectorRegistry()


def scraped(registry):
    """Return the samples that a Prometheus reads, by name and labels."""
    text = prometheus_client.generate_latest(registry).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_totals_has_is_exported(registry, make_contexts):
    prometheus.export(registry)
    before = scraped(registry)
    wire = Wire(
        make_contexts("tls13"),
        "object",
        "server",
        policy=at_once(sent_records=2),
        limits=PeerLimits(key_updates=0),
    ).handshake()
    for _ in range(5):
        wire.write(b"data")
    pykeyupdate.key_update(wire.peer)
    with pytest.raises(pykeyupdate.PeerLimitError):
        wire.peer_writes(b"data")
    after = scraped(registry)
    rise = {key: after[key] - before[key] for key in after if after[key] != before[key]}
    assert {key: value for key, value in rise.items() if "seconds" not in key[0]} == {
        ("pykeyupdate_key_updates_sent_total",): 2,
        ("pykeyupdate_key_updates_received_total",): 1,
        ("pykeyupdate_key_changes_total", "records"): 2,
        ("pykeyupdate_cut_off_total", "key_updates"): 1,
        ("pykeyupdate_connections_opened_total",): 1,
        ("pykeyupdate_connections",): 1,
        **{key: 1 for key in after if key[0] == "pykeyupdate_key_records_bucket"},
    }
    assert after.keys() == before.keys()
    now = pykeyupdate.totals()
    for number, bound in enumerate(now.sent.ages.bounds):
        key = "pykeyupdate_key_age_seconds_bucket", "sent", str(float(bound))
        assert after[key] == sum(now.sent.ages.counts[: number + 1])
    key = "pykeyupdate_key_age_seconds_bucket", "received", "+Inf"
    assert after[key] == sum(now.received.ages.counts)


def test_registered_twice_is_refused(registry):
    first = prometheus.export(registry)
    with pytest.raises(RuntimeError, match="this registry exports totals.. already"):
        prometheus.export(registry)
    with pytest.raises(ValueError, match="Duplicated.*pykeyupdate_key_updates_sent"):
        registry.register(prometheus.Collector())
    prometheus.export(prometheus_client.CollectorRegistry())
    first.stop()
    assert scraped(registry) == {}
    prometheus.export(registry)
    assert scraped(registry)


def test_a_registry_that_has_a_collector_is_left_as_it_was(registry):
    collector = prometheus.Collector()
    registry.register(collector)
    before = scraped(registry).keys()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="has metrics of the same names already"):
            prometheus.export(registry)
    assert scraped(registry).keys() == before
    registry.unregister(collector)
    exported = prometheus.export(registry)
    assert scraped(registry).keys() == before
    for each in list(registry._collector_to_names):
        registry.unregister(each)
    exported.stop()
    exported.stop()
    prometheus.export(registry).stop()


def test_a_registry_may_compare_in_any_way():
    class Strange(prometheus_client.CollectorRegistry):
        __hash__ = None

        def __eq__(self, other):
            return True

    for registry in (Strange(), Strange()):
        prometheus.export(registry)
        assert scraped(registry)


@pytest.mark.parametrize("wrong", [3, "", object()])
def test_what_is_no_registry_is_refused(wrong):
    with pytest.raises(TypeError, match="takes a prometheus_client.CollectorRegistry"):
        prometheus.export(wrong)


@pytest.mark.parametrize(
    ("wrong", "error"), [("1", TypeError), (0, ValueError), (True, TypeError)]
)
def test_a_wrong_interval_is_refused(registry, wrong, error):
    with pytest.raises(error, match="interval_seconds must be seconds from"):
        prometheus.export(registry, interval_seconds=wrong)
    assert scraped(registry) == {}


# -- several processes -----------------------------------------------------------------


def run_in_multiprocess_mode(script, folder, name="PROMETHEUS_MULTIPROC_DIR"):
    path = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, name: str(folder), "PYTHONPATH": path},
        timeout=60,
        check=True,
    )


@pytest.mark.parametrize(
    "name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"]
)
def test_a_collector_is_refused_there(tmp_path, name):
    """As nothing calls it, and ``export()`` works."""
    script = """
from pykeyupdate.prometheus import Collector
try:
    Collector()
except RuntimeError as error:
    assert "PROMETHEUS_MULTIPROC_DIR" in str(error)
    assert "export() in each worker" in str(error)
else:
    raise SystemExit("taken")
"""
    run_in_multiprocess_mode(script, tmp_path, name)


MULTIPROCESS = """
import os, threading, time, trustme, ssl
import prometheus_client
from prometheus_client import multiprocess
import pykeyupdate
from pykeyupdate import prometheus
from support.wire import Wire, at_once

def wire():
    authority = trustme.CA()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(client)
    authority.issue_cert("localhost").configure_cert(server)
    made = Wire((client, server), "object", "client", policy=at_once(sent_records=1))
    return made.handshake()

def updates(times):
    made = wire()
    for _ in range(times + 1):
        made.write(b"data")
    return made

def scrape():
    registry = prometheus_client.CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    text = prometheus_client.generate_latest(registry).decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if line[0] != "#"]
    return {name: float(value) for name, _, value in lines}

SENT = "pykeyupdate_key_updates_sent_total"
BY_RECORDS = 'pykeyupdate_key_changes_total{reason="records"}'

def wait_for(name, value):
    deadline = time.monotonic() + 20
    while scrape().get(name) != value and time.monotonic() < deadline:
        time.sleep(0.02)
    assert scrape()[name] == value, (name, scrape()[name], value)
"""


def test_a_worker_keeps_its_metrics_up_to_date(tmp_path):
    pace.skip_if_kept()
    script = """
kept = updates(3)  # before the export
exported = prometheus.export(interval_seconds=0.1)
wait_for(SENT, 3)
assert scrape()['pykeyupdate_connections'] == 1
more = updates(4)
wait_for(SENT, 7)
wait_for(BY_RECORDS, 7)
assert scrape()['pykeyupdate_connections'] == 2
assert scrape()['pykeyupdate_cut_off_total{limit="key_updates"}'] == 0
records = 'pykeyupdate_key_records_bucket{direction="sent",le="100.0"}'
assert scrape()[records] == 2, scrape()
try:
    prometheus.export()
except RuntimeError as error:
    assert "already" in str(error)
else:
    raise SystemExit("taken twice")
names = [thread.name for thread in threading.enumerate()]
assert names.count("pykeyupdate.prometheus") == 1
exported.stop()
again = prometheus.export(interval_seconds=1000)
last = updates(5)
again.update()
assert scrape()[SENT] >= 12
"""
    run_in_multiprocess_mode(MULTIPROCESS + script, tmp_path)


def test_a_name_that_is_taken_leaves_the_registry_as_it_was(tmp_path):
    script = """
import threading
import prometheus_client, pykeyupdate.prometheus
registry = prometheus_client.CollectorRegistry()
prometheus_client.Counter("pykeyupdate_deferred", "theirs", registry=registry)
before = dict(registry._names_to_collectors)
try:
    pykeyupdate.prometheus.export(registry)
except RuntimeError as error:
    assert "pykeyupdate_deferred" in str(error), error
else:
    raise SystemExit("taken")
assert registry._names_to_collectors == before
assert threading.active_count() == 1
"""
    run_in_multiprocess_mode(script, tmp_path)


def test_what_a_worker_counts_at_last_is_not_lost(tmp_path):
    pace.skip_if_kept()
    run_in_multiprocess_mode(
        MULTIPROCESS + "prometheus.export(interval_seconds=1000); kept = updates(6)",
        tmp_path,
    )
    run_in_multiprocess_mode(MULTIPROCESS + "wait_for(SENT, 6)", tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork() here")
def test_a_forked_worker_counts_its_own(tmp_path):
    """Not what its parent has counted, and without its parent's thread."""
    pace.skip_if_kept()
    script = """
prometheus.export(interval_seconds=0.1)
kept = updates(3)
wait_for(SENT, 3)
child = os.fork()
if child == 0:
    more = updates(2)
    wait_for(SENT, 5)
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
more = updates(1)
wait_for(SENT, 6)
wait_for(BY_RECORDS, 6)
"""
    run_in_multiprocess_mode(MULTIPROCESS + script, tmp_path)
