"""Control of a running process, by a Unix socket or a signal.

Nothing here is on unless a program calls it::

    pykeyupdate.control.serve(f"/run/app/{os.getpid()}.sock")
    pykeyupdate.control.on_signal("SIGUSR2")

``python -m pykeyupdate ctl PATH connections`` then shows the managed connections of the
process, and ``kill -USR2 PID`` gives all of them new keys.
"""

import _thread
import os
import signal
from types import FrameType, TracebackType
from typing import Callable, Optional, Union

from . import _keyupdate, _unix_listener
from ._control_commands import Commands, refusal
from ._events import note
from ._finding import name_of
from ._for_all import PER_SECOND, Rekeying, rekey_all
from ._line_server import LineServer
from ._signal_handlers import NEVER_HANDLED
from ._static_lookup import is_instance

__all__ = ["ControlServer", "on_signal", "serve"]


class ControlServer:
    """A control socket that is being served; ``serve()`` makes it.

    ``with serve(path):`` closes it at the end of the block.
    """

    def __init__(self, path: _unix_listener.Path) -> None:
        text = _unix_listener.check_path("serve()", path)
        _keyupdate.watch()
        commands = Commands()
        self._server = LineServer(
            text, "pykeyupdate control", commands.respond, refusal, _report
        )
        commands.feed.wake = self._server.wake

    @property
    def path(self) -> str:
        """Where it listens."""
        return self._server.path

    def close(self) -> None:
        """Close the socket and its clients' connections, and remove its file.

        Returns when its thread has ended. Calling it again changes nothing. Any thread
        may call it; a forked child need not.
        """
        self._server.close()

    def __enter__(self) -> "ControlServer":  # noqa: PYI034 (Self is newer)
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._server.is_closed() else "open"
        return f"<pykeyupdate.control.ControlServer at {self.path!r}, {state}>"


def serve(path: _unix_listener.Path) -> ControlServer:
    """Serve a control socket at a path, until ``close()`` or the end of the process.

    It tells and does what ``connections()``, ``totals()``, ``on_event()`` and
    ``rekey_all()`` tell and do, for who may open the file: the user of the process, and
    root. The file has mode 0600 before anybody can connect, and that is all there is of
    authentication; put it into a folder that only this user can write to. It never
    listens on TCP. The file of a dead process is replaced. Give each process a path of
    its own: ``f"/run/app/{os.getpid()}.sock"``.

    One JSON object in a line is a request, one in a line is its answer:
    ``{"do": "connections", "where": [["version", "==", "TLSv1.2"]], "sort":
    "-sent.age_seconds", "limit": 10}``. ``python -m pykeyupdate ctl PATH`` speaks it,
    and ``{"do": "help"}`` lists the commands, fields and operators.

    ===============  ==================================================================
    ``connections``  those for which all of ``where`` (conditions: field, operator,
                     value) holds, sorted by the field ``sort`` (with ``-``, the
                     greatest first), from ``offset`` (0), at most ``limit`` (100; up to
                     1000)
    ``totals``       ``totals()``
    ``policy``       the policies and limits of new and of live connections
    ``rekey``        ``rekey_all()`` for those of ``where``, with ``request_peer`` and
                     ``per_second``
    ``follow``       events as they come, each in a line, of the kinds in ``events``
    ===============  ==================================================================

    One daemon thread of ours serves it, and waits for nobody: no connection of the
    program waits for a request. A client has 10 s to send a request (64 KiB at most)
    and 10 s to take some of an answer; there are 64 clients at most, and one more
    pushes out the one that has been silent longest. A follower that is a thousand
    events behind is told so and must ask again. While there are followers, each event
    is reported as to an ``on_event()`` handler.

    After a fork, the parent goes on serving, and the child has nothing of it; call
    ``serve()`` in the child with another path. Returns a ``ControlServer``. Raises
    ``NotImplementedError`` on systems without Unix sockets (Windows); ``OSError``
    (``EADDRINUSE``) if a process listens there, ``FileExistsError`` if there is another
    file, and what the system says of the path; ``TypeError`` and ``ValueError`` for a
    path that is none. On the wire: what ``rekey`` sends.
    """
    return ControlServer(path)


def _report(error: BaseException) -> None:
    note("ERROR", "the control socket failed over a request", failure=error)


# -- signals ---------------------------------------------------------------------------


def on_signal(
    signum: Union[str, int] = "SIGUSR2",
    /,
    *,
    request_peer: bool = False,
    per_second: float = PER_SECOND,
) -> Callable[[], None]:
    """Have a signal make the process call ``rekey_all()``, in a thread.

    So whatever reaches the processes of a fleet can give it new keys: systemd,
    Kubernetes, Ansible. The handler starts a thread and returns. When all is done, the
    thread logs what ``rekey_all()`` returned (INFO, logger ``pykeyupdate``). A signal
    that comes meanwhile is served afterwards; several are served together.

    signum is the name of a signal, or its number (``signal.SIGRTMIN + 1``); the default
    is SIGUSR2, which most servers leave alone (gunicorn's master process does not). The
    other arguments are those of ``rekey_all()``. A forked child has the handler, too.

    Returns a function that restores the handler that was there before, unless ours has
    been replaced; calling it again changes nothing. Raises ``ValueError`` for an
    unknown signal, for one that no process can handle (SIGKILL), and in another thread
    than the main one (as does the function that is returned), and what ``rekey_all()``
    raises for wrong arguments. On the wire: what ``rekey_all()`` sends.
    """
    number = _number_of(signum)
    rounds = _Rounds(request_peer, per_second)
    previous = signal.signal(number, rounds.handle)

    def restore() -> None:
        if signal.getsignal(number) == rounds.handle:
            signal.signal(number, signal.SIG_DFL if previous is None else previous)

    return restore


def _number_of(signum: Union[str, int]) -> int:
    names = signal.Signals.__members__
    is_name = is_instance(signum, str)
    number: object = names.get(str.__str__(signum)) if is_name else signum
    is_number = is_instance(number, int) and not is_instance(number, bool)
    if not is_number or number not in signal.valid_signals():
        raise ValueError(
            f"on_signal(): there is no signal {name_of(signum)} here; there are "
            f"{', '.join(names)}"
        )
    if number in NEVER_HANDLED:
        raise ValueError(
            f"on_signal(): no process can handle {name_of(signum)}; choose another "
            "signal, such as SIGUSR2"
        )
    return int(number)  # type: ignore[call-overload, no-any-return]


class _Rounds:
    """Calls of ``rekey_all()``, one after the other."""

    def __init__(self, request_peer: bool, per_second: float) -> None:
        Rekeying("on_signal()", None, request_peer, per_second)  # checks them
        self._request_peer, self._per_second = request_peer, per_second
        self._pid = 0
        self._is_waiting = False

    def handle(self, number: int, _: Optional[FrameType]) -> None:
        """Handle the signal. ``_thread`` takes no lock that the program may hold."""
        if self._pid != os.getpid():  # whose threads are not here
            self._pid, self._is_waiting = os.getpid(), False
            self._turn = _thread.allocate_lock()
        if self._is_waiting:
            return
        self._is_waiting = True
        try:
            _thread.start_new_thread(self._run, (self._turn, number))
        except RuntimeError as error:  # no memory, or the interpreter is shutting down
            self._is_waiting = False
            note("ERROR", "no thread for rekey_all() on a signal", failure=error)

    def _run(self, turn: "_thread.LockType", number: int) -> None:
        with turn:
            self._is_waiting = False
            name = signal.Signals(number).name if number in _NAMED else str(number)
            try:
                result = rekey_all(
                    request_peer=self._request_peer, per_second=self._per_second
                )
                note("INFO", "rekey_all() on signal %s: %r", name, result)
            except BaseException as error:  # noqa: BLE001 (of the program's handlers)
                note("ERROR", "rekey_all() on signal %s failed", name, failure=error)


_NAMED = {*signal.Signals.__members__.values()}
