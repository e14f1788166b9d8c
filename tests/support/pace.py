"""Leave OpenSSL the time that it wants between two key updates.

OpenSSL up to 4.0 wants none, and most tests change keys several times in a row. A
coming OpenSSL refuses a KeyUpdate within 100 ms of the last one, and ends a connection
whose peer has sent two within that time. Tests whose contexts are watched here keep
that pace by themselves, because the message callback waits: behind every KeyUpdate that
an end has sent, and in front of one that it receives too soon.
"""

import contextlib
import functools
import ssl
import time

import pytest
import trustme

import pykeyupdate

HANDSHAKE, KEY_UPDATE = 22, 24  # the TLS content type, the handshake message
_MARGIN = 1.5  # OpenSSL reads its clock at other moments than we, and at both ends


@functools.lru_cache(None)
def interval():
    """Return how many seconds OpenSSL wants between two key updates; most want 0."""
    end = _connected()
    pykeyupdate.rekey(end)
    start = time.monotonic()
    while not _takes_another(end):
        time.sleep(0.001)
    took = time.monotonic() - start
    return took if took > 0.005 else 0.0


def _connected():
    """Return one end of a connection in memory."""
    authority = trustme.CA()
    client, server = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
    )
    authority.configure_trust(client)
    authority.issue_cert("localhost").configure_cert(server)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for end in ends * 2:
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return ends[0]


def _takes_another(end):
    try:
        pykeyupdate.rekey(end)
    except pykeyupdate.DeferredByOpenSSLError:
        return False
    return True


def wait():
    """Wait until the next key update may be sent, and will be received in time."""
    if interval():
        time.sleep(interval() * _MARGIN)


class Pace:
    """Called with each message of one end; waits where OpenSSL wants it."""

    def __init__(self):
        self.received = float("-inf")

    def __call__(self, verb, content_type, data):
        if content_type != HANDSHAKE or data[0] != KEY_UPDATE:
            return
        if verb == "sent":
            wait()
        elif interval():
            due = self.received + interval() * _MARGIN
            time.sleep(max(0, due - time.monotonic()))
            self.received = time.monotonic()


def keep(context):
    """Have a context that nobody watches keep the pace."""
    if interval():
        pace = Pace()
        context._msg_callback = lambda conn, direction, version, kind, message, data: (
            pace("sent" if direction == "write" else "received", kind, data)
        )


def let_go(*contexts):
    """Take the watch off contexts whose callback would run in the way of a test."""
    for context in contexts:
        context._msg_callback = None


def skip_if_kept():
    """Skip a test of what no such OpenSSL permits."""
    if interval():
        pytest.skip(
            f"this OpenSSL wants {interval():.2f} s between two key updates, and an "
            "answer before the next request"
        )
