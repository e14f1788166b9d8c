"""Waiting for what happens elsewhere: in another thread, process or program."""

import time

PATIENCE = 30.0  # seconds; nothing here takes one, unless the machine is busy


def eventually(condition, pause=0.005):
    """Wait until a condition holds; return its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(pause)
    return value
