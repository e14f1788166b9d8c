"""A list of other people's objects that does not keep them alive."""

import weakref
from typing import Any, Generic, TypeVar

from ._fork_lock import make_lock

Item = TypeVar("Item")


class WeakList(Generic[Item]):
    """Objects for as long as they live: 8 bytes for each that has a weak reference.

    Like ``IdentityMap`` it compares nothing and has no callbacks; dead entries are
    removed when more are added. Thread-safe. A signal handler, or a finalizer, that
    adds an object while its own thread removes the dead ones is in nobody's way.
    """

    _FEW = 64

    def __init__(self) -> None:
        self._references: list[weakref.ref[Any]] = []
        self._many = self._FEW
        self._lock = make_lock()
        self._is_removing = False

    def add(self, item: Item) -> None:
        """Add an object that is not in the list."""
        self._references.append(weakref.ref(item))
        if len(self._references) >= self._many:
            with self._lock:
                self._remove_the_dead()

    def _remove_the_dead(self) -> None:
        """Replace the present part of the list in one go: others append meanwhile."""
        if self._is_removing:
            return
        self._is_removing = True
        try:
            present = list(self._references)
            living = [reference for reference in present if reference() is not None]
            self._references[: len(present)] = living
            self._many = max(self._FEW, 2 * len(living))
        finally:
            self._is_removing = False

    def references(self) -> "list[weakref.ref[Any]]":
        """Return weak references to all, oldest first, and to some that are dead."""
        return list(self._references)
