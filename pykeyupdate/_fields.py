"""Fields of a named tuple that ``help()`` describes in the words of its class.

A class says once what its fields are, in its docstring: a line with the field's name,
and below it, indented, the words. ``described()`` gives them to the fields as well,
where ``help()`` would otherwise have "Alias for field number 0".
"""

from typing import Any, TypeVar

_T = TypeVar("_T", bound=type[tuple[Any, ...]])


def described(cls: _T) -> _T:
    """Give each field of a named tuple the words that its class's docstring has."""
    fields: tuple[str, ...] = cls._fields  # type: ignore[attr-defined]
    words: list[str] = []
    texts: dict[str, list[str]] = {}
    for line in map(str.strip, (cls.__doc__ or "").splitlines()):
        if line in fields or not line:
            words = texts.setdefault(line, [])
        else:
            words.append(line)
    for name in fields:
        getattr(cls, name).__doc__ = " ".join(texts.get(name, ()))
    return cls
