"""ext/openssl/errors.c and _errors.py: classes, messages, the error queue."""

import ssl

import pytest
from support import libssl_table

import pykeyupdate
from pykeyupdate import KeyUpdateType, _errors

CLASSES = [value for value in vars(_errors).values() if isinstance(value, type)]


def test_one_base_class_catches_all():
    for cls in CLASSES:
        if issubclass(cls, Exception) and not issubclass(cls, Warning):
            assert issubclass(cls, pykeyupdate.PyKeyUpdateError)


def test_not_now_and_not_possible_are_told_apart_by_class():
    leaves = [
        cls
        for cls in pykeyupdate.PyKeyUpdateError.__subclasses__()
        if cls not in (pykeyupdate.NotNowError, pykeyupdate.NotPossibleError)
    ]
    # what is wrong with the call is neither, nor what ends a connection
    assert set(leaves) == {
        pykeyupdate.NotATLSConnectionError,
        pykeyupdate.InvalidKeyUpdateTypeError,
        pykeyupdate.WrongLoopError,
        pykeyupdate.PeerLimitError,
    }
    assert not issubclass(pykeyupdate.NotNowError, pykeyupdate.NotPossibleError)


def test_only_openssls_refusals_for_good_and_ends_are_ssl_errors():
    """Code around sockets closes the connection on OSError: no others are."""
    ssl_errors = {
        pykeyupdate.RefusedByOpenSSLError,
        pykeyupdate.RekeyImpossibleError,
        pykeyupdate.PeerLimitError,
    }
    for cls in CLASSES:
        assert issubclass(cls, OSError) == (cls in ssl_errors)
        assert issubclass(cls, ssl.SSLError) == (cls in ssl_errors)


def test_every_class_is_public_and_documented():
    for cls in CLASSES:
        assert getattr(pykeyupdate, cls.__name__) is cls
        assert cls.__doc__


# -- the queue: point 5 of what the first version must show --------------------------


def refused_calls(link13, link12):
    """Every kind of refusal that can be had with two live connections."""
    a, b = link13.client, link12.client
    yield lambda: pykeyupdate.key_update(a, KeyUpdateType.NONE), a
    yield lambda: pykeyupdate.key_update(a, 7), a
    yield lambda: pykeyupdate.renegotiate(a), a
    yield lambda: pykeyupdate.renegotiate_abbreviated(a), a
    yield lambda: pykeyupdate.key_update(b), b
    yield lambda: pykeyupdate.key_update(b, 1), b
    yield lambda: pykeyupdate.key_update(object()), b
    pykeyupdate.key_update(a)
    yield lambda: pykeyupdate.key_update(a), a
    pykeyupdate.renegotiate(b)
    yield lambda: pykeyupdate.renegotiate(b), b


def test_after_every_refusal_recv_still_wants_to_read(make_link):
    link13, link12 = make_link("tls13", "socket"), make_link("tls12", "socket")
    count = 0
    for call, connection in refused_calls(link13, link12):
        with pytest.raises(pykeyupdate.PyKeyUpdateError):
            call()
        with pytest.raises(ssl.SSLWantReadError):
            connection.recv(1)
        count += 1
    assert count == 9


def test_after_a_write_pending_refusal_send_still_wants_to_write(make_link):
    link = make_link("tls13", "socket")
    data = link.fill("client")
    with pytest.raises(pykeyupdate.WritePendingError):
        pykeyupdate.key_update(link.client)
    with pytest.raises(ssl.SSLWantWriteError):
        link.client.write(data)
    with pytest.raises(ssl.SSLWantReadError):
        link.client.read(1)
    with pytest.raises(pykeyupdate.WritePendingError):
        pykeyupdate.key_update(link.client)  # this time OpenSSL itself says it
    with pytest.raises(ssl.SSLWantReadError):
        link.client.read(1)


def test_a_strangers_entry_in_the_queue_is_neither_read_nor_left(make_link):
    link = make_link("tls13")
    assert libssl_table.libssl.SSL_key_update(libssl_table.pointer(link.client), 7) == 0
    assert libssl_table.libssl.ERR_peek_error() != 0
    pykeyupdate.key_update(link.client)
    assert libssl_table.libssl.ERR_peek_error() == 0
    link.settle()
    assert link.talks()


def test_while_python_shuts_down_the_classes_may_be_gone(monkeypatch, make_link):
    """Python sets a module's names to None before the last finalizers run."""
    link = make_link("tls13")
    monkeypatch.setattr(pykeyupdate._errors, "WrongProtocolVersionError", None)
    with pytest.raises(RuntimeError, match="shutting down"):
        pykeyupdate.renegotiate(link.client)
    assert link.talks()
