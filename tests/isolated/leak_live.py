"""Whole cycles on live connections, and their making and dropping; exit 1 on a leak."""

import contextlib
import gc
import ssl
import sys
from pathlib import Path

import trustme

import pykeyupdate

sys.path.insert(0, str(Path(__file__).parents[1]))
from link import Link

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


def resident():
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4
    except OSError:
        return 0


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


def main():
    failed = False
    for version, work in (
        (ssl.TLSVersion.TLSv1_3, key_updates),
        (ssl.TLSVersion.TLSv1_2, renegotiations),
    ):
        pair = contexts(version)
        used = []
        for _ in range(3):
            for _ in range(20):
                work(Link(*pair).handshake())
            gc.collect()
            used.append(resident())
        print(f"{work.__name__:<16} {used} kB")
        failed |= used[2] - used[1] > KILOBYTES
    sys.exit(failed)


main()
