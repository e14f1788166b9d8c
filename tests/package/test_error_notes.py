"""A traceback ends with the address of the documentation's section on the error."""

import pickle
import re
import sys
import traceback
from pathlib import Path

import pytest

import pykeyupdate
from pykeyupdate import _errors
from pykeyupdate._documentation import DOCUMENTATION

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
needs_notes = pytest.mark.skipif(sys.version_info < (3, 11), reason="notes are newer")


@pytest.fixture
def error(make_link):
    link = make_link("tls13")
    with pytest.raises(pykeyupdate.WrongProtocolVersionError) as caught:
        pykeyupdate.renegotiate(link.client)
    return caught.value


@needs_notes
def test_a_traceback_shows_the_address_below_the_message(error):
    message, note = traceback.format_exception_only(type(error), error)
    assert message.startswith("pykeyupdate.WrongProtocolVersionError: renegotiate(")
    assert note == (
        f"See {DOCUMENTATION}reference/errors.html#wrongprotocolversionerror\n"
    )


def test_nothing_is_made_before_somebody_asks(error):
    assert "__notes__" not in vars(error)


@needs_notes
def test_a_note_that_is_added_is_of_this_error_alone(error):
    error.add_note("mine")
    assert error.__notes__[1:] == ["mine"]
    assert len(type(error)("another").__notes__) == 1
    assert pickle.loads(pickle.dumps(error)).__notes__ == error.__notes__


def test_a_class_that_a_program_derives_leads_to_ours():
    class Mine(pykeyupdate.NotManagedError):
        pass

    assert Mine().__notes__[0].endswith("#notmanagederror")


@pytest.mark.skipif(not PAGE.exists(), reason="no documentation here")
def test_every_address_has_its_section():
    headings = re.findall(r"^### (\w+)$", PAGE.read_text("utf-8"), re.MULTILINE)
    anchors = {heading.lower() for heading in headings}
    for name in pykeyupdate.__all__:
        cls = getattr(pykeyupdate, name)
        is_error = isinstance(cls, type) and issubclass(cls, _errors.PyKeyUpdateError)
        if is_error and not cls.__subclasses__():
            assert cls.__notes__[0].partition("#")[2] in anchors


def test_the_project_names_the_same_address():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    assert f'Documentation = "{DOCUMENTATION}"\n' in project
