"""What several tests of the package need."""

import os

import pytest
from support import frameworks


@pytest.fixture(params=frameworks.ALL, ids=lambda cls: cls.__name__)
def framework(request):
    try:
        made = request.param()
        if made.name == "uvloop":
            made.new_event_loop().close()
    except ImportError as error:
        if os.environ.get("PYKEYUPDATE_REQUIRE_LIBRARIES"):
            raise
        pytest.skip(str(error))
    return made
