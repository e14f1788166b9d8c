"""The public names, and that all of them give ``pykeyupdate`` as their module."""

import copy
import enum
import inspect
import pickle
import pkgutil
import pydoc
import re
import subprocess
import sys
import traceback

import pytest

import pykeyupdate
from pykeyupdate import aio

PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (aio, pykeyupdate)
    for name in module.__all__
    if not isinstance(getattr(module, name), int)
}
CLASSES = {name: value for name, value in PUBLIC.items() if isinstance(value, type)}
EXCEPTIONS = {n: cls for n, cls in CLASSES.items() if issubclass(cls, Exception)}
INSTANCES = [
    pykeyupdate.RekeyPolicy(),
    pykeyupdate.PeerLimits(),
    pykeyupdate.ClientCertificate(None, changed=False),
    pykeyupdate.Event(pykeyupdate.EventKind.CUT_OFF, None),
    pykeyupdate.KeyUpdateType.REQUESTED,
    pykeyupdate.totals(),
    pykeyupdate.totals().counts,
    pykeyupdate.totals().sent,
    pykeyupdate.totals().sent.ages,
]


def home_of(name, value):
    """Return the module whose name it has: aio gives a class of the package's, too."""
    is_of_package = getattr(pykeyupdate, value.__name__, None) is value
    return "pykeyupdate" if is_of_package else name.rpartition(".")[0]


def test_only_what_is_for_users_has_no_underscore():
    modules = {module.name for module in pkgutil.iter_modules(pykeyupdate.__path__)}
    assert {name for name in modules if name[0] != "_"} == {
        "aio",
        "control",
        "opentelemetry",
        "prometheus",
        "testing",
    }


@pytest.mark.parametrize("name", PUBLIC)
def test_it_is_named_as_users_write_it(name):
    value = PUBLIC[name]
    assert value.__module__ == home_of(name, value)
    assert getattr(sys.modules[value.__module__], value.__qualname__) is value
    assert pickle.loads(pickle.dumps(value)) is value
    assert copy.deepcopy(value) is value


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_prints_its_public_name(name):
    assert repr(CLASSES[name]) in (
        f"<class '{home_of(name, CLASSES[name])}.{CLASSES[name].__name__}'>",
        f"<enum '{CLASSES[name].__name__}'>",  # as all enums
    )


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_a_traceback_has_the_public_name(name):
    cls = EXCEPTIONS[name]
    lines = traceback.format_exception_only(cls, cls(1, "reason"))
    assert lines[0].startswith(f"{name}: ")
    again = pickle.loads(pickle.dumps(cls(1, "reason")))
    assert (type(again), again.args) == (cls, (1, "reason"))


@pytest.mark.parametrize("value", INSTANCES, ids=lambda value: type(value).__name__)
def test_what_a_program_keeps_can_be_copied_and_pickled(value):
    assert type(value).__module__ == "pykeyupdate"
    for again in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
        assert again == value
        assert type(again) is type(value)
    assert b"pykeyupdate._" not in pickle.dumps(value)


def test_a_managed_socket_prints_its_public_name(connect):
    for end in connect():
        assert repr(end).startswith("<pykeyupdate.SSLSocket ")


def test_help_has_all_of_it():
    """In a process of its own, as pydoc adds attributes to classes of ssl's."""
    program = "import pydoc, pykeyupdate; print(pydoc.render_doc(pykeyupdate))"
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    text = pydoc.plain(printed.stdout)
    for name in pykeyupdate.__all__:
        assert name in text
    assert "pykeyupdate._errors" not in text


TUPLES = [
    cls
    for cls in CLASSES.values()
    if issubclass(cls, tuple) and hasattr(cls, "_fields")
]
ENUMS = [cls for cls in CLASSES.values() if issubclass(cls, enum.Enum)]


@pytest.mark.parametrize("cls", TUPLES, ids=lambda cls: cls.__name__)
def test_every_field_has_words_of_its_own(cls):
    for name in cls._fields:
        words = getattr(cls, name).__doc__
        assert words
        assert "Alias for field" not in words
        assert " ".join(words.split()) in " ".join(cls.__doc__.split())


@pytest.mark.parametrize("cls", ENUMS, ids=lambda cls: cls.__name__)
def test_every_member_is_described(cls):
    described = re.findall(r"^(\w+)\n +\S", inspect.cleandoc(cls.__doc__), re.M)
    assert described == list(cls.__members__)


FUNCTIONS = [value for value in PUBLIC.values() if inspect.isroutine(value)]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda it: it.__qualname__)
def test_no_default_in_a_signature_is_an_address(function):
    assert " at 0x" not in str(inspect.signature(function))


def test_help_begins_with_what_one_calls():
    """The first page has the functions, and then what else there is."""
    words = pykeyupdate.__doc__
    functions = [it.__name__ for it in FUNCTIONS if it.__module__ == "pykeyupdate"]
    assert [name for name in functions if f"{name}(" not in words] == []
    assert len(words.splitlines()) <= 60


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        (pykeyupdate.RekeyPolicy(), "RekeyPolicy()"),
        (
            pykeyupdate.RekeyPolicy.anssi(jitter=0.1),
            "RekeyPolicy(sent_bytes=100000000000, received_bytes=116666666662, "
            "age_seconds=3600.0, jitter=0.1)",
        ),
        (pykeyupdate.PeerLimits(key_updates=None), "PeerLimits(key_updates=None)"),
    ],
)
def test_rules_print_what_is_not_as_by_default(rules, text):
    assert repr(rules) == text
    assert eval(text, vars(pykeyupdate)) == rules
