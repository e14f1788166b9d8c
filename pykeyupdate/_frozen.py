"""``@dataclass(frozen=True, init=False)`` without ``dataclasses``.

Importing ``dataclasses`` takes as long as importing half of this package. A class that
is decorated here behaves as if ``dataclasses`` had made it. A program that uses
``dataclasses`` on it (``replace()``, ``fields()``, ``asdict()``) has imported that, and
only then is it needed.
"""

import sys
from typing import Any, Callable, NoReturn, TypeVar

_T = TypeVar("_T")


def dataclass(**_: bool) -> Callable[[type[_T]], type[_T]]:
    """Do what ``dataclasses.dataclass(frozen=True, init=False)`` does."""
    return _complete


def _complete(cls: type[_T]) -> type[_T]:
    names = tuple(cls.__annotations__)
    functions = _comparing(names) + _refusing(cls, names)
    if sys.version_info >= (3, 13):
        functions.append(_replacing(names))
    for function in functions:
        if function.__name__ == "__repr__" and "__repr__" in vars(cls):
            continue
        function.__qualname__ = f"{cls.__qualname__}.{function.__name__}"
        setattr(cls, function.__name__, function)
    if sys.version_info >= (3, 10):
        setattr(cls, "__match_args__", names)  # noqa: B010
    for name in ("__dataclass_fields__", "__dataclass_params__"):
        setattr(cls, name, _MadeLater(cls, name))
    return cls


def _comparing(names: tuple[str, ...]) -> list[Any]:
    def values(self: object) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in names)

    def __repr__(self: object) -> str:  # noqa: N807
        parts = (f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({', '.join(parts)})"

    def __eq__(self: object, other: object) -> Any:  # noqa: N807
        if other.__class__ is not self.__class__:
            return NotImplemented
        return values(self) == values(other)

    def __hash__(self: object) -> int:  # noqa: N807
        return hash(values(self))

    return [__repr__, __eq__, __hash__]


def _refusing(cls: Any, names: tuple[str, ...]) -> list[Any]:
    def __setattr__(self: object, name: str, value: object) -> None:  # noqa: N807
        if type(self) is cls or name in names:
            _refuse("assign to", name)
        super(cls, self).__setattr__(name, value)

    def __delattr__(self: object, name: str) -> None:  # noqa: N807
        if type(self) is cls or name in names:
            _refuse("delete", name)
        super(cls, self).__delattr__(name)

    return [__setattr__, __delattr__]


def _replacing(names: tuple[str, ...]) -> Any:
    def __replace__(self: object, /, **changes: Any) -> Any:  # noqa: N807
        return type(self)(**{name: getattr(self, name) for name in names} | changes)

    return __replace__


def _refuse(verb: str, name: str) -> NoReturn:
    import dataclasses

    raise dataclasses.FrozenInstanceError(f"cannot {verb} field {name!r}")


class _MadeLater:
    """An attribute that ``dataclasses`` looks for, made by it."""

    def __init__(self, cls: type, name: str) -> None:
        self._cls, self._name = cls, name

    def __get__(self, instance: object, owner: object) -> Any:
        import dataclasses

        fields = list(self._cls.__annotations__.items())
        made = dataclasses.make_dataclass(self._cls.__name__, fields, frozen=True)
        return getattr(made, self._name)
