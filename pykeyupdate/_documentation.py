"""Where the documentation is, for the errors that lead to it."""

from typing import Optional

DOCUMENTATION = "https://pykeyupdate.readthedocs.io/en/stable/"


class Address:
    """The notes of an exception: where the documentation has a section on its class.

    A traceback shows them below the message (Python 3.11 and newer). They are made when
    they are asked for: an exception that is caught costs nothing more.
    """

    def __get__(self, error: Optional[BaseException], owner: type) -> list[str]:
        """Return the notes of an exception, or those that any of its class has."""
        name = next(cls.__name__ for cls in owner.__mro__ if _is_ours(cls))
        notes = [f"See {DOCUMENTATION}reference/errors.html#{name.lower()}"]
        if error is not None:
            vars(error)["__notes__"] = notes  # add_note() appends to them
        return notes


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == __name__.partition(".")[0]
