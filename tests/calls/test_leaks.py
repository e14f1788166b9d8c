"""Run each script in isolated/ in its own process, where it measures itself."""

import subprocess
import sys
from pathlib import Path

import pytest
from support import pace

ISOLATED = Path(__file__).parent / "isolated"
FUNCTIONS = [
    "key_update",
    "get_key_update_type",
    "renegotiate",
    "renegotiate_abbreviated",
    "renegotiate_pending",
    "secure_renegotiation",
    "total_renegotiations",
]


def run(script, *arguments):
    result = subprocess.run(
        [sys.executable, str(ISOLATED / script), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("function", FUNCTIONS)
def test_call_leaks_nothing(function):
    run("leak.py", function)


def test_cycles_on_live_connections_leak_nothing():
    pace.skip_if_kept()
    run("leak_live.py")
