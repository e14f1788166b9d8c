"""The settings of ``run``: from its options, the environment and a TOML file.

Options come before the environment, and the environment before the file; each of
``policy``, ``limits`` and ``log`` comes from one of them as a whole.
"""

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ... import _running
from ..exit_codes import CannotRun

_NAMES = ("policy", "limits", "log")
LOGS = ("text", "json")
_WORDS: dict[str, Any] = {"none": None, "true": True, "false": False}


class Source(NamedTuple):
    """A setting, and what to call its place in a message."""

    name: str
    value: Any
    place: str


def gather(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the settings as plain data, checked as strictly as the classes do."""
    settings: dict[str, Any] = {"policy": {}, "limits": {}, "log": None}
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
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:  # TOMLDecodeError is a ValueError
        raise CannotRun(f"cannot read {path}: {error}") from None


def _checked(source: Source) -> Any:
    """Return a setting as plain data; raise CannotRun if the classes refuse it."""
    if source.name == "log":
        if source.value not in LOGS:
            raise CannotRun(f"{source.place} must be one of {', '.join(LOGS)}")
        return source.value
    make = _running.policy_of if source.name == "policy" else _running.limits_of
    try:
        fields = _fields(source.value)
        make(fields)
    except (TypeError, ValueError) as error:
        raise CannotRun(f"{source.place}: {error}") from None
    return fields


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
