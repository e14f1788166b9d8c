"""Which host and port to probe: from ``HOST:PORT``, and from files with such lines."""

import re
from typing import NamedTuple, Optional

from .. import inputs
from ..exit_codes import CannotRun

STARTTLS_PORTS = {
    "smtp": 25,
    "imap": 143,
    "pop3": 110,
    "ftp": 21,
    "ldap": 389,
    "postgres": 5432,
    "mysql": 3306,
    "xmpp": 5222,
}
_HTTPS = 443
_PORT = re.compile(r"[0-9]{1,5}")


class Target(NamedTuple):
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse(text: str, starttls: Optional[str]) -> Target:
    """Return the target that a text names; the default port is the protocol's.

    ``host``, ``host:port``, ``[2001:db8::1]:port``. Raises ``CannotRun``.
    """
    host, port = _split(text)
    if not host or any(c.isspace() or not c.isprintable() for c in host):
        raise CannotRun(f"{text!r} is not HOST:PORT: it has no host")
    if port is None:
        return Target(host, STARTTLS_PORTS[starttls] if starttls else _HTTPS)
    if not (_PORT.fullmatch(port) and 0 < int(port) < 1 << 16):
        raise CannotRun(f"{text!r} is not HOST:PORT: a port is a number, 1 to 65535")
    return Target(host, int(port))


def _split(text: str) -> tuple[str, Optional[str]]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or rest[:1] not in ("", ":"):
            raise CannotRun(f"{text!r} is not HOST:PORT, such as [2001:db8::1]:443")
        return host, rest[1:] if rest else None
    if text.count(":") > 1:  # an IPv6 address alone
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def read(path: str, starttls: Optional[str]) -> list[Target]:
    """Return the targets of a file, or of standard input for ``-``, one a line.

    What follows ``#`` is a comment.
    """
    text = inputs.read_text(path)
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [parse(line, starttls) for line in lines if line]
