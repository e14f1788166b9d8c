"""Libraries that a test needs, and that need not be there."""

import importlib
import os

import pytest


def library(name):
    """Import a library; where CI says so, it has to be there."""
    if os.environ.get("PYKEYUPDATE_REQUIRE_LIBRARIES"):
        return importlib.import_module(name)
    return pytest.importorskip(name)
