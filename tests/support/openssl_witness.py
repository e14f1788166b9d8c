"""Asks OpenSSL about a connection in another way than pykeyupdate does.

It reads the pointer with ctypes and finds the functions by itself, so that a mistake in
the extension cannot hide itself here. Nothing here changes a connection.
"""

import ctypes
import ssl
from typing import NamedTuple

from support import openssl_library

TLS1_2, TLS1_3 = 0x303, 0x304
SENT_SHUTDOWN, WRITING = 1, 2
NO_RENEGOTIATION = int(ssl.OP_NO_RENEGOTIATION)
_TOTAL_RENEGOTIATIONS = 12
_HEAD = object.__basicsize__
_WORD = ctypes.sizeof(ctypes.c_void_p)


class State(NamedTuple):
    """All of a connection that scheduling could change."""

    name: bytes
    init_finished: int
    version: int
    update_type: int
    renegotiating: int
    shutdown: int
    want: int
    has_pending: int
    is_server: int
    options: int
    renegotiations: int


def _function(name, result, *arguments):
    function = getattr(_LIBRARY, name)
    function.restype, function.argtypes = result, arguments
    return function


_LIBRARY = openssl_library.load(ctypes.PyDLL)


def _state_names():
    """Return a function that names a state: at least, whether it is SSLERR."""
    if not openssl_library.IS_HIDDEN:
        return _function("SSL_state_string", ctypes.c_char_p, ctypes.c_void_p)
    in_error = _function("ossl_statem_in_error", ctypes.c_int, ctypes.c_void_p)
    number = _function("SSL_get_state", ctypes.c_int, ctypes.c_void_p)
    return lambda pointer: b"SSLERR" if in_error(pointer) else b"%d" % number(pointer)


_OF_SSL = [
    _state_names(),
    _function("SSL_is_init_finished", ctypes.c_int, ctypes.c_void_p),
    _function("SSL_version", ctypes.c_int, ctypes.c_void_p),
    _function("SSL_get_key_update_type", ctypes.c_int, ctypes.c_void_p),
    _function("SSL_renegotiate_pending", ctypes.c_int, ctypes.c_void_p),
    _function("SSL_get_shutdown", ctypes.c_int, ctypes.c_void_p),
    _function("SSL_want", ctypes.c_int, ctypes.c_void_p),
    _function("SSL_has_pending", ctypes.c_int, ctypes.c_void_p),
    _function("SSL_is_server", ctypes.c_int, ctypes.c_void_p),
    _function("SSL_get_options", ctypes.c_uint64, ctypes.c_void_p),
]
_SSL_ctrl = _function(
    "SSL_ctrl",
    ctypes.c_long,
    *(ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p),
)
_SSL_get_ex_data = _function(
    "SSL_get_ex_data", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int
)
leftover_error = _function("ERR_peek_error", ctypes.c_ulong)
clear_errors = _function("ERR_clear_error", None)


def state(sslobj):
    """Return the State of an ``_ssl._SSLSocket`` that has an SSL."""
    pointer = ctypes.c_void_p.from_address(id(sslobj) + _HEAD + _WORD).value
    if not pointer or _SSL_get_ex_data(pointer, 0) != id(sslobj):
        raise SystemError(f"the witness cannot find the SSL of {sslobj!r}")
    return State(
        *[question(pointer) for question in _OF_SSL],
        _SSL_ctrl(pointer, _TOTAL_RENEGOTIATIONS, 0, None),
    )


def may_key_update(before, update_type):
    """Return whether a key update may be scheduled, by the manual and RFC 9846."""
    return (
        before.version == TLS1_3
        and before.init_finished
        and before.name != b"SSLERR"
        and not before.shutdown & SENT_SHUTDOWN
        and before.want != WRITING
        and (before.update_type == -1 or update_type == 0)
    )


def may_renegotiate(before):
    """Return whether a renegotiation may be scheduled (RFC 5746 is not asked)."""
    return (
        before.version <= TLS1_2
        and before.init_finished
        and before.name != b"SSLERR"
        and before.shutdown == 0
        and before.want != WRITING
        and (before.is_server or not before.has_pending)
        and not before.renegotiating
        and not before.options & NO_RENEGOTIATION
    )
