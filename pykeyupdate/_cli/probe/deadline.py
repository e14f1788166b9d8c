"""A point in time that all the work for a host, or a part of it, must meet."""

import socket
import time
from typing import Optional


class Deadline:
    """So many seconds from now, and not later than another deadline."""

    def __init__(self, seconds: float, within: Optional["Deadline"] = None) -> None:
        self.seconds = min(seconds, within.left()) if within else seconds
        self._at = time.monotonic() + self.seconds

    def left(self) -> float:
        """Return the seconds left; raise ``socket.timeout`` if there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise socket.timeout("timed out")
        return left

    def has_passed(self) -> bool:
        """Return whether no time is left."""
        return time.monotonic() >= self._at
