"""pykeyupdate/testing.py: the clock that tests can advance."""

from datetime import timedelta

import pytest

import pykeyupdate
from pykeyupdate import RekeyPolicy, testing


def test_the_clock_goes_forward_only(make_wire):
    for error, wrong in [
        (ValueError, -1),
        (ValueError, timedelta(days=-1)),
        (ValueError, 1.5),
        (ValueError, timedelta(seconds=1.5)),
        (ValueError, float("nan")),
        (TypeError, "1"),
        (TypeError, True),
        (TypeError, None),
    ]:
        with pytest.raises(error, match=r"advance_clock\(\): seconds must be "):
            testing.advance_clock(wrong)
    wire = make_wire(RekeyPolicy())
    for step in (60, timedelta(minutes=1)):
        before = pykeyupdate.stats(wire.end).sent.age_seconds
        testing.advance_clock(step)
        now = pykeyupdate.stats(wire.end).sent.age_seconds
        assert 60 <= now - before < 60 + 30
