"""``trustme`` for a Python that cryptography cannot be installed on.

Another Python makes the certificates, which TRUSTME_PYTHON names and which has the real
trustme.  What the tests use is here, and no more.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import tempfile
from typing import Any, Iterator

# Reads [two PEMs of an authority or null, names, options]; writes the certificate and
# the key of an authority (null) or of what that authority certifies.
MAKER = """
import json, sys, trustme
authority, names, options = json.load(sys.stdin)
if authority is None:
    made = trustme.CA(**options)
    pems = made.cert_pem, made.private_key_pem
else:
    ca = trustme.CA.from_pem(*map(str.encode, authority))
    made = ca.issue_cert(*names, **options)
    pems = made.cert_chain_pems[0], made.private_key_pem
json.dump([pem.bytes().decode() for pem in pems], sys.stdout)
"""


def _made(
    authority: list[str] | None, names: tuple[str, ...], options: dict[str, Any]
) -> list[str]:
    question = json.dumps([authority, names, options])
    command = [os.environ["TRUSTME_PYTHON"], "-I", "-c", MAKER]
    surroundings = {
        name: value for name, value in os.environ.items() if not name.startswith("LD_")
    }
    answer = subprocess.run(
        command,
        input=question,
        capture_output=True,
        text=True,
        check=True,
        env=surroundings,
    )
    pems: list[str] = json.loads(answer.stdout)
    return pems


class Blob:
    def __init__(self, text: str) -> None:
        self._data = text.encode()

    def bytes(self) -> bytes:
        return self._data

    def write_to_path(self, path: str | os.PathLike[str], append: bool = False) -> None:
        with open(path, "ab" if append else "wb") as file:
            file.write(self._data)

    @contextlib.contextmanager
    def tempfile(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "one.pem")
            self.write_to_path(path)
            yield path


class LeafCert:
    def __init__(self, certificate: str, key: str) -> None:
        self.private_key_pem = Blob(key)
        self.cert_chain_pems = [Blob(certificate)]
        self.private_key_and_cert_chain_pem = Blob(key + certificate)

    def configure_cert(self, context: ssl.SSLContext) -> None:
        with self.private_key_and_cert_chain_pem.tempfile() as path:
            context.load_cert_chain(path)


class CA:
    def __init__(self, **options: Any) -> None:
        self._pems = _made(None, (), options)
        self.cert_pem, self.private_key_pem = map(Blob, self._pems)

    def issue_cert(self, *names: str, **options: Any) -> LeafCert:
        return LeafCert(*_made(self._pems, names, options))

    def configure_trust(self, context: ssl.SSLContext) -> None:
        context.load_verify_locations(cadata=self._pems[0])
