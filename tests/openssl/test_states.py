"""ext/openssl/states.c: states by name and by number, and their proof at import."""

import contextlib
import ctypes
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from support import libssl_table, openssl_library
from support.link import fill_to_the_brim

import pykeyupdate
from pykeyupdate import _keyupdate
from pykeyupdate._rekeying import ToSend

StateString = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
StateNumber = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
BEFORE, READY = 0, 1

get_state = libssl_table.libssl.SSL_get_state
get_state.argtypes = [ctypes.c_void_p]
if openssl_library.IS_HIDDEN:
    state_string = None
    in_error = libssl_table.libssl.ossl_statem_in_error
    in_error.argtypes = [ctypes.c_void_p]
else:
    state_string = libssl_table.libssl.SSL_state_string
    state_string.restype = ctypes.c_char_p
    state_string.argtypes = [ctypes.c_void_p]

    def in_error(ssl):
        return state_string(ssl).strip() == b"SSLERR"


needs_names = pytest.mark.skipif(state_string is None, reason="no names here")


@contextlib.contextmanager
def answered(name, prototype, function):
    """Have a question about a state answered by ``function``."""
    function = prototype(function)  # to be kept while C may call it
    with libssl_table.replaced(name, libssl_table.address(function)):
        yield


def renamed(old, new):
    """Have the library call one state otherwise."""
    buffers = {}

    def rename(ssl):
        name = state_string(ssl)
        name = new if name.strip() == old else name
        return ctypes.addressof(buffers.setdefault(name, ctypes.c_buffer(name)))

    return answered("SSL_state_string", StateString, rename)


@contextlib.contextmanager
def by_number(number=get_state, failed=in_error):
    """Have the library be one that is linked in, as it is without names."""
    with libssl_table.without("SSL_state_string"):
        with answered("SSL_get_state", StateNumber, number):
            with answered("ossl_statem_in_error", StateNumber, failed):
                yield


def test_states_are_proved_here():
    assert _keyupdate.prove_states() is True


@needs_names
@pytest.mark.parametrize("new", [b"OTHER", b"%sP"])
@pytest.mark.parametrize(
    "name",
    [
        *(b"PINIT", b"SSLOK", b"SSLERR", b"TRST", b"TWCH"),
        *(b"TWCKU", b"TWSKU", b"TRCKU", b"TRSKU"),
    ],
)
def test_a_state_of_another_name_is_refused(name, new):
    with renamed(name, new.replace(b"%s", name)):
        with pytest.raises(ImportError, match="states of this .*openssl/states.c"):
            _keyupdate.prove_states()
    assert _keyupdate.prove_states() is True


def test_numbers_are_learnt():
    """They are public, though no promise: TLS_ST_*_KEY_UPDATE, TLS_ST_CR_SESSION_TICKET
    and TLS_ST_CW_CLNT_HELLO in openssl/ssl.h."""
    with by_number():
        assert _keyupdate.prove_states() is True
        is_new = _keyupdate.libssl["version_number"] >= 0x30200000
        first, ticket = (46, 10) if is_new else (42, 9)
        updates = [first + 1, first, first + 3, first + 2]
        assert libssl_table.learnt_numbers() == [*updates, ticket, ticket + 3]


def seen_numbers():
    """Return those that are learnt, and all others that the proof meets."""
    seen = set()

    def note(ssl):
        number = get_state(ssl)
        seen.add(number)
        return number

    with by_number(note):
        _keyupdate.prove_states()
    learnt = libssl_table.learnt_numbers()
    return learnt, sorted(seen.difference(learnt))


@pytest.mark.parametrize("taken_for", ["ready", "of the handshake", "each other", 64])
@pytest.mark.parametrize("which", range(5))
def test_other_numbers_are_refused(taken_for, which):
    """Of a KeyUpdate, sent by client, by server, read by client, by server; and of a
    ticket."""
    learnt, (_before, ready, *others) = seen_numbers()
    instead = {
        "ready": ready,
        "of the handshake": others[0],
        "each other": learnt[(which + 1) % 4],
    }.get(taken_for, taken_for)
    refuses_if_renumbered({learnt[which]: instead})


@pytest.mark.parametrize("number", [BEFORE, READY])
def test_other_numbers_before_and_between_are_refused(number):
    refuses_if_renumbered({number: 60})


def refuses_if_renumbered(instead):
    def renumber(ssl):
        number = get_state(ssl)
        return instead.get(number, number)

    with by_number(renumber):
        with pytest.raises(ImportError, match="states of this .*openssl/states.c"):
            _keyupdate.prove_states()


@pytest.mark.parametrize("answer", [0, 1])
def test_a_failure_that_does_not_show_is_refused(answer):
    with by_number(failed=lambda ssl: answer):
        with pytest.raises(ImportError, match="states of this .*openssl/states.c"):
            _keyupdate.prove_states()


def test_a_connection_that_has_not_begun_is_known_by_number(make_link):
    """A managed socket takes no other."""
    with by_number():
        assert make_link("tls13", "managed").talks()


def test_a_failure_is_known_by_number(make_link, role):
    link = make_link("tls13")
    incoming = link.to_client if role == "client" else link.to_server
    incoming.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError):
        link.end(role).read(1)
    with by_number(), pytest.raises(pykeyupdate.ConnectionFailedError):
        pykeyupdate.key_update(link.end(role))


@pytest.mark.skipif(os.name == "nt", reason="needs a pair of Unix sockets")
def test_a_half_sent_key_update_is_known_by_number(make_link, role):
    link = make_link("tls13", "socket")
    end = link.end(role)
    fill_to_the_brim(end, link.peer(role))
    pykeyupdate.key_update(end)
    with pytest.raises(ssl.SSLWantWriteError):
        end.do_handshake()
    assert pykeyupdate.get_key_update_type(end) == -1
    with by_number():
        _keyupdate.prove_states()
        assert _keyupdate.to_send(end, "test") == ToSend.KEY_UPDATE


@needs_names
def test_a_library_without_key_updates_has_nothing_to_prove():
    with libssl_table.without("SSL_key_update"):
        assert _keyupdate.prove_states() is False


def test_numbers_that_cannot_be_learnt_are_an_import_error():
    with by_number(), libssl_table.without("SSL_key_update"):
        with pytest.raises(ImportError, match="none can be made here.*OPENSSL_CONF"):
            _keyupdate.prove_states()


CONFIGURATION = """
openssl_conf = all
[all]
ssl_conf = modules
[modules]
system_default = of_all_contexts
[of_all_contexts]
MaxProtocol = TLSv1.2
NumTickets = 0
Options = -SessionTicket
Ciphersuites = TLS_AES_256_GCM_SHA384
"""


def test_a_configuration_cannot_forbid_the_proof(tmp_path):
    """A program may allow on its own context what the configuration forbids."""
    path = tmp_path / "openssl.cnf"
    path.write_text(CONFIGURATION)
    script = (
        "import ssl; from pykeyupdate import _keyupdate;"
        "context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT);"
        "print(context.maximum_version.name, _keyupdate.prove_states())"
    )
    root = str(Path(pykeyupdate.__file__).parents[1])
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "OPENSSL_CONF": str(path), "PYTHONPATH": root},
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.stdout.split() == ["TLSv1_2", "True"], result.stderr


def test_the_proof_leaves_no_error_behind():
    _keyupdate.prove_states()
    assert libssl_table.libssl.ERR_peek_error() == 0
