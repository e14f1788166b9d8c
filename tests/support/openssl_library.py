"""The functions of the OpenSSL in use, for ctypes.

A shared libssl is opened by its path; its libcrypto is in the handle's scope, except on
Windows, where each DLL answers for itself. Where OpenSSL is hidden in the interpreter,
pyelftools reads the symbol table of the file, so that a mistake of the extension's own
reader (ext/system/elf.c) cannot hide itself here.
"""

import ctypes
import functools
import sys

from pykeyupdate import _keyupdate

PATH = _keyupdate.libssl["path"]
IS_PROGRAM = PATH == "the program itself"
IS_HIDDEN = _keyupdate.libssl["found_by"].startswith("the symbol table")


def load(loader=ctypes.CDLL):
    """Return the library; ``ctypes.PyDLL`` makes functions that keep the GIL."""
    if IS_HIDDEN:
        return _Hidden(loader)
    if sys.platform == "win32":
        return _Both(loader(PATH), loader(PATH.replace("libssl", "libcrypto")))
    return loader(None if IS_PROGRAM else PATH)


class _Both:
    """Two libraries as one."""

    def __init__(self, *libraries):
        self._libraries = libraries

    def __getattr__(self, name):
        owner = next((lib for lib in self._libraries if hasattr(lib, name)), None)
        function = getattr(owner or self._libraries[0], name)
        setattr(self, name, function)
        return function


class _Hidden:
    """Like what ctypes loads: has each function as an attribute."""

    def __init__(self, loader):
        self._function = loader(None)._FuncPtr

    def __getattr__(self, name):
        offset = symbols().get(name)
        if offset is None:
            raise AttributeError(name)
        function = self._function(base() + offset)
        setattr(self, name, function)
        return function


@functools.cache
def symbols():
    """Return where the functions of the file lie in its object, by name."""
    from elftools.elf.elffile import ELFFile

    with open(sys.executable if IS_PROGRAM else PATH, "rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        return {
            symbol.name: symbol["st_value"]
            for symbol in table.iter_symbols()
            if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_value"]
        }


def base():
    """Return the address of the object, by the one function that proves itself."""
    return _keyupdate.addresses()["SSL_get_ex_data"] - symbols()["SSL_get_ex_data"]
