"""Another libssl than the one that is here: the extension's function table, edited.

The table lies in the state of the module `_keyupdate` (struct ku_libssl). An entry is
found by its value, the address of the function, and put back afterwards.
"""

import contextlib
import ctypes
import sys

from pykeyupdate import _keyupdate

WORD = ctypes.sizeof(ctypes.c_void_p)
WORDS_IN_STATE = 40

libssl = ctypes.CDLL(_keyupdate.libssl["path"])
libssl.ERR_peek_error.restype = ctypes.c_ulong
libssl.SSL_get_wbio.restype = ctypes.c_void_p
libssl.SSL_get_wbio.argtypes = [ctypes.c_void_p]
libssl.SSL_key_update.argtypes = [ctypes.c_void_p, ctypes.c_int]
libssl.BIO_ctrl.restype = ctypes.c_long
libssl.BIO_ctrl.argtypes = [
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_long,
    ctypes.c_void_p,
]
for _name in ("BIO_set_flags", "BIO_clear_flags"):
    getattr(libssl, _name).argtypes = [ctypes.c_void_p, ctypes.c_int]

Control = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


def pointer(connection):
    """Return the SSL* of a connection, as a number."""
    offset = object.__basicsize__ + WORD
    return ctypes.c_void_p.from_address(id(connection._sslobj) + offset).value


@contextlib.contextmanager
def replaced(old, new):
    """Have the table hold ``new`` where it holds the word ``old``."""
    get_state = ctypes.pythonapi.PyModule_GetState
    get_state.restype, get_state.argtypes = ctypes.c_void_p, [ctypes.py_object]
    state = get_state(sys.modules["pykeyupdate._keyupdate"])
    words = (ctypes.c_size_t * WORDS_IN_STATE).from_address(state)
    (index,) = (i for i, word in enumerate(words) if word == old)
    words[index] = new
    try:
        yield
    finally:
        words[index] = old


def without(name):
    """Have the library lack a function."""
    return replaced(address(getattr(libssl, name)), 0)


def instead_of(name, function):
    """Have ``function(SSL*, argument) -> int`` called in place of the library's."""
    control = Control(function)
    return replaced(address(getattr(libssl, name)), address(control))


def version(number):
    """Have the library be of another version."""
    return replaced(_keyupdate.libssl["version_number"], number)


def address(function):
    return ctypes.cast(function, ctypes.c_void_p).value
