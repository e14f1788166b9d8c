"""A server in one thread: each line that a client sends is answered by lines.

Theory of operation. One daemon thread serves all clients with a selector, and does
nothing else. An answer is a generator, which the thread advances a millisecond at a
time. It yields a line (``bytes``, to be sent); or a number of seconds, after which it
wants to go on; or ``None``, to go on after ``wake()``.

Clients are not trusted to behave. A request has a greatest length and a time to be
complete, and an answer has a time to be taken. The next request of a client is read
when its last answer has gone. There is a greatest number of clients, and when one more
comes, the one that has been silent longest goes; so clients that do nothing keep nobody
out. Each has a quarter of a second to ask before; while all are that new, the next ones
wait in the listener's queue. What is kept for a client is never more than one request
and one step of an answer beyond ``MOST_OUTPUT``.

A child process does not serve: after a fork it closes its copies of the sockets.
"""

import atexit
import contextlib
import math
import os
import selectors
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Callable, Optional, Union

from . import _unix_listener
from ._fork_lock import make_lock
from ._signal_handlers import is_of_signal_handler

Answer = Iterator[Union[bytes, float, None]]

MOST_CLIENTS = 64
GRACE_SECONDS = 0.25  # in which a new client is not pushed out
LONGEST_LINE = 65536  # bytes
MOST_OUTPUT = 65536  # bytes: an answer goes on when less is waiting to be sent
LINE_SECONDS = 10.0  # from the first byte of a request to its last
STALL_SECONDS = 10.0  # in which a client takes nothing of its answer
IDLE_SECONDS = 300.0  # between two requests
_SLICE = 0.001  # seconds for one answer before the next client's turn
_LONGEST_WAIT = 3600.0  # seconds; no system takes any number
_REST = 0.001  # seconds after a turn, in which the program's threads have the GIL
_BREATH = 0.0002  # seconds after each slice, likewise: one takes it that waits for it
_PAUSE = 1.0  # seconds without new clients after the system had no resources for one
_CHUNK = 65536
_JOIN_SECONDS = 5.0


class _Client:
    def __init__(self, sock: socket.socket, now: float) -> None:
        self.sock = sock
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.answer: Optional[Answer] = None
        self.due: Optional[float] = None  # when the answer goes on; None: when woken
        self.began = self.since = now  # since: of the last progress
        self.has_ended = False  # it sends no more
        self.interest = 0

    def patience(self) -> Optional[float]:
        """Return how long it may be without progress, or None for any time."""
        if self.outbox:
            return STALL_SECONDS
        if self.answer is not None:
            return None
        return LINE_SECONDS if self.inbox else IDLE_SECONDS

    def can_begin(self) -> bool:
        """Return whether a request has come, and the last answer has gone."""
        return self.answer is None and not self.outbox and b"\n" in self.inbox

    def can_go_on(self) -> bool:
        """Return whether its answer waits for nothing but the time."""
        return self.due is not None and len(self.outbox) < MOST_OUTPUT

    def end(self) -> None:
        self.sock.close()
        with contextlib.suppress(Exception):  # none, or under way in the parent process
            self.answer.close()  # type: ignore[union-attr]

    def is_silent(self) -> bool:
        return self.answer is None or self.due is None

    def wanted(self) -> int:
        """Return the selector's events that it waits for."""
        reads = not self.has_ended and len(self.inbox) <= LONGEST_LINE
        return (selectors.EVENT_READ if reads else 0) | (
            selectors.EVENT_WRITE if self.outbox else 0
        )


class LineServer:
    """Listens at a path, and answers lines until it is closed.

    ``respond`` gets each line, without its end, and returns the answer. ``refuse``
    returns the line for one that was too long.
    """

    def __init__(
        self,
        path: str,
        name: str,
        respond: Callable[[bytes], Answer],
        refuse: Callable[[str], bytes],
        report: Callable[[BaseException], None],
    ) -> None:
        self.path = path
        self._respond, self._refuse, self._report = respond, refuse, report
        with _forks:
            self._start(path, name)
        atexit.register(self.close)

    def _start(self, path: str, name: str) -> None:
        self._listener, self._identity = _unix_listener.listen(path)
        self._waker, self._woken = socket.socketpair()
        self._is_woken = self._is_closing = False
        self._clients: set[_Client] = set()
        self._selector = selectors.DefaultSelector()
        self._resumes: Optional[float] = None  # accepting clients
        self._breathes = 0.0
        for sock in (self._waker, self._woken):
            sock.setblocking(False)
        for sock in (self._listener, self._woken):
            self._selector.register(sock, selectors.EVENT_READ)
        try:
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        except BaseException as error:  # no memory, or a sub-interpreter
            _unix_listener.remove(path, self._identity)
            self.leave()
            if "interpreter" in str(error) and "shutdown" not in str(error):
                raise RuntimeError(
                    f"nothing serves {path!r}: that takes a daemon thread, and this "
                    f"sub-interpreter allows none ({error}); serve it in the main one"
                ) from error
            raise
        _servers.add(self)

    # -- from other threads ------------------------------------------------------------

    def wake(self) -> None:
        """Let answers that yielded ``None`` go on; never waits."""
        if not self._is_woken:
            self._is_woken = True
            try:
                self._waker.send(b"-")
            except OSError as error:  # full, or closed
                if is_of_signal_handler(error):
                    raise

    def close(self) -> None:
        """Close all, remove the file, and return when the thread has ended."""
        self._is_closing = True
        atexit.unregister(self.close)
        self._is_woken = False
        self.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_SECONDS)

    def is_closed(self) -> bool:
        return self._is_closing

    def leave(self) -> None:
        """Close this process's copies of the parent's sockets; the parent goes on.

        The selector goes first: it may be the parent's, too.
        """
        self._is_closing = True
        self._selector.close()
        for client in self._clients:
            client.end()
        for sock in (self._listener, self._waker, self._woken):
            sock.close()

    # -- in the thread -----------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._is_closing:
                self._turn()
        finally:
            _unix_listener.remove(self.path, self._identity)
            for client in list(self._clients):
                self._drop(client)
            self.leave()

    def _turn(self) -> None:
        for key, events in self._selector.select(self._time_to_wait()):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._woken:
                self._take_wakes()
            else:
                self._guarded(self._exchange, key.data, events)
        now = time.monotonic()
        if self._resumes is not None and now >= self._resumes:
            self._resumes = None
            self._selector.register(self._listener, selectors.EVENT_READ)
        for client in list(self._clients):
            self._guarded(self._go_on, client, now)

    def _time_to_wait(self) -> float:
        times = [] if self._resumes is None else [self._resumes]
        for client in self._clients:
            if client.can_begin():
                times.append(0.0)
            if client.can_go_on():
                times.append(client.due or 0.0)
            patience = client.patience()
            if patience is not None:
                times.append(client.since + patience)
        wait = min(times, default=math.inf) - time.monotonic()
        return min(max(_REST, wait), _LONGEST_WAIT)

    def _accept(self) -> None:
        """Take new clients, and the request of each if it has come."""
        for _ in range(MOST_CLIENTS):
            now = time.monotonic()
            if not self._has_room(now):
                began = min(client.began for client in self._clients)
                self._accept_later(began + GRACE_SECONDS)
                return
            try:
                client = self._next_client(now)
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError:  # no descriptor left, or no memory
                self._accept_later(now + _PAUSE)
                return
            self._guarded(self._exchange, client, selectors.EVENT_READ)
            if client in self._clients:
                self._guarded(self._go_on, client, now)

    def _next_client(self, now: float) -> _Client:
        with _forks:
            sock, _ = self._listener.accept()
            sock.setblocking(False)
            client = _Client(sock, now)
            self._clients.add(client)
        if len(self._clients) > MOST_CLIENTS:
            self._drop(self._most_silent(now))
        return client

    def _accept_later(self, when: float) -> None:
        self._selector.unregister(self._listener)
        self._resumes = when

    def _has_room(self, now: float) -> bool:
        return len(self._clients) < MOST_CLIENTS or bool(self._known(now))

    def _known(self, now: float) -> list[_Client]:
        """Return the clients that have had time to ask."""
        return [it for it in self._clients if it.began + GRACE_SECONDS <= now]

    def _most_silent(self, now: float) -> _Client:
        known = self._known(now)
        silent = [client for client in known if client.is_silent()]
        return min(silent or known, key=lambda client: client.since)

    def _take_wakes(self) -> None:
        with contextlib.suppress(OSError):
            self._woken.recv(_CHUNK)
        self._is_woken = False
        for client in self._clients:
            if client.answer is not None and client.due is None:
                client.due = 0.0

    def _guarded(
        self, function: Callable[..., None], client: _Client, given: float
    ) -> None:
        """Do something for a client; drop it if that fails."""
        try:
            function(client, given)
        except OSError:  # it has gone
            self._drop(client)
        except BaseException as error:  # noqa: BLE001 (of the program's handlers, too)
            self._report(error)
            self._drop(client)
        self._breathe()

    def _breathe(self) -> None:
        """Give way to the program's threads, which may all wait for this one's GIL."""
        if time.monotonic() >= self._breathes:
            time.sleep(_BREATH)
            self._breathes = time.monotonic() + _SLICE

    def _exchange(self, client: _Client, events: int) -> None:
        """Move bytes from or to a client that is ready for it."""
        now = time.monotonic()
        if events & selectors.EVENT_WRITE and client.outbox:
            with contextlib.suppress(BlockingIOError):
                sent = client.sock.send(client.outbox[:_CHUNK])
                del client.outbox[:sent]
                client.since = now
        if events & selectors.EVENT_READ and client.wanted() & selectors.EVENT_READ:
            with contextlib.suppress(BlockingIOError):
                some = client.sock.recv(_CHUNK)
                client.since = client.since if client.inbox else now
                client.inbox += some
                client.has_ended = not some

    def _go_on(self, client: _Client, now: float) -> None:
        """Do what can be done for a client without waiting for it."""
        ends = time.monotonic() + _SLICE
        self._refuse_too_long(client)
        while time.monotonic() < ends:
            if client.can_begin():
                self._begin(client)
            if not client.can_go_on() or (client.due or 0.0) > time.monotonic():
                break
            self._step(client)
        if self._is_done(client, now):
            self._drop(client)
        else:
            self._watch(client)

    def _refuse_too_long(self, client: _Client) -> None:
        """End a client whose request is too long."""
        is_long = len(client.inbox) >= LONGEST_LINE
        if is_long and client.inbox.find(b"\n", 0, LONGEST_LINE) < 0:
            text = f"a request has less than {LONGEST_LINE} bytes"
            client.outbox += self._refuse(text)
            client.inbox.clear()
            client.has_ended = True

    def _begin(self, client: _Client) -> None:
        line, _, client.inbox = client.inbox.partition(b"\n")
        client.answer, client.due = self._respond(bytes(line)), 0.0

    def _step(self, client: _Client) -> None:
        assert client.answer is not None  # noqa: S101
        now = time.monotonic()
        try:
            wanted = next(client.answer)
        except StopIteration:
            client.answer = client.due = None
            client.since = now
            return
        if isinstance(wanted, bytes):
            client.since = client.since if client.outbox else now
            client.outbox += wanted
        else:
            client.due = None if wanted is None else now + wanted

    @staticmethod
    def _is_done(client: _Client, now: float) -> bool:
        """Return whether a client has got all that it will get, or is too slow."""
        patience = client.patience()
        if patience is not None and now > client.since + patience:
            return True
        has_all = client.is_silent() and not client.can_begin() and not client.outbox
        return client.has_ended and has_all

    def _watch(self, client: _Client) -> None:
        wanted = client.wanted()
        if wanted == client.interest:
            return
        if not client.interest:
            self._selector.register(client.sock, wanted, client)
        elif wanted:
            self._selector.modify(client.sock, wanted, client)
        else:
            self._selector.unregister(client.sock)
        client.interest = wanted

    def _drop(self, client: _Client) -> None:
        if client not in self._clients:
            return
        self._clients.remove(client)
        if client.interest:
            self._selector.unregister(client.sock)
        client.end()


_forks = make_lock()  # no process is forked while a socket is in no list
_servers: "weakref.WeakSet[LineServer]" = weakref.WeakSet()


def _leave_all() -> None:
    for server in list(_servers):
        if not server.is_closed():
            server.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)
