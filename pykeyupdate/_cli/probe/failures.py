"""What went wrong with a connection, in one line of plain words."""

import re
import socket
import ssl
from typing import NamedTuple, Optional

ALERTS = {  # RFC 9846 section 6
    0: "close_notify",
    10: "unexpected_message",
    20: "bad_record_mac",
    22: "record_overflow",
    40: "handshake_failure",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    100: "no_renegotiation",
    109: "missing_extension",
    110: "unsupported_extension",
    112: "unrecognized_name",
    116: "certificate_required",
    120: "no_application_protocol",
}
CLIENT_CERTIFICATE_ALERTS = {"certificate_required", "bad_certificate"}
_NOT_TLS = {  # what OpenSSL says about bytes that are no TLS record
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "HTTPS_PROXY_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "ENCRYPTED_LENGTH_TOO_LONG",
    "DATA_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
    "BAD_RECORD_TYPE",
    "UNKNOWN_PROTOCOL",
}
# An ssl module that was built for an older OpenSSL leaves the names of new reasons out.
_UNKNOWN_TO_SSL = re.compile(r"\[SSL\] (.+?) \(_ssl\.c:\d+\)")
_CLOSED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
_REFUSED_CONTEXTS = {"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"}


class ProbeError(Exception):
    """A host cannot be probed: what kind of failure it was, and what to say."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Ending(NamedTuple):
    """How a connection ended that was expected to go on."""

    text: str
    alert: Optional[str]


def ending(error: Optional[OSError], alert: Optional[str]) -> Ending:
    """Say how a connection ended: by an alert, by an error, or by just closing."""
    if alert:
        return Ending(f"alert {alert}", alert)
    if isinstance(error, ConnectionResetError):
        return Ending("connection reset", None)
    if error is None or isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return Ending("connection closed", None)
    if _is_systems(error):
        return Ending("connection broken", None)
    return Ending(reason(error), None)


def reason(error: BaseException) -> str:
    """Return OpenSSL's or the system's short text for an error."""
    name = _openssl_name(error)
    if name:
        return name.lower().replace("_", " ")
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    return printable(str(error)) or type(error).__name__


def _openssl_name(error: BaseException) -> Optional[str]:
    """Return OpenSSL's name of an error, or None if the error is another's."""
    if not isinstance(error, ssl.SSLError):
        return None
    if getattr(error, "reason", None):
        return str(error.reason)
    text = _UNKNOWN_TO_SSL.search(str(error))
    return text and text[1].upper().replace(" ", "_")


def _is_systems(error: OSError) -> bool:
    """Return whether it is an error of the system that ssl could not make one of."""
    return isinstance(error, ssl.SSLError) and str(error).startswith("[SYS]")


def of_connecting(error: OSError, seconds: float) -> ProbeError:
    """Return the failure of a connection that TCP did not make."""
    if isinstance(error, socket.gaierror):
        return ProbeError("resolve", f"cannot resolve the name: {reason(error)}")
    if isinstance(error, socket.timeout):
        return ProbeError("timeout", f"no TCP connection within {seconds:.3g} s")
    return ProbeError("connect", f"cannot connect: {reason(error)}")


def of_dialog(error: OSError, protocol: str, seconds: float) -> ProbeError:
    """Return the failure of a STARTTLS dialog that the network ended."""
    if isinstance(error, socket.timeout):
        return ProbeError(
            "timeout",
            f"the server's part of STARTTLS ({protocol}) did not come within "
            f"{seconds:.3g} s",
        )
    return ProbeError(
        "starttls",
        f"the connection ended before STARTTLS ({protocol}): {reason(error)}",
    )


def of_handshake(error: OSError, alert: Optional[str], seconds: float) -> ProbeError:
    """Return the failure of a first TLS handshake."""
    if isinstance(error, socket.timeout):
        return ProbeError(
            "timeout", f"the TLS handshake was not done within {seconds:.3g} s"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return ProbeError(
            "certificate",
            f"certificate not accepted: {printable(error.verify_message)} "
            "(--cafile names the authority to trust, --insecure goes on without)",
        )
    if alert in CLIENT_CERTIFICATE_ALERTS:
        return wants_certificate(alert)
    return ProbeError(*_kind_and_text(error, alert))


def _kind_and_text(error: OSError, alert: Optional[str]) -> tuple[str, str]:
    if alert:
        return "handshake", f"the server ended the handshake: alert {alert}"
    name = _openssl_name(error)
    if name in _NOT_TLS:
        return "not TLS", "the server does not speak TLS on this port"
    if name in _REFUSED_CONTEXTS:
        return "handshake", "no TLS version in common (1.2 or 1.3 is needed)"
    if isinstance(error, _CLOSED) or _is_systems(error):
        return "closed", "the server closed during the TLS handshake"
    return "handshake", f"the TLS handshake failed: {reason(error)}"


def wants_certificate(alert: Optional[str]) -> ProbeError:
    """Return the failure of a client without the certificate that a server demands."""
    return ProbeError(
        "client certificate",
        f"the server wants a client certificate (alert {alert}; see --cert)",
    )


def printable(text: str) -> str:
    """Return a server's text without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text.strip())[:200]
