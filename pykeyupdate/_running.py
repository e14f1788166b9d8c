"""What ``pykeyupdate run`` does inside the program that it runs, before it begins.

The settings come in an environment variable, so that all processes of the program have
them; ``pykeyupdate run`` has checked them with the functions here.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any, Optional, Union

from . import control
from ._installation import install
from ._policy import PeerLimits, RekeyPolicy

VARIABLE = "PYKEYUPDATE_RUN"
FIRST = "PYKEYUPDATE_RUN_FIRST"  # the process that the user has started
_PRESETS = ("rfc9846", "anssi", "niap", "tiny")

Fields = Optional[dict[str, Any]]


def begin(environment: Mapping[str, str]) -> None:
    """Install what the environment says, if it says anything."""
    text = environment.get(VARIABLE)
    if text is None:
        return
    settings = json.loads(text)
    if settings["log"]:
        from . import _running_log

        _running_log.start(settings["log"])
    policy, limits = policy_of(settings["policy"]), limits_of(settings["limits"])
    install(managed=True, policy=policy, limits=limits)
    if settings["signal"]:
        control.on_signal(settings["signal"])
    if settings["control"]:
        _serve_control(settings["control"], environment)


def _serve_control(path: str, environment: Mapping[str, str]) -> None:
    """Serve a control socket: in each process, if the path has a place for its ID."""
    if "{pid}" not in path:
        if environment.get(FIRST) == str(os.getpid()):
            control.serve(path)
        return

    def serve() -> None:
        control.serve(path.replace("{pid}", str(os.getpid())))

    serve()
    os.register_at_fork(after_in_child=serve)


def policy_of(fields: Fields) -> Optional[RekeyPolicy]:
    """Return the policy with these fields, and those of its ``preset``.

    ``None`` is no policy. Raises what ``RekeyPolicy()`` raises, and ``ValueError`` for
    a name that is no field or preset.
    """
    if fields is None:
        return None
    others = dict(fields)
    preset = others.pop("preset", None)
    _check_names(RekeyPolicy, others, ["preset"])
    if preset is None:
        return RekeyPolicy(**others)
    if preset not in _PRESETS:
        raise ValueError(f"preset must be one of {', '.join(_PRESETS)}, not {preset!r}")
    policy: RekeyPolicy = getattr(RekeyPolicy, preset)(**others)
    return policy


def limits_of(fields: Fields) -> Optional[PeerLimits]:
    """Return the limits with these fields; ``None`` is no limits. Raises as above."""
    if fields is None:
        return None
    _check_names(PeerLimits, fields, [])
    return PeerLimits(**fields)


def _check_names(
    kind: Union[type[RekeyPolicy], type[PeerLimits]],
    fields: Mapping[str, Any],
    others: list[str],
) -> None:
    known = [field.name for field in dataclasses.fields(kind)]
    for name in fields:
        if name not in known:
            raise ValueError(
                f"{kind.__name__} has no {name!r}; it has {', '.join(others + known)}"
            )
