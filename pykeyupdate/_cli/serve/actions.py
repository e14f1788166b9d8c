"""What can be done to a client's connection."""

import hashlib
import ssl
from typing import Callable, NamedTuple

from ... import rekey, request_client_certificate, wait_for_renegotiation

_PATIENCE = 10.0  # seconds for a client to renegotiate, or to show its certificate


class Action(NamedTuple):
    """An action: its path in a URL, its help, and a function that says what it did."""

    path: str
    text: str
    do: Callable[[ssl.SSLSocket], str]


def _rekey(tls: ssl.SSLSocket) -> str:
    rekey(tls)
    if tls.version() == "TLSv1.3":
        return "sent new keys"
    return _renegotiated(tls)


def _request(tls: ssl.SSLSocket) -> str:
    if tls.version() != "TLSv1.3":
        return "KeyUpdate needs TLS 1.3: /renegotiate is for this connection"
    rekey(tls, request_peer=True)
    return "sent new keys, and asked for the client's"


def _renegotiate(tls: ssl.SSLSocket) -> str:
    if tls.version() == "TLSv1.3":
        return "TLS 1.3 has no renegotiation: /rekey is for this connection"
    rekey(tls)
    return _renegotiated(tls)


def _renegotiated(tls: ssl.SSLSocket) -> str:
    wait_for_renegotiation(tls, _PATIENCE)
    return "renegotiated"


def _certificate(tls: ssl.SSLSocket) -> str:
    answer = request_client_certificate(tls, _PATIENCE)
    if answer.certificate is None:
        return "asked for a certificate; the client has none"
    fingerprint = hashlib.sha256(answer.certificate).hexdigest()
    return f"got the certificate with the SHA-256 fingerprint {fingerprint}"


ACTIONS = {  # the letters of openssl s_server
    "k": Action("rekey", "new keys (TLS 1.2: a renegotiation)", _rekey),
    "K": Action("request", "new keys, and ask for the client's (TLS 1.3)", _request),
    "r": Action("renegotiate", "ask the client to renegotiate (TLS 1.2)", _renegotiate),
    "c": Action("certificate", "ask for the client's certificate", _certificate),
}
