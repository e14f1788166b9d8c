"""Tables that exist in both C and Python, or twice in Python, and must agree."""

import pytest

import pykeyupdate
from pykeyupdate import (
    _errors,
    _events,
    _keyupdate,
    _metrics,
    _policy,
    _rekeying,
    _stats,
)

TABLES = _keyupdate.tables


def test_counters_are_the_fields_of_counts():
    assert TABLES["counters"] == list(pykeyupdate.Counts._fields)


def test_histograms_have_the_bounds_that_are_documented():
    bounds = {"ages": _stats.AGE_BOUNDS, "records": _stats.RECORD_BOUNDS}
    assert TABLES["bounds"] == [
        " ".join([name, *map(str, numbers)]) for name, numbers in bounds.items()
    ]


def test_events_are_the_members_of_event_kind():
    assert TABLES["events"] == [kind.name for kind in pykeyupdate.EventKind]


def test_numbers_mean_the_same():
    numbers = TABLES["numbers"]
    assert numbers["event_bits"] == [*_events._BITS]
    assert TABLES["levels"] == [
        _events._LEVELS.get(kind, "DEBUG") for kind in pykeyupdate.EventKind
    ]
    assert numbers["NO_LIMIT"] == _policy.NO_LIMIT
    assert numbers["ANY_NUMBER"] == _policy._ANY_NUMBER
    assert numbers["NEVER"] == _policy._OFF


def test_modes_are_those_of_peer_limits():
    assert TABLES["modes"] == list(_policy._MODES)
    for mode in TABLES["modes"]:
        pykeyupdate.PeerLimits(renegotiation=mode)


def test_reasons_are_the_fields_of_what_counts_them():
    assert TABLES["changes"] == list(pykeyupdate.KeyChanges._fields)
    assert TABLES["causes"] == list(pykeyupdate.Impossible._fields)
    assert TABLES["limits"] == list(pykeyupdate.CutOff._fields)
    assert {*TABLES["limits"]} <= {*pykeyupdate.PeerLimits.__annotations__}


def test_kinds_of_messages_are_the_members_of_to_send():
    assert TABLES["to_send"] == [kind.name for kind in _rekeying.ToSend]
    assert [*_rekeying.ToSend] == [*range(len(TABLES["to_send"]))]


def test_rules_are_what_is_made_of_policy_and_limits():
    assert TABLES["rules"] == [*_policy.DEFAULT.numbers]


@pytest.mark.parametrize(
    ("name", "is_for_good"), sorted({tuple(pair) for pair in TABLES["refusals"]})
)
def test_a_refusal_is_for_good_where_its_class_says_so(name, is_for_good):
    """A policy gives up over the one, and programs over the other."""
    cls = getattr(_errors, name)
    assert issubclass(cls, pykeyupdate.NotNowError) is not is_for_good


def test_every_refusal_has_one_duration():
    names = {name for name, _ in TABLES["refusals"]}
    assert len({tuple(pair) for pair in TABLES["refusals"]}) == len(names)


def test_every_count_is_exported():
    names = {metric.name for metric in _metrics.METRICS}
    assert names >= {*pykeyupdate.Counts._fields}


def test_every_metric_is_in_an_instrument():
    pytest.importorskip("opentelemetry.metrics")
    from pykeyupdate import opentelemetry

    instruments = [it for made in opentelemetry._INSTRUMENTS for it in made.attributes]
    names = [name for name, _ in instruments]
    assert sorted(names) == sorted(metric.name for metric in _metrics.METRICS)
