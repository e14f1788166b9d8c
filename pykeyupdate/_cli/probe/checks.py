"""The checks: each on a connection of its own, so that none spoils another.

Each returns a ``Check``. What a check proves depends on whether the server answers the
payload: the first connection, on which no key changes, finds that out.
"""

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Optional

from ... import (
    AlreadyPendingError,
    renegotiate,
    renegotiate_abbreviated,
    secure_renegotiation,
    wait_for_renegotiation,
)
from .connection import Connection, Ended
from .failures import CLIENT_CERTIFICATE_ALERTS, ProbeError, wants_certificate
from .payloads import Payload

ACCEPTED, ENDED, REFUSED = "accepted", "ended", "refused"
UNSEEN, NOT_TRIED = "unseen", "not tried"
YES, NO = "yes", "no"
TWICE = 2
TOO_FEW = "the server takes too few requests on a connection"
_SEVERAL = 4  # updates; GnuTLS takes eight a second
_GREETING = 0.3  # seconds for a server that speaks first
_QUIET = 0.3  # seconds, and some round trips, for what comes by itself

Connect = Callable[..., "contextlib.AbstractContextManager[Connection]"]


class Check(NamedTuple):
    """The outcome of a check, for people and (``facts``) for programs."""

    name: str
    result: str
    text: str
    facts: dict[str, Any] = {}  # noqa: RUF012 (nobody changes it)


class Baseline(NamedTuple):
    """A connection on which no key changes: what the others are compared with."""

    version: str
    cipher: str
    greets: bool
    answers: int  # 0, 1 or 2 in turn on one connection
    answer_time: float
    banner: bytes
    round_trip: float
    certificate_asked: Optional[str]
    hello_requests: int
    payload: Payload

    @property
    def patience(self) -> float:
        """Seconds in which an answer must have come."""
        return max(2.0, 20 * self.answer_time)

    @property
    def quiet(self) -> float:
        """Seconds after which nothing more is expected to come by itself."""
        return _QUIET + 3 * self.round_trip


def measure(connect: Connect, payload: Payload, patience: float) -> Baseline:
    """Connect, say the payload twice, and see what the server does.

    Raises ``ProbeError`` if the server wants to be told nothing at all.
    """
    with connect() as connection:
        tls, witness = connection.tls, connection.witness
        version, cipher = tls.version() or "", (tls.cipher() or ("",))[0]
        greeting = _greeting(connection)
        banner = greeting
        times: list[float] = []
        with contextlib.suppress(Ended):
            while len(times) < (1 if payload.is_once else TWICE):
                begin = time.perf_counter()
                answer = connection.exchange(payload, patience)
                if not answer:
                    break
                times.append(time.perf_counter() - begin)
                banner = banner or answer
        if not times and witness.alert in CLIENT_CERTIFICATE_ALERTS:
            raise wants_certificate(witness.alert)
        return Baseline(
            version=version,
            cipher=cipher,
            greets=bool(greeting),
            answers=len(times),
            answer_time=max(times, default=0.0),
            banner=banner,
            round_trip=connection.round_trip,
            certificate_asked=witness.asked_for_certificate(),
            hello_requests=len(witness.times("HelloRequest")),
            payload=payload,
        )


def _greeting(connection: Connection) -> bytes:
    """Return what a server says that speaks first."""
    try:
        return connection.wait(_GREETING + 2 * connection.round_trip, lambda: False)
    except Ended as end:
        if end.ending.alert in CLIENT_CERTIFICATE_ALERTS:
            raise wants_certificate(end.ending.alert) from end
        raise ProbeError(
            "closed", f"the server ended the connection after its handshake: {end}"
        ) from end


def key_update(connect: Connect, base: Baseline) -> Check:
    """Change our keys, and see whether data still gets an answer."""
    with ready(connect, base) as connection:
        try:
            connection.change_keys()
            return _after_update(connection, base, "key_update")
        except Ended as end:
            return _ended("key_update", end, "after one KeyUpdate")


def key_update_requested(connect: Connect, base: Baseline) -> Check:
    """Ask the server for new keys, too, and see when it answers."""
    name = "key_update_requested"
    with ready(connect, base) as connection:
        try:
            begin = connection.change_keys(request_peer=True)
            return _after_request(connection, base, begin)
        except Ended as end:
            return _ended(name, end, "after a KeyUpdate that asks for one")


def _after_request(connection: Connection, base: Baseline, begin: float) -> Check:
    name, requested = "key_update_requested", begin

    def times() -> list[float]:  # a server may have changed its keys by itself before
        return [at for at in connection.witness.times("KeyUpdate") if at > requested]

    connection.wait(base.quiet, lambda: bool(times()))
    at_once = bool(times())
    if not at_once:
        begin = time.perf_counter()
    check = _after_update(connection, base, name)
    if check.result == ENDED:
        return check
    if not times():
        if check.result == UNSEEN:
            text = f"no answer within {base.quiet:.1f} s; some give it with their data"
            return check._replace(text=text, facts={"answered": None})
        text = "its data came, but no answer to the request (RFC 9846 demands one)"
        return check._replace(result=REFUSED, text=text, facts={"answered": False})
    taken = times()[0] - begin
    how = "at once" if at_once else "with its next data"
    text = f"answered {how}, in {taken * 1e3:.1f} ms"
    facts: dict[str, Any] = {
        "answered": True,
        "at_once": at_once,
        "seconds": taken,
        **check.facts,
    }
    intact = "; data intact" if check.result == ACCEPTED else ""
    return Check(name, ACCEPTED, text + intact, facts)


def several_updates(connect: Connect, base: Baseline) -> Check:
    """Change our keys some times, with data in between if the server answers twice."""
    name = "several_updates"
    with ready(connect, base) as connection:
        begin = time.perf_counter()
        done = 0
        try:
            for _ in range(_SEVERAL):
                connection.change_keys()
                done += 1
                if base.answers >= TWICE:
                    connection.exchange(base.payload, base.patience)
            taken = time.perf_counter() - begin
            check = _after_update(connection, base, name)
        except Ended as end:
            if base.answers >= TWICE and ends_anyway(connect, base, _SEVERAL + 1):
                return Check(name, NOT_TRIED, TOO_FEW)
            return _ended(name, end, f"after {done} KeyUpdates")
        between = "with data in between" if base.answers >= TWICE else "in a row"
        text = f"{_SEVERAL} {between} in {taken * 1e3:.0f} ms: {check.text}"
        return check._replace(text=text, facts={"updates": done, "seconds": taken})


def ends_anyway(connect: Connect, base: Baseline, count: int) -> bool:
    """Return whether a server ends the connection after so many requests alone."""
    with ready(connect, base) as connection:
        try:
            for _ in range(count):
                connection.exchange(base.payload, base.patience)
        except Ended:
            return True
        return False


def secure_renegotiation_known(connect: Connect, base: Baseline) -> Check:
    """Ask whether the server knows RFC 5746."""
    name = "rfc5746"
    with ready(connect, base) as connection:
        if secure_renegotiation(connection.tls):
            return Check(name, YES, "secure renegotiation is supported")
        text = "not supported: renegotiation would be insecure, and is not tried"
        return Check(name, NO, text)


def renegotiation(connect: Connect, base: Baseline, *, full: bool) -> Check:
    """Renegotiate, and see whether the server agrees, and if not, how it says so."""
    name = "renegotiation_full" if full else "renegotiation_abbreviated"
    with ready(connect, base) as connection:
        tls = connection.tls
        if not secure_renegotiation(tls):
            return Check(name, NOT_TRIED, "insecure without RFC 5746")
        begin = time.perf_counter()
        call = renegotiate if full else renegotiate_abbreviated
        try:
            connection.past_data(lambda _: call(tls), base.patience)
            connection.past_data(
                lambda left: wait_for_renegotiation(tls, left), base.patience
            )
        except AlreadyPendingError:
            return Check(name, NOT_TRIED, "the server is renegotiating by itself")
        except socket.timeout:
            text = f"ignored for {base.patience:.1f} s"
            return Check(name, REFUSED, text, {"how": "ignored"})
        except Ended as end:
            text = f"ends the connection: {end}"
            facts: dict[str, Any] = {"how": "ended", "alert": end.ending.alert}
            return Check(name, REFUSED, text, facts)
        taken = time.perf_counter() - begin
        resumed = ", by a full handshake" if not full and not tls.session_reused else ""
        try:
            check = _after_update(connection, base, name)
        except Ended as end:
            return _ended(name, end, "after the renegotiation")
        text = f"accepted in {taken * 1e3:.1f} ms{resumed}: {check.text}"
        facts = {"seconds": taken, "resumed": tls.session_reused}
        return Check(name, ACCEPTED, text, facts)


def certificate_asked(base: Baseline) -> Check:
    """Tell when the first connection was asked for a client certificate."""
    name = "client_certificate"
    if base.certificate_asked == "later":
        return Check(name, YES, "asked for in mid-connection")
    if base.certificate_asked:
        return Check(name, YES, "asked for in the first handshake")
    if base.hello_requests:
        return Check(name, YES, "the server renegotiates by itself")
    return Check(name, NO, "not asked for")


@contextlib.contextmanager
def ready(connect: Connect, base: Baseline) -> Iterator[Connection]:
    """Connect, and take the greeting and the session tickets.

    Raises ``ProbeError`` if the server, which let the first connection in, ends this
    one before anything was tried: a check must not be blamed for that.
    """
    with connect() as connection:
        seconds = base.patience if base.greets else base.quiet / 3
        try:
            data = b""
            while not data and seconds > 0:
                data = connection.receive(min(seconds, 0.1))
                seconds -= 0.1
        except Ended as end:
            text = f"the server ended this connection at once: {end}"
            raise ProbeError("closed", text) from end
        yield connection


def _after_update(connection: Connection, base: Baseline, name: str) -> Check:
    """Say whether the connection still works. Raises ``Ended``."""
    if not base.answers:
        connection.wait(base.quiet, lambda: False)
        text = f"the connection stayed open for {base.quiet:.1f} s; no data was tried"
        return Check(name, UNSEEN, text)
    if connection.exchange(base.payload, base.patience):
        return Check(name, ACCEPTED, "data intact")
    text = f"no answer any more within {base.patience:.1f} s"
    return Check(name, ENDED, text, {"how": "silence"})


def _ended(name: str, end: Ended, when: str) -> Check:
    facts: dict[str, Any] = {"how": end.ending.text, "alert": end.ending.alert}
    return Check(name, ENDED, f"ended {when}: {end}", facts)
