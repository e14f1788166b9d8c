"""``bench asyncio``: managed objects beside ``ssl.SSLObject`` in event loops.

Streams of asyncio, and of uvloop if it is installed; a client and a server that echoes
are in one loop. Each figure is of two fresh processes for each round: where objects lie
in memory changes the speed by more than what is measured here.
"""

import asyncio
import contextlib
import ssl
import subprocess
import sys
import time
from importlib.util import find_spec
from statistics import median
from typing import Any

from . import local_connections, pairs
from .bench_sheet import Sheet

_ROUNDS = 15
_SECONDS = 0.3  # in which a process measures, about
_SIZES = ((64, 1.10), (1 << 14, 1.02), (1 << 18, 1.00))  # with their targets


def main(sheet: Sheet) -> None:
    """Measure."""
    local_connections.need_loopback()
    sheet.say(f"Median of {_ROUNDS} pairs of processes, in turns; ours : ssl.SSLObject")
    with local_connections.certificate_files() as files:
        for loop in ("asyncio", "uvloop"):
            if find_spec(loop) is None:
                sheet.say(f"  {loop} is not installed")
                continue
            for size, target in _SIZES:
                _compare(sheet, loop, size, target, files)


def _compare(
    sheet: Sheet, loop: str, size: int, target: float, files: tuple[str, str]
) -> None:
    def run(kind: str) -> float:
        command = [sys.executable, "-m", __spec__.name, kind, loop, str(size)]
        done = subprocess.run(
            [*command, *files, str(_SECONDS)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            start_new_session=True,
        )
        return float(done.stdout)

    measured = pairs.take_turns(lambda: run("managed"), lambda: run("stock"), _ROUNDS)
    ours, theirs = (1 / median(times) for times in zip(*measured))
    ratios = [other / own for own, other in measured]
    sheet.add(f"{loop}, {size} bytes", ours, theirs, "/s", ratios, at_least=target)


# -- the other processes ---------------------------------------------------------------


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    ends = (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError)
    with contextlib.suppress(*ends):  # cancelled: Python 3.11 would print a traceback
        while True:
            size = int.from_bytes(await reader.readexactly(4), "big")
            writer.write(await reader.readexactly(size))
            await writer.drain()


async def _measure(
    size: int, client: ssl.SSLContext, server: ssl.SSLContext, seconds: float
) -> float:
    """Return the seconds of a turn: the median of several batches."""
    limit: Any = {"limit": 1 << 20}
    serving = await asyncio.start_server(_echo, "127.0.0.1", 0, ssl=server, **limit)
    port = serving.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection(
        "127.0.0.1",
        port,
        ssl=client,
        server_hostname=local_connections.NAME,
        **limit,
    )
    ball = size.to_bytes(4, "big") + bytes(size)
    batches = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        for _ in range(20):
            writer.write(ball)
            await writer.drain()
            await reader.readexactly(size)
        batches.append((time.perf_counter() - began) / 20)
    writer.transport.abort()
    serving.close()
    return median(batches)


def run(*arguments: str) -> None:
    """Print the seconds of a turn."""
    kind, loop, size, pem, trusted, seconds = arguments
    client, server = local_connections.contexts_of_files(kind, pem, trusted)
    if loop == "uvloop":
        import uvloop

        uvloop.install()
    print(asyncio.run(_measure(int(size), client, server, float(seconds))))


if __name__ == "__main__":
    run(*sys.argv[1:])
