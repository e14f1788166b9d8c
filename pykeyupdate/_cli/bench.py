"""Measure the calls beside their alternatives, in one run.

Absolute figures say little about another machine. The ratios here compare calls that
are measured in turns, round by round, on one OpenSSL. The best round of each counts.
"""

import argparse
import ctypes
import ssl
import subprocess
import tempfile
import timeit
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from .. import KeyUpdateType, get_key_update_type, key_update
from .._keyupdate import libssl
from . import (
    bench_asyncio,
    bench_duplex,
    bench_import,
    bench_instructions,
    bench_policy,
    bench_rekey,
    bench_sheet,
    c_program,
    local_connections,
    tables,
)
from .bench_sheet import Sheet
from .exit_codes import CannotRun, program

_ROUNDS = 25
_QUESTIONS = 5_000  # per round
_CYCLES = 500


class Entry(NamedTuple):
    """One thing to measure."""

    label: str
    run: Callable[[], float]  # one round: nanoseconds per call
    at_least: Optional[float] = None  # times the first
    at_most: Optional[float] = None


def main(argv: list[str]) -> int:
    """Run a benchmark, or all; return 0 if it ran, however fast."""
    chosen = parser().parse_args(argv)
    matplotlib = None
    if chosen.plot is not None:
        matplotlib = bench_sheet.need_matplotlib(chosen.plot)
    sheet = Sheet(shows=chosen.what != "all" and not chosen.json)
    if chosen.what == "all":
        _run_all(sheet)
    else:
        _run(sheet, chosen.what)
    if matplotlib is not None:
        try:
            bench_sheet.plot(matplotlib, sheet.rows, chosen.plot)
        except OSError as error:
            raise CannotRun(f"cannot write {chosen.plot}: {error}") from None
    if chosen.json:
        sheet.show_json()
    elif chosen.what == "all":
        sheet.show_table()
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of this command's options."""
    lines = [f"  {name:<13} {text}" for name, (text, _) in _BENCHMARKS.items()]
    made = argparse.ArgumentParser(
        prog=f"{program()} bench",
        description="Measure speed and memory beside what others take.",
        epilog="\n".join(["benchmarks:", *lines, f"  {'all':<13} all of them"]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    names = (*_BENCHMARKS, "all")
    add(
        "what",
        nargs="?",
        default="all",
        metavar="BENCHMARK",
        choices=names,
        help="one of those below (all, which takes some minutes)",
    )
    add("--json", action="store_true", help="print JSON for programs")
    add("--plot", metavar="FILE", help="also draw the ratios: FILE.svg or FILE.png")
    return made


def _run(sheet: Sheet, name: str) -> None:
    sheet.benchmark = name
    try:
        _BENCHMARKS[name][1](sheet)
    except subprocess.CalledProcessError as error:
        said = str(error.stderr or "").strip().splitlines()[-1:]
        ended = f"{Path(str(error.cmd[0])).name} ended with {error.returncode}"
        raise CannotRun(": ".join([f"{name}: {ended}", *said])) from error


def _run_all(sheet: Sheet) -> None:
    """Run what can be run here, and say what cannot."""
    with tables.progress("measuring") as say:
        for name in _BENCHMARKS:
            say(name)
            try:
                _run(sheet, name)
            except CannotRun as reason:
                sheet.left_out[name] = str(reason)


def bench_calls(sheet: Sheet) -> None:
    """Measure each call and a whole cycle."""
    authority = local_connections.trustme().CA()
    certificate = authority.issue_cert(local_connections.NAME)
    contexts = local_connections.contexts(
        authority, certificate, ssl.TLSVersion.TLSv1_3
    )
    near, far = local_connections.memory_connection(*contexts)
    cipher = near.cipher()
    sheet.say(f"{near.version()} {cipher[0] if cipher else ''} over memory BIOs")
    sheet.say(f"Best of {_ROUNDS} rounds, taken in turns")
    bench_question(sheet, near)
    with tempfile.TemporaryDirectory() as folder:
        bench_cycle(sheet, near, far, certificate, Path(folder))


def bench_question(sheet: Sheet, conn: ssl.SSLObject) -> None:
    """Compare calls that only query: their cost is the cost of calling."""
    inner = conn._sslobj  # type: ignore[attr-defined]
    asked = {"get_key_update_type": get_key_update_type, "conn": conn, "inner": inner}
    compare(
        sheet,
        "A question, asked of an ssl.SSLObject",
        timed("get_key_update_type(conn)", asked),
        timed("conn.pending()", asked, at_least=1.0),
        *ctypes_entries(sheet, conn),
    )
    compare(
        sheet,
        "and of the _ssl._SSLSocket inside it",
        timed("get_key_update_type(inner)", asked),
        timed("inner.pending()", asked),
    )


def ctypes_entries(sheet: Sheet, conn: ssl.SSLObject) -> tuple[Entry, ...]:
    """Return entries for the query through ctypes: with the same checks, and bare."""
    try:
        library = ctypes.CDLL(str(libssl["path"]))
        function = library.SSL_get_key_update_type
        proof = library.SSL_get_ex_data
    except (OSError, AttributeError):  # for example, OpenSSL inside the executable
        sheet.say(f"\nNot through ctypes: it cannot load {libssl['path']}")
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
        timed("through_ctypes(conn)", names, at_least=10.0),
        timed("function(pointer)", names),
    )


def bench_cycle(
    sheet: Sheet,
    near: ssl.SSLObject,
    far: ssl.SSLObject,
    certificate: Any,
    folder: Path,
) -> None:
    """Compare a whole key update with the same in a C program."""
    try:
        program = c_program.Program(certificate, folder)
        cipher = program.run(_CYCLES).cipher
    except CannotRun as reason:
        sheet.say(f"\nNo cycle: {reason}")
        return
    cycle = "key_update(near); near.write(b'x'); far.read(1)"
    names = {"key_update": key_update, "near": near, "far": far}
    compare(
        sheet,
        "A cycle: schedule, perform with one byte of data, the peer reads it",
        Entry(f"the C program, {cipher}", lambda: program.run(_CYCLES).cycle),
        timed(cycle, names, at_most=1.25, calls=_CYCLES),
    )


def timed(
    statement: str, names: dict[str, Any], calls: int = _QUESTIONS, **target: float
) -> Entry:
    """Return an entry that runs a Python statement."""
    timer = timeit.Timer(statement, globals=names)
    return Entry(statement, lambda: timer.timeit(calls) / calls * 1e9, **target)


def compare(sheet: Sheet, heading: str, base: Entry, *others: Entry) -> None:
    """Measure the entries in turns, and compare the best of each with the first's."""
    entries = (base, *others)
    rounds = [[entry.run() for entry in entries] for _ in range(_ROUNDS)]
    best = [min(times) for times in zip(*rounds)]
    sheet.say(f"\n{heading}\n  {base.label}: {best[0]:.1f} ns")
    for entry, time in zip(others, best[1:]):
        sheet.add(
            *(entry.label, time, best[0], "ns", [time / best[0]]),
            at_least=entry.at_least,
            at_most=entry.at_most,
        )


_BENCHMARKS: dict[str, tuple[str, Callable[[Sheet], None]]] = {
    "calls": ("each call, and a whole key update, beside ctypes and C", bench_calls),
    "duplex": ("managed sockets beside ssl.SSLSocket", bench_duplex.main),
    "instructions": ("the same, counted by valgrind", bench_instructions.main),
    "rekey": ("a key update sent and read, beside OpenSSL in C", bench_rekey.main),
    "policy": ("managed objects beside ssl.SSLObject", bench_policy.main),
    "asyncio": ("the same in event loops", bench_asyncio.main),
    "import": ("import pykeyupdate beside import ssl", bench_import.main),
}
