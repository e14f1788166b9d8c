"""When to look at the idle connections of an asyncio loop: one timer for all of them.

``pykeyupdate.aio`` adds connections, and says how to look at one. The timer goes off
when the next key is due, and at least once a second: no transport tells when it is
closed, so this is how soon a closed one is forgotten. Nothing is left behind the last.
"""

import asyncio
import heapq
import weakref
from typing import Any, Callable, Optional

_SWEEP = 1.0  # seconds


class Idle:
    """A connection whose key changes while it is idle.

    ``look`` changes the key if it is due. It returns the seconds until the next look,
    None if there need be none, or raises what ends this. ``end`` is done when the
    connection has ended, and then has the exception with which that was.
    """

    __slots__ = ("_holders", "end", "has_ended", "look", "tls")

    def __init__(
        self,
        tls: Any,
        look: Callable[[], Optional[float]],
        has_ended: Callable[[], bool],
        end: "asyncio.Future[None]",
    ) -> None:
        self.tls, self.look, self.has_ended, self.end = tls, look, has_ended, end
        self._holders = 0

    def hold(self) -> "Idle":
        """Count one more who wants this, and may call ``release()``."""
        self._holders += 1
        return self

    def release(self) -> None:
        """End it when nobody wants it any more."""
        self._holders -= 1
        if self._holders == 0:
            self.end.cancel()


_keepers: "weakref.WeakValueDictionary[int, _Keeper]" = weakref.WeakValueDictionary()


def keep(idle: Idle, first: float) -> Idle:
    """Look at a connection from now on, first in so many seconds.

    Returns what is kept, held once more: the earlier one if the connection is kept
    already.
    """
    loop = idle.end.get_loop()
    keeper = _keepers.get(id(loop))
    if keeper is None or keeper.loop is not loop:
        keeper = _keepers[id(loop)] = _Keeper(loop)
    return keeper.add(idle, first)


class _Keeper:
    """The idle connections of one loop. Only its timer keeps it alive."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._kept: dict[int, Idle] = {}
        self._heap: list[tuple[float, int, Idle]] = []
        self._number = 0  # so that no two connections are compared
        self._sweeps = loop.time() + _SWEEP
        self._timer: Optional[asyncio.TimerHandle] = None

    def add(self, idle: Idle, first: float) -> Idle:
        there = self._kept.get(id(idle.tls))
        if there is not None and not there.end.done():
            return there.hold()
        self._kept[id(idle.tls)] = idle
        self._look_in(idle, first)
        if self._timer is None:
            self._set_timer()
        return idle.hold()

    def _look_in(self, idle: Idle, seconds: float) -> None:
        self._number += 1
        heapq.heappush(self._heap, (self.loop.time() + seconds, self._number, idle))

    def _set_timer(self) -> None:
        """Wait for the next key, if there is one."""
        self._timer = None
        if self._kept:
            due = self._heap[0][0] if self._heap else self._sweeps
            self._timer = self.loop.call_at(min(due, self._sweeps), self._go_off)

    def _go_off(self) -> None:
        try:
            if self._sweeps <= self.loop.time():
                self._forget_ended()
                self._sweeps = self.loop.time() + _SWEEP
            while self._heap and self._heap[0][0] <= self.loop.time():
                _, _, idle = heapq.heappop(self._heap)
                if not idle.end.done():
                    self._look(idle)
        finally:
            self._set_timer()

    def _look(self, idle: Idle) -> None:
        try:
            wait, failure = idle.look(), None
        except Exception as error:  # noqa: BLE001 (it belongs to whoever awaits the end)
            wait, failure = None, error
        except BaseException:  # of a signal handler; the loop may be run again
            self._look_in(idle, _SWEEP)
            raise
        if idle.end.done():  # an event's handler has ended it
            return
        if failure is not None:
            idle.end.set_exception(failure)
            idle.end.exception()  # nobody needs to await it
        elif wait is None:
            idle.end.set_result(None)
        else:
            self._look_in(idle, wait)

    def _forget_ended(self) -> None:
        for number, idle in list(self._kept.items()):
            if not idle.end.done() and idle.has_ended():
                idle.end.set_result(None)
            if idle.end.done():
                del self._kept[number]
        if len(self._heap) > 2 * len(self._kept):
            self._heap = [it for it in self._heap if not it[2].end.done()]
            heapq.heapify(self._heap)
