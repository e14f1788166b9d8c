"""What can be asked at a control socket: requests and answers in JSON.

A request is an object with the name of a command in ``do``, and the command's
arguments. An answer is a generator, as ``_line_server.py`` wants it.
"""

import heapq
import json
import operator
import os
import re
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterator
from itertools import islice
from typing import Any, Callable, NamedTuple, NoReturn, Optional

from . import _arguments
from ._connections import FIELDS, ConnectionInfo, connections, snapshot
from ._describing import address_text
from ._events import Event, EventKind, on_event
from ._for_all import BREATH, PER_SECOND, Filter, Rekeying
from ._managed_classes import Defaults
from ._policy import PeerLimits, RekeyPolicy
from ._stats import Counts, KeyUse, totals

Answer = Iterator["bytes | float | None"]
_Keyed = tuple[Any, int, ConnectionInfo]

MOST_ROWS = 1000
_MOST_CONDITIONS = 20
_MOST_OFFSET = 1_000_000
_MOST_BRACKETS = 100  # four times what a request with all conditions has
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_RUN, _MOST_RUNS = 1000, 8  # rows that are sorted at once; runs before they become one
_MOST_EVENTS = 1000  # that a follower may be behind
_TURN = 0.005  # seconds between two looks whether it is one's turn

_GROUPS: dict[str, Any] = {"sent": KeyUse, "received": KeyUse, "counts": Counts}
_FIELDS: dict[str, Callable[[ConnectionInfo], Any]] = {
    path: operator.attrgetter(path)
    for name in FIELDS
    for path in (
        [f"{name}.{inner}" for inner in _GROUPS[name]._fields]
        if name in _GROUPS
        else [name]
    )
}


def _contains(value: object, part: str) -> bool:
    return part in str(value)


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "~": _contains,
}


class RefusedError(Exception):
    """The request is not answered; the text says why."""


def line(**answer: object) -> bytes:
    """Return an answer as a line."""
    return json.dumps(answer, default=str).encode() + b"\n"


def refusal(text: str) -> bytes:
    """Return the answer to a request that is refused."""
    return line(ok=False, error=text)


class Commands:
    """Answers requests."""

    def __init__(self) -> None:
        self.feed = _Feed()
        self._lists: deque[_Rows] = deque()  # that are made or to be made

    def respond(self, request: bytes) -> Answer:
        """Return the answer to a line."""
        try:
            values = _parse(request)
            command = _COMMANDS.get(str(values.pop("do", None)))
            if command is None:
                _refuse(f"`do` must be one of {', '.join(_COMMANDS)}")
            unknown = [name for name in values if name not in command.arguments]
            if unknown:
                takes = ", ".join(command.arguments) or "no arguments"
                _refuse(
                    f"unknown argument {unknown[0]!r}: {command.name} takes {takes}"
                )
            yield from command.function(self, **values)
        except (RefusedError, TypeError, ValueError) as error:
            yield refusal(str(error))

    # -- each of them ------------------------------------------------------------------

    def connections(
        self,
        where: Any = None,
        sort: Any = "number",
        limit: Any = 100,
        offset: Any = 0,
    ) -> Answer:
        which = _filter(where)
        rows = _Rows(sort, _whole(limit, "limit", MOST_ROWS), offset)
        self._lists.append(rows)
        try:
            while self._lists[0] is not rows:
                yield _TURN
            made = yield from self._make_list(which, rows)
        finally:
            self._lists.remove(rows)
        yield made

    @staticmethod
    def _make_list(
        which: Optional[Filter], rows: "_Rows"
    ) -> Generator[float, None, bytes]:
        """Return a list. One at a time is made.

        With thousands of objects for each of many clients, Python's garbage collector
        would stop all threads for a tenth of a second and more.
        """
        count = 0
        for info in connections():
            if which is None or which(info):
                rows.add(info)
                count += 1
            yield 0.0
        parts = []
        for chosen in rows.chosen():
            if chosen is not None:
                parts.append(json.dumps(_row(chosen), default=str))
            yield 0.0
        head = json.dumps({"ok": True, "pid": os.getpid(), "total": count})
        return f'{head[:-1]}, "connections": [{", ".join(parts)}]}}\n'.encode()

    def totals(self) -> Answer:
        yield line(ok=True, pid=os.getpid(), totals=_plain(totals()))

    def policy(self) -> Answer:
        """Tell the rules for new connections, and those of the live ones."""
        in_force: dict[int, list[Any]] = {}
        for info in connections():
            rules = getattr(info.connection, "_rules", None)
            if rules is not None:
                in_force.setdefault(id(rules), [rules, 0])[1] += 1
            yield 0.0
        default = Defaults.rules
        yield line(
            ok=True,
            pid=os.getpid(),
            default=_rules(default.policy, default.limits),
            in_force=[
                {**_rules(rules.policy, rules.limits), "connections": count}
                for rules, count in in_force.values()
            ],
        )

    def rekey(
        self, where: Any = None, request_peer: Any = False, per_second: Any = PER_SECOND
    ) -> Answer:
        tour = Rekeying("rekey", _filter(where), request_peer, per_second)
        for ahead in tour.steps():
            yield ahead if ahead > BREATH else 0.0
        result = tour.result()
        yield line(
            ok=True,
            pid=os.getpid(),
            done=result.done,
            waiting=result.waiting,
            impossible=result.impossible,
            obstacles=result.obstacles,
        )

    def follow(self, events: Any = None) -> Answer:
        """Tell events as they come, until the client goes or cannot follow."""
        follower = _Follower(_kinds(events))
        self.feed.add(follower)
        try:
            follows = [kind.name for kind in follower.kinds]
            yield line(ok=True, pid=os.getpid(), follows=follows)
            while True:
                while follower.behind:
                    yield follower.behind.popleft().line()
                if follower.is_lost:
                    _refuse(f"more than {_MOST_EVENTS} events behind; follow again")
                yield None
        finally:
            self.feed.remove(follower)

    def help(self) -> Answer:
        yield line(
            ok=True,
            commands={name: list(it.arguments) for name, it in _COMMANDS.items()},
            fields=list(_FIELDS),
            operators=list(_OPERATORS),
            events=[kind.name for kind in EventKind],
        )


class _Command(NamedTuple):
    name: str
    function: Callable[..., Answer]
    arguments: tuple[str, ...]


_COMMANDS = {
    name: _Command(name, function, function.__code__.co_varnames[1:count])
    for name in ("connections", "totals", "policy", "rekey", "follow", "help")
    for function in [vars(Commands)[name]]
    for count in [function.__code__.co_argcount]
}


# -- requests --------------------------------------------------------------------------


def _refuse(text: str) -> NoReturn:
    raise RefusedError(text)


def _refuse_constant(text: str) -> NoReturn:
    _refuse(f"{text} is no number of JSON's")


def _parse(request: bytes) -> dict[str, Any]:
    """Return the object in a line.

    ``json`` calls itself for what is nested, and notices too late where the threads'
    stacks are small (128 kB on musl): the process would be gone.
    """
    if len(re.findall(rb"[\[{]", _STRING.sub(b"", request))) > _MOST_BRACKETS:
        _refuse(f"a request has at most {_MOST_BRACKETS} lists and objects")
    try:
        values = json.loads(request.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RefusedError(
            f"a request is a JSON object in one line ({error})"
        ) from None
    if not isinstance(values, dict):
        _refuse(f"a request is a JSON object, not {type(values).__name__}")
    return values


def _whole(value: Any, name: str, most: int) -> int:
    wanted = f"a whole number from 0 to {most}"
    number = _arguments.check_number(
        "request", name, value, wanted, lambda it: 0 <= it <= most and it == int(it)
    )
    return int(number)


def _filter(where: Any) -> Optional[Filter]:
    """Return the function that tells whether all conditions hold."""
    if where is None or where == []:
        return None
    if not isinstance(where, list) or len(where) > _MOST_CONDITIONS:
        _refuse(f"where must be a list of at most {_MOST_CONDITIONS} conditions")
    checks = [_condition(it) for it in where]
    return lambda info: all(check(info) for check in checks)


def _condition(given: Any) -> Callable[[ConnectionInfo], bool]:
    example = '["sent.age_seconds", ">", 3600]'
    if not isinstance(given, list) or len(given) != 3:  # noqa: PLR2004
        _refuse(f"a condition is a field, an operator and a value, such as {example}")
    field, operation, value = given
    get, compare = _field(field), _OPERATORS.get(str(operation))
    if compare is None:
        _refuse(f"unknown operator {operation!r}: there are {' '.join(_OPERATORS)}")
    if compare is _contains:
        value = str(value)  # once: it may be a long list

    def holds(info: ConnectionInfo) -> bool:
        try:
            return bool(compare(get(info), value))
        except TypeError:  # nothing to compare
            return False

    return holds


def _field(name: Any) -> Callable[[ConnectionInfo], Any]:
    get = _FIELDS.get(str(name))
    if get is None:
        _refuse(f"unknown field {name!r}: there are {', '.join(_FIELDS)}")
    return get if name != "peer" else lambda info: address_text(info.peer)


def _kinds(names: Any) -> list[EventKind]:
    if names is None:
        return list(EventKind)
    known = EventKind.__members__
    if not isinstance(names, list) or not all(str(name) in known for name in names):
        _refuse(f"events must be a list of some of {', '.join(known)}")
    return [known[name] for name in names]


class _Rows:
    """Chooses the rows of a sorted list from ``offset``.

    It sorts short runs and merges them at the end, row by row: the program's threads
    wait while a list is sorted, and there may be very many connections. Of the first
    rows, it keeps hardly any more than are wanted.
    """

    def __init__(self, sort: Any, limit: int, offset: Any) -> None:
        name = str(sort)
        self._is_descending = name.startswith("-")
        self._get = _field(name.lstrip("-"))
        self._offset = _whole(offset, "offset", _MOST_OFFSET)
        self._most = limit + self._offset
        self._run: list[_Keyed] = []
        self._runs: list[list[_Keyed]] = []

    def add(self, info: ConnectionInfo) -> None:
        value = self._get(info)
        # those without a value come last
        key = ((value is None) ^ self._is_descending, 0 if value is None else value)
        self._run.append((key, info.number, info))
        if len(self._run) >= _RUN:
            self._end_run()

    def _end_run(self) -> None:
        self._run.sort(reverse=self._is_descending)
        self._runs.append(self._run[: self._most])
        self._run = []
        if self._most <= _RUN and len(self._runs) >= _MOST_RUNS:
            self._run = [it for run in self._runs for it in run]
            self._runs = []
            self._end_run()

    def chosen(self) -> "Iterator[ConnectionInfo | None]":
        """Yield the rows, and None for each one before them."""
        self._end_run()
        merged = heapq.merge(*self._runs, reverse=self._is_descending)
        for place, (_, _, info) in enumerate(islice(merged, self._most)):
            yield info if place >= self._offset else None


# -- answers ---------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Return NamedTuples as objects with their fields."""
    if hasattr(value, "_asdict"):
        return {name: _plain(field) for name, field in value._asdict().items()}
    return value


def _row(info: ConnectionInfo) -> dict[str, Any]:
    row = {name: _plain(value) for name, value in info.as_dict().items()}
    return {**row, "peer": address_text(info.peer)}


def _rules(
    policy: Optional[RekeyPolicy], limits: Optional[PeerLimits]
) -> dict[str, Any]:
    return {
        "policy": None if policy is None else vars(policy),
        "limits": None if limits is None else vars(limits),
    }


# -- events ----------------------------------------------------------------------------


class _Report:
    """What is told of an event. The thread that reads or writes makes it."""

    def __init__(self, event: Event) -> None:
        self._at = time.time()
        self._kind, _, *self._rest = event
        self._info = snapshot(weakref.ref(event.connection))
        self._line: Optional[bytes] = None

    def line(self) -> bytes:
        """Return it as a line, which all followers share."""
        if self._line is None:
            self._line = line(
                event=self._kind.name,
                at=self._at,
                connection=self._about(),
                **dict(zip(Event._fields[2:], self._rest)),
            )
        return self._line

    def _about(self) -> Optional[dict[str, Any]]:
        info = self._info
        if info is None:
            return None
        names = ["number", "label", "peer", "role", "server_name", "version", "cipher"]
        about = {name: getattr(info, name) for name in names}
        return {**about, "peer": address_text(info.peer)}


class _Follower:
    """A client that wants events, and those that it has not been told yet."""

    def __init__(self, kinds: list[EventKind]) -> None:
        self.kinds = kinds
        self.behind: deque[_Report] = deque()
        self.is_lost = False

    def add(self, report: _Report) -> None:
        self.is_lost = self.is_lost or len(self.behind) >= _MOST_EVENTS
        if not self.is_lost:
            self.behind.append(report)


class _Feed:
    """Gives events to all followers, by one handler, which costs as little as it can.

    Followers come and go in the thread that serves.
    """

    def __init__(self) -> None:
        self.wake: Callable[[], None] = lambda: None
        self._followers: tuple[_Follower, ...] = ()
        self._stop: Callable[[], None] = lambda: None

    def add(self, follower: _Follower) -> None:
        self._followers += (follower,)
        if len(self._followers) == 1:
            self._stop = on_event(self._tell)

    def remove(self, follower: _Follower) -> None:
        self._followers = tuple(it for it in self._followers if it is not follower)
        if not self._followers:
            self._stop()

    def _tell(self, event: Event) -> None:
        report = None
        for follower in self._followers:
            if event.kind in follower.kinds:
                report = report or _Report(event)
                follower.add(report)
        if report is not None:
            self.wake()
