"""Measures two things in turns, in one run, and says how they compare.

Every second round takes them in the reverse order, so that other load on the machine
and what one leaves behind for the other affect both.
"""

from typing import Callable

Pairs = list[tuple[float, float]]


def take_turns(
    ours: Callable[[], float], theirs: Callable[[], float], rounds: int
) -> Pairs:
    """Return what both measured in each round."""
    pairs = []
    for number in range(rounds):
        if number % 2:
            other = theirs()
            pairs.append((ours(), other))
        else:
            own = ours()
            pairs.append((own, theirs()))
    return pairs
