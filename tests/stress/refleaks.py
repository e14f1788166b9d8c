"""Count references before and after many calls, in a debug build of Python.

    python tests/stress refleaks  (a minute, on a debug build of Python)

The program repeats, in batches, each way in which a call can end, and subtracts what an
empty batch gains (the ssl module and this script leak too). The exit status is 1 if a
batch of 1000 calls keeps gaining references.
"""

import contextlib
import gc
import logging
import ssl
import sys

from fuzz import NAMES
from support import hostile
from support.world import (
    PERFORMING,
    Contexts,
    ManagedMemoryPair,
    ManagedPair,
    MemoryPair,
    SocketPair,
    connect,
    settle,
)

import pykeyupdate

CALLS = 1000
BATCHES = 6
TOLERANCE = 20  # references a batch; one leak in each call is a thousand

MANAGING = [
    pykeyupdate.stats,
    pykeyupdate.request_rekey,
    lambda conn: pykeyupdate.allow_renegotiation(conn).__enter__(),
]
FUNCTIONS = [getattr(pykeyupdate, name) for name in NAMES]


def quietly(function, *args, **kwargs):
    with contextlib.suppress(Exception, hostile.ForeignExit):
        function(*args, **kwargs)


def gained(step):
    """Return the fewest references that one batch of steps gained, of the last ones."""
    gains = []
    for _ in range(BATCHES):
        gc.collect()
        before = sys.gettotalrefcount()
        for _ in range(CALLS):
            step()
        gc.collect()
        gains.append(sys.gettotalrefcount() - before)
    return min(gains[BATCHES // 2 :])


def perform_update(pair):
    pykeyupdate.key_update(pair.ends[0], 1)
    pair.ends[0].do_handshake()
    settle(pair, rounds=1)


def handshake_only(pair):
    pair.ends[0].do_handshake()
    settle(pair, rounds=1)


def talk(pair):
    """Send and receive, and ask what is handed on to _ssl and what is refused."""
    near, far = pair.ends
    near.write(b"x" * 100)
    pair.carry(0)
    far.read(100)
    near.pending(), near.version(), near.getpeercert(), near.context
    for refused in (lambda: near.read(1), lambda: near.recv(-1), near.dup):
        quietly(refused)


def come_and_go(make, contexts):
    pair = connect(make(*contexts))
    pair.close()


def targets(contexts):
    """Return one target for each way in which a call can end, by name."""
    tls12, tls13 = contexts.quiet[0], contexts.quiet[3]
    forbidden = contexts.quiet[1]
    scheduled, closing = (connect(MemoryPair(*tls13)) for _ in range(2))
    renegotiating, closing12 = (connect(MemoryPair(*tls12)) for _ in range(2))
    pykeyupdate.key_update(scheduled.ends[0])
    pykeyupdate.renegotiate(renegotiating.ends[0])
    for pair in (closing, closing12):
        quietly(pair.ends[0].unwrap)
    goodbye = connect(MemoryPair(*tls12))
    pykeyupdate.rekey(goodbye.ends[1])
    quietly(goodbye.ends[0].unwrap)
    goodbye.carry(0)
    unconnected = ssl.SSLSocket.__new__(ssl.SSLSocket)
    return {
        "TLS 1.3": connect(MemoryPair(*tls13)).ends[0],
        "TLS 1.2": connect(MemoryPair(*tls12)).ends[0],
        "forbidden": connect(MemoryPair(*forbidden)).ends[0],
        "before the handshake": MemoryPair(*tls13).ends[0],
        "scheduled": scheduled.ends[0],
        "renegotiating": renegotiating.ends[0],
        "close_notify": closing.ends[0],
        "close_notify, TLS 1.2": closing12.ends[0],
        "the peer has said goodbye": goodbye.ends[1],
        "unconnected": unconnected,
        "managed, TLS 1.3": connect(ManagedPair(*tls13)).ends[0],
        "managed, TLS 1.2": connect(ManagedPair(*tls12)).ends[0],
        "managed object, TLS 1.3": connect(ManagedMemoryPair(*tls13)).ends[0],
        "managed object, TLS 1.2": connect(ManagedMemoryPair(*tls12)).ends[0],
        "None": None,
        "_sslobj is None": hostile.Gives(None),
        "_sslobj is an int": hostile.Gives(5),
        "made by hand": hostile.handmade(),
        "_sslobj raises": hostile.Raises(hostile.Foreign, "x"),
        "_sslobj exits": hostile.Raises(hostile.ForeignExit, "x"),
        "never connected": hostile.NeverConnected(lambda: False),
        "_connected raises": hostile.NeverConnected(hostile.raising(hostile.Foreign)),
        "repr raises": hostile.BadRepr(hostile.raising(hostile.Foreign)),
        "repr exits": hostile.BadRepr(hostile.raising(hostile.ForeignExit)),
    }


def steps(contexts):
    """Yield a name, a step, and the step without pykeyupdate to compare it with."""
    for name, target in targets(contexts).items():
        for function in FUNCTIONS + PERFORMING + MANAGING:
            yield (
                f"{getattr(function, '__name__', function)}({name})",
                lambda function=function, target=target: quietly(function, target),
                lambda target=target: quietly(len, target),
            )
    conn = connect(MemoryPair(*contexts.quiet[3])).ends[0]
    for value in (-1, 2, 2**70, None, "x", hostile.Integer(7)):
        yield (
            f"key_update(conn, {type(value).__name__})",
            lambda value=value: quietly(pykeyupdate.key_update, conn, value),
            lambda value=value: quietly(len, value),
        )
    for args, kwargs in [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1})]:
        for function in FUNCTIONS:
            yield (
                f"{function.__name__}(*{args}, **{kwargs})",
                lambda f=function, a=args, k=kwargs: quietly(f, *a, **k),
                lambda a=args, k=kwargs: quietly(len, *a, **k),
            )
    for managed, stock in ((ManagedPair, SocketPair), (ManagedMemoryPair, MemoryPair)):
        yield from steps_of_pairs(managed, stock, contexts.quiet[3])
    pair, other = (connect(MemoryPair(*contexts.quiet[3])) for _ in range(2))
    yield (
        "key_update() and do_handshake()",
        lambda: perform_update(pair),
        lambda: handshake_only(other),
    )


def steps_of_pairs(managed, stock, contexts):
    """Yield what is compared between a kind of managed pair and a stock one.

    Twelve of them, as their rules go round: some keep to them, some are refused.
    """
    ours = [connect(managed(*contexts)) for _ in range(12)]
    theirs = [connect(stock(*contexts)) for _ in range(12)]
    for number, (our, their) in enumerate(zip(ours, theirs)):
        yield (
            f"{managed.__name__} {number}",
            lambda our=our: quietly(talk, our),
            lambda their=their: quietly(talk, their),
        )
    yield (
        f"{managed.__name__}s that come and go",
        lambda: come_and_go(managed, contexts),
        lambda: come_and_go(stock, contexts),
    )
    for pair in ours + theirs:
        pair.close()


def main():
    if not hasattr(sys, "gettotalrefcount"):
        print("refleaks needs a debug build of Python")
        return 77  # see __main__.py
    logging.disable()
    leaks = count = 0
    for name, step, baseline in steps(Contexts(on_message=None, on_name=None)):
        count += 1
        excess = gained(step)
        if excess > TOLERANCE:
            excess -= gained(baseline)
        if excess > TOLERANCE:
            leaks += 1
            print(f"LEAK: {name} gains {excess} references in {CALLS} calls")
    print(
        f"{count} cases, {leaks} of them leak, {BATCHES} batches of {CALLS} calls each"
    )
    return int(leaks > 0)


if __name__ == "__main__":
    sys.exit(main())
