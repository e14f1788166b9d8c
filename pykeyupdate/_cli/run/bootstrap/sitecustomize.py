"""Python runs this before the program, because ``pykeyupdate run`` set PYTHONPATH.

It does so in every process of the program, forked, spawned or started by its name.
Whatever ``sitecustomize`` the interpreter would have run comes afterwards.
"""

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec


def _install() -> None:
    """Install what was asked for; a program that cannot have it does not start."""
    try:
        from pykeyupdate import _running

        _running.begin(os.environ)
    except Exception as error:  # noqa: BLE001 (Python would go on without)
        # a Python of another environment that the program has started may lack us
        if os.environ.get("PYKEYUPDATE_RUN_FIRST") == str(os.getpid()):
            print(f"pykeyupdate run: {sys.executable}: {error}", file=sys.stderr)
            os._exit(2)


def _run_next() -> None:
    """Run the interpreter's own ``sitecustomize``, which this one hides."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if os.path.abspath(p) != here]
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = sys.modules["sitecustomize"] = module_from_spec(spec)
        spec.loader.exec_module(module)


_install()
_run_next()
