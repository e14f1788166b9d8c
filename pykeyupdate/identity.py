"""Values beside objects of other people's classes, kept for as long as these live."""

import weakref
from typing import Any, Generic, Optional, TypeVar

Value = TypeVar("Value")


class IdentityMap(Generic[Value]):
    """A ``weakref.WeakKeyDictionary`` that goes by identity.

    A class of the user's may have an ``__eq__()`` and no ``__hash__()``, or slow ones.
    Thread-safe: every change is one operation on a dict.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Any], Value]] = {}

    def set(self, key: Any, value: Value) -> None:
        """Put a value beside an object."""
        number, entries = id(key), self._entries

        def forget(reference: "weakref.ref[Any]") -> None:
            entry = entries.get(number)
            if entry is not None and entry[0] is reference:
                del entries[number]

        entries[number] = (weakref.ref(key, forget), value)

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
