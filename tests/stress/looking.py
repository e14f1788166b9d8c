"""Looks at all connections from several threads, while others make, use and end them.

    python tests/stress looking [--seconds 10]  (as long as it is told)

Two threads call ``connections()`` and ``totals()`` and read all that there is; two use
``SSLObject`` pairs and two ``SSLSocket`` pairs, whose keys change with every third
record and whose peers answer; one calls ``rekey_all()`` with a filter. It fails on any
exception. ``sanitize`` runs it under TSan on a free-threaded Python.
"""

import argparse
import contextlib
import socket
import ssl
import sys
import threading
import time

from support.world import certificate_files

import pykeyupdate

POLICY = pykeyupdate.RekeyPolicy(
    sent_records=3, min_interval_seconds=0, request_peer=True
)


class Crowd:
    def __init__(self, client, server):
        self.client, self.server = client, server
        self.is_over, self.failures, self.done = False, [], {}

    def repeat(self, work):
        """Repeat some work until it is over."""
        try:
            while not self.is_over:
                count = work()
                self.done[work.__name__] = self.done.get(work.__name__, 0) + count
        except Exception as error:
            self.failures.append(error)
            raise

    def look(self):
        pykeyupdate.totals()
        seen = [info.as_dict() for info in pykeyupdate.connections()]
        return len(seen)

    def rekey(self):
        time.sleep(0.01)
        third = pykeyupdate.rekey_all(lambda it: it.number % 3 == 0, per_second=1e6)
        return third.done + third.waiting

    def objects(self):
        inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = (
            self.client.wrap_bio(outward, inward, server_hostname="localhost"),
            self.server.wrap_bio(inward, outward, server_side=True),
        )
        for _ in range(3):
            for end in ends:
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
        for _ in range(50):
            for end, other in (ends, ends[::-1]):
                end.write(b"x" * 100)
                with contextlib.suppress(ssl.SSLWantReadError):
                    other.read(1000)
        return 1

    def sockets(self):
        ours, theirs = socket.socketpair()
        reader = threading.Thread(target=self.read, args=(theirs,))
        reader.start()
        with self.client.wrap_socket(ours, server_hostname="localhost") as tls:
            for _ in range(50):
                tls.sendall(b"x" * 100)
        reader.join()
        return 1

    def read(self, plain):
        with self.server.wrap_socket(plain, server_side=True) as tls:
            while tls.recv(1000):
                pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    seconds = parser.parse_args().seconds
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with certificate_files() as (chain, authority):
        client.load_verify_locations(authority)
        server.load_cert_chain(chain)
    for context in (client, server):
        pykeyupdate.manage(context, policy=POLICY, limits=None)
    crowd = Crowd(client, server)
    works = [crowd.look, crowd.objects, crowd.sockets] * 2 + [crowd.rekey]
    threads = [threading.Thread(target=crowd.repeat, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    crowd.is_over = True
    for thread in threads:
        thread.join()
    print(f"{sys.version.split()[0]}: {crowd.done}, {pykeyupdate.totals().counts}")
    return int(bool(crowd.failures))


if __name__ == "__main__":
    sys.exit(main())
