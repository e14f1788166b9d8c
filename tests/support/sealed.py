"""Makes and opens records without OpenSSL's record layer, with keys from the key log.

``Keys`` belong to one direction and one generation of TLS 1.3 (RFC 9846 7.3), for
SUITE. ``Keys.next()`` returns the keys after a KeyUpdate (7.2). ``Tls12Keys`` are for
TLS12_SUITE.
"""

import hmac

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from support.link import HANDSHAKE

SUITE = "TLS_AES_256_GCM_SHA384"  # which OpenSSL prefers
TLS12_SUITE = "ECDHE-ECDSA-AES128-GCM-SHA256"
ALERT, APPLICATION_DATA = 21, 23
HEADER = 5


def key_update(request):
    """Return the message with this value of request_update."""
    return bytes([24, 0, 0, 1, request])


def split(data):
    """Return the whole records that there are."""
    records = []
    while data:
        length = HEADER + int.from_bytes(data[3:HEADER], "big")
        assert len(data) >= length
        records.append(data[:length])
        data = data[length:]
    return records


def secret_in(keylog, beginning):
    """Return the secret of the key log's line that begins so."""
    (line,) = [
        line
        for line in keylog.read_text().splitlines()
        if line.startswith(f"{beginning} ")
    ]
    return bytes.fromhex(line.split()[2])


class Keys:
    """Seals and opens one record after the other, beginning with number 0."""

    def __init__(self, secret):
        self.secret = secret
        self.gcm = AESGCM(self.expanded(b"key", 32))
        self.iv = self.expanded(b"iv", 12)
        self.number = 0

    def expanded(self, label, length):
        label = b"tls13 " + label
        info = length.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
        return HKDFExpand(hashes.SHA384(), length, info).derive(self.secret)

    def next(self):
        return Keys(self.expanded(b"traffic upd", 48))

    def nonce(self):
        number = int.from_bytes(self.iv, "big") ^ self.number
        self.number += 1
        return number.to_bytes(12, "big")

    def seal(self, content_type, content):
        """Return the record of it."""
        inner = content + bytes([content_type])
        header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
        return header + self.gcm.encrypt(self.nonce(), inner, header)

    def seal_key_update(self, request=0):
        return self.seal(HANDSHAKE, key_update(request))

    def seal_data(self, data):
        return self.seal(APPLICATION_DATA, data)

    def open(self, record):
        """Return its type and content; cryptography's InvalidTag under another key."""
        inner = self.gcm.decrypt(self.nonce(), record[HEADER:], record[:HEADER])
        inner = inner.rstrip(b"\0")
        return inner[-1], inner[:-1]

    def open_alert(self, record):
        """Return the description of the alert in a record."""
        content_type, (_, description) = self.open(record)
        assert content_type == ALERT
        return description


class Tls12Keys:
    """One direction's after a handshake of TLS 1.2 (RFC 5246 6.3, RFC 5288).

    Number 0 was its Finished.
    """

    def __init__(self, key, salt):
        self.gcm, self.salt, self.number = AESGCM(key), salt, 1

    def nonce_and_header(self, content_type, length, explicit):
        number = self.number.to_bytes(8, "big")
        self.number += 1
        header = bytes([content_type]) + b"\x03\x03"
        return self.salt + explicit, number + header + length.to_bytes(2, "big")

    def seal(self, content_type, content):
        explicit = self.number.to_bytes(8, "big")
        nonce, header = self.nonce_and_header(content_type, len(content), explicit)
        sealed = explicit + self.gcm.encrypt(nonce, content, header)
        return header[8:11] + len(sealed).to_bytes(2, "big") + sealed

    def open(self, record):
        explicit, sealed = record[HEADER : HEADER + 8], record[HEADER + 8 :]
        nonce, header = self.nonce_and_header(record[0], len(sealed) - 16, explicit)
        return record[0], self.gcm.decrypt(nonce, sealed, header)


def prf(secret, label, seed, length):
    """Return so many bytes of TLS 1.2's PRF (RFC 5246 5)."""
    a = seed = label + seed
    data = b""
    while len(data) < length:
        a = hmac.digest(secret, a, "sha256")
        data += hmac.digest(secret, a + seed, "sha256")
    return data[:length]


def tls12_keys(master, client_random, server_random):
    """Return the client's and the server's."""
    block = prf(master, b"key expansion", server_random + client_random, 40)
    client, server, client_salt, server_salt = (
        block[:16],
        block[16:32],
        block[32:36],
        block[36:],
    )
    return Tls12Keys(client, client_salt), Tls12Keys(server, server_salt)
