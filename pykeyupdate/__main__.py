"""``python -m pykeyupdate``: see ``pykeyupdate.cli``."""

import sys

from .cli import main

sys.exit(main())
