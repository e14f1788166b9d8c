"""socket_methods.c: a managed socket's methods do what those of ssl do."""

import array
import socket
import ssl

import pytest
from support.sockets import socket_pair

import pykeyupdate


@pytest.fixture(params=["both", "none"])
def sock(request, connect):
    """A connected socket, managed or ssl's own, and its peer (``peer``)."""
    client, server = connect(managed=request.param)
    client.settimeout(10)
    server.settimeout(10)
    client.peer = server
    return client


def outcome(call):
    """Return what a call returns or raises."""
    try:
        return call()
    except Exception as error:
        said = str(error).partition(" on <")[0] if type(error) is ValueError else ""
        return type(error), said


def fill(sock):
    sock.peer.sendall(b"0123456789")
    return sock


INTO = bytearray(4)
CALLS = {
    "recv": (lambda s: fill(s).recv(4), b"0123"),
    "recv, default": (lambda s: fill(s).recv(), b"0123456789"),
    "recv, keyword": (lambda s: fill(s).recv(buflen=4), b"0123"),
    "recv, flags": (lambda s: fill(s).recv(4, 0), b"0123"),
    "recv, a flag": (
        lambda s: fill(s).recv(4, socket.MSG_PEEK),
        (ValueError, "non-zero flags not allowed in calls to recv()"),
    ),
    "recv, negative": (
        lambda s: fill(s).recv(-1),
        (ValueError, "size should not be negative"),
    ),
    "recv, text": (lambda s: fill(s).recv("4"), (TypeError, "")),
    "recv, too many": (lambda s: fill(s).recv(4, 0, 0), (TypeError, "")),
    "recv, nothing": (lambda s: fill(s).recv(0), b""),
    "read": (lambda s: fill(s).read(4), b"0123"),
    "read, into": (lambda s: (fill(s).read(4, INTO), bytes(INTO)), (4, b"0123")),
    "read, into none": (lambda s: fill(s).read(4, None), b"0123"),
    "read, keywords": (lambda s: fill(s).read(len=4, buffer=None), b"0123"),
    "read, into bytes": (lambda s: fill(s).read(4, b"1234"), (TypeError, "")),
    "recv_into": (lambda s: (fill(s).recv_into(INTO), bytes(INTO)), (4, b"0123")),
    "recv_into, some": (lambda s: (fill(s).recv_into(INTO, 2), INTO[:2]), (2, b"01")),
    "recv_into, none": (lambda s: fill(s).recv_into(INTO, None), 4),
    "recv_into, 0": (lambda s: fill(s).recv_into(INTO, 0), 4),
    "recv_into, too many": (lambda s: fill(s).recv_into(INTO, 9), 4),
    "recv_into, negative": (lambda s: fill(s).recv_into(INTO, -1), 4),
    "recv_into, empty": (lambda s: fill(s).recv_into(bytearray()), 0),
    "recv_into, array": (lambda s: fill(s).recv_into(array.array("B", [0] * 4)), 4),
    "recv_into, a flag": (
        lambda s: fill(s).recv_into(INTO, 4, 1),
        (ValueError, "non-zero flags not allowed in calls to recv_into()"),
    ),
    "send": (lambda s: (s.send(b"abc"), s.peer.recv(9)), (3, b"abc")),
    "send, words": (
        lambda s: (s.send(array.array("B", [1])), s.peer.recv(9)),
        (1, b"\1"),
    ),
    "send, text": (lambda s: s.send("abc"), (TypeError, "")),
    "send, keyword": (lambda s: s.send(data=b"abc"), 3),
    "send, a flag": (
        lambda s: s.send(b"abc", 1),
        (ValueError, "non-zero flags not allowed in calls to send()"),
    ),
    "write": (lambda s: (s.write(b"abc"), s.peer.recv(9)), (3, b"abc")),
    "write, no data": (lambda s: s.write(), (TypeError, "")),
    "sendall": (lambda s: (s.sendall(b"abc"), s.peer.recv(9)), (None, b"abc")),
    "sendall, array": (
        lambda s: (s.sendall(bytearray(b"abc")), s.peer.recv(9)),
        (None, b"abc"),
    ),
    "sendall, words": (
        lambda s: (s.sendall(array.array("H", [1, 1])), len(s.peer.recv(9))),
        (None, 4),
    ),
    "sendall, every second": (
        lambda s: s.sendall(memoryview(b"abcd")[::2]),
        (TypeError, ""),
    ),
    "sendall, nothing": (lambda s: s.sendall(b""), None),
    "sendall, text": (lambda s: s.sendall("abc"), (TypeError, "")),
    "sendall, a flag": (
        lambda s: s.sendall(b"abc", 1),
        (ValueError, "non-zero flags not allowed in calls to sendall()"),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_arguments(sock, name):
    call, expected = CALLS[name]
    assert outcome(lambda: call(sock)) == expected


CLOSED = {
    "recv": lambda s: s.recv(4),
    "recv_into": lambda s: s.recv_into(bytearray(4)),
    "read": lambda s: s.read(4),
    "send": lambda s: s.send(b"x"),
    "sendall": lambda s: s.sendall(b"x"),
    "write": lambda s: s.write(b"x"),
}


@pytest.mark.parametrize("method", CLOSED)
def test_after_close(sock, method):
    sock.close()
    reads = method == "read"
    wrong = f"{'Read' if reads else 'Write'} on closed or unwrapped SSL socket."
    expected = (ValueError, wrong) if method in ("read", "write") else (OSError, "")
    assert outcome(lambda: CLOSED[method](sock)) == expected


_IGNORE_UNEXPECTED_EOF = 1 << 7


@pytest.mark.parametrize("sock", ["both"], indirect=True)  # ssl's may find an old errno
@pytest.mark.parametrize("suppresses", [True, False])
@pytest.mark.parametrize(
    ("read", "empty"),
    [
        (lambda s: s.recv(4), b""),
        (lambda s: s.read(4), b""),
        (lambda s: s.recv_into(bytearray(4)), 0),
        (lambda s: s.read(4, bytearray(4)), 0),
    ],
)
def test_an_end_without_close_notify(sock, suppresses, read, empty):
    sock.suppress_ragged_eofs = suppresses
    peer = sock.peer.detach()
    socket.socket(fileno=peer).close()
    ignored = sock.context.options & _IGNORE_UNEXPECTED_EOF  # Python 3.9's default
    wanted = empty if suppresses or ignored else (ssl.SSLEOFError, "")
    assert outcome(lambda: read(sock)) == wanted


def test_what_a_program_replaces_in_an_object_is_called(sock):
    sock.read = lambda *given: ("read", *given)
    sock.send = lambda data: 2
    into = bytearray(2)
    assert sock.recv(4) == ("read", 4)
    assert sock.recv_into(into) == ("read", 2, into)
    sent = []
    sock.send = lambda data: sent.append(bytes(data)) or 2
    sock.sendall(b"abcd")
    assert sent == [b"abcd", b"cd"]


def test_what_a_program_replaces_in_the_class_is_called(sock, monkeypatch):
    cls = type(sock)
    monkeypatch.setattr(cls, "read", lambda self, *given: ("read", *given))
    monkeypatch.setattr(cls, "send", lambda self, data: len(data))
    assert sock.recv(4) == ("read", 4)
    assert sock.sendall(b"abc") is None
    monkeypatch.undo()
    sock.peer.settimeout(0.05)
    with pytest.raises(socket.timeout):
        sock.peer.recv(4)


@pytest.mark.parametrize("base", [ssl.SSLSocket, pykeyupdate.SSLSocket])
def test_what_a_derived_class_replaces_is_called(make_contexts, base, threads):
    class Derived(base):
        def read(self, *given):
            return "read", *given

        def send(self, data):
            return super().send(bytes(data[:1]))

    contexts = make_contexts("tls13")
    contexts[0].sslsocket_class = Derived
    near, far = socket_pair()
    accepted = []
    threads.start(
        lambda: accepted.append(contexts[1].wrap_socket(far, server_side=True))
    )
    client = contexts[0].wrap_socket(near, server_hostname="localhost")
    with client:
        assert client.recv(4) == ("read", 4)
        client.sendall(b"ab")
        assert ssl.SSLSocket.write(client, b"c") == 1
        while not accepted:
            pass
        with accepted[0] as server:
            assert [server.recv(1) for _ in range(3)] == [b"a", b"b", b"c"]


def test_the_type_itself_is_harmless():
    made = pykeyupdate._keyupdate.ManagedSocket()
    for method, argument in (("recv", 1), ("send", b"x"), ("recv_into", bytearray(1))):
        with pytest.raises((TypeError, AttributeError)):
            getattr(made, method)(argument)
    with pytest.raises((TypeError, AttributeError)):
        made._sslobj = 1
    for given in ((int, 1), (int, vars(type)["__dictoffset__"]), ()):
        with pytest.raises(TypeError):
            pykeyupdate._keyupdate.set_socket_class(*given)
