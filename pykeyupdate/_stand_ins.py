"""A step of ours in place of the next SSL_write() or SSL_read() of a stream.

For the length of one call of a stream's method, its SSLObject gets a ``write`` and a
``read`` that take the step: see ``_carrier_io.py`` for why.
"""

import contextlib
from collections.abc import Coroutine, Iterator
from inspect import CORO_CLOSED, CORO_RUNNING, getcoroutinestate
from typing import Any, Callable, Optional

_Call = Coroutine[Any, Any, None]


class Nothing(bytes):
    """An empty bytes object that is true."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return True


async def stand_in(
    tls: Any, step: Callable[[], bytes], method: Callable[[Any], Any], argument: Any
) -> None:
    """Call a stream's method, with a step in place of SSL_write() and SSL_read()."""

    async def call() -> None:
        await method(argument)

    coroutine = call()
    with _standing_in(tls, coroutine, step):
        await coroutine


@contextlib.contextmanager
def _standing_in(
    tls: Any, coroutine: _Call, step: Callable[[], bytes]
) -> Iterator[None]:
    """Make ``tls.read()`` and an empty ``tls.write()`` in a coroutine take a step.

    Two tasks may use this on one connection at the same time. The first to enter
    replaces the two methods, the last to leave restores them, and each task takes its
    own step. A signal handler's exception may come between any two lines. Replacements
    that it leaves behind have no effect, and the next call removes them.
    """
    attributes = vars(tls)
    inside = attributes.get("write")
    if not isinstance(inside, _StandIn):
        inside = _StandIn(tls)
    try:
        inside.steps[coroutine] = step
        attributes.update(write=inside, read=inside.read)
        yield
    finally:
        coroutine.close()
        if inside.is_over():
            attributes.pop("read", None)
            attributes.pop("write", None)  # last: its presence marks the replacement


class _StandIn:
    """Replaces an SSLObject's ``write()`` and ``read()`` while steps are taken."""

    def __init__(self, tls: Any) -> None:
        self._write, self._read = tls.write, tls.read
        self.steps: dict[_Call, Optional[Callable[[], bytes]]] = {}

    def is_over(self) -> bool:
        """Return whether all coroutines that take steps have ended."""
        return all(getcoroutinestate(call) == CORO_CLOSED for call in self.steps)

    def __call__(self, data: Any) -> Any:
        taker = self._taker() if isinstance(data, Nothing) else None
        return self._write(data) if taker is None else len(self._take(taker))

    def read(self, *arguments: Any) -> Any:
        taker = self._taker()
        return self._read(*arguments) if taker is None else self._take(taker)

    def _taker(self) -> Optional[_Call]:
        """Return the running coroutine if it takes a step."""
        for coroutine, step in self.steps.items():
            if step is not None and getcoroutinestate(coroutine) == CORO_RUNNING:
                return coroutine
        return None

    def _take(self, taker: _Call) -> bytes:
        """Take a step; a callback's read in the middle of it is an ordinary read."""
        step = self.steps[taker]
        assert step is not None  # noqa: S101
        self.steps[taker] = None
        try:
            return step()
        finally:
            self.steps[taker] = step
