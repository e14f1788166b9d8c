"""Events on managed connections, reported to the program and to the log.

The extension notes what OpenSSL does and calls ``tell_events()`` afterwards, in the
thread that read or wrote, when the call is over. So a handler may use the connection.
A handler's exceptions are logged, except ``SystemExit``, ``KeyboardInterrupt`` and the
exceptions of signal handlers that run meanwhile: these come out of the call.
"""

import _thread
import contextlib
import enum
import os
import sys
import time
from collections import deque
from typing import Any, Callable, NamedTuple, Optional

from ._arguments import is_function
from ._documentation import DOCUMENTATION
from ._fields import described
from ._finding import name_of
from ._fork_lock import importing, make_lock
from ._originals import SOCKET
from ._signal_handlers import is_of_signal_handler
from ._static_lookup import is_instance


class EventKind(enum.Enum):
    """What has happened on a connection since the last report.

    KEY_UPDATE_SENT
        This side has made a KeyUpdate message; data after it is under a new key.
    KEY_UPDATE_RECEIVED
        A KeyUpdate message has been received.
    RENEGOTIATED
        A renegotiation is complete (TLS 1.2 and below), with new keys both ways.
    RENEGOTIATION_REFUSED
        The peer asked for a renegotiation and got a no_renegotiation alert; most peers
        then close. ``PeerLimits.renegotiation`` and the context's options decide this.
    DEFERRED
        New keys are due, but not possible now (``min_interval_seconds``, or OpenSSL's
        state).
    CUT_OFF
        The peer has exceeded ``PeerLimits``; the next call raises.
    IMPOSSIBLE
        New keys are due and impossible: ``RekeyPolicy.on_impossible`` decides what each
        write does from now on. Reported once per connection.
    FAILED_AFTER_UPDATE
        An alert, an error or a reset has ended the connection, and nothing has come
        from the peer since our last KeyUpdate: maybe it cannot take them. An end
        without a close_notify counts only if we had sent nothing but the update: many
        healthy peers just close when they have what they wanted. Reported once per
        connection. (An ``SSLObject`` only sees errors of TLS. A connection that
        asyncio's own transport has lost is told when the object is deleted, in the
        loop's next turn or in a thread of ours: neither side has sent a close_notify.
        ``transport.abort()`` looks the same. Other transports' losses are not told.)
    """

    KEY_UPDATE_SENT = "sends under new keys"
    KEY_UPDATE_RECEIVED = "receives under new keys"
    RENEGOTIATED = "has renegotiated"
    RENEGOTIATION_REFUSED = "has refused its peer a renegotiation"
    DEFERRED = "has to wait for new keys"
    CUT_OFF = "was cut off, as its peer exceeds PeerLimits (close it, or raise them)"
    IMPOSSIBLE = "cannot have the new keys that its RekeyPolicy wants (on_impossible)"
    FAILED_AFTER_UPDATE = "has failed, with nothing received since our last key update"


@described
class Event(NamedTuple):
    """Something that has happened, once or several times, on a connection.

    kind
        What has happened.
    connection
        The ``SSLSocket`` or ``SSLObject``.
    detail
        For people. For ``CUT_OFF``: the limit, as in ``PeerLimits.key_updates``. For
        ``IMPOSSIBLE``: why keys cannot be changed. For ``FAILED_AFTER_UPDATE``: how
        long after the update it was.
    reason
        In a word. For ``KEY_UPDATE_SENT`` and ``RENEGOTIATED``: why keys were changed,
        a field of ``KeyChanges``. For ``DEFERRED``: why they are to be changed,
        likewise. For ``FAILED_AFTER_UPDATE``: why the last update was sent. For
        ``IMPOSSIBLE``: why they cannot be, one of the fields of ``Impossible``.
    limit
        For ``CUT_OFF``: which of ``PeerLimits`` the peer exceeded.
    """

    kind: EventKind
    connection: Any
    detail: Optional[str] = None
    reason: Optional[str] = None
    limit: Optional[str] = None


Handler = Callable[[Event], object]

_BITS = {1 << bit: kind for bit, kind in enumerate(EventKind)}  # enum ku_event
_LEVELS = {
    EventKind.RENEGOTIATED: "INFO",
    EventKind.RENEGOTIATION_REFUSED: "WARNING",
    EventKind.CUT_OFF: "WARNING",
    EventKind.IMPOSSIBLE: "WARNING",
    EventKind.FAILED_AFTER_UPDATE: "WARNING",
}  # all others: DEBUG
registered: dict[object, Handler] = {}
"""The handlers. While there are none, the extension tells of nothing that is logged at
a level that is off."""
_handlers: tuple[Handler, ...] = ()  # the same, read without the lock
_lock = make_lock()

_apart: "deque[list[Event]]" = deque()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_apart.clear)  # the thread is not there

_MOST_WARNINGS, _WINDOW = 20, 60.0  # of each kind in so many seconds
_logged: dict[EventKind, tuple[float, int, int]] = {}
"""When the kind's window began, and how many warnings went out and were left out."""


def on_event(handler: Handler) -> Callable[[], None]:
    """Call ``handler(Event)`` for each event on a managed connection.

    The handler gets the events of the whole process; each event names its connection.
    It is called in the thread that reads or writes the connection, when that call is
    over. So it may use the connection, and it delays that thread. (For an ``SSLObject``
    under uvloop, or anyio on asyncio, it is called in the loop's next turn, so that it
    can use the transport as well.) Its exceptions are logged under ``pykeyupdate`` and
    go no further. Only ``SystemExit``, ``KeyboardInterrupt`` and the exceptions of
    signal handlers that run meanwhile come out of the call that read or wrote. Several
    handlers are called in the order in which they were added; a handler that was added
    twice is called twice.

    ``event.connection.peer`` is the peer's address (for an ``SSLObject`` that is not
    asyncio's, once ``aio.label()`` or another function of ``aio`` has been given what
    carries it).

    Returns a function that removes this registration and no other; calling it again
    changes nothing. Raises ``TypeError`` if ``handler`` is not callable, or is a
    coroutine function, which nobody would await. On the wire: nothing. Thread-safe.
    """
    if not is_function(handler):
        raise TypeError(
            f"on_event() takes a function, and no `async def`, not {name_of(handler)}"
        )
    registration = object()

    def remove() -> None:
        with _lock:
            registered.pop(registration, None)
            _publish()

    with _lock:
        registered[registration] = handler
        _publish()
    return remove


def _publish() -> None:
    global _handlers  # noqa: PLW0603
    _handlers = tuple(registered.values())


def tell_events(  # noqa: PLR0913, PLR0917
    conn: Any,
    events: int,
    limit: Optional[str],
    why_impossible: str,
    cause: str,
    changed: str,
    due: str,
    since_update: float,
) -> None:
    """Report events, given as the extension's bits.

    For an ``SSLObject`` in an event loop this happens in the loop's next turn, because
    its transport is in the middle of a read or write and cannot be used. (asyncio's
    can: see ``ext/streams/asyncio_help.h``.)
    """
    failed = (
        f"{since_update:.1f} s after it; some peers cannot take key updates: see "
        f"{DOCUMENTATION}explanation/peers.html"
    )
    more = {
        EventKind.KEY_UPDATE_SENT: (None, changed),
        EventKind.RENEGOTIATED: (None, changed),
        EventKind.DEFERRED: (None, due),
        EventKind.CUT_OFF: (f"PeerLimits.{limit}", None, limit),
        EventKind.IMPOSSIBLE: (why_impossible, cause),
        EventKind.FAILED_AFTER_UPDATE: (failed, changed),
    }
    news = [
        Event(kind, conn, *more.get(kind, ()))
        for bit, kind in _BITS.items()
        if events & bit
    ]
    loop = None if _is_usable_now(conn) else _running_loop()
    if getattr(conn, "_transport", None) is no_transport:
        _tell_apart(news)
    elif loop is None:
        _tell(news)
    else:
        loop.call_soon(_tell, news)


def no_transport() -> None:
    """Be the ``_transport`` of an ``SSLObject`` that is being deleted.

    The garbage collector deletes it at any moment, in any thread: maybe while that
    thread holds a lock of a handler's, or of ``logging``'s. So what there is to tell of
    such an object is told apart: in the loop's next turn, or else in a thread.
    """


def _tell_apart(news: list[Event]) -> None:
    loop = _running_loop()
    if loop is not None:
        loop.call_soon(_tell, news)
        return
    _apart.append(news)
    if len(_apart) == 1:
        try:
            _thread.start_new_thread(_tell_all_apart, ())
        except RuntimeError:  # no more threads, or the interpreter is shutting down
            _apart.clear()


def _tell_all_apart() -> None:
    with contextlib.suppress(IndexError):  # empty: the next one starts a thread
        while True:
            _tell_and_go_on(_apart.popleft())


def _tell_and_go_on(news: list[Event]) -> None:
    try:
        _tell(news)
    except BaseException as error:  # noqa: BLE001 (there is no call to come out of)
        note("ERROR", "an on_event() handler failed", failure=error)


def _is_usable_now(conn: Any) -> bool:
    return is_instance(conn, SOCKET) or conn._transport is not None


def _running_loop() -> Any:
    """Return the running asyncio or uvloop event loop, or None."""
    asyncio = sys.modules.get("asyncio")
    loop = None if asyncio is None else asyncio._get_running_loop()
    return None if loop is None or loop.is_closed() else loop


def _tell(news: list[Event]) -> None:
    for event in news:
        _log(event)
        for handler in _handlers:
            _call(handler, event)


def _log(event: Event) -> None:
    level = _LEVELS.get(event.kind, "DEBUG")
    if not _is_logged(level):
        return
    about_others = _about_others(event.kind) if level == "WARNING" else ""
    if about_others is not None:
        text = event.kind.value
        if event.detail:
            text += f": {event.detail}"
        elif event.reason:
            text += f" ({event.reason})"
        text += about_others
        name = name_of(event.connection)
        note(level, "%s %s", name, text, extra=_fields(event, name))


def _about_others(kind: EventKind) -> Optional[str]:
    """Return what a warning says of those that are left out; None to leave it out.

    Whoever opens many connections must not fill a disk by what is written of them. The
    last that is logged says so: how many are left out is told by the next one, and
    there may be none.
    """
    now = time.monotonic()
    with _lock:
        began, logged, left_out = _logged.get(kind, (now, 0, 0))
        if now - began >= _WINDOW:
            began, logged = now, 0
        is_logged = logged < _MOST_WARNINGS
        _logged[kind] = (
            (began, logged + 1, 0) if is_logged else (began, logged, left_out + 1)
        )
    if not is_logged:
        return None
    text = f" (and {left_out} more like this, which are not logged)" if left_out else ""
    if logged + 1 == _MOST_WARNINGS:
        rest = began + _WINDOW - now
        text += f" (more like this are not logged for {rest:.0f} s; totals() has them)"
    return text


def _fields(event: Event, name: str) -> dict[str, Optional[str]]:
    """Return a record's ``extra``: texts alone, which any formatter and queue takes."""
    describe = getattr(event.connection, "_describe", dict)
    return {
        "connection": name,
        "peer": None,
        "label": None,
        **describe(),
        "event": event.kind.name,
        "reason": event.reason,
        "limit": event.limit,
    }


def _is_logged(level: str) -> bool:
    logs = _find_logger()
    return logs is not None and bool(
        logs.logger.isEnabledFor(getattr(logs.logging, level))
    )


class _Logs(NamedTuple):
    logging: Any
    logger: Any


_logs: Optional[_Logs] = None


def _find_logger() -> Optional[_Logs]:
    """Return ``logging`` and our logger, found when they are needed first.

    To import it is slow. And ``getLogger()`` takes a lock of the whole process each
    time, which stays locked if a signal handler raises in the wrong moment.

    Returns None in an interpreter that is shutting down, which imports nothing.
    """
    global _logs  # noqa: PLW0603
    if _logs is None:
        try:
            with importing:
                import logging
        except ImportError:
            return None
        _logs = _Logs(logging, logging.getLogger("pykeyupdate"))
    return _logs


def _call(handler: Handler, event: Event) -> None:
    try:
        handler(event)
    except Exception as error:
        if is_of_signal_handler(error):
            raise
        text = "on_event() handler %r failed over %s"
        fields = _fields(event, name_of(event.connection))
        note("ERROR", text, handler, event.kind, failure=error, extra=fields)


def note(
    level: str,
    text: str,
    *values: object,
    failure: Optional[BaseException] = None,
    extra: Optional[dict[str, Optional[str]]] = None,
) -> None:
    """Log a line. Print the exception of a logging handler that raises.

    The exception would otherwise come out of a read, whose data would then be lost.
    ``logging.Handler.handleError()`` prints the errors that handlers catch themselves
    in the same way.
    """
    logs = _find_logger()
    if logs is None:
        return
    try:
        number = getattr(logs.logging, level)
        logs.logger.log(number, text, *values, exc_info=failure, extra=extra)
    except Exception as error:
        if is_of_signal_handler(error):
            raise
        if logs.logging.raiseExceptions:
            with importing:
                import traceback

            traceback.print_exc()
