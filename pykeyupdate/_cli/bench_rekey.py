"""``bench rekey``: what a TLS 1.3 key update costs, OpenSSL in C being 1.0.

An update is one KeyUpdate message sent and read; both ends are in one thread. Its cost
is the user time of a cycle (update, write a byte, read it) less that of the byte alone:
so the system calls of sockets, which the C program over memory BIOs does not make, do
not count. Each ratio is of one round, in which the C program and Python take turns.
"""

import contextlib
import ssl
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Callable, NamedTuple, Optional

from .. import RekeyPolicy, key_update, rekey
from .._installation import manage
from . import bench_duplex, c_program, local_connections, pairs
from .bench_sheet import Sheet
from .exit_codes import CannotRun

_ROUNDS = 15
_CYCLES = 4000


class Measurement(NamedTuple):
    """A connection, and how its keys are changed: by a call, or by its policy."""

    label: str
    target: float
    is_socket: bool
    is_managed: bool
    update: Optional[Callable[[Any], object]] = None


def main(sheet: Sheet) -> None:
    """Measure; raise CannotRun without POSIX or the C program."""
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:
        raise CannotRun("This command needs the user time of POSIX.") from None
    authority = local_connections.trustme().CA()
    certificate = authority.issue_cert(local_connections.NAME)
    bench_duplex.take_processor(-1)
    with tempfile.TemporaryDirectory() as folder:
        program = c_program.Program(certificate, Path(folder))
        sheet.say(f"User time of a KeyUpdate sent and read, {program.run(1).cipher}")
        sheet.say(f"Median of {_ROUNDS} pairs, in turns; ours : OpenSSL in C")
        for what in MEASUREMENTS:
            with _cycles(what, authority, certificate) as cycles:
                cost = partial(_cost, *cycles, lambda: getrusage(RUSAGE_SELF).ru_utime)
                _compare(sheet, what, cost, program)


def _compare(
    sheet: Sheet,
    what: Measurement,
    cost: Callable[[], float],
    program: c_program.Program,
) -> None:
    def in_c() -> float:
        measured = program.run(_CYCLES)
        return measured.cycle_user - measured.data_user

    measured = pairs.take_turns(cost, in_c, _ROUNDS)
    ours, theirs = (median(times) / 1e3 for times in zip(*measured))
    ratios = [own / other for own, other in measured]
    sheet.add(what.label, ours, theirs, "us", ratios, at_most=what.target)


def _cost(
    updating: Callable[[], object],
    plain: Callable[[], object],
    user_time: Callable[[], float],
) -> float:
    """Return the nanoseconds of an update: of its cycle, less those of a plain one."""
    times = []
    for cycle in (updating, plain):
        began = user_time()
        for _ in range(_CYCLES):
            cycle()
        times.append((user_time() - began) / _CYCLES * 1e9)
    return times[0] - times[1]


@contextlib.contextmanager
def _cycles(
    what: Measurement, authority: Any, certificate: Any
) -> Iterator[tuple[Callable[[], object], Callable[[], object]]]:
    """Yield a cycle that changes keys, and a plain one."""
    with contextlib.ExitStack() as stack:

        def connect(policy: Optional[RekeyPolicy]) -> Any:
            contexts = local_connections.contexts(
                authority, certificate, ssl.TLSVersion.TLSv1_3
            )
            for context in contexts if what.is_managed else ():
                manage(context, policy=policy, limits=None)
            if what.is_socket:
                return stack.enter_context(
                    local_connections.socket_connection(*contexts)
                )
            return local_connections.memory_connection(*contexts)

        plain = partial(_move_byte, *connect(None))
        if what.update is not None:
            yield partial(_update_and_move_byte, what.update, *plain.args), plain
        else:
            always = RekeyPolicy(sent_records=1, min_interval_seconds=0)
            yield partial(_move_byte, *connect(always)), plain


def _update_and_move_byte(update: Callable[[Any], object], near: Any, far: Any) -> None:
    update(near)
    _move_byte(near, far)


def _move_byte(near: Any, far: Any) -> None:
    near.write(b"x")
    far.read(1)


def _key_update_and_handshake(conn: ssl.SSLObject) -> None:
    key_update(conn)
    conn.do_handshake()


_OBJECT, _SOCKET = False, True
_UNMANAGED, _MANAGED = False, True
MEASUREMENTS = [
    Measurement(
        "key_update() and do_handshake()",
        1.10,
        _OBJECT,
        _UNMANAGED,
        _key_update_and_handshake,
    ),
    Measurement("rekey() of an ssl.SSLObject", 1.20, _OBJECT, _UNMANAGED, rekey),
    Measurement("rekey() of an ssl.SSLSocket", 1.30, _SOCKET, _UNMANAGED, rekey),
    Measurement("rekey() of a managed socket", 1.40, _SOCKET, _MANAGED, rekey),
    Measurement("policy, every record of an object", 1.10, _OBJECT, _MANAGED),
    Measurement("policy, every record of a socket", 1.20, _SOCKET, _MANAGED),
]
