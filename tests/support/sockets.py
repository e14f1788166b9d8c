"""Pairs of connected sockets that behave alike on every system."""

import os
import socket
import struct

import pytest

LIKE_UNIX = 1 << 16  # for both ends together about what a Unix socket takes


def _is_tcp(end):
    return end.family in (socket.AF_INET, socket.AF_INET6)


def socket_pair(buffer=None):
    """Return two connected sockets; ``buffer`` is the size of their send buffers.

    On Windows socketpair() makes a TCP connection. Nagle's algorithm would hold back
    a second small message there, the receiver's buffer adds to the sender's, and both
    grow to megabytes if they may.
    """
    ends = socket.socketpair()
    for end in ends:
        if _is_tcp(end):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _set_buffers(end, buffer or LIKE_UNIX, (socket.SO_SNDBUF, socket.SO_RCVBUF))
        elif buffer is not None:
            _set_buffers(end, buffer, (socket.SO_SNDBUF,))
    return ends


def close_with_reset(end):
    """Close a TCP connection so that its peer sees a reset, and no end."""
    linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    end.close()


def _set_buffers(end, size, options):
    for option in options:
        end.setsockopt(socket.SOL_SOCKET, option, size)


def _pairs_are_tcp():
    ends = socket.socketpair()
    for end in ends:
        end.close()
    return _is_tcp(ends[0])


needs_unix_pair = pytest.mark.skipif(
    _pairs_are_tcp(), reason="needs a pair of Unix sockets, whose buffers have no slack"
)
