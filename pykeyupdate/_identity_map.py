"""A map from other people's objects to values that does not keep the objects alive."""

import weakref
from typing import Any, Generic, Optional, TypeVar

Value = TypeVar("Value")


class IdentityMap(Generic[Value]):
    """A ``weakref.WeakKeyDictionary`` that compares by identity and has no callbacks.

    It compares by identity because a user's class may define ``__eq__()`` and no
    ``__hash__()``. It has no callbacks because a signal handler may run in the callback
    of a weak reference, where its exception is lost. Instead, dead entries are removed
    when more are added. Thread-safe: every change is one operation on a dict.
    """

    _FEW = 64

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Any], Value]] = {}
        self._many = self._FEW

    def set(self, key: Any, value: Value) -> None:
        """Set an object's value."""
        self._entries[id(key)] = (weakref.ref(key), value)
        self._forget_if_many()

    def setdefault(self, key: Any, value: Value) -> Value:
        """Return an object's value; first set it, if the object has none."""
        entry = self._entries.setdefault(id(key), (weakref.ref(key), value))
        if entry[0]() is not key:  # it was that of a dead object
            self.set(key, value)
            return value
        self._forget_if_many()
        return entry[1]

    def _forget_if_many(self) -> None:
        if len(self._entries) >= self._many:
            self._forget_the_dead()
            self._many = max(self._FEW, 2 * len(self._entries))

    def get(self, key: Any) -> Optional[Value]:
        """Return an object's value, or None."""
        entry = self._entries.get(id(key))
        return entry[1] if entry is not None and entry[0]() is key else None

    def remove(self, key: Any) -> None:
        """Remove an object's value, if it has one."""
        self._entries.pop(id(key), None)

    def keys(self) -> list[Any]:
        """Return the objects that are still alive."""
        keys = [reference() for reference, _ in list(self._entries.values())]
        return [key for key in keys if key is not None]

    def _forget_the_dead(self) -> None:
        for number, entry in list(self._entries.items()):
            if entry[0]() is None and self._entries.get(number) is entry:
                self._entries.pop(number, None)
