"""What the extension proves at import, on `_ssl` modules that are built differently."""

import _ssl
import importlib.util
import sys
import types

import pytest

from pykeyupdate import _keyupdate


def import_beside(fake, monkeypatch):
    """Import a copy of the extension that takes ``fake`` for `_ssl`."""
    monkeypatch.setitem(sys.modules, "_ssl", fake)
    spec = importlib.util.find_spec("pykeyupdate._keyupdate")
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


def an_ssl(**replaced):
    """Return `_ssl` with other things in places."""
    return types.SimpleNamespace(**{**vars(_ssl), **replaced})


def of_another_layout(slots):
    """Return an `_ssl` whose connections are laid out as Python's own slots are.

    Word by word after the object's head: socket, SSL, context, flags, owner, name. A
    capital is a word that is not 0.
    """

    class Connection:
        __slots__ = tuple(slots.lower())
        context, server_hostname = "a context", "a name"

    values = {"C": Connection.context, "F": Connection.server_hostname}

    class Context:
        def __init__(self, protocol):
            pass

        def _wrap_bio(self, *arguments):
            connection = Connection()
            for slot in filter(str.isupper, slots):
                setattr(connection, slot.lower(), values.get(slot, self))
            return connection

    return an_ssl(_SSLSocket=Connection, _SSLContext=Context)


def test_an_ssl_as_ours_is_taken(monkeypatch):
    assert import_beside(an_ssl(), monkeypatch).libssl == _keyupdate.libssl


@pytest.mark.parametrize(
    "slots",
    [
        "",  # too small to hold what is read
        "abcdefgh",  # no SSL
        "aBcdefgh",  # no context beside it
        "aBCdefgh",  # no host name
        "aBcdeFgh",  # a host name and no context
        "ABCdeFgh",  # a socket, over memory BIOs
        "aBCdEFgh",  # an owner
        "aBCDeFgh",  # no type of CPython's
    ],
)
def test_another_layout_is_refused(slots, monkeypatch):
    with pytest.raises(ImportError, match="not laid out in memory as in CPython"):
        import_beside(of_another_layout(slots), monkeypatch)


def test_another_type_than_its_own_is_refused(monkeypatch):
    fake = an_ssl(_SSLSocket=type("_SSLSocket", (), {"__slots__": tuple("abcdefgh")}))
    with pytest.raises(ImportError, match="not laid out in memory as in CPython"):
        import_beside(fake, monkeypatch)


def test_an_ssl_in_python_is_refused(monkeypatch):
    with pytest.raises(ImportError, match="works on CPython only"):
        import_beside(an_ssl(RAND_status=lambda: True), monkeypatch)


def test_an_ssl_that_imports_no_openssl_is_refused(monkeypatch):
    """As an interpreter with OpenSSL linked in, and stripped, is."""
    somewhere_else = _keyupdate.put_forward
    with pytest.raises(ImportError, match="statically.*--no-managed-python.*Looked"):
        import_beside(an_ssl(RAND_status=somewhere_else), monkeypatch)


@pytest.mark.parametrize("number", [0x20000000, 0x101010CF, "3.0", -1, 2**70])
def test_an_ssl_of_another_version_is_refused(number, monkeypatch):
    with pytest.raises(ImportError, match="not the version that the ssl module"):
        import_beside(an_ssl(OPENSSL_VERSION_NUMBER=number), monkeypatch)


@pytest.mark.parametrize("text", [_ssl.OPENSSL_VERSION + " ", "OpenSSL", 3, None])
def test_an_ssl_of_another_build_is_refused(text, monkeypatch):
    with pytest.raises(ImportError, match="not the version that the ssl module"):
        import_beside(an_ssl(OPENSSL_VERSION=text), monkeypatch)


@pytest.mark.parametrize("name", ["_SSLSocket", "_SSLContext", "MemoryBIO"])
def test_an_ssl_without_its_parts_is_refused(name, monkeypatch):
    fake = an_ssl()
    delattr(fake, name)
    with pytest.raises(ImportError, match=f"cannot make a connection.*{name}"):
        import_beside(fake, monkeypatch)


@pytest.mark.parametrize("error", [RuntimeError, RuntimeError("no configuration")])
def test_an_ssl_that_cannot_make_a_connection_is_refused(error, monkeypatch):
    def context(protocol):
        raise error

    with pytest.raises(ImportError, match="cannot make a connection"):
        import_beside(an_ssl(_SSLContext=context), monkeypatch)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_is_not_about_ssl_is_left_as_it_is(error, monkeypatch):
    def context(protocol):
        raise error

    with pytest.raises(error):
        import_beside(an_ssl(_SSLContext=context), monkeypatch)
