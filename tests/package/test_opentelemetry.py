"""pykeyupdate/opentelemetry.py: totals() as instruments."""

import os
import re
import signal
import threading
import time

import pytest
from support.wire import Wire, at_once

import pykeyupdate

pytest.importorskip("opentelemetry.sdk.metrics")
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from pykeyupdate import opentelemetry


@pytest.fixture
def provider():
    reader = InMemoryMetricReader()
    made = MeterProvider(metric_readers=[reader])
    made.reader = reader
    yield made
    made.shutdown()


def read(provider):
    """Return the values by instrument and attributes."""
    (resource,) = provider.reader.get_metrics_data().resource_metrics
    scopes = {it.scope.name: it for it in resource.scope_metrics}  # SDKs have their own
    scope = scopes["pykeyupdate"]
    return {
        (metric.name, *point.attributes.values()): point.value
        for metric in scope.metrics
        for point in metric.data.data_points
    }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_is_forked_during_a_collection_collects(monkeypatch, threads):
    begun, totals = threading.Event(), pykeyupdate.totals

    def slow():
        begun.set()
        time.sleep(0.3)
        return totals()

    monkeypatch.setattr(opentelemetry, "totals", slow)
    snapshot = opentelemetry._Snapshot()
    collected = threads.start(snapshot.get)
    assert begun.wait(20)
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        snapshot.get()
        os._exit(0)
    collected()
    assert os.waitpid(child, 0)[1] == 0


def test_what_totals_has_is_observed(provider, make_contexts, monkeypatch):
    monkeypatch.setattr(opentelemetry, "_FRESH", 0)
    opentelemetry.instrument(provider)
    before = read(provider)
    policy = at_once(sent_records=2)
    wire = Wire(make_contexts("tls13"), "object", "client", policy=policy).handshake()
    for _ in range(5):
        wire.write(b"data")
    pykeyupdate.key_update(wire.peer)
    wire.peer_writes(b"data")
    after = read(provider)
    rise = {key: after[key] - before[key] for key in after if after[key] != before[key]}
    gauges = ("pykeyupdate.key.ages", "pykeyupdate.key.records")
    gauges += ("pykeyupdate.key.oldest_age",)
    assert {key: value for key, value in rise.items() if key[0] not in gauges} == {
        ("pykeyupdate.key_update.messages", "transmit"): 2,
        ("pykeyupdate.key_update.messages", "receive"): 1,
        ("pykeyupdate.key.changes", "records"): 2,
        ("pykeyupdate.connection.openings",): 1,
        ("pykeyupdate.connection.count",): 1,
    }
    key = "pykeyupdate.key.records", "transmit", "100.0"
    assert rise[key] == 1


def test_all_instruments_show_one_moment(provider, monkeypatch):
    calls = []

    def counted():
        calls.append(True)
        return pykeyupdate.totals()

    monkeypatch.setattr(opentelemetry, "totals", counted)
    opentelemetry.instrument(provider)
    read(provider)
    assert len(calls) == 1


def test_names_and_units_follow_the_conventions(provider):
    """Lower case, dots between; a unit in UCUM; no name is the namespace of another."""
    opentelemetry.instrument(provider)
    (resource,) = provider.reader.get_metrics_data().resource_metrics
    metrics = resource.scope_metrics[0].metrics
    names = [metric.name for metric in metrics]
    for metric in metrics:
        assert re.fullmatch(r"pykeyupdate(\.[a-z]+(_[a-z]+)*){2}", metric.name)
        assert not metric.name.endswith(("_total", ".total"))
        assert re.fullmatch(r"s|\{[a-z]+\}", metric.unit)
        assert metric.description
        assert not any(name.startswith(f"{metric.name}.") for name in names)


def test_a_second_time_is_refused(provider):
    opentelemetry.instrument(provider)
    with pytest.raises(RuntimeError, match="this meter provider observes totals"):
        opentelemetry.instrument(provider)


@pytest.mark.parametrize("wrong", [3, "", object()])
def test_what_is_no_provider_is_refused(wrong):
    with pytest.raises(TypeError, match="takes an opentelemetry.metrics.MeterProvider"):
        opentelemetry.instrument(wrong)


def test_a_provider_may_fail_once_and_compare_in_any_way(provider):
    class Strange(MeterProvider):
        __hash__ = None
        failures = 1

        def __eq__(self, other):
            return True

        def __bool__(self):
            return False

        def get_meter(self, *args, **kwargs):
            self.failures -= 1
            if self.failures >= 0:
                raise OSError
            return super().get_meter(*args, **kwargs)

    for _ in range(2):
        reader = InMemoryMetricReader()
        strange = Strange(metric_readers=[reader])
        with pytest.raises(OSError):
            opentelemetry.instrument(strange)
        opentelemetry.instrument(strange)
        with pytest.raises(RuntimeError, match="already"):
            opentelemetry.instrument(strange)
        strange.reader = reader
        assert read(strange)
        strange.shutdown()


def test_the_global_provider_may_come_later():
    opentelemetry.instrument()
    with pytest.raises(RuntimeError, match="already"):
        opentelemetry.instrument()
