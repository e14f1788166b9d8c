"""What users give a command: numbers and files as options, and files of text."""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Optional

from .exit_codes import CannotRun

_DAY = 86400
_MOST = 256
_LONGEST = 1 << 24  # bytes of a file; some devices have no end


def seconds(text: str) -> float:
    """Return the time that an option gives: above 0, and a day at most."""
    with contextlib.suppress(ValueError):
        number = float(text)
        if 0 < number <= _DAY:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is no number above 0, up to {_DAY}")


def count(text: str) -> int:
    """Return how many an option says: 1 to 256."""
    with contextlib.suppress(ValueError):
        number = int(text)
        if 1 <= number <= _MOST:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {_MOST}")


def check_key(key: Optional[str], certificate: Optional[str]) -> None:
    """Refuse a key's file (``--key``) without the certificate's (``--cert``)."""
    if key is not None and certificate is None:
        raise CannotRun("--key needs --cert, whose key it is")


def read_text(path: str) -> str:
    """Return the text of a file, or of standard input for ``-``.

    Raises ``CannotRun`` if there is none, it is no UTF-8, or it is too long.
    """
    try:
        return _read(path).decode("utf-8-sig")  # Windows' editors write the signature
    except (OSError, ValueError) as error:
        raise CannotRun(f"cannot read {path!r}: {error}") from None


def _read(path: str) -> bytes:
    if path != "-":
        with Path(path).open("rb") as file:
            data = file.read(_LONGEST + 1)
    elif sys.stdin is None:
        raise ValueError("standard input is closed")
    else:
        data = sys.stdin.buffer.read(_LONGEST + 1)
    if len(data) > _LONGEST:
        raise ValueError(f"it is longer than {_LONGEST} bytes")
    return data
