"""Measures how much memory a process gains by repeating something."""

import gc
import sys

BATCHES = 3


def _resident():
    """Return the process's memory in kilobytes, or 0 where that cannot be asked."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4
    except OSError:
        return 0


def gained(batch):
    """Return the blocks and the kilobytes that a batch gains, after a warm-up.

    Of several batches the least counts: a leak is in each of them, while caches, free
    lists and the allocator's arenas grow now and then.
    """
    gains = []
    for _ in range(BATCHES + 1):
        blocks, kilobytes = sys.getallocatedblocks(), _resident()
        batch()
        gc.collect()
        gains.append((sys.getallocatedblocks() - blocks, _resident() - kilobytes))
    return tuple(min(gain) for gain in zip(*gains[1:]))
