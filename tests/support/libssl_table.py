"""Simulates another libssl: edits the extension's table of functions.

The table is in the state of the module `_keyupdate` (struct ku_libssl). It is found by
its values, the functions' addresses, and restored afterwards.
"""

import contextlib
import ctypes

from pykeyupdate import _keyupdate
from support import openssl_library

WORD = ctypes.sizeof(ctypes.c_void_p)
STATE_SIZE = object.__basicsize__ + 5 * WORD  # offset of m_size in PyModuleDef

libssl = openssl_library.load()
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


def _word_of(words, values):
    """Return the index at which some words stand one after the other."""
    values = list(values)
    (index,) = (i for i in range(len(words)) if words[i : i + len(values)] == values)
    return index


_TABLE = _word_of(state(), _keyupdate.addresses().values())
_VERSION = _word_of(state(), [_keyupdate.libssl["version_number"]])


@contextlib.contextmanager
def _replaced(index, new):
    words = state()
    old = words[index]
    words[index] = new
    try:
        yield
    finally:
        words[index] = old


def replaced(name, new):
    """Have the table hold the address ``new`` for a function."""
    return _replaced(_TABLE + list(_keyupdate.addresses()).index(name), new)


def without(name):
    """Have the library lack a function."""
    return replaced(name, 0)


@contextlib.contextmanager
def instead_of(name, function):
    """Have ``function(SSL*, argument) -> int`` called in place of the library's."""
    control = Control(function)  # to be kept while C may call it
    with replaced(name, address(control)):
        yield


def refuses_updates():
    """Have the library refuse key updates for now, as a coming one does that wants time
    between two: TOO_MANY_KEY_UPDATES. Answers to the peer it does not hold back."""

    def refuse(pointer, update_type):
        if hasattr(libssl, "ERR_put_error"):
            libssl.ERR_put_error(20, 0, 132, b"", 0)
        else:
            libssl.ERR_new()
            libssl.ERR_set_error(20, 132, None)
        return 0

    return instead_of("SSL_key_update", refuse)


def version(number):
    """Have the library be of another version."""
    return _replaced(_VERSION, number)


def learnt_numbers():
    """Return SSL_get_state() of a KeyUpdate, sent by client and server, and read by
    these; of a ticket that is read, and of a ClientHello that is sent."""
    behind = _VERSION * WORD + ctypes.sizeof(ctypes.c_ulong)  # half a word on Windows
    _ktls, *numbers = (ctypes.c_int * 7).from_buffer(state(), behind)
    return numbers


def address(function):
    return ctypes.cast(function, ctypes.c_void_p).value
