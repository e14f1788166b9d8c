"""_finding.py, _walk.py: which objects lead to a connection, and which do not."""

import asyncio
import collections
import functools
import gc
import http.client
import io
import re
import smtplib
import socket
import ssl
import threading
import time
import types
import warnings
import xmlrpc.client
from typing import ClassVar
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


def of(module, **contents):
    """Make a class as if it were of somebody's module."""
    return type("Imitation", (Holding,), {"__module__": module, **contents})


def refusal(conn, call=pykeyupdate.rekey):
    with pytest.raises(pykeyupdate.NotATLSConnectionError) as caught:
        call(conn)
    return str(caught.value)


def way_into(conn, call=pykeyupdate.rekey):
    """Return what the expression that a refusal names leads to."""
    way = re.search("pass `(.*?)`", refusal(conn, call))[1]
    return eval(way, {"conn": conn})


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


@pytest.mark.parametrize("name", ["__tls_connection__", "get_extra_info"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_coroutines_are_named_and_not_left(call, name, wrapped):
    async def method(*arguments):
        raise AssertionError

    conn = type("Async", (), {name: method})()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # never awaited
        text = refusal(Holding(transport=conn) if wrapped else conn, call)
        gc.collect()
    assert "Async'> gives a coroutine; await it" in text


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
    class Protocol:
        def get_extra_info(self, name, default=None):
            return link.client if name == "ssl_object" else default

    link = make_link("tls13")
    for call in (pykeyupdate.rekey, lambda conn: asyncio.run(aio.rekey(conn))):
        with pytest.raises(TypeError, match="no documented way to send"):
            call(Protocol())
    assert link.said("client") == []
    pykeyupdate.key_update(Protocol())
    link.client.write(b"carries it out")
    assert link.said("client") == ["KeyUpdate(0)"]


def test_an_object_of_ssl_alone_is_told_what_sends(make_link):
    link = make_link("tls13")
    with pytest.raises(TypeError, match="pass the StreamWriter, transport or stream"):
        asyncio.run(aio.rekey(link.client))
    assert link.said("client") == []


# -- strangers -------------------------------------------------------------------------

LOOKERS = [*CALLS, lambda conn: asyncio.run(aio.rekey(conn))]


class Told(Exception):
    """A stranger's code has run."""


def tell(*arguments):
    raise Told(arguments)


class Meta(type):
    """Tells of what is asked of its classes, but for their repr()."""

    __mro__ = __dict__ = property(tell)

    def __getattr__(cls, name):
        tell(name)


class Proxy:
    __getattr__ = __call__ = __getitem__ = __iter__ = __len__ = __bool__ = tell


class Guarded:
    __getattribute__ = tell


class Lazy:
    """As Django's and werkzeug's: it makes itself when it is asked what it is."""

    __class__ = property(tell)
    __dict__ = property(tell)


class Properties:
    transport = raw = connection = sock = socket = stream = property(tell)
    extensions = pending = get_extra_info = extra = recv_events_thread = property(tell)
    extra_attributes = send_all = unwrap = property(tell)
    _sslobj = _connected = owner = property(tell)


class Made(metaclass=Meta):
    pass


class Text(str):
    __slots__ = ()
    __eq__ = __hash__ = partition = split = tell


class Comparing:
    __eq__ = __hash__ = tell


Nameless = eval('type("Nameless", (), {})', {})  # of no module


class Unconnected:
    """One that has no connection now, if it is what it looks like."""

    _connected = property(tell)
    _sslobj = None


class Pair(tuple):
    __slots__ = ()
    __getitem__ = __len__ = __iter__ = tell


class Dict(dict):
    __getitem__ = __len__ = __iter__ = items = values = keys = copy = get = tell


class List(list):
    __getitem__ = __len__ = __iter__ = copy = tell


class Key:
    __repr__ = tell


class Local(threading.local):
    """One that makes itself anew in each thread, when its dict is asked for."""

    def __init__(self):
        if threading.current_thread() is threading.main_thread():
            tell()


def made_in_a_thread(cls):
    made = []
    thread = threading.Thread(target=lambda: made.append(cls()))
    thread.start()
    thread.join()
    return made[0]


STRANGERS = {  # not made before they are looked at: pytest looks at parameters
    "proxy": Proxy,
    "guarded": Guarded,
    "lazy": Lazy,
    "properties": Properties,
    "metaclass": Made,
    "pair": lambda: Pair((1, 2)),
    "dict": lambda: Dict(a=1),
    "list": lambda: List([1]),
    "key": lambda: {Key(): object()},
    "module": of(Text("http.client"), __getattr__=tell),
    "no module": of(Comparing(), __getattr__=tell),
    "nameless": Nameless,
    "unconnected": Unconnected,
    "local": lambda: made_in_a_thread(Local),
    "urllib3": of("urllib3.strange", __getattr__=tell),
    "asyncio": of("asyncio", transport=property(tell)),
    "amqp": lambda: of("amqp", transport=property(tell), sock=property(tell))(
        _transport=None
    ),
    "kombu": lambda: of("kombu", connection=property(tell))(_connection=None),
    "mock": lambda: mock.Mock(spec=ssl.SSLSocket),
    "writer": lambda: mock.MagicMock(spec=asyncio.StreamWriter),
}


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("look", LOOKERS)
def test_nothing_of_a_strangers_runs(look, stranger, wrapped):
    conn = STRANGERS[stranger]()
    with pytest.raises(pykeyupdate.PyKeyUpdateError):
        look(Holding(sock=conn, pool=[conn]) if wrapped else conn)
    if type(conn) in {mock.Mock, mock.MagicMock}:
        assert conn.mock_calls == []


@pytest.mark.parametrize("look", LOOKERS)
def test_no_call_to_another_machine(look):
    calls = []

    class Transport(xmlrpc.client.Transport):
        def request(self, *arguments, **keywords):
            calls.append(arguments)
            return ((None,),)

    proxy = xmlrpc.client.ServerProxy("http://localhost", transport=Transport())
    with pytest.raises(pykeyupdate.NotATLSConnectionError):
        look(proxy)
    assert calls == []
    proxy.method()
    assert len(calls) == 1


def test_properties_that_are_known_are_read(tls13):
    conn = of("aiohttp.web_request", transport=property(lambda self: self.inside))
    pykeyupdate.rekey(conn(inside=Hooked(tls13.client)))
    assert tls13.said("client") == ["KeyUpdate(0)"]
    with pytest.raises(Told):
        pykeyupdate.rekey(of("aiohttp", transport=property(tell))())


@pytest.mark.parametrize("of_ssl", [ssl, pykeyupdate])
@pytest.mark.parametrize("name", ["SSLSocket", "SSLObject"])
def test_half_made_connections_are_refused(call, of_ssl, name):
    cls = getattr(of_ssl, name)
    with pytest.raises(pykeyupdate.PyKeyUpdateError, match=" connection"):
        call(cls.__new__(cls))


def test_slots_are_read(tls13):
    class Slotted:
        __slots__ = ("sock", "transport")

    conn = Slotted()
    refusal(of("somebody")(x=conn))
    with pytest.raises(pykeyupdate.ConnectionClosedError):
        pykeyupdate.rekey(conn)
    conn.sock = tls13.client
    pykeyupdate.rekey(conn)
    assert tls13.said("client") == ["KeyUpdate(0)"]


# -- what an object keeps in private ---------------------------------------------------


class Wrapper:
    """As curio's Socket: it forwards what it has not, and waits in its own way."""

    def __init__(self, sock):
        self._socket = sock

    def __getattr__(self, name):
        return getattr(self._socket, name)

    async def do_handshake(self):
        raise AssertionError


@pytest.mark.parametrize("over", ["socket", "managed"])
def test_wrapper_that_forwards_is_not_its_socket(make_link, over):
    link = make_link("tls13", over)
    link.client.settimeout(20)
    conn = Wrapper(link.client)
    inside = way_into(conn)
    assert inside is link.client
    assert link.said("client") == []
    pykeyupdate.rekey(inside)
    assert link.said("client") == ["KeyUpdate(0)"]
    link.client.settimeout(0)


class Slots:
    __slots__ = ("__sock",)

    def __init__(self, sock):
        self.__sock = sock


@pytest.mark.parametrize("over", ["socket", "managed"])
@pytest.mark.parametrize(
    "keep",
    [
        lambda sock: Holding(_sock=sock),
        lambda sock: Holding(_impl=Holding(_transport=Holding(_sock=sock))),
        lambda sock: Holding(pool=collections.deque([sock])),
        lambda sock: Holding(pool={("localhost", 1): (None, sock)}),
        lambda sock: Holding(pool={object(): object(), Key(): Holding(_sock=sock)}),
        lambda sock: {"wsgi.input": sock},
        lambda sock: {"wsgi.input": sock.makefile("rb")},
        lambda sock: Holding(_file=sock.makefile("w")),
        Slots,
        lambda sock: lambda: sock,
        lambda sock: Holding(_writer=Holding(socket=sock)),
    ],
)
def test_refusal_names_what_is_kept_in_private(make_link, over, keep):
    link = make_link("tls13", over)
    link.client.settimeout(20)
    pykeyupdate.rekey(way_into(keep(link.client)))
    assert link.said("client") == ["KeyUpdate(0)"]
    link.client.settimeout(0)


def test_what_others_hold_is_not_named(make_link):
    """An event loop and the program's own objects know other connections."""
    link = make_link("tls13", "socket")
    other = of("elsewhere")(_sock=link.client)
    loop = asyncio.new_event_loop()
    loop.held = link.client
    for conn in (Holding(app=other), Holding(_loop=loop), Holding(call=lambda: other)):
        assert "pass `" not in refusal(conn)
    loop.close()
    assert "pass `" in refusal(of("elsewhere")(app=other))
    pool = of("redis.connection")(x=of("redis.connection")(_sock=link.client))
    assert "pass `" in refusal(Holding(_pool=pool))


class Wrapping:
    """It gives the SSLObject, and looks like what sends for it."""

    def __init__(self, tls):
        self.tls = tls

    def get_extra_info(self, name):
        return self.tls if name == "ssl_object" else None


class WrappingWriter(Wrapping):
    transport = _loop = loop = drain = property(tell)

    def writelines(self, lines):
        tell()

    def is_closing(self):
        tell()


class WrappingStream(Wrapping):
    """One whose send() does not come to the SSLObject: it keeps the data."""

    async def send_all(self, data):
        assert len(data) == 0

    async def receive_some(self, amount):
        tell()


@pytest.mark.parametrize("function", ["rekey", "flush", "request_client_certificate"])
@pytest.mark.parametrize("cls", [WrappingWriter, WrappingStream])
def test_what_only_looks_like_a_sender_is_refused(make_link, cls, function):
    link = make_link("tls13")
    with pytest.raises(TypeError, match="no documented way to send"):
        asyncio.run(getattr(aio, function)(cls(link.client)))
    assert link.said("client") == []
    link.settle()
    assert link.talks()


@pytest.mark.parametrize("wrapped", [False, True])
def test_get_extra_info_of_a_stranger_may_fail(call, wrapped):
    class Failing:
        def get_extra_info(self, name):
            raise KeyError(name)

    conn = Holding(transport=Failing()) if wrapped else Failing()
    assert "Failing'> raises KeyError('ssl_object')" in refusal(conn, call)


def test_sender_is_named_for_its_own_object_only(make_link):
    """aiohttp's WebSockets give their SSLObject; the request beside it can send."""

    class Transport:
        def __init__(self, tls):
            self.tls = tls

        def get_extra_info(self, name):
            return self.tls

    class Sender(Transport):
        def writelines(self, lines):
            raise AssertionError

        get_protocol = is_closing = writelines

    class WebSocket(Transport):
        pass

    conn = WebSocket(make_link("tls13").client)
    conn._other = Sender(make_link("tls13").client)
    assert "key_update()" in refusal(conn)
    conn._request = Holding(transport=Sender(conn.tls))
    assert way_into(conn) is conn._request
    assert "`pykeyupdate.aio.flush()`" in refusal(conn, pykeyupdate.flush)


@pytest.mark.parametrize("module", ["redis.client", "valkey.client"])
def test_closed_client_says_that_it_holds_none(module):
    text = refusal(of(module)(connection=None, connection_pool=Holding()))
    assert "nothing in it that pykeyupdate knows carries TLS now" in text
    assert "rekey_all()" in text


# -- libraries -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "owner"),
    [
        ("OpenSSL.SSL", "pyOpenSSL"),
        ("twisted.protocols.tls", "pyOpenSSL"),
        ("scrapy.http.response", "pyOpenSSL"),
        ("daphne.server", "pyOpenSSL"),
        ("grpc._channel", "gRPC"),
        ("grpc.aio._channel", "gRPC"),
        ("psycopg", "libpq"),
        ("psycopg2.extensions", "libpq"),
        ("M2Crypto.SSL.Connection", "M2Crypto"),
        ("tlslite.tlsconnection", "tlslite-ng"),
        ("granian._granian", "rustls"),
    ],
)
def test_tls_of_others_is_named(module, owner, call):
    foreign = of(module, send=lambda self: None, transport=property(tell))
    for conn in (
        foreign(),
        type("Mine", (foreign,), {})(),
        foreign().send,
        functools.partial(foreign().send, 1),
        Holding(transport=foreign()),
        Holding(_pool=[Holding(conn=foreign())]),
    ):
        with pytest.raises(TypeError, match=f"its TLS is {owner}'s, not the ssl mod"):
            call(conn)


@pytest.mark.parametrize(
    "hold",
    [
        lambda sock: of("amqp.connection")(_transport=Holding(sock=sock)),
        lambda sock: of("amqp.channel")(
            connection=of("amqp.connection")(_transport=Holding(sock=sock))
        ),
        lambda sock: of("kombu.connection")(
            _connection=of("amqp.connection")(_transport=Holding(sock=sock))
        ),
        lambda sock: of("paho.mqtt.client", socket=lambda self: sock)(),
        lambda sock: of("imapclient.imapclient", socket=lambda self: sock)(),
        lambda sock: of("ldap3.core.connection")(socket=sock),
        lambda sock: of("clickhouse_driver.client")(connection=Holding(socket=sock)),
        lambda sock: of("logging.handlers")(socket=sock),
        lambda sock: of("pymemcache.client.base")(sock=sock),
        lambda sock: of("socketserver")(request=sock),
        lambda sock: of("tornado.web")(
            request=of("tornado.httputil")(
                connection=of("tornado.http1connection")(
                    stream=of("tornado.iostream")(socket=sock)
                )
            )
        ),
        lambda sock: of("urllib3.response", connection=property(lambda self: None))(
            _original_response=of("http.client")(fp=sock.makefile("rb"))
        ),
        lambda sock: of("cheroot.server")(
            rfile=of("cheroot.makefile")(_raw=sock.makefile("rb", buffering=0))
        ),
        lambda sock: sock.makefile("rb"),
        lambda sock: sock.makefile("wb"),
        lambda sock: sock.makefile("rb", buffering=0),
        lambda sock: sock.makefile("r"),
        lambda sock: sock.makefile("w", encoding="ascii"),
    ],
)
def test_ways_that_are_public_are_taken(make_link, hold):
    link = make_link("tls13", "managed")
    link.client.settimeout(20)
    pykeyupdate.rekey(hold(link.client))
    assert link.said("client") == ["KeyUpdate(0)"]
    link.client.settimeout(0)


@pytest.mark.parametrize(
    "hold",
    [
        lambda sock: of("websockets.sync")(socket=sock, recv_events_thread=1),
        lambda sock: of("stomp.transport")(socket=sock, create_thread_fc=1),
        lambda sock: of("paho.mqtt.client", socket=lambda self: sock)(_thread=1),
    ],
)
def test_libraries_with_a_reader_of_their_own(make_link, hold):
    link = make_link("tls12", "socket")
    link.client.settimeout(20)
    with pytest.raises(pykeyupdate.SharedConnectionError):
        pykeyupdate.rekey(hold(link.client))
    assert link.said("client") == []
    link.client.settimeout(0)
    managed = make_link("tls12", "managed")
    pykeyupdate.rekey(hold(managed.client))
    assert managed.said("client") == ["ClientHello"]


def test_files_for_both_directions_do_not_give_their_socket(make_link, call):
    link = make_link("tls13", "socket")
    for mode in ("rw", "rwb"):
        assert "for reading and writing gives no socket" in refusal(
            link.client.makefile(mode), call
        )


class Stranger:
    """One that answers, and says so."""

    called: ClassVar = []

    def get_extra_info(self, *args):
        self.called.append(args)
        raise ZeroDivisionError


class Holder:
    def __init__(self, **parts):
        self.__dict__.update(parts)


def test_a_hint_is_looked_for_without_calling_strangers():
    with pytest.raises(pykeyupdate.NotATLSConnectionError):
        pykeyupdate.rekey(Holder(part=Stranger()))
    assert Stranger.called == []


def test_a_functions_globals_are_not_its_connections(make_link, monkeypatch):
    link = make_link("tls13", "socket")
    monkeypatch.setitem(globals(), "other", link.client)
    with pytest.raises(pykeyupdate.NotATLSConnectionError) as caught:
        pykeyupdate.rekey(lambda data: data)
    assert "__globals__" not in str(caught.value)


def test_a_refusal_looks_at_no_more_than_a_thousand_objects():
    class Part:
        pass

    holder = Holder(**{f"part{number}": Part() for number in range(50_000)})
    begin = time.perf_counter()
    with pytest.raises(pykeyupdate.NotATLSConnectionError):
        pykeyupdate.rekey(holder)
    assert time.perf_counter() - begin < 1  # all of them take two seconds
