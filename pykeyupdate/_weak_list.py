"""A list of other people's objects that does not keep them alive."""

import os
import weakref
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class WeakList(Generic[Item]):
    """Objects for as long as they live: 8 bytes for each that has a weak reference.

    Like ``IdentityMap`` it compares nothing and has no callbacks; dead entries are
    removed when more are added. Thread-safe, and nobody waits for anybody: to remove
    the dead may end the life of some more, whose finalizers may do anything, wait for a
    lock of the program's for instance. So whoever finds another thread, or a call of
    its own, removing the dead leaves it at that.
    """

    _FEW = 64

    def __init__(self) -> None:
        self._references: list[weakref.ref[Any]] = []
        self._many = self._FEW
        self._forked()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self._turns = [True]  # to be taken by pop(), which is one operation

    def add(self, item: Item) -> None:
        """Add an object that is not in the list."""
        self._references.append(weakref.ref(item))
        if len(self._references) >= self._many:
            self._remove_the_dead()

    def _remove_the_dead(self) -> None:
        """Replace the present part of the list in one go: others append meanwhile."""
        turns = self._turns
        try:
            turns.pop()
        except IndexError:
            return
        try:
            present = list(self._references)
            living = [reference for reference in present if reference() is not None]
            self._references[: len(present)] = living
            self._many = max(self._FEW, 2 * len(living))
        finally:
            turns.append(True)

    def references(self) -> "list[weakref.ref[Any]]":
        """Return weak references to all, oldest first, and to some that are dead."""
        return list(self._references)
