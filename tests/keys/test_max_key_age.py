"""``RekeyPolicy.max_key_age_seconds``: under an older key nothing more is sent.

What is on the wire is counted record by record (``make_wire``).
"""

import datetime
import ssl

import pytest

import pykeyupdate
from pykeyupdate import RekeyImpossibleError, RekeyPolicy
from pykeyupdate.testing import advance_clock

HOUR = 3600
ON_A_SERVER = pytest.mark.parametrize("role", ["server"])


def of_at_most(hours, **others):
    return RekeyPolicy(max_key_age_seconds=hours * HOUR, **others)


def test_alone_it_is_the_age_of_a_change(make_wire):
    wire = make_wire(of_at_most(1))
    wire.write(b"a")
    advance_clock(HOUR)
    wire.write(b"b")
    assert wire.under_each_key() == [[1], [1]]


def test_the_age_comes_first(make_wire):
    wire = make_wire(of_at_most(2, age_seconds=HOUR))
    for _ in range(3):
        wire.write(b"a")
        advance_clock(HOUR)
    wire.write(b"b")
    assert wire.under_each_key() == [[1], [1], [1], [1]]


def test_an_answer_that_does_not_come(make_wire):
    """No second request is sent before it; at the age, no data either."""
    wire = make_wire(of_at_most(3, age_seconds=HOUR, request_peer=True))
    advance_clock(HOUR)
    wire.write(b"a")
    for _ in range(2):
        advance_clock(HOUR)
        wire.write(b"b")
    assert wire.under_each_key() == [[], [1, 1, 1]]
    advance_clock(HOUR)
    with pytest.raises(RekeyImpossibleError, match="not answered"):
        wire.end.write(b"c")
    assert wire.peer_writes(b"here it is") == b"here it is"
    wire.write(b"d")
    assert wire.under_each_key() == [[], [1, 1, 1], [1]]


@pytest.mark.parametrize("what", ["raise", "close", "ignore", "function"])
def test_on_impossible(make_wire, what):
    called = []
    action = (lambda *given: called.append(given)) if what == "function" else what
    wire = make_wire(of_at_most(1, on_impossible=action), "tls12")
    wire.write(b"a")
    advance_clock(HOUR)
    if what in ("raise", "close"):
        with pytest.raises(RekeyImpossibleError, match="does not allow"):
            wire.end.write(b"b")
        wire.carry()
        if what == "close":
            assert wire.peer.read(10) == b""  # a close_notify
    else:
        assert wire.end.write(b"b") == 1
        assert [given[0] for given in called] == [wire.end] * (what == "function")


@ON_A_SERVER
def test_what_is_younger_goes_on(make_wire):
    wire = make_wire(of_at_most(2, request_peer=True, age_seconds=HOUR))
    advance_clock(HOUR)
    wire.write(b"a")
    advance_clock(2 * HOUR - 5)
    wire.write(b"b")
    assert wire.under_each_key() == [[], [1, 1]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"age_seconds": 2 * HOUR},
        {"min_interval_seconds": 2 * HOUR},
        {"age_seconds": datetime.timedelta(hours=2)},
    ],
)
def test_it_is_the_longest_time(wrong):
    with pytest.raises(ValueError, match="max_key_age_seconds must be at least"):
        of_at_most(1, **wrong)


@pytest.mark.parametrize("age", [None, 0, 0.5, datetime.timedelta(milliseconds=1)])
def test_idle_keys_need_an_age(age):
    with pytest.raises(ValueError, match="rotate_idle=True needs age_seconds"):
        RekeyPolicy(rotate_idle=True, age_seconds=age)
    assert RekeyPolicy(rotate_idle=True, max_key_age_seconds=1).rotate_idle


def test_a_time_and_a_flag():
    with pytest.raises(TypeError, match="max_key_age_seconds"):
        RekeyPolicy(max_key_age_seconds="1")
    with pytest.raises(TypeError, match="rotate_idle"):
        RekeyPolicy(rotate_idle=1, age_seconds=2)
    assert issubclass(RekeyImpossibleError, ssl.SSLError)
    assert pykeyupdate.RekeyPolicy().max_key_age_seconds is None
