"""pykeyupdate/connections.py: what leads to a connection, and what does not."""

import asyncio
import http.client
import io
import smtplib
import socket
import ssl
import types
from unittest import mock

import pytest

import pykeyupdate
from pykeyupdate import aio

CALLS = [
    pykeyupdate.key_update,
    pykeyupdate.get_key_update_type,
    pykeyupdate.renegotiate_pending,
    pykeyupdate.rekey,
    pykeyupdate.flush,
    pykeyupdate.wait_for_renegotiation,
    pykeyupdate.request_client_certificate,
]


@pytest.fixture(params=CALLS, ids=lambda call: call.__name__)
def call(request):
    return request.param


class Hooked:
    """A class of somebody's own."""

    def __init__(self, inside):
        self.inside = inside

    def __tls_connection__(self):
        return self.inside


class Holding:
    def __init__(self, **attributes):
        vars(self).update(attributes)


def test_hook_leads_to_the_connection(tls13, role):
    conn = Hooked(Holding(sock=Hooked(tls13.end(role))))
    pykeyupdate.rekey(conn)
    assert tls13.said(role) == ["KeyUpdate(0)"]
    pykeyupdate.key_update(conn)
    assert pykeyupdate.get_key_update_type(tls13.end(role)) == 0


def test_hook_goes_before_anything_else(tls13):
    class Both(Hooked):
        sock = tls13.server

    pykeyupdate.rekey(Both(tls13.client))
    assert tls13.said("client") == ["KeyUpdate(0)"]
    assert tls13.said("server") == []


def test_hook_that_gives_nothing_has_no_connection_now(call):
    with pytest.raises(pykeyupdate.ConnectionClosedError, match="no connection now"):
        call(Hooked(None))


def test_hook_that_raises_is_heard(call):
    class Failing:
        def __tls_connection__(self):
            raise LookupError("which of them?")

    with pytest.raises(LookupError, match="which of them"):
        call(Failing())


def test_hook_is_looked_up_on_the_class(call):
    holder = Holding(__tls_connection__=lambda: None)
    with pytest.raises(TypeError, match="__tls_connection__"):
        call(holder)


def test_endless_hook_is_a_type_error(call):
    endless = Hooked(None)
    endless.inside = endless
    with pytest.raises(TypeError, match="nothing in it"):
        call(endless)


def test_errors_name_what_was_passed(make_link):
    link = make_link("tls12")
    conn = Hooked(link.client)
    with pytest.raises(pykeyupdate.WrongProtocolVersionError, match="Hooked object"):
        pykeyupdate.key_update(conn)


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "socket",
        b"",
        (),
        (1, 2),
        {},
        object(),
        type,
        ssl,
        ssl.SSLSocket,
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        ssl.MemoryBIO(),
        asyncio.StreamWriter,
        io.BytesIO(),
        print,
        [].append,
        types.SimpleNamespace(sock=1),
        Holding(transport=Holding(transport=5)),
        Holding(extensions={}),
        Holding(extensions={"network_stream": 3}),
        mock.Mock(),
        mock.MagicMock(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_connection(call, value):
    with pytest.raises(TypeError) as caught:
        call(value)
    assert isinstance(caught.value, pykeyupdate.NotATLSConnectionError)
    assert f"{call.__name__}() takes a TLS connection" in str(caught.value)
    assert repr(type(value)) in str(caught.value)


def test_plain_sockets_say_so(call):
    with socket.socket() as plain:
        for conn in (plain, Holding(sock=plain), Holding(connection=plain)):
            with pytest.raises(TypeError, match="plain one, without TLS"):
                call(conn)


@pytest.mark.parametrize(
    "conn", [http.client.HTTPSConnection("localhost"), smtplib.SMTP()]
)
def test_not_connected_yet(call, conn):
    with pytest.raises(pykeyupdate.ConnectionClosedError, match="not connected yet"):
        call(conn)


def test_closed_socket_inside(call, make_link):
    link = make_link("tls13", "socket")
    link.client.close()
    with pytest.raises(pykeyupdate.ConnectionClosedError, match="closed or unwrapped"):
        call(Hooked(link.client))


def test_inner_object_stands_for_its_socket(make_link):
    """httpcore's sync stream gives this one."""
    link = make_link("tls13", "socket")
    link.client.settimeout(20)
    pykeyupdate.rekey(link.client._sslobj)
    assert link.said("client") == ["KeyUpdate(0)"]
    link.client.settimeout(0)


def test_object_that_holds_one_as_ssls_do(make_link):
    """gevent's sockets derive from none of ssl's classes."""

    class Green:
        def __init__(self, tls):
            self._sslobj, self.tls = tls._sslobj, tls

        def __getattr__(self, name):
            return getattr(self.tls, name)

    for version in ("tls13", "tls12"):
        link = make_link(version, "socket")
        pykeyupdate.rekey(Green(link.client))
        assert link.said("client") == [
            "KeyUpdate(0)" if version == "tls13" else "ClientHello"
        ]
        link.settle()
        assert link.talks()


def test_object_without_a_way_to_send_has_the_controls_alone(make_link):
    """aiohttp's client WebSocket gives its SSLObject, and no transport."""

    class WebSocket:
        def get_extra_info(self, name, default=None):
            return link.client if name == "ssl_object" else default

    link = make_link("tls13")
    with pytest.raises(TypeError, match="no documented way to send"):
        asyncio.run(aio.rekey(WebSocket()))
    assert link.said("client") == []
    pykeyupdate.key_update(WebSocket())
    link.client.write(b"carries it out")
    assert link.said("client") == ["KeyUpdate(0)"]
