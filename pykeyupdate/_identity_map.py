"""Values beside objects of other people's classes, kept for as long as these live."""

import weakref
from typing import Any, Generic, Optional, TypeVar

Value = TypeVar("Value")


class IdentityMap(Generic[Value]):
    """A ``weakref.WeakKeyDictionary`` that goes by identity, and calls nobody.

    A class of the user's may have an ``__eq__()`` and no ``__hash__()``. And the code
    that a weak reference calls when its object dies is one in which a signal handler
    may run, whose exception is then lost: here what is dead goes when more is added.
    Thread-safe: every change is one operation on a dict.
    """

    _FEW = 64

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Any], Value]] = {}
        self._many = self._FEW

    def set(self, key: Any, value: Value) -> None:
        """Put a value beside an object."""
        self._entries[id(key)] = (weakref.ref(key), value)
        if len(self._entries) >= self._many:
            self._forget_the_dead()
            self._many = max(self._FEW, 2 * len(self._entries))

    def get(self, key: Any) -> Optional[Value]:
        """Return what was put beside an object, or None."""
        entry = self._entries.get(id(key))
        return entry[1] if entry is not None and entry[0]() is key else None

    def remove(self, key: Any) -> None:
        """Take it away, if there is any."""
        self._entries.pop(id(key), None)

    def keys(self) -> list[Any]:
        """Return the objects that there are."""
        keys = [reference() for reference, _ in list(self._entries.values())]
        return [key for key in keys if key is not None]

    def _forget_the_dead(self) -> None:
        for number, entry in list(self._entries.items()):
            if entry[0]() is None and self._entries.get(number) is entry:
                self._entries.pop(number, None)
