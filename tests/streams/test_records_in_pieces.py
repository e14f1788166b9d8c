"""Records that arrive in pieces, at a managed socket and at ``ssl``'s own.

OpenSSL may receive the rest of a record itself (ext/streams/tlsbio.c). Wherever the
stream is cut, every byte comes once and in order, and the end is the one ``ssl`` sees.
"""

import contextlib
import socket
import ssl

import pytest
from support.sockets import close_with_reset

import pykeyupdate

RECORD = 1 << 14
MESSAGES = [b"a" * 10, b"b" * RECORD, b"c", b"d" * (RECORD + 1), b"e" * 3 * RECORD]
CUTS = [3, 5, 6, 4000]


class Feed:
    """A peer in memory, whose bytes a test sends when it likes."""

    def __init__(self, contexts, managed):
        client, server = contexts
        if managed:
            pykeyupdate.manage(client, limits=None)
        self.raw, near = _tcp_pair()
        self.input, self.output = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.peer = server.wrap_bio(self.input, self.output, server_side=True)
        self.reader = client.wrap_socket(
            near, server_hostname="localhost", do_handshake_on_connect=False
        )
        self.reader.setblocking(False)
        self._shake_hands()

    def _shake_hands(self):
        done = 0
        while done < 2:
            done = 0
            for end in (self.reader, self.peer):
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
                    done += 1
            with contextlib.suppress(BlockingIOError):
                self.input.write(self.raw.recv(1 << 16))
            self.raw.sendall(self.output.read())

    def read(self, most):
        """Return what can be read now."""
        data = bytearray()
        with contextlib.suppress(ssl.SSLWantReadError):
            while True:
                got = self.reader.recv(most)
                if not got:
                    break
                data += got
        return bytes(data)

    def close(self):
        self.raw.close()
        self.reader.close()


def _tcp_pair():
    """Return two sockets; the first can reset the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    far.setblocking(False)
    far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return far, near


@pytest.fixture
def make_feed(make_contexts):
    with contextlib.ExitStack() as stack:

        def make(version, managed=True):
            feed = Feed(make_contexts(version), managed)
            stack.callback(feed.close)
            return feed

        yield make


@pytest.mark.parametrize("most", [7, RECORD, 1 << 16])
@pytest.mark.parametrize("size", [1, 4, 5, 6, 100, RECORD, RECORD + 21, RECORD + 30])
@pytest.mark.parametrize("version", ["tls13", "tls12"])
def test_data_is_whole_and_in_order(make_feed, version, size, most):
    feed = make_feed(version)
    messages = MESSAGES[:3] if size < 100 else MESSAGES
    for message in messages:
        feed.peer.write(message)
        if version == "tls13":
            pykeyupdate.key_update(feed.peer)
    stream, data = feed.output.read(), b""
    for start in range(0, len(stream), size):
        feed.raw.sendall(stream[start : start + size])
        data += feed.read(most)
    assert data == b"".join(messages)
    if version == "tls13":
        counts = pykeyupdate.stats(feed.reader).counts
        assert counts.key_updates_received == len(messages) - 1


def test_a_blocked_reader_gets_all_of_it(make_feed, threads):
    feed = make_feed("tls13")
    feed.reader.setblocking(True)
    read = threads.start(feed.reader.makefile("rb").read, RECORD + 10)
    feed.peer.write(b"f" * (RECORD + 10))
    for byte in feed.output.read():
        feed.raw.send(bytes([byte]))
    assert read() == b"f" * (RECORD + 10)


def outcome(feed, cut, end):
    """Return what a reader gets of a record that is cut, and how it ends."""
    feed.peer.write(b"g" * 5000)
    stream = feed.output.read()
    feed.raw.send(stream[:cut])
    results = [feed.read(RECORD)]
    if end == "close_notify":
        with contextlib.suppress(ssl.SSLError):
            feed.peer.unwrap()
        feed.raw.send(stream[cut:] + feed.output.read())
    elif end == "reset":
        close_with_reset(feed.raw)
    feed.raw.close()
    feed.reader.settimeout(10)
    for _ in range(3):
        try:
            results.append(feed.reader.recv(RECORD))
        except OSError as error:
            results.append(results[-1] if is_made_up(error) else type(error))
    return results


def is_made_up(error):
    """OpenSSL 4.0 tells of an end once; ``ssl`` has no words for it the next time."""
    return "A failure in the SSL library occurred" in str(error)


@pytest.mark.parametrize("end", ["close_notify", "end"])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("version", ["tls13", "tls12"])
def test_the_end_in_a_record_is_ssls_own(make_feed, version, cut, end):
    ours, theirs = (outcome(make_feed(version, it), cut, end) for it in (True, False))
    assert ours == theirs


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("version", ["tls13", "tls12"])
def test_a_reset_in_a_record_is_no_end(make_feed, version, cut):
    results = outcome(make_feed(version), cut, "reset")
    assert results == [b"", ConnectionResetError, b"", b""]
