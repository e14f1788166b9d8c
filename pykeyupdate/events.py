"""What happens on managed connections, told to the program and to the log.

The extension notes what OpenSSL does and calls ``happened()`` afterwards, in the thread
that read or wrote, when the call is over: a handler may use the connection, and what it
raises hurts nobody.
"""

import enum
import logging
from typing import Any, Callable, NamedTuple, Optional

from .connections import name_of
from .locks import make_lock

_log = logging.getLogger("pykeyupdate")


class EventKind(enum.Enum):
    """What has happened on a connection, since the last time one was told of it."""

    KEY_UPDATE_SENT = "sends under new keys"
    """A KeyUpdate message of ours has been made; what follows it has a new key."""
    KEY_UPDATE_RECEIVED = "receives under new keys"
    """A KeyUpdate message has been received."""
    RENEGOTIATED = "has renegotiated"
    """A renegotiation is complete (TLS 1.2 and below): both directions' keys."""
    RENEGOTIATION_REFUSED = "has refused its peer a renegotiation"
    """The peer asked for a renegotiation and got a no_renegotiation alert, over which
    most peers close. ``PeerLimits.renegotiation`` and the context's options decide."""
    DEFERRED = "has to wait for new keys"
    """New keys are due, but not now (``min_interval_seconds``, or OpenSSL's state)."""
    CUT_OFF = "was cut off, as its peer exceeds PeerLimits (close it, or raise them)"
    """The peer has exceeded ``PeerLimits``; the next call raises."""


class Event(NamedTuple):
    """Something that has happened, once or more often, on a connection."""

    kind: EventKind
    connection: Any
    """The ``SSLSocket`` or ``SSLObject``."""
    detail: Optional[str] = None
    """Of ``CUT_OFF``: what there was too much of, and the limit's name."""


Handler = Callable[[Event], object]

_BITS = {1 << bit: kind for bit, kind in enumerate(EventKind)}  # enum ku_event
_LEVELS = {
    EventKind.RENEGOTIATED: logging.INFO,
    EventKind.RENEGOTIATION_REFUSED: logging.WARNING,
    EventKind.CUT_OFF: logging.WARNING,
}
_registered: dict[object, Handler] = {}
_handlers: tuple[Handler, ...] = ()  # the same, for those who tell and take no lock
_lock = make_lock()


def on_event(handler: Handler) -> Callable[[], None]:
    """Have ``handler(Event)`` called for what happens on managed connections.

    For all of the process; the event says on which. Called in the thread that reads or
    writes the connection, when that call is over: it may use the connection, and it
    delays that thread. What it raises is logged under ``pykeyupdate`` and goes no
    further. Several handlers are called in the order in which they were added, and one
    that was added twice is called twice.

    An ``SSLObject`` does not know its peer's address: its transport or stream does (of
    asyncio's, ``get_extra_info("ssl_object")`` is the event's ``connection``).

    Returns a function that takes this registration back, and no other; calling it again
    changes nothing. Raises ``TypeError`` for what cannot be called. On the wire:
    nothing. Thread-safe.
    """
    if not callable(handler):
        raise TypeError(f"on_event() takes a function, not {handler!r}")
    registration = object()

    def remove() -> None:
        with _lock:
            _registered.pop(registration, None)
            _publish()

    with _lock:
        _registered[registration] = handler
        _publish()
    return remove


def _publish() -> None:
    global _handlers  # noqa: PLW0603
    _handlers = tuple(_registered.values())


def happened(conn: Any, events: int, why_cut: Optional[str]) -> None:
    """Tell of events, given as the extension's bits."""
    for bit, kind in _BITS.items():
        if events & bit:
            _tell(Event(kind, conn, why_cut if kind is EventKind.CUT_OFF else None))


def _tell(event: Event) -> None:
    level = _LEVELS.get(event.kind, logging.DEBUG)
    if _log.isEnabledFor(level):
        text = event.kind.value + (f": {event.detail}" if event.detail else "")
        _log.log(level, "%s %s", name_of(event.connection), text)
    for handler in _handlers:
        _call(handler, event)


def _call(handler: Handler, event: Event) -> None:
    try:
        handler(event)
    except Exception:  # noqa: BLE001 (the connection's thread is not to suffer)
        _log.exception("on_event() handler %r failed over %s", handler, event.kind)
