"""Libraries that use one connection in several threads, on managed sockets.

Each client has its own reader thread, and talks to a real broker or server that sends
everything back. While messages go both ways, one more thread changes keys every few
milliseconds, on every end that is in this process. PYKEYUPDATE_TRAFFIC_SECONDS sets the
duration; ``python tests/stress traffic`` is the long run.
"""

import faulthandler
import os
import random
import selectors
import ssl
import sys
import threading
import time

import pytest
from support import pace
from support.link import Witness
from support.servers import serving

import pykeyupdate

SECONDS = float(os.environ.get("PYKEYUPDATE_TRAFFIC_SECONDS", "2"))
STALLED = 30  # seconds in which no message comes back: a deadlock, or lost data
WINDOW = 16  # messages on their way
PAUSE = 0.003  # between two changes of keys
KEYS = 5 * SECONDS  # new keys that there must be at least: there are many more

TEXT = f"{random.Random(0).getrandbits(1 << 18):x}"
LENGTHS = [0, 10, 100, 1500, 16384, 40000]

pytestmark = pytest.mark.timeout(SECONDS + 3 * STALLED)


def message(number):
    """Return the message of a number; no two are the same."""
    chance = random.Random(number)
    start = chance.randrange(len(TEXT) - max(LENGTHS))
    return f"{number} {TEXT[start : start + chance.choice(LENGTHS)]}"


class Traffic(Witness):
    """Messages that must come back as they were and in order, while keys change."""

    def __init__(self):
        super().__init__()
        self.ends = []  # what rekey() takes
        self.sent = self.returned = self.rekeys = self.refused = 0
        self.longest = 0.0  # seconds in which no message came back
        self.failures = []
        self.room = threading.Semaphore(WINDOW)
        self.over = threading.Event()

    def take(self, text):
        """Take a message that came back, in any one thread."""
        if text != message(self.returned):
            self.failures.append(f"message {self.returned} is {text[:40]!r}")
        self.returned += 1
        self.room.release()

    def run(self, send, conn):
        """Send for a while and change keys; return when all messages are back."""
        self.ends.append(conn)
        threads = [
            threading.Thread(target=self._guard, args=work, daemon=True)
            for work in ((self._send, send), (self._change_keys,))
        ]
        for thread in threads:
            thread.start()
        self._watch(threads[0])
        self.over.set()
        for thread in threads:
            thread.join(STALLED)
        print(
            f"{self.returned} of {self.sent} messages came back, none for "
            f"{self.longest:.2f} s; {self.rekeys} rekeys, {self.refused} not now"
        )
        assert self.failures == []
        assert not any(thread.is_alive() for thread in threads)
        assert self.returned == self.sent > 0

    def changed(self, end):
        """Return whether one end has sent new keys, and got its peer's, all the time.

        Each handshake below TLS 1.3 has one Finished of each side.
        """
        counts = {}
        for verb in ("sent", "received"):
            said = self.said(end, verb)
            updates = sum(name.startswith("KeyUpdate") for name in said)
            counts[verb] = updates + said.count("Finished") - 1
        print(f"new keys at the {end}: {counts}")
        return min(counts.values()) >= KEYS

    def _guard(self, work, *args):
        try:
            work(*args)
        except Exception as error:
            self.failures.append(error)

    def _send(self, send):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and not self.over.is_set():
            if self.room.acquire(timeout=0.1):
                self.sent += 1
                send(message(self.sent - 1))

    def _change_keys(self):
        chance = random.Random(0)
        while not self.over.wait(PAUSE):
            end = chance.choice(self.ends)
            try:
                pykeyupdate.rekey(end, request_peer=chance.random() < 0.5)
                self.rekeys += 1
            except (pykeyupdate.NotNowError, ssl.SSLWantWriteError):
                self.refused += 1  # to be called again, after a while or at once

    def _watch(self, sender):
        returned, since = 0, time.monotonic()
        while not self.failures and (sender.is_alive() or self.returned < self.sent):
            if self.returned != returned:
                returned, since = self.returned, time.monotonic()
            self.longest = max(self.longest, time.monotonic() - since)
            if self.longest > STALLED:
                faulthandler.dump_traceback(sys.__stderr__)
                self.failures.append("stalled; where the threads are is on stderr")
            time.sleep(0.005)


@pytest.fixture
def traffic():
    return Traffic()


@pytest.fixture
def contexts(make_contexts, version, traffic):
    """A client's and a server's, managed and watched."""
    made = make_contexts(version)
    for end, context in zip(("client", "server"), made):
        pykeyupdate.manage(context, limits=None)
        traffic.watch(end, context)
    return made


# -- MQTT: paho against mosquitto ------------------------------------------------------


@pytest.mark.parametrize("version", ["tls13"])  # it takes no renegotiation
def test_paho_mqtt(contexts, library, mosquitto, traffic):
    mqtt = library("paho.mqtt.client")
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    subscribed = threading.Event()
    client.on_connect = lambda *args: client.subscribe("echo", qos=1)
    client.on_subscribe = lambda *args: subscribed.set()
    client.on_message = lambda client, data, got: traffic.take(got.payload.decode())
    client.tls_set_context(contexts[0])
    client.connect(*mosquitto)
    client.loop_start()
    try:
        assert subscribed.wait(STALLED)
        assert type(client.socket()) is pykeyupdate.SSLSocket
        traffic.run(lambda text: client.publish("echo", text, qos=1), client.socket())
    finally:
        client.disconnect()
        client.loop_stop()
    assert traffic.changed("client")


# -- WebSockets ------------------------------------------------------------------------


@pytest.fixture
def websocket_url(contexts, library, traffic):
    """Start a server of websockets that echoes; its ends are rekeyed as well."""

    def echo(connection):
        traffic.ends.append(connection)
        for text in connection:
            connection.send(text)

    serve = library("websockets.sync.server").serve
    with serve(echo, "127.0.0.1", 0, ssl=contexts[1], compression=None) as server:
        with serving(server):
            yield f"wss://localhost:{server.socket.getsockname()[1]}"


def test_websockets(contexts, library, traffic, websocket_url):
    connect = library("websockets.sync.client").connect
    with connect(websocket_url, ssl=contexts[0], compression=None) as connection:

        def read():
            for text in connection:
                traffic.take(text)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            traffic.run(connection.send, connection)
        finally:
            connection.close()
            reader.join(STALLED)
    assert traffic.changed("client")


def test_websocket_client(contexts, library, traffic, websocket_url):
    opened = threading.Event()
    app = library("websocket").WebSocketApp(
        websocket_url,
        on_open=lambda app: opened.set(),
        on_message=lambda app, text: traffic.take(text),
        on_error=lambda app, error: traffic.failures.append(error),
    )
    # Its thread may not see the end and wait for the timeout, on ssl's own sockets too.
    options = {"sslopt": {"context": contexts[0]}, "ping_timeout": 1}
    thread = threading.Thread(target=app.run_forever, kwargs=options)
    thread.start()
    try:
        assert opened.wait(STALLED), traffic.failures
        traffic.run(app.send, app.sock.sock)
    finally:
        app.close()
        thread.join(STALLED)
    assert traffic.changed("client")


# -- STOMP: stomp.py against CoilMQ ----------------------------------------------------


@pytest.fixture
def coilmq(contexts, library, traffic):
    """Start the broker; return its port. Its end is rekeyed as well."""
    module = library("coilmq.server.socket_server")
    queues, topics = library("coilmq.queue"), library("coilmq.topic")
    memory = library("coilmq.store.memory")

    class Server(module.ThreadedStompServer):
        def get_request(self):
            plain, address = super().get_request()
            tls = contexts[1].wrap_socket(plain, server_side=True)
            traffic.ends.append(tls)
            return tls, address

    with (
        Server(
            ("127.0.0.1", 0),
            queue_manager=queues.QueueManager(memory.MemoryQueue()),
            topic_manager=topics.TopicManager(),
        ) as server,
        serving(server),
    ):
        yield server.server_address[1]


def test_stomp(library, traffic, coilmq, trust_file, version):
    if version == "tls13":
        pace.skip_if_kept()  # nobody watches the context that it makes
    stomp = library("stomp")
    host = "127.0.0.1", coilmq
    connection = stomp.Connection([host])
    connection.set_ssl([host], ca_certs=trust_file)
    if hasattr(connection.transport, "sel") and not hasattr(selectors, "EpollSelector"):
        # 9.0; its connect() then never returns, with ssl's own sockets as well
        pytest.skip("stomp.py registers for no event, which other selectors refuse")
    listener = stomp.ConnectionListener()
    listener.on_message = lambda frame: traffic.take(frame.body)
    listener.on_error = lambda frame: traffic.failures.append(frame.body)
    connection.set_listener("", listener)
    threads = []

    def start(work):
        threads.append(threading.Thread(target=work, daemon=True))
        threads[-1].start()
        return threads[-1]

    transport = connection.transport
    transport.override_threading(start)  # its own name for it differs by version
    pykeyupdate.install(managed=True, limits=None)  # it makes a context of its own
    try:
        connection.connect(wait=True)
    finally:
        pykeyupdate.uninstall()
    try:
        assert type(transport.socket) is pykeyupdate.SSLSocket
        connection.subscribe("/topic/echo", id=1)
        traffic.run(lambda text: connection.send("/topic/echo", text), transport.socket)
    finally:
        connection.disconnect()
        for thread in threads:
            thread.join(STALLED)
    assert traffic.changed("server")
