"""New keys for managed sockets that nobody uses: ``RekeyPolicy(rotate_idle=True)``.

Theory of operation. One daemon thread does it for the whole process (in each
interpreter). It starts with the first such socket, sleeps until the next key is due,
and ends when the last socket is closed or gone.

All that the thread knows is its own: a heap of the times at which to look at a socket
again. Nobody else changes the heap, and nobody tells the thread that a key has changed
meanwhile; when it looks, the key is just young, and the extension says when to look
again (``ext/keys/policy.c``, ``ku_policy_rotate()``). Others only put messages into its
inbox, a ``SimpleQueue``, whose ``put()`` may be called anywhere: in a signal handler,
and by a weak reference when its socket dies. The thread holds a socket for the length
of one step, which never waits for the peer.

A forked process has no such thread. A socket that is used there is watched there
(``SSLSocket._adopt()``).
"""

import atexit
import contextlib
import functools
import heapq
import os
import threading
import time
import weakref
from typing import Any, Callable, Optional

from ._errors import PyKeyUpdateError, RekeyImpossibleError
from ._events import note
from ._fork_lock import make_lock

_lock = make_lock()  # between the start of a thread and its end
_thread: "Optional[_Thread]" = None

_EVERYTHING, _END = object(), object()  # messages, beside sockets
_PATIENCE = 1.0  # seconds, at exit, for a handler of the program's


def watch(sock: Any) -> Callable[[], None]:
    """Have the keys of a socket changed while it is idle.

    Returns a function that ends this; the death of the socket does, too.

    Raises ``RuntimeError`` in a sub-interpreter that has no daemon threads.
    """
    with _lock:
        inbox = _running().inbox
        reference = weakref.ref(sock, inbox.put)
        inbox.put((reference, float(sock._rules.policy._least_age())))
    return functools.partial(inbox.put, reference)


def look_again() -> None:
    """Look at all sockets now: the clock of their ages has been advanced."""
    thread = _thread
    if thread is not None:
        thread.inbox.put(_EVERYTHING)


def _running() -> "_Thread":
    """Return the thread of this process; first start it if it does not run."""
    global _thread  # noqa: PLW0603
    if _thread is None or _thread.process != os.getpid():
        atexit.unregister(_end)
        atexit.register(_end)
        _thread = _Thread()
    _thread.start()
    return _thread


def _end() -> None:
    """End the thread at exit: it must not be in a step when the interpreter goes."""
    thread = _thread
    if thread is not None and thread.process == os.getpid():
        thread.inbox.put(_END)
        thread.join(_PATIENCE)


class _Thread:
    """The thread, and what it knows."""

    def __init__(self) -> None:
        from _queue import SimpleQueue  # few programs need it

        self.process = os.getpid()
        self.inbox: Any = SimpleQueue()
        self._watched: dict[int, weakref.ref[Any]] = {}
        self._heap: list[tuple[float, int, weakref.ref[Any]]] = []
        self._number = 0  # so that no two references are compared
        self._has_ended = self._has_failed = False
        self._started: Optional[threading.Thread] = None

    def start(self) -> None:
        """Start it, if it does not run.

        While there can be no more threads, keys change with use alone. The next socket
        tries again, for all.
        """
        if self._has_ended or self._is_running():
            return
        try:
            self._started = threading.Thread(
                target=self._run, name="pykeyupdate", daemon=True
            )
            self._started.start()
        except RuntimeError as error:
            self._started = None
            self._take_all()  # so that the inbox does not grow for ever
            self._explain(error)

    def _is_running(self) -> bool:
        thread = self._started  # without an ident while it is being started
        return thread is not None and (thread.ident is None or thread.is_alive())

    def _explain(self, error: RuntimeError) -> None:
        if "shutdown" in str(error):
            return
        if "interpreter" in str(error):
            raise RuntimeError(
                "RekeyPolicy(rotate_idle=True) needs a daemon thread, and this "
                f"sub-interpreter allows none: {error}"
            ) from error
        if not self._has_failed:
            self._has_failed = True
            note("ERROR", "no thread for rotate_idle", failure=error)

    def join(self, timeout: float) -> None:
        """Wait for the end of the thread, if it has started."""
        if self._started is not None:
            self._started.join(timeout)

    def _run(self) -> None:
        while not self._is_over():
            self._take_messages()
            self._rotate_due()

    def _is_over(self) -> bool:
        global _thread  # noqa: PLW0603
        if self._has_ended:
            return True
        if self._watched or not self.inbox.empty():
            return False
        with _lock:
            if not self.inbox.empty():
                return False
            if _thread is self:
                _thread = None
            return True

    def _take_messages(self) -> None:
        """Wait for a message, or until a key is due; take all that are there."""
        from _queue import Empty

        wait = None
        if self._heap:
            wait = min(max(self._heap[0][0] - time.monotonic(), 0.0), _LONGEST_WAIT)
        with contextlib.suppress(Empty):
            self._take(self.inbox.get(timeout=wait))
        self._take_all()

    def _take_all(self) -> None:
        while not self.inbox.empty():
            self._take(self.inbox.get())

    def _take(self, message: Any) -> None:
        if message is _END:
            self._has_ended = True
        elif message is _EVERYTHING:
            self._heap = []
            for reference in self._watched.values():
                self._look_in(reference, 0.0)
        elif isinstance(message, tuple):
            reference, wait = message
            self._watched[id(reference)] = reference
            self._look_in(reference, wait)
        else:
            self._forget(message)

    def _look_in(self, reference: "weakref.ref[Any]", seconds: float) -> None:
        self._number += 1
        due = time.monotonic() + seconds
        heapq.heappush(self._heap, (due, self._number, reference))

    def _forget(self, reference: "weakref.ref[Any]") -> None:
        self._watched.pop(id(reference), None)
        if len(self._heap) > 2 * len(self._watched) + _FEW:
            self._heap = [it for it in self._heap if id(it[2]) in self._watched]
            heapq.heapify(self._heap)

    def _rotate_due(self) -> None:
        while self._heap and self._heap[0][0] <= time.monotonic():
            _, _, reference = heapq.heappop(self._heap)
            if id(reference) in self._watched:
                wait = _rotate(reference)
                if wait is None:
                    self._forget(reference)
                else:
                    self._look_in(reference, wait)


_LONGEST_WAIT = 3600.0 * 24  # longer timeouts are refused by some systems
_FEW = 64


def _rotate(reference: "weakref.ref[Any]") -> Optional[float]:
    """Change a socket's key if it is due; return the seconds until the next look.

    Returns None if there need be none. What has gone wrong, the owner's next call will
    report.
    """
    sock: Any = reference()
    duplex = None if sock is None else sock._sslobj
    if duplex is None:
        return None
    policy = sock._rules.policy
    try:
        wait: int = duplex.rotate()
    except RekeyImpossibleError:
        if policy.on_impossible == "close":
            sock._give_up()
            return None
        return float(policy._least_age())
    except (PyKeyUpdateError, OSError, ValueError):  # closed
        return None
    except BaseException as error:  # noqa: BLE001 (of the program's handlers)
        note("ERROR", "%r: an idle key was not changed", sock, failure=error)
        return float(policy._least_age())
    return None if wait < 0 else wait / 1e6
