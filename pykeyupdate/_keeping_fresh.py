"""Changes the keys of connections that nobody uses, for ``aio.keep_fresh()``.

asyncio's transports have one timer a loop (``_idle_objects.py``). The streams of trio
and anyio have a task each, which sends under the program's own lock.
"""

import asyncio
import contextlib
from typing import Any, Optional

from . import _idle_objects
from ._carrier_io import send_output, send_through
from ._carriers import carried, is_lost, sleep_here, transport_of
from ._errors import (
    NotATLSConnectionError,
    NotNowError,
    PyKeyUpdateError,
    RekeyImpossibleError,
)
from ._finding import call_text, find_connection
from ._stats import stats
from ._walk import Connection

_A_BREATH, _A_WHILE = 1.0, 60.0  # seconds until an idle key is looked at again


def carried_idle(conn: Any, function: str) -> Connection:
    if find_connection(conn, function).carrier is None:
        raise NotATLSConnectionError(
            f"{call_text(function, conn)}: no event loop moves the bytes of this "
            "connection. The idle keys of a managed socket change by themselves "
            "(`RekeyPolicy.rotate_idle`); for an SSLObject, pass the StreamWriter, "
            "transport or stream around it"
        )
    return carried(conn, function)


def first_wait(conn: Any, tls: Any, function: str) -> float:
    """Return the seconds in which no key can become due."""
    age = stats(conn).sent.age_seconds  # raises NotManagedError
    policy = tls._rules.policy
    if policy is None or not policy.rotate_idle:
        raise ValueError(
            f"{call_text(function, conn)}: its RekeyPolicy leaves idle keys alone; "
            "manage its context with RekeyPolicy(rotate_idle=True, age_seconds=...)"
        )
    return max(0.0, float(policy._least_age()) - age)


def keep_transport_fresh(connection: Connection, wait: float) -> _idle_objects.Idle:
    tls, transport = connection.tls, transport_of(connection.carrier)
    idle = _idle_objects.Idle(
        tls,
        lambda: _rotate_in_transport(tls, transport),
        lambda: transport.is_closing() or is_lost(transport),
        asyncio.get_running_loop().create_future(),
    )
    return _idle_objects.keep(idle, wait)


def _rotate_in_transport(tls: Any, transport: Any) -> Optional[float]:
    try:
        wait = _rotate(tls, stuck=transport.get_write_buffer_size() > 0)
    except RekeyImpossibleError:
        send_output(transport)
        transport.close()
        raise
    send_output(transport)
    return wait


def _rotate(tls: Any, *, stuck: bool) -> Optional[float]:
    """Change a key if it is due; return the seconds until the next look.

    Returns None if there will be no new keys any more: its own calls say why. Raises
    ``RekeyImpossibleError`` if the connection is to be closed.
    """
    try:
        wait = tls._rotate(stuck)
    except NotNowError:
        return _A_BREATH
    except RekeyImpossibleError:
        if tls._rules.policy.on_impossible == "close":
            raise
        return _A_WHILE
    except PyKeyUpdateError:
        return None
    return wait / 1e6 if wait >= 0 else None


async def keep_stream_fresh(
    conn: Any, connection: Connection, wait: float, lock: Any
) -> None:
    if lock is None:
        raise TypeError(
            f"{call_text('keep_fresh', conn)}: pass `lock`, the trio.Lock or "
            "anyio.Lock that the program holds while it sends on this connection"
        )

    next_wait: Optional[float] = wait

    def step() -> None:
        nonlocal next_wait
        next_wait = _rotate(connection.tls, stuck=False)

    try:
        while next_wait is not None:
            await sleep_here()(next_wait)
            async with lock:
                await send_through(connection, step)
    except RekeyImpossibleError:
        with contextlib.suppress(Exception):  # of a peer that closes first
            await connection.carrier.aclose()
        raise
    except Exception as error:
        if type(error).__name__ not in ("ClosedResourceError", "BrokenResourceError"):
            raise
