"""_frozen.py: its classes behave as those that ``dataclasses`` makes."""

import copy
import dataclasses
import pickle
import subprocess
import sys
from typing import Optional

import pytest

import pykeyupdate
from pykeyupdate import _frozen


def make_class(decorator):
    class Point:
        x: int
        y: Optional[str]

        def __init__(self, *, x=1, y=None):
            object.__setattr__(self, "x", x)
            object.__setattr__(self, "y", y)

    return decorator(frozen=True, init=False)(Point)


def _with_a_repr_of_its_own(cls):
    """Return what the decorator of a class makes of one that has a ``__repr__()``."""
    decorator = _frozen.dataclass if cls is OURS else dataclasses.dataclass

    class Own:
        x: int = 1

        def __repr__(self):
            return "its own"

    return decorator(frozen=True, init=False)(Own)


OURS, THEIRS = make_class(_frozen.dataclass), make_class(dataclasses.dataclass)


@pytest.mark.parametrize(
    "look",
    [
        lambda cls: repr(cls(x=2)),
        lambda cls: cls() == cls(),
        lambda cls: cls() == cls(x=2),
        lambda cls: cls() == (1, None),
        lambda cls: hash(cls(x=2, y="y")),
        lambda cls: getattr(cls, "__match_args__", None),
        lambda cls: [(field.name, field.type) for field in dataclasses.fields(cls)],
        lambda cls: dataclasses.asdict(cls(x=3)),
        lambda cls: dataclasses.is_dataclass(cls()),
        lambda cls: repr(dataclasses.replace(cls(x=2), y="y")),
        lambda cls: hasattr(cls, "__replace__"),
        lambda cls: repr(copy.deepcopy(cls(x=2))),
        lambda cls: setattr(cls(), "x", 1),
        lambda cls: setattr(cls(), "other", 1),
        lambda cls: delattr(cls(), "x"),
        lambda cls: setattr(type("Derived", (cls,), {})(), "x", 1),
        lambda cls: setattr(type("Derived", (cls,), {})(), "other", 1),
        lambda cls: repr(type("Derived", (cls,), {})()),
        lambda cls: repr(_with_a_repr_of_its_own(cls)()),
        lambda cls: type("Derived", (cls,), {})() == cls(),
        lambda cls: dataclasses.dataclass(type("Derived", (cls,), {})),
    ],
)
def test_it_behaves_as_a_dataclass(look):
    def outcome(cls):
        try:
            return look(cls)
        except Exception as error:
            return type(error), str(error)

    assert outcome(OURS) == outcome(THEIRS)


def test_policies_and_limits_are_values():
    for value in (pykeyupdate.RekeyPolicy.tiny(), pykeyupdate.PeerLimits()):
        for same in (copy.copy(value), pickle.loads(pickle.dumps(value))):
            assert same == value
            assert hash(same) == hash(value)
        assert dataclasses.replace(value) == value
    assert dataclasses.replace(pykeyupdate.PeerLimits(), key_updates=1).key_updates == 1


@pytest.mark.skipif(sys.version_info < (3, 13), reason="copy.replace() is newer")
def test_copy_replace():
    policy = copy.replace(pykeyupdate.RekeyPolicy.tiny(), sent_records=5)
    assert policy == pykeyupdate.RekeyPolicy.tiny(sent_records=5)


def test_the_import_needs_none_of_these():
    """Each takes as long as a third of this package."""
    slow = {"dataclasses", "inspect", "logging", "traceback"}
    code = (
        "import sys, ssl; before = {*sys.modules}; import pykeyupdate; "
        f"print({slow} & {{*sys.modules}} - before)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "set()"
