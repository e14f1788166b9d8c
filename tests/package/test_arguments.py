"""_arguments.py: what numbers, times and flags may be given."""

from datetime import timedelta

import pytest

import pykeyupdate
from pykeyupdate import PeerLimits, RekeyPolicy

WRONG_TYPES = [
    (RekeyPolicy, {"sent_records": "4"}),
    (RekeyPolicy, {"received_records": 1.5}),
    (RekeyPolicy, {"received_bytes": True}),
    (RekeyPolicy, {"age_seconds": "3600"}),
    (RekeyPolicy, {"idle_seconds": True}),
    (RekeyPolicy, {"min_interval_seconds": None}),
    (RekeyPolicy, {"jitter": "0.1"}),
    (RekeyPolicy, {"jitter": False}),
    (RekeyPolicy, {"on_impossible": None}),
    (RekeyPolicy, {"renegotiate": "never"}),
    (RekeyPolicy, {"request_peer": 1}),
    (RekeyPolicy, {"aead_limit": None}),
    (PeerLimits, {"renegotiations": "3"}),
    (PeerLimits, {"key_update_window_seconds": None}),
    (PeerLimits, {"renegotiation": None}),
]


WRONG_VALUES = [
    (RekeyPolicy, {"sent_records": 0}),
    (RekeyPolicy, {"sent_bytes": -1}),
    (RekeyPolicy, {"age_seconds": -1}),
    (RekeyPolicy, {"age_seconds": timedelta(seconds=-1)}),
    (RekeyPolicy, {"idle_seconds": float("nan")}),
    (RekeyPolicy, {"idle_seconds": float("inf")}),
    (RekeyPolicy, {"min_interval_seconds": 1e300}),
    (RekeyPolicy, {"min_interval_seconds": timedelta.max}),
    (RekeyPolicy, {"jitter": 1}),
    (RekeyPolicy, {"jitter": float("nan")}),
    (RekeyPolicy, {"on_impossible": "shrug"}),
    (PeerLimits, {"key_updates": -1}),
    (PeerLimits, {"key_update_window_seconds": 0.5}),
    (PeerLimits, {"renegotiation": "sometimes"}),
]


@pytest.mark.parametrize(
    ("error", "cls", "wrong"),
    [(TypeError, *wrong) for wrong in WRONG_TYPES]
    + [(ValueError, *wrong) for wrong in WRONG_VALUES],
)
def test_wrong_numbers_are_named(error, cls, wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(error, match=f"^{cls.__name__}: {name} must be .*, not ") as no:
        cls(**wrong)
    given = value.total_seconds() if isinstance(value, timedelta) else value
    assert str(no.value).endswith(f", not {given!r}")
    preset = getattr(cls, "tiny", cls)
    with pytest.raises(error, match=f"^{cls.__name__}: {name} must be "):
        preset(**wrong)


def test_times_may_be_timedeltas():
    hour = timedelta(hours=1)
    policy = RekeyPolicy(
        age_seconds=hour, idle_seconds=hour / 2, min_interval_seconds=hour / 4
    )
    assert policy == RekeyPolicy(
        age_seconds=3600.0, idle_seconds=1800.0, min_interval_seconds=900.0
    )
    assert policy.age_seconds == 3600
    limits = PeerLimits(
        key_update_window_seconds=hour, renegotiation_window_seconds=hour / 2
    )
    assert limits == PeerLimits(
        key_update_window_seconds=3600.0, renegotiation_window_seconds=1800.0
    )


def test_what_is_on_or_off_is_no_word(make_wire):
    wire = make_wire(RekeyPolicy())
    for call in (
        lambda value: pykeyupdate.install(managed=value),
        lambda value: pykeyupdate.rekey_all(request_peer=value),
        lambda value: pykeyupdate.request_rekey(wire.end, request_peer=value),
        lambda value: pykeyupdate.rekey(wire.end, request_peer=value),
    ):
        for wrong in ("no", 1, None):
            with pytest.raises(TypeError, match=f"True or False, not {wrong!r}"):
                call(wrong)
    assert wire.write(b"data") == b"data"
    assert wire.key_updates() == 0
