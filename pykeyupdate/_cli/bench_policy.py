"""``bench policy``: managed objects beside ``ssl.SSLObject``, in one run.

What it costs that ``read()`` and ``write()`` look after the keys, by the default
``RekeyPolicy`` and ``PeerLimits``. Over memory BIOs, with both ends in one thread:
there is no system and no other process in it, which leaves the most for a cost to be
seen in. Rounds are short and taken in turns, so what the machine does meanwhile meets
both; what is printed is the median, of the ratios too.

Memory is that of all there is beside a connection, in a process for each kind. It is
this module, started with ``python -m``.
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
from . import bench_duplex, doctor, local_connections

_CONNECTIONS = 40  # of each kind
_ROUNDS = 20  # on each; an even number
_BULK = 1 << 20  # bytes in a round
_TURNS = 100  # of a ping-pong in a round
_OPEN = 2000  # connections, of two ends each
_MOST_MEMORY = 512  # bytes of a managed one on top
_NAMES = {"managed": "ours", "stock": "ssl.SSLObject"}

Ends = tuple[ssl.SSLObject, ssl.SSLObject]
Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


class Measurement(NamedTuple):
    """One thing to measure on a connection: a round, and what it counts."""

    label: str
    run: Callable[[ssl.SSLObject, ssl.SSLObject], None]
    amount: float
    unit: str


def main(version: ssl.TLSVersion) -> int:
    """Measure and print; 0 when it ran."""
    authority = local_connections.trustme().CA()
    certificate = authority.issue_cert(local_connections.NAME)
    contexts = {
        kind: _contexts(
            kind, *local_connections.contexts(authority, certificate, version)
        )
        for kind in _NAMES
    }
    bench_duplex.take_processor(-1)
    print(doctor.version_line())
    near, _ = local_connections.memory_connection(*contexts["stock"])
    cipher = near.cipher()
    print(f"{near.version()} {cipher[0] if cipher else ''} over memory BIOs")
    print(
        f"Median of {_CONNECTIONS} connections with {_ROUNDS} rounds each, in turns; "
        f"{' : '.join(_NAMES.values())}"
    )
    for measurement in MEASUREMENTS:
        _compare(measurement, contexts)
    with tempfile.TemporaryDirectory() as folder:
        _compare_memory(authority, certificate, Path(folder))
    return 0


def _contexts(kind: str, client: ssl.SSLContext, server: ssl.SSLContext) -> Contexts:
    """Have both make objects of that kind, whatever they make for others."""
    for context in (client, server):
        context.sslobject_class = ssl.SSLObject
        if kind == "managed":
            manage(context)
    return client, server


# -- speed -----------------------------------------------------------------------------


def _compare(what: Measurement, contexts: dict[str, Contexts]) -> None:
    """Measure in turns and print.

    Where in memory a connection lies can make a tenth of its speed: so many are made,
    and of each kind the first as often.
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
    ratio = median(s / m for m, s in zip(times["managed"], times["stock"]))
    print(
        f"  {what.label:<34}{ours:10.0f} : {stock:10.0f} {what.unit:<6}"
        f"{ratio:7.3f}  target: at least 0.98"
    )


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


def _compare_memory(authority: Any, certificate: Any, folder: Path) -> None:
    """Print what connections cost that are open."""
    pem, trusted = folder / "server.pem", folder / "authority.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
    authority.cert_pem.write_to_path(str(trusted))
    command = [sys.executable, "-m", __spec__.name, str(pem), str(trusted), str(_OPEN)]
    environment = dict(os.environ)
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        environment["PYTHONMALLOC"] = "malloc"  # for _in_use() to see Python's as well
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
    print(
        f"  {f'{2 * _OPEN} of them open, each':<34}{ours:10.0f} : {stock:10.0f} bytes "
        f"{ours - stock:+7.0f}  target: at most +{_MOST_MEMORY}"
    )


def occupy(pem: str, trusted: str, number: str, kind: str) -> None:
    """Print the bytes of memory that each end of so many connections takes here."""
    client = ssl.create_default_context(cafile=trusted)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    contexts = _contexts(kind, client, server)
    measure = _in_use() or bench_duplex.resident
    there_are = []
    for count in (50, int(number)):  # what the first ones bring is not theirs
        gc.collect()
        before = measure()
        there_are += [
            local_connections.memory_connection(*contexts) for _ in range(count)
        ]
    gc.collect()
    print((measure() - before) / (2 * int(number)))


def _in_use() -> Optional[Callable[[], float]]:
    """Return what counts the bytes that malloc() has given out; glibc's alone can."""
    fields = (  # of struct mallinfo2; two of them are wanted
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
