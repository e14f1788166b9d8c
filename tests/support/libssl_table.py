"""Simulates another libssl: edits the extension's table of functions.

The table is in the state of the module `_keyupdate` (struct ku_libssl). An entry is
found by its value, the function's address, and restored afterwards.
"""

import contextlib
import ctypes

from pykeyupdate import _keyupdate

WORD = ctypes.sizeof(ctypes.c_void_p)
STATE_SIZE = object.__basicsize__ + 5 * WORD  # offset of m_size in PyModuleDef

libssl = ctypes.CDLL(_keyupdate.libssl["path"])
libssl.ERR_peek_error.restype = ctypes.c_ulong
libssl.SSL_get_wbio.restype = ctypes.c_void_p
libssl.SSL_get_wbio.argtypes = [ctypes.c_void_p]
libssl.SSL_key_update.argtypes = [ctypes.c_void_p, ctypes.c_int]
libssl.SSL_renegotiate.argtypes = [ctypes.c_void_p]
libssl.SSL_get_options.restype = ctypes.c_uint64
libssl.SSL_get_options.argtypes = [ctypes.c_void_p]
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
    """Return the SSL* of a connection, managed or not, as a number."""
    offset = object.__basicsize__ + WORD
    inner = getattr(connection._sslobj, "inner", connection._sslobj)
    return ctypes.c_void_p.from_address(id(inner) + offset).value


def state():
    """Return the state of the module, as an array of words."""
    of_module = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object)
    get_def = of_module(("PyModule_GetDef", ctypes.pythonapi))
    get_state = of_module(("PyModule_GetState", ctypes.pythonapi))
    size = ctypes.c_ssize_t.from_address(get_def(_keyupdate) + STATE_SIZE).value
    return (ctypes.c_size_t * (size // WORD)).from_address(get_state(_keyupdate))


@contextlib.contextmanager
def replaced(old, new):
    """Have the table hold ``new`` where it holds the word ``old``."""
    words = state()
    (index,) = (i for i, word in enumerate(words) if word == old)
    words[index] = new
    try:
        yield
    finally:
        words[index] = old


def without(name):
    """Have the library lack a function."""
    return replaced(address(getattr(libssl, name)), 0)


@contextlib.contextmanager
def instead_of(name, function):
    """Have ``function(SSL*, argument) -> int`` called in place of the library's."""
    control = Control(function)  # to be kept while C may call it
    with replaced(address(getattr(libssl, name)), address(control)):
        yield


def version(number):
    """Have the library be of another version."""
    return replaced(_keyupdate.libssl["version_number"], number)


def address(function):
    return ctypes.cast(function, ctypes.c_void_p).value
