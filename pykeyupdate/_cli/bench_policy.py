"""``bench policy``: managed objects beside ``ssl.SSLObject``, in one run.

It measures the cost of ``read()`` and ``write()`` looking after the keys with the
default ``RekeyPolicy`` and ``PeerLimits``. It works over memory BIOs, with both ends in
one thread: without system calls or other processes, the cost shows most clearly. Rounds
are short and taken in turns, so that other load on the machine affects both. The
figures printed are medians, and so are the ratios.

Memory is everything that a connection takes, measured in one process for each kind,
which runs this module with ``python -m``.
"""

import ctypes
import gc
import os
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Callable, NamedTuple, Optional

from .._installation import manage
from . import bench_duplex, local_connections
from .bench_sheet import Sheet

_CONNECTIONS = 40  # of each kind
_ROUNDS = 20  # on each connection; an even number
_BULK = 1 << 20  # bytes per round
_TURNS = 100  # turns of a ping-pong per round
_OPEN = 2000  # connections, of two ends each
_MOST_MEMORY = 712  # bytes more that a managed one may take
_NAMES = {"managed": "ours", "stock": "ssl.SSLObject"}

Ends = tuple[ssl.SSLObject, ssl.SSLObject]
Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


class Measurement(NamedTuple):
    """One measurement on a connection: a round, and the amount of work in it."""

    label: str
    run: Callable[[ssl.SSLObject, ssl.SSLObject], None]
    amount: float
    unit: str


def main(sheet: Sheet) -> None:
    """Measure."""
    authority = local_connections.trustme().CA()
    certificate = authority.issue_cert(local_connections.NAME)
    contexts = {
        kind: _contexts(
            kind,
            *local_connections.contexts(authority, certificate, ssl.TLSVersion.TLSv1_3),
        )
        for kind in _NAMES
    }
    bench_duplex.take_processor(-1)
    near, _ = local_connections.memory_connection(*contexts["stock"])
    cipher = near.cipher()
    sheet.say(f"{near.version()} {cipher[0] if cipher else ''} over memory BIOs")
    sheet.say(
        f"Median of {_CONNECTIONS} connections with {_ROUNDS} rounds each, in turns; "
        f"{' : '.join(_NAMES.values())}"
    )
    for measurement in MEASUREMENTS:
        _compare(sheet, measurement, contexts)
    with tempfile.TemporaryDirectory() as folder:
        _compare_memory(sheet, authority, certificate, Path(folder))


def _contexts(kind: str, client: ssl.SSLContext, server: ssl.SSLContext) -> Contexts:
    """Make both contexts create objects of this kind."""
    for context in (client, server):
        context.sslobject_class = ssl.SSLObject
        if kind == "managed":
            manage(context)
    return client, server


# -- speed -----------------------------------------------------------------------------


def _compare(sheet: Sheet, what: Measurement, contexts: dict[str, Contexts]) -> None:
    """Measure in turns.

    A connection's place in memory can change its speed by a tenth. So many connections
    are made, and each kind is made first equally often.
    """
    times: dict[str, list[float]] = {kind: [] for kind in _NAMES}
    order = list(_NAMES)
    for _ in range(_CONNECTIONS):
        order.reverse()
        ends = {
            kind: local_connections.memory_connection(*contexts[kind]) for kind in order
        }
        for _ in range(_ROUNDS):
            order.reverse()
            for kind in order:
                times[kind].append(_timed(what, ends[kind]))
    ours, stock = (what.amount / median(times[kind]) for kind in _NAMES)
    ratios = [s / m for m, s in zip(times["managed"], times["stock"])]
    sheet.add(what.label, ours, stock, what.unit, ratios, at_least=0.98)


def _timed(what: Measurement, ends: Ends) -> float:
    began = time.perf_counter()
    what.run(*ends)
    return time.perf_counter() - began


def _bulk(size: int) -> Callable[[ssl.SSLObject, ssl.SSLObject], None]:
    def run(near: ssl.SSLObject, far: ssl.SSLObject) -> None:
        data = bytes(size)
        for _ in range(_BULK // size):
            near.write(data)
            missing = size
            while missing:
                missing -= len(far.read(size))

    return run


def _ping_pong(near: ssl.SSLObject, far: ssl.SSLObject) -> None:
    ball = bytes(64)
    for _ in range(_TURNS):
        near.write(ball)
        far.read(64)
        far.write(ball)
        near.read(64)


MEASUREMENTS = [
    Measurement("bulk, 16 KiB at once", _bulk(1 << 14), _BULK / 1e6, "MB/s"),
    Measurement("bulk, 64 KiB at once", _bulk(1 << 16), _BULK / 1e6, "MB/s"),
    Measurement("ping-pong, 64 bytes", _ping_pong, _TURNS, "/s"),
]

# -- memory ----------------------------------------------------------------------------


def _compare_memory(
    sheet: Sheet, authority: Any, certificate: Any, folder: Path
) -> None:
    """Compare the memory that open connections take."""
    pem, trusted = folder / "server.pem", folder / "authority.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
    authority.cert_pem.write_to_path(str(trusted))
    command = [sys.executable, "-m", __spec__.name, str(pem), str(trusted), str(_OPEN)]
    environment = dict(os.environ)
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        environment["PYTHONMALLOC"] = "malloc"  # so that _in_use() sees Python's memory
    ours, stock = (
        float(
            subprocess.run(
                [*command, kind],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                start_new_session=True,
                env=environment,
            ).stdout
        )
        for kind in _NAMES
    )
    label = f"{2 * _OPEN} of them open, each"
    most = (stock + _MOST_MEMORY) / stock
    sheet.add(label, ours, stock, "bytes", [ours / stock], at_most=most)


def occupy(pem: str, trusted: str, number: str, kind: str) -> None:
    """Print the bytes of memory that each end of this many connections takes."""
    client = ssl.create_default_context(cafile=trusted)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    contexts = _contexts(kind, client, server)
    measure = _in_use() or bench_duplex.resident
    there_are = []
    for count in (50, int(number)):  # the first ones also pay for shared state
        gc.collect()
        before = measure()
        there_are += [
            local_connections.memory_connection(*contexts) for _ in range(count)
        ]
    gc.collect()
    print((measure() - before) / (2 * int(number)))


def _in_use() -> Optional[Callable[[], float]]:
    """Return a function that counts the bytes malloc() has handed out (glibc only)."""
    fields = (  # of struct mallinfo2; only hblkhd and uordblks are used
        ("others", ctypes.c_size_t * 4),
        ("hblkhd", ctypes.c_size_t),
        ("more", ctypes.c_size_t * 2),
        ("uordblks", ctypes.c_size_t),
        ("last", ctypes.c_size_t * 2),
    )
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):
        return None
    mallinfo2.restype = type("mallinfo2", (ctypes.Structure,), {"_fields_": fields})

    def in_use() -> float:
        now = mallinfo2()
        return float(now.hblkhd + now.uordblks)

    return in_use


if __name__ == "__main__":
    occupy(*sys.argv[1:])
