"""Which cases there are, and the right result of each."""

import functools
import os
import ssl

import pykeyupdate

from . import calls, loops, pairs, scenes
from .scenes import Case

ALLOWED = (
    pykeyupdate.PyKeyUpdateError,
    OSError,
    ValueError,
    NotImplementedError,
    DeprecationWarning,  # where warnings are errors
)
SENDING = {"rekey", "key_update"}
NOTHING_DONE = "nothing was done"
NO_BASELINE = {"event", "log", "impossible"}  # which ssl's own connections have not
HARMLESS = {"event", "log"}  # what they raise hurts nobody


def is_allowed(error):
    """Return whether a call may raise this: trio and anyio have errors of their own."""
    return isinstance(error, ALLOWED) or type(error).__name__.endswith("ResourceError")


# -- which cases there are -------------------------------------------------------------


@functools.cache
def calls_of(carrier, managed):
    """Return the calls that are crossed with the callbacks of such a connection."""
    found = dict(calls.functions())
    if managed and carrier == "socket":
        found.update(calls.methods(pykeyupdate.SSLSocket))
    elif managed:
        found.update(calls.methods(pykeyupdate.SSLObject))
    if carrier in loops.NAMES:
        found.update(calls.coroutines())
    return found


def _has_psk(carrier, version, role):
    """In a loop's first message a client's own callback cannot know its connection."""
    is_first = version == "tls13" and role == 0
    return getattr(ssl, "HAS_PSK", False) and not (is_first and carrier in loops.NAMES)


def moments_of(carrier, managed, version, role):
    for moment in pairs.MOMENTS:
        waits = moment.startswith("signal in")
        if (
            (waits and carrier != "socket")
            or (moment == "signal" and carrier == "socket")
            or (moment == "sni" and role != 1)
            or (moment == "psk" and not _has_psk(carrier, version, role))
            or (moment in NO_BASELINE and not managed)
            or (moment == "impossible" and version == "tls13")
        ):
            continue
        yield moment


def ways_of(moment, *, loops):
    """Yield on which connection the call is made, and what the callback does then."""
    yield "own", "return"
    yield "other", "return"
    if moment not in scenes.FINALIZERS and not (loops and moment == "signal"):
        yield "own", "raise"  # what they raise is nobody's, and the loop's
    if moment in scenes.SIGNALS and hasattr(os, "fork"):
        yield "own", "fork"


def all_cases(carriers):
    return [
        Case(carrier, managed, version, role, moment, call, *way)
        for carrier, managed in carriers
        for version in scenes.VERSIONS
        for role in (0, 1)
        for moment in moments_of(carrier, managed, version, role)
        for call in calls_of(carrier, managed)
        for way in ways_of(moment, loops=carrier in loops.NAMES)
    ]


def carriers():
    """Return kinds of connections, and whether they are managed."""
    both = [(name, kind) for name in ("socket", "object") for kind in (True, False)]
    return both + [(name, True) for name in loops.NAMES]


# -- playing and judging, in a child ---------------------------------------------------


class Judge:
    """Plays cases, and others to compare them with."""

    def __init__(self, certificates, folder):
        self.certificates, self.folder = certificates, folder
        self.play_without = functools.lru_cache(maxsize=None)(self.play)

    def play(self, case):
        do = calls_of(case.carrier, case.managed)[case.call] if case.call else None
        play = loops.play if case.carrier in loops.NAMES else pairs.play
        return play(case, do, self.certificates, self.folder)

    def judge(self, case):
        """Play a case; return how its call ended, and what is wrong."""
        result = self.play(case)
        after = (
            "return" if case.after == "fork" or case.moment in HARMLESS else case.after
        )
        without = self.play_without(case._replace(call="", target="own", after=after))
        wrong = list(self._of_call(case, result, without))
        if result.child_status is not None:
            if result.child_status:
                wrong.append(f"the child's exit status is {result.child_status:#x}")
        elif calls.word(case.call) not in calls.ENDING:
            wrong += self._of_connections(case, result, without)
        error = result.error
        return "done" if error is None else type(error).__name__, wrong, result.is_child

    def _of_call(self, case, result, without):
        error = result.error
        if not result.sprung:
            yield "the callback was not called"
        if error is not None and not is_allowed(error):
            yield f"the call raised {error!r}"
        if result.child_status is not None:
            return
        target = result.own if case.target == "own" else result.other
        usual = without.own if case.target == "own" else without.other
        peer = 1 - case.role
        more = {
            key: count - usual.heard[key]
            for key, count in target.heard.items()
            if key[0] == peer and key[1] and count != usual.heard[key]
        }
        if error is not None and NOTHING_DONE in str(error) and more:
            yield f"{error!r}, and the peer has heard {more}"
        does = (
            case.call and calls.word(case.call) in SENDING and case.version == "tls13"
        )
        if (
            does
            and error is None
            and not more
            and result.sprung
            and not target.failures
        ):
            yield "the call returned, and the peer has heard of no new keys"

    def _of_connections(self, case, result, without):
        raises = case.after == "raise"
        if raises and case.moment not in NO_BASELINE:
            without = self.play_without(
                case._replace(managed=False, call="", target="own")
            )
            if case.carrier in loops.NAMES and without.own.came_out:
                if loops.hangs(result):
                    yield "it hangs"
                return  # for the rest: the loop has closed it over what came out
            if case.managed and without.own.came_out and not result.own.came_out:
                yield (
                    "what the callback raised came out of nothing; with ssl's own "
                    f"connection it comes out of {without.own.came_out}"
                )
        elif raises and case.moment == "impossible" and not result.own.came_out:
            yield "what on_impossible raised came out of nothing"
        for seen, usual, which in (
            (result.own, without.own, "own"),
            (result.other, without.other, "other"),
        ):
            if not usual.failures:
                yield from (f"{which}: {name}: {e!r}" for name, e in seen.failures)
            if not usual.lost:
                yield from (f"{which}: {loss}" for loss in seen.lost)
