"""The exceptions, grouped by what a program should do about them.

``PyKeyUpdateError`` is the base of everything that pykeyupdate raises by itself. Below
it, two classes stand for two reactions: ``NotNowError`` (try again after the next I/O)
and ``NotPossibleError`` (never on this connection). A refused call leaves the
connection as it was. ``PeerLimitError`` is neither: the connection has ended.

Most classes are deliberately not ``OSError`` (and so not ``ssl.SSLError``): code around
sockets catches those and closes the connection, although nothing is wrong with it. The
exceptions are ``RefusedByOpenSSLError``, where OpenSSL itself refused for good, and
``PeerLimitError`` and ``RekeyImpossibleError``, after which nothing is left to do with
a managed connection but to close it: they are ``ssl.SSLError``.
"""

import ssl
from typing import Optional

from . import _documentation


class PyKeyUpdateError(Exception):
    """Base class of pykeyupdate's exceptions."""

    __notes__ = _documentation.Address()  # type: ignore[assignment,unused-ignore]


class NotATLSConnectionError(PyKeyUpdateError, TypeError):
    """The argument is not a connection of Python's ``ssl`` module."""


class InvalidKeyUpdateTypeError(PyKeyUpdateError, ValueError):
    """The update type is not one that can be scheduled (NOT_REQUESTED, REQUESTED)."""


class WrongLoopError(PyKeyUpdateError, RuntimeError):
    """The connection belongs to an event loop or thread that is not the caller's."""


class NotNowError(PyKeyUpdateError):
    """The connection is fine, the moment is wrong: try again after the next I/O."""


class HandshakeNotDoneError(NotNowError, ValueError):
    """The first handshake is not complete; call ``do_handshake()`` first."""


class AlreadyPendingError(NotNowError):
    """A key update, renegotiation, other message or call is already under way."""


class WritePendingError(NotNowError):
    """A send raised ``SSLWantWriteError`` and has not been repeated until complete.

    A managed ``SSLSocket`` does not raise it: its messages follow that data.
    """


class ReadPendingError(NotNowError):
    """Received data is unread; new keys now would break the connection."""


class NotPossibleError(PyKeyUpdateError):
    """The connection cannot do this, now or later."""


class ConnectionClosedError(NotPossibleError, ValueError):
    """The connection is closed, or ``unwrap()`` took TLS off the socket."""


class ConnectionFailedError(NotPossibleError):
    """A fatal TLS error, or ``PeerLimits``, ended the connection; close it."""


class CloseNotifyError(NotPossibleError):
    """A close_notify was sent, or a received one forbids the call."""


class WrongProtocolVersionError(NotPossibleError):
    """Key update below TLS 1.3, or renegotiation on TLS 1.3."""


class RenegotiationForbiddenError(NotPossibleError):
    """``ssl.OP_NO_RENEGOTIATION`` is set on this side (``PeerLimits`` may set it)."""


class InsecureRenegotiationError(NotPossibleError):
    """The peer does not support secure renegotiation (RFC 5746)."""


class KernelTLSError(NotPossibleError):
    """Kernel TLS holds the keys, and this OpenSSL and kernel cannot change them."""


class WrongRoleError(NotPossibleError):
    """Only a server can do this, and this side is the client."""


class NoPostHandshakeAuthError(NotPossibleError):
    """The TLS 1.3 client did not offer post-handshake authentication."""


class SharedConnectionError(NotPossibleError):
    """Another thread is always reading the connection, so this cannot be done."""


class NotManagedError(NotPossibleError):
    """The connection is not managed (see ``manage()`` and ``install()``)."""


class RekeyImpossibleError(NotPossibleError, ssl.SSLError):
    """A ``RekeyPolicy`` wants new keys, and this connection cannot have them.

    It is an ``ssl.SSLError``, so that code around sockets closes the connection:
    nothing more can be sent under the policy. ``reason`` is why, in a word: one of the
    fields of ``Impossible``, where each has its meaning.
    """

    library: Optional[str] = None  # type: ignore[assignment]
    reason: Optional[str] = None  # type: ignore[assignment]


class PeerLimitError(PyKeyUpdateError, ssl.SSLError):
    """The peer has exceeded ``PeerLimits`` and was cut off; close the connection.

    It is an ``ssl.SSLError``, so that code around sockets does that.
    """

    library: Optional[str] = None  # type: ignore[assignment]
    reason: Optional[str] = None  # type: ignore[assignment]
    limit: Optional[str] = None
    """Which of ``PeerLimits`` it was: the argument's name."""


class UnsupportedByLibraryError(NotPossibleError, NotImplementedError):
    """The ``ssl`` module's TLS library does not have this function."""


class RefusedByOpenSSLError(NotPossibleError, ssl.SSLError):
    """OpenSSL refused for a reason that will not pass.

    ``library``, ``reason`` and ``args`` are as in the ``ssl`` module's own errors.
    """

    library: Optional[str]  # type: ignore[assignment]
    reason: Optional[str]  # type: ignore[assignment]


class DeferredByOpenSSLError(NotNowError):
    """OpenSSL refused for a reason that may pass: try again later.

    A coming OpenSSL does so (``TOO_MANY_KEY_UPDATES``) within 100 ms of the last key
    update, and while the peer owes the answer to a request.
    ``library``, ``reason``, ``args`` (number and text) and the printed text are as in
    the ``ssl`` module's own errors. It is not one of them, because the connection is
    fine.
    """

    library: Optional[str] = None
    reason: Optional[str] = None

    def __init__(self, number: int, text: str) -> None:
        super().__init__(number, text)

    def __str__(self) -> str:
        """Return the text, as ``OSError`` does."""
        return str(self.args[1])


class PatchWarning(RuntimeWarning):
    """``install()`` or ``uninstall()`` found a method or class that is not ours."""
