"""ext/openssl/sslobject.c: what it accepts as a connection, and what it refuses."""

import gc
import ssl
import sys
import types
from unittest import mock

import pytest

import pykeyupdate

FUNCTIONS = [
    pykeyupdate.key_update,
    pykeyupdate.get_key_update_type,
    pykeyupdate.renegotiate,
    pykeyupdate.renegotiate_abbreviated,
    pykeyupdate.renegotiate_pending,
    pykeyupdate.secure_renegotiation,
    pykeyupdate.total_renegotiations,
]


@pytest.fixture(params=FUNCTIONS, ids=lambda function: function.__name__)
def function(request):
    return request.param


class Raising:
    @property
    def _sslobj(self):
        raise RuntimeError("not today")


class RaisingSocket(Raising, ssl.SSLSocket):
    """Of a class whose `_sslobj` ssl's own code asks for."""


class Answering:
    def __init__(self, sslobj):
        self._sslobj = sslobj


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        1.5,
        "socket",
        b"socket",
        object(),
        ssl,
        ssl.SSLSocket,
        ssl.SSLObject,
        mock.Mock(),
        types.SimpleNamespace(_sslobj=1),
        Answering(Answering(None)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_connection_is_a_type_error_that_names_the_type(function, value):
    with pytest.raises(TypeError, match=r"not <class '") as caught:
        function(value)
    assert isinstance(caught.value, pykeyupdate.NotATLSConnectionError)
    assert type(value).__name__ in str(caught.value)
    assert function.__name__ in str(caught.value)


def test_a_plain_socket_is_a_type_error(function):
    import socket

    with socket.socket() as plain, pytest.raises(TypeError, match=r"socket\.socket"):
        function(plain)


def test_a_property_is_asked_of_ssls_classes_alone(function):
    with pytest.raises(RuntimeError, match="not today"):
        function(RaisingSocket.__new__(RaisingSocket))
    with pytest.raises(pykeyupdate.NotATLSConnectionError):
        function(Raising())


def test_wrong_arity_is_a_type_error(function, make_link):
    client = make_link("tls13").client
    for arguments, keywords in (
        ((), {}),
        ((client, 0, 0), {}),
        ((client,), {"conn": client}),
        ((), {"conn": client}),
    ):
        with pytest.raises(TypeError):
            function(*arguments, **keywords)


def test_socket_object_and_what_is_inside_are_the_same_connection(make_link, over):
    link = make_link("tls13", over)
    pykeyupdate.key_update(link.client._sslobj)
    for connection in (link.client, link.client._sslobj):
        assert pykeyupdate.get_key_update_type(connection) == 0


def test_anything_that_holds_one_as_ssl_does_is_taken(make_link):
    """gevent's sockets do, and derive from none of ssl's classes."""
    link = make_link("tls13")
    pykeyupdate.key_update(Answering(link.client._sslobj))
    assert pykeyupdate.get_key_update_type(link.client) == 0


def test_subclasses_are_taken(make_contexts):
    class Mine(ssl.SSLObject):
        pass

    context, _ = make_contexts("tls13")
    context.sslobject_class = Mine
    mine = context.wrap_bio(
        ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost"
    )
    assert type(mine) is Mine
    assert pykeyupdate.get_key_update_type(mine) == -1


def test_unconnected_socket_has_no_handshake_yet(function, make_contexts):
    import socket

    context, _ = make_contexts("tls13")
    with context.wrap_socket(socket.socket(), server_hostname="localhost") as fresh:
        with pytest.raises(pykeyupdate.HandshakeNotDoneError, match="not connected"):
            function(fresh)


@pytest.mark.parametrize("managed", [False, True])
def test_listening_socket_is_told_of_accept(function, make_contexts, managed):
    import socket

    _, context = make_contexts("tls13")
    if managed:
        pykeyupdate.manage(context)
    with socket.create_server(("127.0.0.1", 0)) as plain:
        with context.wrap_socket(plain, server_side=True) as listening:
            with pytest.raises(pykeyupdate.HandshakeNotDoneError, match=r"accept\(\)"):
                function(listening)


def test_closed_socket_is_refused(function, make_link):
    link = make_link("tls13", "socket")
    link.client.close()
    with pytest.raises(pykeyupdate.ConnectionClosedError, match="closed or unwrapped"):
        function(link.client)


def test_unwrapped_socket_is_refused(function, make_link):
    link = make_link("tls12", "socket")
    for _ in range(2):
        for end in link.ends:
            try:
                end.unwrap()
            except (ssl.SSLWantReadError, ValueError):
                pass
    with pytest.raises(ValueError, match="closed or unwrapped") as caught:
        function(link.client)
    assert isinstance(caught.value, pykeyupdate.NotPossibleError)


def test_objects_made_without_ssls_constructors_are_refused(function):
    for cls in (ssl.SSLSocket, ssl.SSLObject):
        with pytest.raises((TypeError, ValueError)):
            function(cls.__new__(cls))


@pytest.mark.skipif(
    sys.version_info >= (3, 12) or sys.version_info < (3, 10),
    reason="only these let _ssl._SSLSocket() be called, for certain",
)
def test_handmade_inner_object_is_refused(function, make_link):
    empty = type(make_link("tls13").client._sslobj)()
    for value in (empty, Answering(empty)):
        with pytest.raises(TypeError, match="holds no connection"):
            function(value)


def test_context_replaced_on_a_live_connection_is_no_obstacle(make_link, make_contexts):
    link = make_link("tls13")
    link.server.context = make_contexts("tls13")[1]
    pykeyupdate.key_update(link.server)
    assert pykeyupdate.get_key_update_type(link.server) == 0


def test_message_names_the_connection(make_link):
    link = make_link("tls12", "socket")
    with pytest.raises(pykeyupdate.PyKeyUpdateError) as caught:
        pykeyupdate.key_update(link.client)
    assert str(caught.value).startswith(f"key_update({link.client!r}): ")


def test_a_broken_repr_does_not_hide_the_reason(make_link):
    class Unprintable(Answering):
        def __repr__(self):
            raise ZeroDivisionError

    link = make_link("tls12")
    with pytest.raises(pykeyupdate.WrongProtocolVersionError, match="without a repr"):
        pykeyupdate.key_update(Unprintable(link.client._sslobj))


def test_connection_dropped_from_inside_the_call(make_link, function):
    """The last other reference to the connection goes while it is looked up."""

    class Dropping:
        def __init__(self, link):
            self.link = link

        @property
        def _sslobj(self):
            sslobj = self.link.client._sslobj
            del self.link.client._sslobj
            self.link = None
            gc.collect()
            return sslobj

    link = make_link("tls12")
    holder = Dropping(link)
    try:
        function(holder)
    except pykeyupdate.PyKeyUpdateError:
        pass


@pytest.mark.parametrize("cls", [pykeyupdate.SSLObject, pykeyupdate.SSLSocket])
def test_a_half_made_connection_has_a_repr(cls):
    assert cls.__name__ in repr(cls.__new__(cls))
