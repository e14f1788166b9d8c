"""Repeat whole cycles on live connections, and their creation; exit 1 on a leak."""

import contextlib
import ssl
import sys
from functools import partial
from pathlib import Path

import trustme
from measure import gained

import pykeyupdate

sys.path.insert(0, str(Path(__file__).parents[2]))
from support.link import Link

KILOBYTES = 1024


def contexts(version):
    authority = trustme.CA()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(client)
    authority.issue_cert("localhost").configure_cert(server)
    server.options |= pykeyupdate.OP_ALLOW_CLIENT_RENEGOTIATION
    client.maximum_version = version
    return client, server


def key_updates(link):
    for _ in range(200):
        for end, peer in (link.ends, link.ends[::-1]):
            pykeyupdate.key_update(end, 1)
            with contextlib.suppress(pykeyupdate.AlreadyPendingError):
                pykeyupdate.key_update(end)
            end.write(b"x")
            peer.read(1)
            peer.write(b"y")
            end.read(1)
        link.wire.clear()


def renegotiations(link):
    for call in (pykeyupdate.renegotiate, pykeyupdate.renegotiate_abbreviated) * 5:
        call(link.client)
        link.settle()
        link.wire.clear()


def connections(work, pair, over):
    for _ in range(20):
        link = Link(*pair, over=over).handshake()
        work(link)
        link.close()


def main():
    failed = False
    for version, work in (
        (ssl.TLSVersion.TLSv1_3, key_updates),
        (ssl.TLSVersion.TLSv1_2, renegotiations),
    ):
        for over in ("memory", "managed"):
            pair = contexts(version)
            _, kilobytes = gained(partial(connections, work, pair, over))
            print(f"{work.__name__:<16} {over:<8} {kilobytes:6} kB")
            failed |= kilobytes > KILOBYTES
    sys.exit(failed)


main()
