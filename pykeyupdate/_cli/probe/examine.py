"""Everything that is tried with one host, in order, and what came of it."""

import functools
import socket
import ssl
from typing import Any, Callable, NamedTuple, Optional

from ... import PyKeyUpdateError
from . import checks, limits, stack, verdicts
from .checks import Baseline, Check, Connect
from .connection import Settings, connected
from .deadline import Deadline
from .failures import ProbeError
from .targets import Target
from .verdicts import Verdict

_STEPS = 3  # connections may take the whole time between them


class Report(NamedTuple):
    """What was found out about one host."""

    target: Target
    settings: Settings
    baseline: Optional[Baseline]  # of the newest version that the server has
    checks: list[Check]
    error: Optional[ProbeError]
    verdict: Verdict
    looks_like: str = ""

    def as_data(self) -> dict[str, Any]:
        """Return the report for ``--json``."""
        base = self.baseline
        return {
            "host": self.target.host,
            "port": self.target.port,
            "starttls": self.settings.starttls,
            "verified": None if base is None else not self.settings.insecure,
            "version": base and base.version,
            "cipher": base and base.cipher,
            "payload": base and base.payload.name,
            "answers": base and base.answers,
            "looks_like": self.looks_like or None,
            "checks": {
                check.name: {"result": check.result, "text": check.text, **check.facts}
                for check in self.checks
            },
            "error": self.error and {"kind": self.error.kind, "text": str(self.error)},
            "verdict": {
                "grade": self.verdict.grade,
                "text": self.verdict.text,
                "advice": self.verdict.advice,
            },
        }


def examine(target: Target, settings: Settings, say: Callable[[str], None]) -> Report:
    """Probe one host within the time that it may take."""
    whole = Deadline(settings.timeout)

    def connect(most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Any:
        deadline = Deadline(settings.timeout / _STEPS, whole)
        return connected(target, settings, deadline, most)

    examination = _Examination(connect, settings, say)
    base = error = None
    try:
        say("connecting")
        base = examination.measure(connect, settings.payload(target))
        examination.run(base)
    except ProbeError as failure:
        error = failure
    except socket.timeout:
        text = f"not done within {settings.timeout:.3g} s"
        error = ProbeError("timeout", text)
    done = examination.checks
    verdict = verdicts.of(base, done, error)
    looks_like = stack.guess(base, done) if base else ""
    return Report(target, settings, base, done, error, verdict, looks_like)


class _Examination:
    """The checks made so far, and how to make another."""

    def __init__(
        self, connect: Connect, settings: Settings, say: Callable[[str], None]
    ) -> None:
        self.checks: list[Check] = []
        self._connect = connect
        self._settings = settings
        self._say = say

    def measure(self, connect: Connect, payload: Any) -> Baseline:
        return checks.measure(connect, payload, min(3.0, self._settings.timeout / 4))

    def run(self, base: Baseline) -> None:
        """Make all checks that make sense with this server."""
        if base.version == "TLSv1.3":
            self._try("key_update", checks.key_update, base)
            if self.checks[-1].result != checks.ENDED:
                self._try("key_update_requested", checks.key_update_requested, base)
                self._try("several_updates", checks.several_updates, base)
                self._try_limits(base)
            self._run_older(base)
        else:
            self.checks.append(
                Check("tls13", checks.NO, f"not offered ({base.version} is)")
            )
            self._renegotiate(self._connect, base)
        self.checks.append(checks.certificate_asked(base))

    def _try_limits(self, base: Baseline) -> None:
        if self._settings.limits:
            self._try("limit_in_a_row", limits.updates_in_a_row, base)
            self._try("limit_with_data", limits.updates_between_data, base)
            self._try("update_behind_request", limits.update_behind_request, base)

    def _run_older(self, base: Baseline) -> None:
        """Renegotiate with a server that has TLS 1.2, too."""
        older = functools.partial(self._connect, ssl.TLSVersion.TLSv1_2)
        self._say("TLS 1.2")
        try:
            base_of_older = self.measure(older, base.payload)
        except ProbeError as error:
            offered = error.kind not in ("handshake", "closed")
            result = checks.NOT_TRIED if offered else checks.NO
            text = str(error) if offered else "not offered"
            self.checks.append(Check("tls12", result, text))
        except socket.timeout:
            self.checks.append(Check("tls12", checks.NOT_TRIED, "out of time"))
        else:
            self._renegotiate(older, base_of_older)

    def _renegotiate(self, connect: Connect, base: Baseline) -> None:
        self._try("rfc5746", checks.secure_renegotiation_known, base, connect)
        for name, full in (
            ("renegotiation_full", True),
            ("renegotiation_abbreviated", False),
        ):
            check = functools.partial(checks.renegotiation, full=full)
            self._try(name, check, base, connect)

    def _try(
        self,
        name: str,
        check: Callable[[Connect, Baseline], Check],
        base: Baseline,
        connect: Optional[Connect] = None,
    ) -> None:
        """Make a check; a server that lets no more connections in ends no other."""
        self._say(name.replace("_", " "))
        try:
            self.checks.append(check(connect or self._connect, base))
        except (ProbeError, PyKeyUpdateError) as error:
            self.checks.append(Check(name, checks.NOT_TRIED, str(error)))
        except socket.timeout:
            self.checks.append(Check(name, checks.NOT_TRIED, "out of time"))
