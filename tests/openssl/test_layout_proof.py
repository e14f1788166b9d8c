"""What the extension proves at import, on `_ssl` modules that are built differently.

Each refusal that a new CPython or OpenSSL can cause names the file to open, and so do
the tests: they plant such a change. .github/workflows/tripwire.yml runs them, and the
import, on what is to come.
"""

import _socket
import _ssl
import importlib.util
import re
import sys
import types
from pathlib import Path

import pytest

from pykeyupdate import _keyupdate

EXT = Path(__file__).parents[2] / "ext"


def file_to_open(refusal):
    """Return which file the message names, having seen that there is such a file."""
    (name,) = re.findall(r"\(In the sources: ext/([\w/*]+\.[ch])\b", str(refusal.value))
    assert not EXT.exists() or list(EXT.glob(name))
    return name


def import_beside(fake, monkeypatch, name="_ssl"):
    """Import a copy of the extension that takes ``fake`` for `_ssl`."""
    monkeypatch.setitem(sys.modules, name, fake)
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
    with pytest.raises(ImportError, match="not laid out in memory as in") as refusal:
        import_beside(of_another_layout(slots), monkeypatch)
    assert file_to_open(refusal) == "openssl/sslobject.c"


def test_another_type_than_its_own_is_refused(monkeypatch):
    fake = an_ssl(_SSLSocket=type("_SSLSocket", (), {"__slots__": tuple("abcdefgh")}))
    with pytest.raises(ImportError, match="not laid out in memory as in CPython"):
        import_beside(fake, monkeypatch)


def test_an_ssl_in_python_is_refused(monkeypatch):
    with pytest.raises(ImportError, match="works on CPython only") as refusal:
        import_beside(an_ssl(RAND_status=lambda: True), monkeypatch)
    assert file_to_open(refusal) == "openssl/libssl.c"


def test_an_ssl_that_imports_no_openssl_is_refused(monkeypatch):
    """As an interpreter with OpenSSL linked in, and stripped, is."""
    somewhere_else = _keyupdate.put_forward
    looked = "" if sys.platform == "win32" else ".*Looked"  # no symbol table to read
    with pytest.raises(ImportError, match="statically.*--no-managed-python" + looked):
        import_beside(an_ssl(RAND_status=somewhere_else), monkeypatch)


@pytest.mark.parametrize("number", [0x20000000, 0x101010CF, "3.0", -1, 2**70])
def test_an_ssl_of_another_version_is_refused(number, monkeypatch):
    with pytest.raises(ImportError, match="not the version that the ssl") as refusal:
        import_beside(an_ssl(OPENSSL_VERSION_NUMBER=number), monkeypatch)
    assert file_to_open(refusal) == "openssl/locate_*.c"


@pytest.mark.parametrize("text", [_ssl.OPENSSL_VERSION + " ", "OpenSSL", 3, None])
def test_an_ssl_of_another_build_is_refused(text, monkeypatch):
    with pytest.raises(ImportError, match="not the version that the ssl") as refusal:
        import_beside(an_ssl(OPENSSL_VERSION=text), monkeypatch)
    assert file_to_open(refusal) == "openssl/locate_*.c"


@pytest.mark.parametrize("name", ["_SSLSocket", "_SSLContext", "MemoryBIO"])
def test_an_ssl_without_its_parts_is_refused(name, monkeypatch):
    fake = an_ssl()
    delattr(fake, name)
    with pytest.raises(ImportError, match=f"make a connection.*{name}") as refusal:
        import_beside(fake, monkeypatch)
    assert file_to_open(refusal) == "openssl/sslobject.c"


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


def test_a_socket_of_another_layout_is_asked_by_its_methods(monkeypatch):
    """Nothing is refused: tests/streams/test_socket_fields.py names the file."""

    class Socket:
        __slots__ = tuple("abcdefgh")
        timeout = None

        def settimeout(self, value):
            type(self).timeout = value

        def gettimeout(self):
            return self.timeout

        def fileno(self):
            return 12345

        def detach(self):
            pass

        close = detach

    fake = types.SimpleNamespace(**{**vars(_socket), "socket": Socket})
    assert import_beside(fake, monkeypatch, "_socket").reads_socket_fields == 0
    assert Socket.timeout is None  # the first look was enough
