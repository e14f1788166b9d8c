"""tests/peers/conftest.py: a program's last output is not lost."""

import os
import sys
import time

import pytest


def test_the_last_output_of_a_program_that_has_ended_is_waited_for(
    program, monkeypatch
):
    read = os.read

    def read_late(*arguments):
        time.sleep(0.5)
        return read(*arguments)

    monkeypatch.setattr(os, "read", read_late)
    last = program(sys.executable, "-c", "print('goodbye')")
    last.wait_for("goodbye")
    with pytest.raises(AssertionError, match="goodbye"):
        last.wait_for("something else")
