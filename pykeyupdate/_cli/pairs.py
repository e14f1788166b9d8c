"""Measures two things in turns, in one run, and says how they compare.

Every second round takes them in the reverse order, so that other load on the machine
and what one leaves behind for the other affect both.
"""

from statistics import median, quantiles
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


def ratio_text(ratios: list[float]) -> str:
    """Return the median of ratios, and the quartiles that half of them lie between."""
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return f"{median(ratios):6.2f} ({low:.2f} to {high:.2f})"
