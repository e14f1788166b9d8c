"""Measure the calls beside their alternatives, in one run.

Absolute figures say little about another machine. The ratios here compare calls that
are measured in turns, round by round, on one OpenSSL. The best round of each counts.
"""

import argparse
import ctypes
import ssl
import tempfile
import timeit
from pathlib import Path
from typing import Any, Callable, NamedTuple

from .. import KeyUpdateType, get_key_update_type, key_update
from .._keyupdate import libssl
from . import (
    bench_asyncio,
    bench_duplex,
    bench_import,
    bench_instructions,
    bench_policy,
    bench_rekey,
    c_program,
    doctor,
    local_connections,
)
from .exit_codes import CannotRun, program

_ROUNDS = 25
_QUESTIONS = 5_000  # per round
_CYCLES = 500


class Entry(NamedTuple):
    """One thing to measure."""

    label: str
    run: Callable[[], float]  # one round: nanoseconds per call
    target: str = ""


def main(argv: list[str]) -> int:
    """Run a benchmark; return 0 if it ran, however fast."""
    parser = argparse.ArgumentParser(prog=f"{program()} bench")
    parser.add_argument(
        "what",
        choices=_BENCHMARKS,
        help="calls: each call, and a whole key update; "
        "duplex: managed sockets compared with ssl.SSLSocket; "
        "instructions: the same, counted by valgrind; "
        "rekey: a key update sent and read, compared with OpenSSL in C; "
        "policy: managed objects compared with ssl.SSLObject; "
        "asyncio: the same in event loops; "
        "import: import pykeyupdate compared with import ssl",
    )
    return _BENCHMARKS[parser.parse_args(argv).what]()


def bench_calls() -> int:
    """Measure each call and a whole cycle."""
    authority = local_connections.trustme().CA()
    certificate = authority.issue_cert(local_connections.NAME)
    contexts = local_connections.contexts(
        authority, certificate, ssl.TLSVersion.TLSv1_3
    )
    near, far = local_connections.memory_connection(*contexts)
    cipher = near.cipher()
    print(doctor.version_line())
    print(f"{near.version()} {cipher[0] if cipher else ''} over memory BIOs")
    print(f"Best of {_ROUNDS} rounds, taken in turns")
    bench_question(near)
    with tempfile.TemporaryDirectory() as folder:
        bench_cycle(near, far, certificate, Path(folder))
    return 0


def bench_question(conn: ssl.SSLObject) -> None:
    """Compare calls that only query: their cost is the cost of calling."""
    inner = conn._sslobj  # type: ignore[attr-defined]
    asked = {"get_key_update_type": get_key_update_type, "conn": conn, "inner": inner}
    compare(
        "A question, asked of an ssl.SSLObject",
        timed("get_key_update_type(conn)", asked),
        timed("conn.pending()", asked, "target: at least 1"),
        *ctypes_entries(conn),
    )
    compare(
        "and of the _ssl._SSLSocket inside it",
        timed("get_key_update_type(inner)", asked),
        timed("inner.pending()", asked),
    )


def ctypes_entries(conn: ssl.SSLObject) -> tuple[Entry, ...]:
    """Return entries for the query through ctypes: with the same checks, and bare."""
    try:
        library = ctypes.CDLL(str(libssl["path"]))
        function = library.SSL_get_key_update_type
        proof = library.SSL_get_ex_data
    except (OSError, AttributeError):  # for example, OpenSSL inside the executable
        print("\nNot through ctypes: it cannot load", libssl["path"])
        return ()
    function.argtypes = [ctypes.c_void_p]
    proof.argtypes = [ctypes.c_void_p, ctypes.c_int]
    proof.restype = ctypes.c_void_p
    # PyObject_HEAD, the socket, then the SSL*, as in ext/openssl/sslobject.c
    offset = object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
    sslobj_type = type(conn._sslobj)  # type: ignore[attr-defined]

    def through_ctypes(conn: Any) -> KeyUpdateType:
        inner = conn._sslobj
        if type(inner) is not sslobj_type:
            raise TypeError(conn)
        pointer = ctypes.c_void_p.from_address(id(inner) + offset)
        if proof(pointer, 0) != id(inner):
            raise ValueError(conn)
        return KeyUpdateType(function(pointer))

    pointer = ctypes.c_void_p.from_address(
        id(conn._sslobj) + offset  # type: ignore[attr-defined]
    )
    names = {
        "through_ctypes": through_ctypes,
        "function": function,
        "pointer": pointer,
        "conn": conn,
    }
    return (
        timed("through_ctypes(conn)", names, "target: at least 10"),
        timed("function(pointer)", names, "ctypes without a check"),
    )


def bench_cycle(
    near: ssl.SSLObject, far: ssl.SSLObject, certificate: Any, folder: Path
) -> None:
    """Compare a whole key update with the same in a C program."""
    try:
        program = c_program.Program(certificate, folder)
        cipher = program.run(_CYCLES).cipher
    except CannotRun as reason:
        print(f"\nNo cycle: {reason}")
        return
    cycle = "key_update(near); near.write(b'x'); far.read(1)"
    names = {"key_update": key_update, "near": near, "far": far}
    compare(
        "A cycle: schedule, perform with one byte of data, the peer reads it",
        Entry(f"the C program, {cipher}", lambda: program.run(_CYCLES).cycle),
        timed(cycle, names, "target: at most 1.25", calls=_CYCLES),
    )


def timed(
    statement: str, names: dict[str, Any], target: str = "", calls: int = _QUESTIONS
) -> Entry:
    """Return an entry that runs a Python statement."""
    timer = timeit.Timer(statement, globals=names)
    return Entry(statement, lambda: timer.timeit(calls) / calls * 1e9, target)


def compare(heading: str, base: Entry, *others: Entry) -> None:
    """Measure the entries in turns and print each as a multiple of the first."""
    entries = (base, *others)
    rounds = [[entry.run() for entry in entries] for _ in range(_ROUNDS)]
    best = [min(times) for times in zip(*rounds)]
    print(f"\n{heading}")
    for entry, time in zip(entries, best):
        ratio = "" if entry is base else f"{time / best[0]:6.2f} times the first"
        print(f"  {entry.label:<48}{time:9.1f} ns{ratio}  {entry.target}".rstrip())


_BENCHMARKS: dict[str, Callable[[], int]] = {
    "calls": bench_calls,
    "duplex": lambda: bench_duplex.main(ssl.TLSVersion.TLSv1_3),
    "instructions": bench_instructions.main,
    "rekey": bench_rekey.main,
    "policy": lambda: bench_policy.main(ssl.TLSVersion.TLSv1_3),
    "asyncio": bench_asyncio.main,
    "import": bench_import.main,
}
