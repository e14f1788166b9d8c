"""Inspects objects of other people's classes without running their code.

Theory of operation. ``getattr()`` may run any code: a property that connects, a
``__getattr__`` that calls another machine (xmlrpc's proxies), a mock that has every
attribute. ``isinstance()`` reads ``__class__``, and a lazy object creates itself to
answer that. This module looks an attribute up where it is stored, as
``inspect.getattr_static()`` does: on the object's type and its bases, and in the
object's dict or slot. It returns only what Python itself stores there.
"""

import contextlib
import io
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any, Optional

NOTHING = object()

# These ignore what a metaclass may have put in their place.
bases_of = type.__dict__["__mro__"].__get__
names_of = type.__dict__["__dict__"].__get__
_module = type.__dict__["__module__"].__get__
_name = type.__dict__["__name__"].__get__


class _Probe:
    pass


_DESCRIBED = names_of(_Probe)["__dict__"].__doc__
"""The docstring of ``__dict__`` in a class that is written in Python."""
_WITH_A_DICT = BaseException, *bases_of(io.IOBase)
"""Types written in C from which derived classes inherit their dict."""

_BUFFER = names_of(io.TextIOWrapper)["buffer"]
_items: Any = dict.items
_SEQUENCES: tuple[Any, ...] = (list, tuple, deque)
_LARGEST = 100  # items of a container to look at: one or two pools of connections


def type_attribute(value: object, name: str) -> tuple[Optional[type], Any]:
    """Return the class that gives an object an attribute, and the value there."""
    for cls in bases_of(type(value)):
        if name in names_of(cls):
            return cls, names_of(cls)[name]
    return None, NOTHING


def has_attribute(value: object, name: str) -> bool:
    """Return whether an object's type has an attribute."""
    return type_attribute(value, name)[0] is not None


def has_methods(value: object, *names: str) -> bool:
    """Return whether an object's type has all of these as methods, not properties."""
    return all(
        has_attribute(type_attribute(value, name)[1], "__call__") for name in names
    )


def is_instance(value: object, *classes: type) -> bool:
    """Do what ``isinstance()`` does, but ignore the object's ``__class__``."""
    return issubclass(type(value), classes)


def class_name(value: object) -> tuple[str, str]:
    """Return the module and the name that an object's class says it has."""
    return kind_of(type(value))


def kind_of(cls: type) -> tuple[str, str]:
    """Return the module and the name that a class says it has."""
    return module_of(cls), _name(cls)


def module_of(cls: type) -> str:
    """Return the module that a class says it is in, or "" if it names none."""
    try:
        module = _module(cls)
    except AttributeError:  # deleted
        return ""
    return module if type(module) is str else ""  # it may be any object


def package_of(cls: type) -> str:
    """Return the name of the top-level package that a class says it is in."""
    return module_of(cls).partition(".")[0]


def packages_of(value: object) -> list[str]:
    """Return the packages of an object's class and of its bases."""
    return [package_of(cls) for cls in bases_of(type(value))]


def stored_attribute(value: object, name: str) -> Any:
    """Return what an object's dict, slot or type stores under a name.

    Return ``NOTHING`` if nothing is there, or if code would have to run to get it.
    """
    held = _instance_dict(value).get(name, NOTHING)
    if held is not NOTHING:
        return held
    found = type_attribute(value, name)[1]
    if _is_slot(found):
        return _in_slot(value, found)
    return NOTHING if has_attribute(found, "__get__") else found


def stored_parts(value: object, way: str) -> Iterator[tuple[str, Any]]:
    """Yield everything that an object stores, with the expression that leads to it.

    ``way`` is the expression for the object. Containers are copied first, because other
    threads may change them.
    """
    if type(value) is not FunctionType:  # a function's globals are the program's
        for name, held in (*_slots(value), *_start_of(_instance_dict(value).items())):
            yield f"{way}.{name}", held
    else:
        for number, cell in enumerate(value.__closure__ or ()):
            with contextlib.suppress(ValueError):  # an empty cell
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
    for cls in bases_of(type(value)):
        for name, found in names_of(cls).items():
            if _is_slot(found):
                yield name, _in_slot(value, found)


def _instance_dict(value: object) -> dict[str, Any]:
    """Return an object's dict, if Python itself keeps it.

    Other types written in C may compute their ``__dict__``: wrapt's proxies return
    another object's, and the lazy proxies create that object first.
    """
    slot = type_attribute(value, "__dict__")[1]
    is_pythons = type(slot) is GetSetDescriptorType and (
        slot.__doc__ == _DESCRIBED or slot.__objclass__ in _WITH_A_DICT
    )
    held = slot.__get__(value) if is_pythons else {}
    return held if type(held) is dict else {}  # a class has none


def _is_slot(found: Any) -> bool:
    """Return whether a descriptor only gives what the object stores.

    From Python 3.14 on a text file's ``buffer`` comes from a function of its type's.
    """
    return type(found) is MemberDescriptorType or found is _BUFFER


def _in_slot(value: object, slot: Any) -> Any:
    try:
        return slot.__get__(value)
    except AttributeError:  # nothing in it yet
        return None


def _is_plain(key: object) -> bool:
    """Return whether repr() of a key runs only Python's own code."""
    if type(key) is tuple:
        return all(map(_is_plain, key))
    return type(key) in {str, int, bytes, bool, type(None)}
