"""``bench instructions``: what a round trip executes, counted by valgrind.

Other load on the machine does not change these figures. A round trip is ``sendall()``
and ``recv()`` at both ends of a connection, in one thread. What starting takes is in
two runs of different length, and so not in their difference.
"""

import gc
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

from .._installation import manage
from . import doctor, local_connections
from .exit_codes import CannotRun

_FEW, _MANY = 200, 2200  # round trips
_SIZES = ((64, 0.90), (16_000, 0.95))  # with their targets
_ROOM = 1 << 16


def main() -> int:
    """Count and print; return 0 if it ran."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise CannotRun("This command counts with valgrind, which is not installed.")
    authority = local_connections.trustme().CA()
    certificate = authority.issue_cert(local_connections.NAME)
    print(doctor.version_line())
    print("Instructions a round trip; ours : ssl.SSLSocket")
    with tempfile.TemporaryDirectory() as folder:
        pem, trusted = Path(folder, "server.pem"), Path(folder, "authority.pem")
        certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
        authority.cert_pem.write_to_path(str(trusted))
        for size, target in _SIZES:
            ours, theirs = (
                _count(valgrind, kind, size, str(pem), str(trusted))
                for kind in ("managed", "stock")
            )
            print(
                f"  {f'{size} bytes':<34}{ours:10.0f} : {theirs:10.0f} "
                f"{ours / theirs:6.2f}  target: at most {target:.2f}"
            )
    return 0


def _count(valgrind: str, kind: str, size: int, pem: str, trusted: str) -> float:
    """Return the instructions of one round trip."""
    command = [
        *(valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null"),
        *(sys.executable, "-m", __spec__.name, kind, str(size), pem, trusted),
    ]

    def total(turns: int) -> int:
        done = subprocess.run(
            [*command, str(turns)],
            capture_output=True,
            text=True,
            check=True,
            start_new_session=True,
            env={"PYTHONHASHSEED": "0"},
        )
        found = re.search(r"Collected : (\d+)", done.stderr)
        return int(found[1]) if found else 0

    return (total(_MANY) - total(_FEW)) / (_MANY - _FEW)


def run(kind: str, size: str, pem: str, trusted: str, turns: str) -> None:
    """Make these round trips."""
    gc.disable()
    client = ssl.create_default_context(cafile=trusted)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    if kind == "managed":
        manage(client)
        manage(server)
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
