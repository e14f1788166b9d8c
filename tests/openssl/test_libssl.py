"""ext/openssl/libssl.c, and the preconditions with other TLS libraries."""

import contextlib
import copy
import os
import pickle
import ssl
import subprocess
import sys

import pytest
from support import libssl_table, openssl_library
from support.link import NOT_REQUESTED

import pykeyupdate
from pykeyupdate import KeyUpdateType, _keyupdate

OPENSSL_1_1_1K = 0x101010BF

CONTROLS = {
    "SSL_key_update": pykeyupdate.key_update,
    "SSL_get_key_update_type": pykeyupdate.get_key_update_type,
    "SSL_renegotiate": pykeyupdate.renegotiate,
    "SSL_renegotiate_abbreviated": pykeyupdate.renegotiate_abbreviated,
    "SSL_renegotiate_pending": pykeyupdate.renegotiate_pending,
}


# -- which libssl --------------------------------------------------------------------


def test_bound_library_is_the_one_that_ssl_reports():
    assert _keyupdate.libssl["version"] == ssl.OPENSSL_VERSION
    assert _keyupdate.libssl["version_number"] == ssl.OPENSSL_VERSION_NUMBER
    if not openssl_library.IS_HIDDEN:
        assert "libssl" in os.path.basename(_keyupdate.libssl["path"])
    assert _keyupdate.libssl["missing"] == []


def test_import_has_no_side_effects():
    script = """
import ssl, sys, warnings
before = {c: dict(vars(c)) for c in (ssl.SSLSocket, ssl.SSLObject, ssl.SSLContext)}
modules = set(sys.modules)
import pykeyupdate
assert {c: dict(vars(c)) for c in before} == before
assert not {m for m in set(sys.modules) - modules if "argparse" in m or "cli" in m}
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


def test_library_that_does_not_know_the_connection_is_not_called(tls13, role):
    """OpenSSL gives back the object that an SSL* belongs to, or it is none."""
    with libssl_table.instead_of("SSL_get_ex_data", lambda pointer, index: 0):
        for target in (tls13.end(role), tls13.end(role)._sslobj):
            with pytest.raises(pykeyupdate.NotATLSConnectionError, match="holds no"):
                pykeyupdate.key_update(target)
    assert tls13.said(role) == []
    assert tls13.talks()


# -- a library that lacks a function -------------------------------------------------


@pytest.mark.parametrize("name", CONTROLS)
def test_missing_function_is_not_implemented(make_link, name):
    link = make_link("tls12" if "reneg" in name else "tls13")
    with libssl_table.without(name):
        with pytest.raises(NotImplementedError, match=rf"no {name}\(\)") as caught:
            CONTROLS[name](link.client)
    assert isinstance(caught.value, pykeyupdate.NotPossibleError)
    assert link.talks()


def test_the_others_work_without_the_queries(make_link):
    link13, link12 = make_link("tls13"), make_link("tls12")
    with libssl_table.without("SSL_get_key_update_type"):
        pykeyupdate.key_update(link13.client)
    with libssl_table.without("SSL_renegotiate_pending"):
        pykeyupdate.renegotiate(link12.client)
    link13.client.do_handshake()
    assert link13.said("client") == [NOT_REQUESTED]


# -- what OpenSSL itself refuses -----------------------------------------------------


def test_openssls_refusal_looks_as_the_ssl_modules(make_link):
    """Both ask a TLS 1.2 connection for something of TLS 1.3."""
    link = make_link("tls12")
    with pytest.raises(ssl.SSLError) as expected:
        link.server._sslobj.verify_client_post_handshake()
    with libssl_table.instead_of(
        "SSL_renegotiate",
        lambda pointer, _: libssl_table.libssl.SSL_key_update(pointer, 0),
    ):
        with pytest.raises(pykeyupdate.RefusedByOpenSSLError) as caught:
            pykeyupdate.renegotiate(link.server)
    ours, theirs = caught.value, expected.value
    assert (ours.library, ours.reason) == (theirs.library, theirs.reason)
    assert (ours.library, ours.reason) == ("SSL", "WRONG_SSL_VERSION")
    assert ours.args[0] == ours.errno == theirs.args[0] == theirs.errno
    assert str(ours).startswith("[SSL: WRONG_SSL_VERSION] wrong ssl version (")
    assert repr(link.server) in str(ours)
    assert isinstance(ours, ssl.SSLError)
    assert isinstance(ours, pykeyupdate.NotPossibleError)
    assert libssl_table.libssl.ERR_peek_error() == 0
    assert link.talks()


def test_openssls_refusal_that_may_pass_is_not_now(make_link):
    """As a coming OpenSSL's minimum interval between key updates will be."""
    link = make_link("tls13")

    def twice(pointer, update_type):
        assert libssl_table.libssl.SSL_key_update(pointer, update_type) == 1
        return libssl_table.libssl.SSL_key_update(pointer, update_type)

    with libssl_table.instead_of("SSL_key_update", twice):
        with pytest.raises(pykeyupdate.DeferredByOpenSSLError) as caught:
            pykeyupdate.key_update(link.client)
    error = caught.value
    assert (error.library, error.reason) == ("SSL", "STILL_IN_INIT")
    assert isinstance(error, pykeyupdate.NotNowError)
    assert not isinstance(error, OSError)  # over which programs close
    number, text = error.args
    assert isinstance(number, int)
    assert text.startswith("[SSL: STILL_IN_INIT] still in init (key_update(")
    assert str(error) == str(ssl.SSLError(number, text)) == text
    for copied in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (copied.args, vars(copied)) == (error.args, vars(error))
    assert libssl_table.libssl.ERR_peek_error() == 0
    link.settle()
    assert link.talks()


def test_openssls_limit_of_updates_says_what_to_do(make_link):
    link = make_link("tls13")
    with libssl_table.refuses_updates():
        with pytest.raises(pykeyupdate.DeferredByOpenSSLError) as caught:
            pykeyupdate.key_update(link.client)
    assert caught.value.reason == "TOO_MANY_KEY_UPDATES"
    assert "OpenSSL wants more time" in str(caught.value)
    assert "the connection is fine, call again later (key_update(" in str(caught.value)
    assert link.talks()


def test_openssls_refusal_without_a_reason(make_link):
    link = make_link("tls13")
    with libssl_table.instead_of("SSL_key_update", lambda *_: 0):
        with pytest.raises(pykeyupdate.RefusedByOpenSSLError) as caught:
            pykeyupdate.key_update(link.client)
    assert (caught.value.library, caught.value.reason) == (None, None)
    assert link.talks()


# -- kernel TLS: no kernel is needed to say that it is on ----------------------------


@pytest.mark.skipif(
    _keyupdate.libssl["version_number"] < 0x30000000, reason="1.1.1 has no kernel TLS"
)
@pytest.mark.parametrize("version", ["tls13", "tls12"])
def test_keys_in_the_kernel_are_refused(make_link, version):
    if version == "tls13" and _keyupdate.libssl["ktls_can_rekey"]:
        pytest.skip("this OpenSSL and this kernel can follow a key update")
    link = make_link(version, "socket")
    call = pykeyupdate.key_update if version == "tls13" else pykeyupdate.renegotiate
    with kernel_tls(link.client) as is_on:
        if not is_on:
            pytest.skip("this OpenSSL was built without kernel TLS")
        with pytest.raises(pykeyupdate.KernelTLSError, match="OP_ENABLE_KTLS"):
            call(link.client)
    assert link.talks()


@contextlib.contextmanager
def kernel_tls(connection):
    """Set the flag by which a socket BIO says that the kernel encrypts.

    Which bit it is, is private to OpenSSL: try those that are no public flag.
    """
    bio = libssl_table.libssl.SSL_get_wbio(libssl_table.pointer(connection))
    for bit in range(11, 16):
        libssl_table.libssl.BIO_set_flags(bio, 1 << bit)
        is_on = (
            libssl_table.libssl.BIO_ctrl(bio, 73, 0, None) > 0
        )  # BIO_CTRL_GET_KTLS_SEND
        if is_on:
            yield True
        libssl_table.libssl.BIO_clear_flags(bio, 1 << bit)
        if is_on:
            return
    yield False


# -- OpenSSL before 1.1.1l: data pending is ours to notice ---------------------------


def test_old_library_idle_connection_is_updated(tls13, role):
    with libssl_table.version(OPENSSL_1_1_1K):
        for update_type in (KeyUpdateType.NOT_REQUESTED, KeyUpdateType.REQUESTED):
            pykeyupdate.key_update(tls13.end(role), update_type)
            tls13.end(role).do_handshake()
            assert tls13.talks()


def test_old_library_unread_data_is_refused(tls13, role):
    end, peer = tls13.end(role), tls13.peer(role)
    peer.write(b"two bytes"[:2])
    assert end.read(1) == b"t"
    with libssl_table.version(OPENSSL_1_1_1K):
        if isinstance(end, pykeyupdate.SSLSocket):  # it puts received data aside
            pykeyupdate.key_update(end)
            assert end.read(1) == b"w"
        else:
            with pytest.raises(pykeyupdate.ReadPendingError, match="half read"):
                pykeyupdate.key_update(end)
            assert end.read(1) == b"w"
            pykeyupdate.key_update(end)
    end.do_handshake()
    assert tls13.talks()


def test_old_library_half_a_record_is_refused(make_link, role):
    link = make_link("tls13")
    end, peer = link.end(role), link.peer(role)
    incoming = link.to_client if role == "client" else link.to_server
    peer.write(bytes(1000))
    record = incoming.read()
    incoming.write(record[:500])
    with pytest.raises(ssl.SSLWantReadError):
        end.read(1)
    with libssl_table.version(OPENSSL_1_1_1K):
        with pytest.raises(pykeyupdate.ReadPendingError):
            pykeyupdate.key_update(end)
    incoming.write(record[500:])
    assert end.read(1000) == bytes(1000)
    assert link.talks()


@pytest.mark.skipif(os.name == "nt", reason="needs a pair of Unix sockets")
def test_old_library_pending_write_is_refused_after_a_read_too(make_link, role):
    link = make_link("tls13", "socket")
    end = link.end(role)
    link.fill(role)
    with libssl_table.version(OPENSSL_1_1_1K):
        with pytest.raises(pykeyupdate.WritePendingError):
            pykeyupdate.key_update(end)
        with pytest.raises(ssl.SSLWantReadError):
            end.read(1)
        with pytest.raises(pykeyupdate.WritePendingError):
            pykeyupdate.key_update(end)
