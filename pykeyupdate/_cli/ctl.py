"""Show and change a running process through its control socket.

The process must have called ``pykeyupdate.control.serve(PATH)``. Conditions choose
connections: ``--where 'version==TLSv1.2' --where 'sent.age_seconds>3600'``; ``==``,
``!=``, ``<``, ``<=``, ``>``, ``>=`` and ``~`` (contains) compare a field of
``connections --json`` with a value.
"""

import argparse
import contextlib
import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

from . import ctl_tables, inputs
from .exit_codes import CannotRun, program

_Answer = dict[str, Any]

_PATIENCE = 30.0  # seconds for an answer; `rekey` and `follow` may take any time
_BUSY = 5.0  # seconds to try again while the process has no room for a client
_LONGEST = 1 << 26  # bytes of an answer; a page has a few hundred thousand
_PAGE = 1000  # connections in one answer: the most that it gives
_CONDITION = re.compile(r"\s*([\w.]+)\s*(==|!=|<=|>=|<|>|~)\s*(.*?)\s*")
_CLEAR = "\x1b[H\x1b[2J"


def main(argv: list[str]) -> int:
    """Run one command at a control socket; return 0 if it was answered."""
    chosen = parser().parse_args(argv)
    with contextlib.closing(_Control(chosen.path)) as control:
        try:
            chosen.function(control, chosen)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise CannotRun(
                f"{chosen.path}: cannot read the answer ({error!r}); is the process's "
                "pykeyupdate of another version?"
            ) from error
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{program()} ctl",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", help="the path of the control socket")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)

    def add(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(function=function)
        command.add_argument(
            "--json", action="store_true", help="print the answers as they came"
        )
        return command

    def choose(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--where",
            action="append",
            type=_condition,
            metavar="CONDITION",
            help="only connections for which this, and each other condition, holds",
        )

    def arrange(command: argparse.ArgumentParser, sort: str, limit: int) -> None:
        choose(command)
        command.add_argument(
            "--sort",
            default=sort,
            metavar="FIELD",
            help=f"by this field; with `-`, the greatest first (--sort={sort})",
        )
        command.add_argument(
            "--limit", default=limit, type=int, help=f"rows at most ({limit})"
        )

    text = "list the managed connections"
    arrange(add("connections", _connections, text), "number", 10**6)
    add("totals", _totals, "show the counts of the process, and its keys' ages")
    add("policy", _policy, "show the policies and limits in force")
    rekey = add("rekey", _rekey, "get new keys on all connections, or on some")
    choose(rekey)
    rekey.add_argument(
        "--request-peer", action="store_true", help="ask the peers for new keys, too"
    )
    rekey.add_argument(
        "--per-second", type=float, default=1000.0, help="connections a second (1000)"
    )
    follow = add("follow", _follow, "print events as they come")
    follow.add_argument(
        "--event",
        action="append",
        metavar="KIND",
        help="only events of this kind (KEY_UPDATE_SENT, CUT_OFF, ...)",
    )
    top = add("top", _top, "show the connections with the oldest keys, again and again")
    arrange(top, "-sent.age_seconds", 20)
    top.add_argument(
        "--seconds", type=inputs.seconds, default=2.0, help="between two pictures (2)"
    )
    return parser


def _condition(text: str) -> list[Any]:
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no condition, such as version==TLSv1.2"
        )
    field, operator, value = found.groups()
    try:
        return [field, operator, json.loads(value)]
    except (ValueError, RecursionError):
        return [field, operator, value]


# -- the commands ----------------------------------------------------------------------


def _connections(control: "_Control", chosen: argparse.Namespace) -> None:
    answer = _list(control, chosen)
    _print(chosen, answer, ctl_tables.connections)


def _list(control: "_Control", chosen: argparse.Namespace) -> _Answer:
    """Return as many connections as are wanted, page by page."""
    wanted = {"do": "connections", "where": chosen.where, "sort": chosen.sort}
    answer = control.ask(**wanted, limit=min(chosen.limit, _PAGE))
    rows = answer["connections"]
    while len(rows) < min(chosen.limit, answer["total"]):
        limit = min(chosen.limit - len(rows), _PAGE)
        more = control.ask(**wanted, limit=limit, offset=len(rows))["connections"]
        if not more:
            break
        rows += more
    return answer


def _totals(control: "_Control", chosen: argparse.Namespace) -> None:
    _print(chosen, control.ask(do="totals"), ctl_tables.totals)


def _policy(control: "_Control", chosen: argparse.Namespace) -> None:
    _print(chosen, control.ask(do="policy"), ctl_tables.policy)


def _rekey(control: "_Control", chosen: argparse.Namespace) -> None:
    control.be_patient()
    answer = control.ask(
        do="rekey",
        where=chosen.where,
        request_peer=chosen.request_peer,
        per_second=chosen.per_second,
    )
    _print(chosen, answer, ctl_tables.rekeyed)


def _follow(control: "_Control", chosen: argparse.Namespace) -> None:
    control.ask(do="follow", events=chosen.event)
    control.be_patient()
    for event in control.answers():
        _print(chosen, event, ctl_tables.event)
        sys.stdout.flush()


def _top(control: "_Control", chosen: argparse.Namespace) -> None:
    while True:
        totals, rows = control.ask(do="totals"), _list(control, chosen)
        if chosen.json:
            print(json.dumps({**totals, **rows}))
        else:
            clear = _CLEAR if sys.stdout.isatty() else ""
            print(clear + ctl_tables.top(totals, rows))
        sys.stdout.flush()
        time.sleep(chosen.seconds)


def _print(chosen: argparse.Namespace, answer: _Answer, table: Any) -> None:
    print(json.dumps(answer) if chosen.json else table(answer))


# -- the socket ------------------------------------------------------------------------


class _Control:
    """A connection to a control socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        if not hasattr(socket, "AF_UNIX"):
            raise CannotRun("ctl needs Unix sockets, and this system has none")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_PATIENCE)
        with self._explained():
            self._connect()
        self._file = self._socket.makefile("rb")

    def _connect(self) -> None:
        ends = time.monotonic() + _BUSY
        while not self._is_connected():
            if time.monotonic() > ends:
                raise CannotRun(f"{self._path}: too many others want to connect")
            time.sleep(0.05)

    def _is_connected(self) -> bool:
        try:
            self._socket.connect(self._path)
        except BlockingIOError:
            return False
        return True

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except socket.timeout:
            text = f"no answer within {_PATIENCE:.0f} s; is the process stopped?"
        except (FileNotFoundError, ConnectionRefusedError):
            text = "no process serves it (pykeyupdate.control.serve())"
        except OSError as error:
            text = error.strerror or str(error)
        else:
            return
        raise CannotRun(f"{self._path}: {text}") from None

    def be_patient(self) -> None:
        """Wait for answers as long as it takes."""
        self._socket.settimeout(None)

    def ask(self, **request: Any) -> _Answer:
        """Send a request and return its answer."""
        with self._explained():
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        answer = next(self.answers())
        if answer.get("ok") is not True:
            raise self._is_foreign()
        return answer

    def answers(self) -> Iterator[_Answer]:
        """Yield lines; raise ``CannotRun`` for a refusal, and at the end."""
        while True:
            with self._explained():
                line = self._file.readline(_LONGEST)
            if not line:
                raise CannotRun(f"{self._path}: the process closed the connection")
            answer = self._parsed(line)
            if answer.get("ok") is False:
                raise CannotRun(f"{self._path}: {answer.get('error')}")
            yield answer

    def _parsed(self, line: bytes) -> _Answer:
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise self._is_foreign()
        return answer

    def _is_foreign(self) -> CannotRun:
        return CannotRun(f"{self._path}: what answers there is no control socket")

    def close(self) -> None:
        self._file.close()
        self._socket.close()
