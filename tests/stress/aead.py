#!/usr/bin/env python3
"""RFC 9846's limit for AES-GCM, reached for real: some 60 million records.

    python tests/stress aead  (two minutes)

No test waits for 2^24.5 records; this program does (two minutes). The witness is the
number of bytes on the wire: all records of data have the same length, and a KeyUpdate
message is longer. The program watches three ends: one sends under the default policy
(new keys at 3/4 of the limit); one may not update for a year (and still gets new keys
before the limit); and one receives from a peer that never changes its keys (and is
asked to at 7/8).
"""

import argparse
import contextlib
import ssl
import sys
import time

import trustme

import pykeyupdate

LIMIT = int(2**24.5)
RECORD, KEY_UPDATE = 5 + 1 + 17, 5 + 5 + 17
BATCH = 4096


class Pair:
    """A managed client and a server of ssl's; without a message callback, for speed."""

    def __init__(self, policy):
        authority = trustme.CA()
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.configure_trust(client)
        authority.issue_cert("localhost").configure_cert(server)
        pykeyupdate.manage(client, policy=policy, limits=None)
        self.to_client, self.to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(
            self.to_client, self.to_server, server_hostname="localhost"
        )
        self.server = server.wrap_bio(self.to_server, self.to_client, server_side=True)
        for end in (self.client, self.server, self.client, self.server):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
        with contextlib.suppress(ssl.SSLWantReadError):
            self.client.read()  # session tickets
        assert "GCM" in self.client.cipher()[0]


def records_until_update(end, wire, most):
    """Write one byte a record until a KeyUpdate is on the wire; return the records."""
    write, sent = end.write, 0
    while sent < most:
        for _ in range(BATCH):
            write(b"x")
        length = len(wire.read())
        if length != BATCH * RECORD:
            assert length == BATCH * RECORD + KEY_UPDATE, length
            return sent, sent + BATCH
        sent += BATCH
    raise AssertionError(f"no key update within {most} records")


def sending(policy, prepare=lambda end: None):
    pair = Pair(policy)
    prepare(pair.client)
    pair.to_server.read()
    found = records_until_update(pair.client, pair.to_server, LIMIT)
    assert pykeyupdate.stats(pair.client).last_change == "aead_limit"
    return found


def receiving():
    pair = Pair(pykeyupdate.RekeyPolicy())
    write, read = pair.server.write, pair.client.read
    received = 0
    while not pair.to_server.pending:
        for _ in range(BATCH):
            write(b"x")
        for _ in range(BATCH):
            read(1)
        received += BATCH
    assert len(pair.to_server.read()) == KEY_UPDATE
    stats = pykeyupdate.stats(pair.client)
    assert (stats.counts.requests_sent, stats.last_change) == (1, "aead_limit")
    return received - BATCH, received


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    year = pykeyupdate.RekeyPolicy(min_interval_seconds=365 * 86400)
    for name, expected, run in (
        (
            "sent, default policy",
            LIMIT * 3 // 4,
            lambda: sending(pykeyupdate.RekeyPolicy()),
        ),
        (
            "sent, interval of a year",
            LIMIT - 16,
            lambda: sending(year, pykeyupdate.rekey),
        ),
        ("received", LIMIT * 7 // 8, receiving),
    ):
        began = time.monotonic()
        low, high = run()
        ok = low <= expected < high
        print(
            f"{name}: new keys after {low} to {high} records, to be after {expected}: "
            f"{'ok' if ok else 'FAILED'} ({time.monotonic() - began:.0f} s)",
            flush=True,
        )
        if not ok:
            sys.exit(1)


if __name__ == "__main__":
    main()
