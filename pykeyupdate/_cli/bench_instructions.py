"""``bench instructions``: what a round trip executes, counted by valgrind.

Other load on the machine does not change these figures. A round trip is ``sendall()``
and ``recv()`` at both ends of a connection, in one thread. What starting takes is in
two runs of different length, and so not in their difference.
"""

import gc
import os
import re
import shutil
import ssl
import subprocess
import sys

from . import local_connections
from .bench_sheet import Sheet
from .exit_codes import CannotRun

_FEW, _MANY = 200, 2200  # round trips
_SIZES = ((64, 0.90), (16_000, 0.95))  # with their targets
_ROOM = 1 << 16


def main(sheet: Sheet) -> None:
    """Count; raise CannotRun without valgrind."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise CannotRun("This command counts with valgrind, which is not installed.")
    sheet.say("Instructions a round trip; ours : ssl.SSLSocket")
    with local_connections.certificate_files() as files:
        for size, target in _SIZES:
            ours, theirs = (
                _count(valgrind, kind, size, files) for kind in ("managed", "stock")
            )
            sheet.add(
                f"{size} bytes", ours, theirs, "", [ours / theirs], at_most=target
            )


def _count(valgrind: str, kind: str, size: int, files: tuple[str, str]) -> float:
    """Return the instructions of one round trip."""
    command = [
        *(valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null"),
        # -B: a first run that writes byte code would count what compiling takes
        *(sys.executable, "-B", "-m", __spec__.name, kind, str(size), *files),
    ]

    def total(turns: int) -> int:
        done = subprocess.run(
            [*command, str(turns)],
            capture_output=True,
            text=True,
            check=True,
            start_new_session=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        found = re.search(r"Collected : (\d+)", done.stderr)
        return int(found[1]) if found else 0

    return (total(_MANY) - total(_FEW)) / (_MANY - _FEW)


def run(kind: str, size: str, pem: str, trusted: str, turns: str) -> None:
    """Make these round trips."""
    gc.disable()
    client, server = local_connections.contexts_of_files(kind, pem, trusted)
    ball = bytes(int(size))
    with local_connections.socket_connection(client, server) as (near, far):
        for _ in range(int(turns)):
            _send(near, far, ball)
            _send(far, near, ball)


def _send(sender: ssl.SSLSocket, receiver: ssl.SSLSocket, ball: bytes) -> None:
    sender.sendall(ball)
    missing = len(ball)
    while missing:
        missing -= len(receiver.recv(_ROOM))


if __name__ == "__main__":
    run(*sys.argv[1:])
