"""The C program that the benchmarks compare with: ``tests/bench/cycle.c``."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, NamedTuple

from .._keyupdate import libssl
from .exit_codes import CannotRun

_SOURCE = Path(__file__).parents[2] / "tests" / "bench" / "cycle.c"


class Measured(NamedTuple):
    """What the program measured: nanoseconds, and the cipher."""

    cipher: str
    cycle: float  # schedule a key update, write a byte, read both
    cycle_user: float  # user time
    data_user: float  # user time of the byte alone


class Program:
    """The compiled program, for the OpenSSL of this interpreter."""

    def __init__(self, certificate: Any, folder: Path) -> None:
        """Compile it into a folder; raise CannotRun if that is not possible."""
        if libssl["found_by"].startswith("the symbol table"):
            raise CannotRun(
                "The C program it is compared with loads libssl, which is hidden in "
                f"{libssl['path']} here"
            )
        program = _compiled(folder)
        pem = folder / "server.pem"
        certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
        self._command = [str(program), str(libssl["path"]), str(pem)]

    def run(self, cycles: int) -> Measured:
        """Run so many cycles; raise CannotRun with its words if the program fails."""
        # libssl's own libcrypto lies beside it: Python may know the folder alone
        beside, name = os.path.dirname(libssl["path"]), "LD_LIBRARY_PATH"
        paths = os.pathsep.join(filter(None, [beside, os.environ.get(name)]))
        try:
            done = subprocess.run(
                [*self._command, str(cycles)],
                env={**os.environ, name: paths},
                capture_output=True,
                text=True,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            raise CannotRun(f"The C program says: {error.stderr.strip()}") from None
        cipher, *times = done.stdout.splitlines()
        return Measured(cipher, *(float(time) for time in times))


def _compiled(folder: Path) -> Path:
    if not _SOURCE.exists():
        raise CannotRun(
            "The C program it is compared with is in a checkout alone "
            "(tests/bench/cycle.c)"
        )
    configured = (sysconfig.get_config_var("CC") or "cc").split()[0]
    compiler = shutil.which(configured) or shutil.which("cc")
    if sys.platform == "win32" or compiler is None:
        raise CannotRun(
            "The C program it is compared with needs POSIX and a C compiler "
            f"(looked for {configured!r} and 'cc')"
        )
    program = folder / "cycle"
    subprocess.run(
        [compiler, "-std=c11", "-O2", "-o", program, _SOURCE, "-ldl"], check=True
    )
    return program
