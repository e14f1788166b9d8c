"""Process-wide locks that are safe with signal handlers and forks."""

import os
import threading


def make_lock() -> "threading.RLock":
    """Return a lock that is reentrant, and free in a child process.

    A signal handler may run while its own thread holds the lock. And if one thread
    holds it while another forks, the holder does not exist in the child.
    """
    lock = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lock.acquire,
            after_in_parent=lock.release,
            after_in_child=lock.release,
        )
    return lock


importing = make_lock()
"""Held while a module is imported in the middle of a call, in whatever thread.

A child that was forked meanwhile could never import that module: Python keeps a lock
for each, and its holder does not exist in the child.
"""
