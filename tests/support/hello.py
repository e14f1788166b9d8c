"""Parses ClientHello and ServerHello, and builds them again (RFC 5246 7.4.1)."""

from support.link import CLIENT_HELLO

RENEGOTIATION_INFO = 0xFF01  # an extension
SCSV = 0x00FF  # TLS_EMPTY_RENEGOTIATION_INFO_SCSV, among the cipher suites


class Hello:
    """What a test wants to know or to change; the rest stays as it was."""

    def __init__(self, message):
        self.rest = message[4:]
        self.kind = message[0]
        self.version = self.take(2)
        self.random = self.take(32)
        self.session = self.vector(1)
        suites = self.vector(2) if self.kind == CLIENT_HELLO else self.take(2)
        self.suites = [
            int.from_bytes(suites[at : at + 2], "big")
            for at in range(0, len(suites), 2)
        ]
        self.compression = self.vector(1) if self.kind == CLIENT_HELLO else self.take(1)
        self.rest = self.vector(2)
        self.extensions = {}
        while self.rest:
            number = int.from_bytes(self.take(2), "big")
            self.extensions[number] = self.vector(2)

    def take(self, length):
        taken, self.rest = self.rest[:length], self.rest[length:]
        return taken

    def vector(self, size):
        return self.take(int.from_bytes(self.take(size), "big"))

    @property
    def renegotiated_connection(self):
        """What the extension renegotiation_info has, None without it."""
        info = self.extensions.get(RENEGOTIATION_INFO)
        assert info is None or len(info) == 1 + info[0]
        return None if info is None else info[1:]

    @renegotiated_connection.setter
    def renegotiated_connection(self, value):
        self.extensions[RENEGOTIATION_INFO] = _vector(value, 1)

    def offer(self, *, extension=None, scsv=False):
        """Offer secure renegotiation so and in no other way (ClientHello)."""
        self.extensions.pop(RENEGOTIATION_INFO, None)
        if extension is not None:
            self.renegotiated_connection = extension
        self.suites = [suite for suite in self.suites if suite != SCSV]
        if scsv:
            self.suites.append(SCSV)

    def message(self):
        """Return it with all that was changed."""
        suites = b"".join(suite.to_bytes(2, "big") for suite in self.suites)
        compression = self.compression
        if self.kind == CLIENT_HELLO:
            suites, compression = _vector(suites, 2), _vector(compression, 1)
        extensions = b"".join(
            number.to_bytes(2, "big") + _vector(content, 2)
            for number, content in self.extensions.items()
        )
        head = self.version + self.random + _vector(self.session, 1)
        body = head + suites + compression + _vector(extensions, 2)
        return bytes([self.kind]) + _vector(body, 3)


def _vector(content, size):
    return len(content).to_bytes(size, "big") + content
