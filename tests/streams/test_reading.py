"""ext/streams/reading.c: the buffers that a managed connection and ``ssl`` accept."""

import pytest
from support.buffers import BUFFERS
from support.link import Link

import pykeyupdate

DATA = b"abcde"
LENGTHS = [-(1 << 80), -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 1 << 80, "4", 4.0, None]


@pytest.fixture(params=["object", "socket"])
def managed_and_stock(make_contexts, make_link, request):
    """Two connections."""
    if request.param == "socket":
        return make_link("tls13", "managed"), make_link("tls13", "socket")
    contexts = make_contexts("tls13")
    for context in contexts:
        pykeyupdate.manage(context)
    return Link(*contexts).handshake(), make_link("tls13")


def outcome(link, method, buffers, arguments):
    """Return what a call gives or raises, the buffer, and what is there still."""
    link.server.write(DATA)
    try:
        result = getattr(link.client, method)(*arguments)
    except Exception as error:
        result = type(error)
    contents = [memoryview(buffer).tobytes() for buffer in buffers]
    return result, contents, link.settle()["client"]


def compare(links, method, kind, order):
    for length in LENGTHS:
        results = []
        for link in links:
            buffers = [BUFFERS[kind]()] if kind else []
            results.append(outcome(link, method, buffers, order(length, *buffers)))
        assert results[0] == results[1], length


def test_bytes_are_read_as_ssl_does(managed_and_stock):
    compare(managed_and_stock, "read", None, lambda length: [length])


@pytest.mark.parametrize("kind", BUFFERS)
def test_buffers_are_filled_or_refused_as_ssl_does(managed_and_stock, kind):
    compare(managed_and_stock, "read", kind, lambda length, buffer: [length, buffer])
    if hasattr(managed_and_stock[0].client, "recv_into"):
        compare(
            managed_and_stock,
            "recv_into",
            kind,
            lambda length, buffer: [buffer, length],
        )
