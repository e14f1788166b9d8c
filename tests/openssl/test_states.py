"""ext/openssl/states.c: the names of OpenSSL's states, and their proof at import."""

import ctypes

import pytest
from support import libssl_table

from pykeyupdate import _keyupdate

StateString = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
state_string = libssl_table.libssl.SSL_state_string
state_string.restype = ctypes.c_char_p
state_string.argtypes = [ctypes.c_void_p]


def renamed(old, new):
    """Have the library call one state otherwise."""
    buffers = {}

    def rename(ssl):
        name = state_string(ssl)
        name = new if name.strip() == old else name
        return ctypes.addressof(buffers.setdefault(name, ctypes.c_buffer(name)))

    function = StateString(rename)
    manager = libssl_table.replaced(
        libssl_table.address(state_string), libssl_table.address(function)
    )
    manager.keeps = function  # while C may call it
    return manager


def test_states_are_proved_here():
    assert _keyupdate.prove_states() is True


@pytest.mark.parametrize("new", [b"OTHER", b"%sP"])
@pytest.mark.parametrize(
    "name", [b"PINIT", b"SSLOK", b"SSLERR", b"TWCKU", b"TWSKU", b"TRCKU", b"TRSKU"]
)
def test_a_state_of_another_name_is_refused(name, new):
    with renamed(name, new.replace(b"%s", name)):
        with pytest.raises(ImportError, match="names the states .* doctor"):
            _keyupdate.prove_states()
    assert _keyupdate.prove_states() is True


def test_a_library_without_key_updates_has_nothing_to_prove():
    with libssl_table.without("SSL_key_update"):
        assert _keyupdate.prove_states() is False


def test_the_proof_leaves_no_error_behind():
    _keyupdate.prove_states()
    assert libssl_table.libssl.ERR_peek_error() == 0
