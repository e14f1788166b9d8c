"""``bench duplex``: managed sockets beside ``ssl.SSLSocket``, in one run.

The far end is in another process, on its own processor if possible, and uses the same
class. Rounds are taken in turns (``pairs.py``). The figures printed are medians, and so
are the ratios; the quartiles say how far these spread. The other processes run this
module as well, started with ``python -m``, in their own session: Ctrl-C reaches only
the first process, which ends the others.
"""

import contextlib
import gc
import os
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, Callable, NamedTuple, Optional

from .._installation import manage
from . import local_connections, pairs
from .bench_sheet import Sheet

_ROUNDS = 15
_BULK = 64 << 20  # bytes per round
_CHUNK = 1 << 16  # bytes per write and read
_TURNS = 2000  # turns of a ping-pong per round
_IDLE = 1000
_MOST_OPEN = 1 << 14  # open files, requested from the system
_ORDER = struct.Struct("!4sII")  # a command to the far end, size, how often
_SEND, _TAKE, _BOTH, _ECHO, _STAY, _STOP = (
    b"send", b"take", b"both", b"echo", b"stay", b"stop",
)  # fmt: skip


class Measurement(NamedTuple):
    """One measurement on a connection: a round, and the amount of work in it."""

    label: str
    run: Callable[[ssl.SSLSocket], float]  # returns the seconds of a round
    amount: float
    unit: str
    target: float


def main(sheet: Sheet) -> None:
    """Measure."""
    local_connections.need_loopback()
    authority = local_connections.trustme().CA()
    certificate = authority.issue_cert(local_connections.NAME)
    with tempfile.TemporaryDirectory() as folder:
        pem = Path(folder, "server.pem")
        certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
        trusted = Path(folder, "authority.pem")
        authority.cert_pem.write_to_path(str(trusted))
        client = ssl.create_default_context(cafile=str(trusted))
        client.maximum_version = ssl.TLSVersion.TLSv1_3
        with contextlib.ExitStack() as stack:
            stock, managed = (
                stack.enter_context(_connected(client, pem, kind))
                for kind in ("stock", "managed")
            )
            take_processor(0)
            cipher = stock.cipher()
            sheet.say(f"{stock.version()} {cipher[0] if cipher else ''} over TCP")
            sheet.say(f"Median of {_ROUNDS} rounds, in turns; ours : ssl.SSLSocket")
            for measurement in MEASUREMENTS:
                _compare(sheet, measurement, stock, managed)
        _compare_memory(sheet, pem, trusted)


def _compare(
    sheet: Sheet, what: Measurement, stock: ssl.SSLSocket, managed: ssl.SSLSocket
) -> None:
    measured = pairs.take_turns(
        lambda: what.run(managed), lambda: what.run(stock), _ROUNDS
    )
    ours, stocks = (what.amount / median(times) for times in zip(*measured))
    ratios = [theirs / own for own, theirs in measured]
    sheet.add(what.label, ours, stocks, what.unit, ratios, at_least=what.target)


# -- the near end ----------------------------------------------------------------------


@contextlib.contextmanager
def _far_end(pem: Path, kind: str) -> Iterator[tuple[str, int]]:
    """Start a far end and yield its address."""
    command = [sys.executable, "-m", __spec__.name, "serve", str(pem), kind]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, start_new_session=True
    ) as far:
        try:
            yield "127.0.0.1", int(next(iter(far.stdout or [])))
        finally:
            far.terminate()


def _connect(
    client: ssl.SSLContext, address: tuple[str, int], kind: str
) -> ssl.SSLSocket:
    plain = socket.create_connection(address)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _wrapped(client, kind, plain, server_hostname=local_connections.NAME)


def _wrapped(
    context: ssl.SSLContext, kind: str, plain: socket.socket, **kwargs: Any
) -> ssl.SSLSocket:
    """Return a socket of this kind, whatever the context was set to make."""
    context.sslsocket_class = ssl.SSLSocket
    if kind == "managed":
        manage(context)
    return context.wrap_socket(plain, **kwargs)


@contextlib.contextmanager
def _connected(client: ssl.SSLContext, pem: Path, kind: str) -> Iterator[ssl.SSLSocket]:
    with _far_end(pem, kind) as address, _connect(client, address, kind) as conn:
        yield conn
        conn.sendall(_ORDER.pack(_STOP, 0, 0))


def _take(conn: ssl.SSLSocket, amount: int) -> None:
    while amount > 0:
        data = conn.recv(_CHUNK)
        if not data:
            raise ConnectionError("the other end has gone")
        amount -= len(data)


def _give(conn: ssl.SSLSocket, amount: int) -> None:
    chunk = bytes(_CHUNK)
    for _ in range(amount // _CHUNK):
        conn.sendall(chunk)


def _both(conn: ssl.SSLSocket, size: int, _: int) -> None:
    """Give and take at once; raise an error of the thread that gives."""
    with ThreadPoolExecutor(1) as pool:
        giving = pool.submit(_give, conn, size)
        _take(conn, size)
        giving.result()


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _receiving(conn: ssl.SSLSocket) -> float:
    conn.sendall(_ORDER.pack(_SEND, _BULK, 1))
    return _timed(lambda: _take(conn, _BULK))


def _sending(conn: ssl.SSLSocket) -> float:
    conn.sendall(_ORDER.pack(_TAKE, _BULK, 1))

    def work() -> None:
        _give(conn, _BULK)
        conn.recv(1)  # the far end confirms that it has all data

    return _timed(work)


def _both_ways(conn: ssl.SSLSocket) -> float:
    conn.sendall(_ORDER.pack(_BOTH, _BULK, 1))
    return _timed(lambda: _both(conn, _BULK, 1))


def _ping_pong(
    size: int, timeout: Optional[float] = None
) -> Callable[[ssl.SSLSocket], float]:
    def run(conn: ssl.SSLSocket) -> float:
        conn.settimeout(timeout)
        conn.sendall(_ORDER.pack(_ECHO, size, _TURNS))
        ball = bytes(size)

        def work() -> None:
            for _ in range(_TURNS):
                conn.sendall(ball)
                _take(conn, size)

        return _timed(work)

    return run


MEASUREMENTS = [
    Measurement("bulk, receiving", _receiving, _BULK / 1e6, "MB/s", 1.35),
    Measurement("bulk, sending", _sending, _BULK / 1e6, "MB/s", 1.35),
    Measurement("bulk, both ways at once", _both_ways, 2 * _BULK / 1e6, "MB/s", 1.25),
    Measurement("ping-pong, 64 bytes", _ping_pong(64), _TURNS, "/s", 1.10),
    Measurement("ping-pong, 16 kB", _ping_pong(16384), _TURNS, "/s", 1.10),
    Measurement("64 bytes, with a timeout", _ping_pong(64, 60.0), _TURNS, "/s", 1.10),
    Measurement("16 kB, with a timeout", _ping_pong(16384, 60.0), _TURNS, "/s", 1.10),
]


def _compare_memory(sheet: Sheet, pem: Path, trusted: Path) -> None:
    """Compare the memory that idle connections take after a handshake and some data."""
    command = [sys.executable, "-m", __spec__.name, "idle", str(pem), str(trusted)]
    ours, stock = (
        float(
            subprocess.run(
                [*command, kind, str(_IDLE)],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                start_new_session=True,
            ).stdout
        )
        for kind in ("managed", "stock")
    )
    label = f"{_IDLE} idle connections, each"
    sheet.add(label, ours, stock, "bytes", [ours / max(stock, 1)])


def idle(pem: str, trusted: str, kind: str, number: str) -> None:
    """Print the bytes of memory that each of many idle connections takes here."""
    allow_descriptors(int(number) + 100)
    client = ssl.create_default_context(cafile=trusted)
    with _far_end(Path(pem), kind) as address, contextlib.ExitStack() as stack:
        for count in (50, int(number)):  # the first ones also pay for shared state
            gc.collect()
            before = resident()
            for _ in range(count):
                conn = stack.enter_context(_connect(client, address, kind))
                conn.sendall(_ORDER.pack(_ECHO, 16384, 1) + bytes(16384))
                _take(conn, 16384)
                conn.sendall(_ORDER.pack(_STAY, 0, 0))
        gc.collect()
        print((resident() - before) / int(number))


def resident() -> float:
    """Return the resident memory of this process in bytes; nan if unknown."""
    try:
        import resource

        pages = Path("/proc/self/statm").read_text().split()[1]
    except (OSError, ImportError):
        return float("nan")
    return int(pages) * resource.getpagesize()


def take_processor(number: int) -> None:
    """Stay on one processor, if the system lets a process choose."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {allowed[number % len(allowed)]})


def allow_descriptors(number: int) -> None:
    """Raise the system's limit of open files to this number, if there is a limit."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < number:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(number, hard), hard))


# -- the far end -----------------------------------------------------------------------


def serve(pem: str, kind: str) -> None:
    """Do what the near end commands, on any number of connections."""
    threading.Thread(target=_end_with_near_end, daemon=True).start()
    take_processor(-1)
    allow_descriptors(_MOST_OPEN)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.num_tickets = 0  # tickets would break a stock socket with two threads
    idle = []
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            plain = listener.accept()[0]
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                conn = _wrapped(context, kind, plain, server_side=True)
                order = _obey(conn)
            except OSError:  # the near end has gone
                return
            if order == _STOP:
                return
            idle.append(conn)


def _end_with_near_end() -> None:
    """Exit when standard input ends: the near end's process holds the other end."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(0)


def _obey(conn: ssl.SSLSocket) -> bytes:
    while True:
        order = b""
        while len(order) < _ORDER.size:
            order += conn.recv(_ORDER.size - len(order))
        what, size, times = _ORDER.unpack(order)
        if what in (_STAY, _STOP):
            return bytes(what)
        _OBEYED[what](conn, size, times)


def _confirm(conn: ssl.SSLSocket, size: int, _: int) -> None:
    _take(conn, size)
    conn.sendall(b"!")


def _echo(conn: ssl.SSLSocket, size: int, times: int) -> None:
    ball = bytes(size)
    for _ in range(times):
        _take(conn, size)
        conn.sendall(ball)


_OBEYED: dict[bytes, Callable[[ssl.SSLSocket, int, int], object]] = {
    _SEND: lambda conn, size, _: _give(conn, size),
    _TAKE: _confirm,
    _BOTH: _both,
    _ECHO: _echo,
}

if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    else:
        idle(*sys.argv[2:])
