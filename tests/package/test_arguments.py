"""_arguments.py: which numbers, times and flags are accepted."""

import ssl
from datetime import timedelta
from unittest import mock

import pytest

import pykeyupdate
from pykeyupdate import PeerLimits, RekeyPolicy, testing

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


def lying(base):
    """Return a class whose numbers or words are whatever is asked."""

    def lie(*arguments):
        raise ZeroDivisionError

    def agree(*arguments):
        return True

    compared = ["__lt__", "__le__", "__eq__", "__ne__", "__gt__", "__ge__"]
    converted = ["__int__", "__float__", "__index__", "__bool__", "__str__"]
    return [
        type("Liar", (base,), {**dict.fromkeys(compared, answer), **odd})
        for answer in (lie, agree)
        for odd in ({}, {"__hash__": lie}, dict.fromkeys(converted, lie))
    ]


@pytest.mark.parametrize("liar", lying(int) + lying(float) + lying(str))
@pytest.mark.parametrize(("cls", "wrong"), WRONG_VALUES)
def test_numbers_and_words_that_lie_are_known(cls, wrong, liar):
    ((name, value),) = wrong.items()
    if type(value) is not liar.__base__:
        return
    with pytest.raises(ValueError, match=f"^{cls.__name__}: {name} must be "):
        cls(**{name: liar(value)})


@pytest.mark.parametrize("number", [100_000, 100_000.0])
def test_the_plain_value_is_kept(number):
    for liar in lying(type(number)):
        policy = RekeyPolicy(age_seconds=liar(number), jitter=liar(0))
        assert type(policy.age_seconds) is type(policy.jitter) is type(number)
        assert policy.age_seconds == number
        pykeyupdate.rekey_all(per_second=liar(number))
        testing.advance_clock(liar(number))
    for liar in lying(int):
        assert type(RekeyPolicy(sent_records=liar(5)).sent_records) is int
    for liar in lying(str):
        assert type(PeerLimits(renegotiation=liar("once")).renegotiation) is str
        assert type(RekeyPolicy(on_impossible=liar("close")).on_impossible) is str


@pytest.mark.parametrize("kind", [bool, int, float, str, timedelta])
def test_what_says_it_is_of_another_class_is_known(kind):
    for name in ("request_peer", "sent_records", "age_seconds", "jitter"):
        with pytest.raises(TypeError, match=f"^RekeyPolicy: {name} must be "):
            RekeyPolicy(**{name: mock.Mock(spec=kind)})
    with pytest.raises(TypeError, match="^PeerLimits: renegotiation must be"):
        PeerLimits(renegotiation=mock.Mock(spec=kind))
    context = ssl.create_default_context()
    for name, cls in (("policy", RekeyPolicy), ("limits", PeerLimits)):
        with pytest.raises(TypeError, match=f"^{name} must be a "):
            pykeyupdate.manage(context, **{name: mock.Mock(spec=cls)})
    with pytest.raises(TypeError, match=r"takes an ssl\.SSLContext, not"):
        pykeyupdate.manage(mock.Mock(spec=ssl.SSLContext))
