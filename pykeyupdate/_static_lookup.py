"""Looking at objects of other people's classes without running their code.

Theory of operation. ``getattr()`` asks whatever answers: a property that connects, a
``__getattr__`` that makes a call to another machine (xmlrpc's proxies), a mock that has
every attribute there is; ``isinstance()`` asks ``__class__``, which a lazy object makes
itself for. Here an attribute is looked up where it stands, on the classes of the type
and in the dict or the slot of the object, as ``inspect.getattr_static()`` does, and
only what Python itself keeps there is taken out.
"""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any, Optional

NOTHING = object()

# what a metaclass may have put in their place is passed over
_bases = type.__dict__["__mro__"].__get__
_names = type.__dict__["__dict__"].__get__
_module = type.__dict__["__module__"].__get__
_name = type.__dict__["__name__"].__get__

_items: Any = dict.items
_SEQUENCES: tuple[Any, ...] = (list, tuple, deque)
_LARGEST = 100  # how much of a container is looked at: a pool of connections, or two


def type_attribute(value: object, name: str) -> tuple[Optional[type], Any]:
    """Return the class that gives an object an attribute, and what stands there."""
    for cls in _bases(type(value)):
        if name in _names(cls):
            return cls, _names(cls)[name]
    return None, NOTHING


def has_attribute(value: object, name: str) -> bool:
    """Return whether an object's type has an attribute."""
    return type_attribute(value, name)[0] is not None


def has_methods(value: object, *names: str) -> bool:
    """Return whether an object's type has all of these, and none is a property."""
    return all(
        has_attribute(type_attribute(value, name)[1], "__call__") for name in names
    )


def is_instance(value: object, *classes: type) -> bool:
    """Return ``isinstance()``, by the type alone."""
    return issubclass(type(value), classes)


def class_name(value: object) -> tuple[object, str]:
    """Return the module and the name that an object's class says it has."""
    return _module(type(value)), _name(type(value))


def package_of(cls: type) -> str:
    """Return the name of the top-level package that a class says it is of."""
    module = _module(cls)
    return module.partition(".")[0] if type(module) is str else ""


def packages_of(value: object) -> list[str]:
    """Return the packages of an object's class and of its bases."""
    return [package_of(cls) for cls in _bases(type(value))]


def stored_attribute(value: object, name: str) -> Any:
    """Return what stands in an object's dict or slot, or as it is on its type.

    ``NOTHING`` where there is nothing, or where code would have to run for it.
    """
    held = _instance_dict(value).get(name, NOTHING)
    if held is not NOTHING:
        return held
    found = type_attribute(value, name)[1]
    if type(found) is MemberDescriptorType:
        return _in_slot(value, found)
    return NOTHING if has_attribute(found, "__get__") else found


def stored_parts(value: object, way: str) -> Iterator[tuple[str, Any]]:
    """Give all that stands in an object, each with the expression that leads to it.

    ``way`` is the expression for the object. Of a copy, as other threads go on.
    """
    if type(value) is not FunctionType:  # its globals are the program's
        for name, held in (*_slots(value), *_start_of(_instance_dict(value).items())):
            yield f"{way}.{name}", held
    else:
        for number, cell in enumerate(value.__closure__ or ()):
            with contextlib.suppress(ValueError):  # an empty one
                yield f"{way}.__closure__[{number}].cell_contents", cell.cell_contents
    for kind in _SEQUENCES:
        if is_instance(value, kind):
            for number, held in enumerate(_start_of(kind.__iter__(value))):
                yield f"{way}[{number}]", held
    if is_instance(value, dict):
        for number, (key, held) in enumerate(_start_of(_items(value))):
            by_number = f"list({way}.values())[{number}]"
            yield f"{way}[{key!r}]" if _is_plain(key) else by_number, held


def _start_of(iterable: Iterable[Any]) -> list[Any]:
    try:
        return [*islice(iterable, _LARGEST)]
    except RuntimeError:  # another thread has changed it meanwhile
        return []


def _slots(value: object) -> Iterator[tuple[str, Any]]:
    for cls in _bases(type(value)):
        for name, found in _names(cls).items():
            if type(found) is MemberDescriptorType:
                yield name, _in_slot(value, found)


def _instance_dict(value: object) -> dict[str, Any]:
    slot = type_attribute(value, "__dict__")[1]
    held = slot.__get__(value) if type(slot) is GetSetDescriptorType else {}
    return held if type(held) is dict else {}  # a class has none


def _in_slot(value: object, slot: Any) -> Any:
    try:
        return slot.__get__(value)
    except AttributeError:  # nothing in it yet
        return None


def _is_plain(key: object) -> bool:
    """Return whether repr() of it runs nobody's code."""
    if type(key) is tuple:
        return all(map(_is_plain, key))
    return type(key) in {str, int, bytes, bool, type(None)}
