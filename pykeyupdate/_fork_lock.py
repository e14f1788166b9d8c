"""Locks of the process that signal handlers and forks may meet."""

import os
import threading


def make_lock() -> "threading.RLock":
    """Return a lock that is reentrant, and free in a child process.

    A signal handler may come while this very thread has it, and a thread that has it
    while another forks does not exist in the child.
    """
    lock = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lock.acquire,
            after_in_parent=lock.release,
            after_in_child=lock.release,
        )
    return lock
