"""The settings of ``run``: from its options, the environment and a TOML file.

Options come before the environment, and the environment before the file; each setting
comes from one of them as a whole.
"""

import argparse
import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple

from ... import _running
from ..._signal_handlers import NEVER_HANDLED
from .. import inputs
from ..exit_codes import CannotRun

_NAMES = ("policy", "limits", "log", "control", "signal")
LOGS = ("text", "json")
_WORDS: dict[str, Any] = {"none": None, "true": True, "false": False}


class Source(NamedTuple):
    """A setting, and what to call its place in a message."""

    name: str
    value: Any
    place: str


def gather(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the settings as plain data, checked as strictly as the classes do."""
    settings: dict[str, Any] = {**dict.fromkeys(_NAMES), "policy": {}, "limits": {}}
    found: dict[str, Source] = {}
    for source in (*_of_file(chosen), *_of_environment(), *_of_options(chosen)):
        found[source.name] = source
    for source in found.values():
        settings[source.name] = _checked(source)
    return settings


def _of_options(chosen: argparse.Namespace) -> Iterator[Source]:
    for name in _NAMES:
        value = getattr(chosen, name)
        if value is not None:
            yield Source(name, value, f"--{name}")


def _of_environment() -> Iterator[Source]:
    for name in _NAMES:
        variable = f"PYKEYUPDATE_{name.upper()}"
        if variable in os.environ:
            yield Source(name, os.environ[variable], variable)


def _of_file(chosen: argparse.Namespace) -> Iterator[Source]:
    path = chosen.config or os.environ.get("PYKEYUPDATE_CONFIG")
    if not path:
        return
    data = _read(path)
    for table in ("tool", "pykeyupdate"):  # as in pyproject.toml
        if Path(path).name == "pyproject.toml" or table in data:
            data = data.get(table, {})
            if not isinstance(data, dict):
                raise CannotRun(f"{path}: {table} must be a table, not {data!r}")
    for name, value in data.items():
        if name not in _NAMES:
            raise CannotRun(
                f"{path}: there is no setting {name!r}, only {', '.join(_NAMES)}"
            )
        yield Source(name, value, f"{path}: {name}")


def _read(path: str) -> Any:
    try:
        import tomllib
    except ImportError:
        try:
            import tomli as tomllib  # type: ignore[import-not-found, no-redef]
        except ImportError:
            raise CannotRun(
                "a TOML file needs Python 3.11 or the package tomli; without, use "
                "options or PYKEYUPDATE_POLICY and PYKEYUPDATE_LIMITS"
            ) from None
    text = inputs.read_text(path)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise CannotRun(f"cannot read {path!r}: {error}") from None


def _checked(source: Source) -> Any:
    """Return a setting as plain data; raise CannotRun if the classes refuse it."""
    try:
        return _CHECKS[source.name](source.value)
    except (TypeError, ValueError) as error:
        raise CannotRun(f"{source.place}: {error}") from None


def _policy(value: Any) -> Any:
    fields = _fields(value)
    _running.policy_of(fields)
    return fields


def _limits(value: Any) -> Any:
    fields = _fields(value)
    _running.limits_of(fields)
    return fields


def _log(value: Any) -> Any:
    if value not in LOGS:
        raise ValueError(f"must be one of {', '.join(LOGS)}, not {value!r}")
    return value


def _control(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        raise TypeError(f"must be a path, not {value!r}")
    if not hasattr(socket, "AF_UNIX"):
        raise ValueError("this system has no Unix sockets")
    return value


def _signal(value: Any) -> Any:
    name = f"SIG{str(value).upper().replace('SIG', '', 1)}"
    if name not in signal.Signals.__members__:
        raise ValueError(f"there is no signal {value!r} here")
    if signal.Signals[name] in NEVER_HANDLED:
        raise ValueError(f"no process can handle {value!r}")
    return name


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "policy": _policy,
    "limits": _limits,
    "log": _log,
    "control": _control,
    "signal": _signal,
}


def _fields(value: Any) -> Any:
    """Return the fields of a table, or of a text like ``anssi,request_peer=true``."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, str):
        raise TypeError(f"must be a table or a text, not {value!r}")
    if value.strip().lower() == "none":
        return None
    fields: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in value.split(","))):
        name, equals, text = (piece.strip() for piece in part.partition("="))
        if not equals:
            name, text = "preset", name
        if name in fields:
            raise ValueError(f"{name} is given twice")
        fields[name] = _value(text)
    return fields


def _value(text: str) -> Any:
    """Return what a text means: a number, true, false, none, or the text itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
