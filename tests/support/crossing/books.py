"""What two ends have sent, received and raised."""

import socket
import ssl

from . import calls
from .scenes import Marker

AGAIN = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError, socket.timeout)


def is_of_callback(error):
    """Return whether an exception is the callback's, or came over that."""
    while error is not None and not isinstance(error, Marker):
        error = error.__context__
    return error is not None


class Operation:
    """Notes what comes out of it; what only has to be done again is no failure.

    (A generator's context manager makes a RuntimeError of what a signal handler raises
    on the way in.)
    """

    def __init__(self, books, name, end):
        self.books, self.name, self.end = books, name, end

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if not isinstance(error, Exception):
            return False
        if is_of_callback(error):
            self.books.seen.came_out.add(self.name)
        elif not isinstance(error, AGAIN):
            self.books.ended[self.end] = True
            self.books.seen.failures.append((f"{self.name} of end {self.end}", error))
        return True


class Books:
    """What went between two ends, and what they said of it."""

    def __init__(self, seen):
        self.seen = seen
        self.forget()
        self.ended = [False, False]
        self.breaks_off = False  # a write has been given up half-way, or closed

    def forget(self):
        """Begin anew with counting data."""
        self.sent = [b"", b""]
        self.got = [[], []]  # by the end that received it

    def operation(self, name, end):
        """Have it noted what comes out of an operation of an end."""
        return Operation(self, name, end)

    def compare(self, role, hands):
        """Note what data has been lost; `hands` have read and written at an end."""
        for receiver in (0, 1):
            chunks, expected = self.got[receiver], self.sent[1 - receiver]
            possible = [b"".join(chunks)]
            if receiver != role:
                possible.append(possible[0].replace(calls.INNER, b"", 1))
            for place in range(len(chunks) + 1) if receiver == role else ():
                parts = [*chunks[:place], hands.took, *chunks[place:]]
                possible.append(b"".join(parts))
            if self.breaks_off and any(expected.startswith(got) for got in possible):
                continue
            if expected not in possible:
                wrong = not expected.startswith(possible[0])
                self.seen.lost.append(
                    f"end {receiver} got {len(possible[0])} of {len(expected)} bytes"
                    + (", and others than were sent" if wrong else "")
                )
