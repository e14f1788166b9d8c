"""Handles a failed import of the extension.

This module imports nothing else of the package: it must work when the rest does not.
"""

import os
import sys

PACKAGE = __name__.partition(".")[0]

NOT_BUILT = (
    "pykeyupdate's extension module is not there for this Python. In a source "
    "checkout, build it with `python -m pip install -e .`; with an installed "
    "pykeyupdate, leave the folder that shadows it, or install it again for this very "
    "interpreter."
)


def reraise(error: ImportError) -> None:
    """Raise the ImportError of ``import pykeyupdate``, with cause and remedy.

    Return instead if the command line imports the package: its ``doctor`` command
    explains this very error.
    """
    if is_main_program():
        return
    if getattr(error, "name", None) == f"{PACKAGE}._keyupdate" and isinstance(
        error, ModuleNotFoundError
    ):
        new = ImportError(NOT_BUILT, name=error.name)
        # To print a ModuleNotFoundError, Python 3.15 imports the parent of what is
        # missing: this package again, and that would fail in `traceback`.
        error.name = None
        raise new from error
    raise error


def is_main_program() -> bool:
    """Return whether this import serves ``pykeyupdate`` or ``python -m pykeyupdate``.

    ``-m`` imports a package before it runs the package's ``__main__``. It does so from
    a frame of ``runpy`` that holds the name given on the command line.
    """
    if is_console_script():
        return True
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_globals.get("__name__") == "runpy":
            name = str(frame.f_locals.get("mod_name"))
            return name.partition(".")[0] == PACKAGE
    return False


def is_console_script() -> bool:
    """Return whether this process is the program that pip makes: ``pykeyupdate``."""
    program = next(iter(getattr(sys, "argv", [])), "")  # an embedded Python has none
    return os.path.basename(program).partition(".")[0] == PACKAGE
