"""RFC 5746 on the wire: what the hellos contain, and how each end reacts to wrong ones.

The tests alter hellos on their way (``sealed``). Both ends are OpenSSL's: these tests
show that it verifies what renegotiate() relies on.
"""

import contextlib
import hashlib
import ssl

import pytest
from support.hello import RENEGOTIATION_INFO, SCSV, Hello
from support.link import CLIENT_HELLO, FINISHED, HANDSHAKE, HELLO_REQUEST, Link
from support.sealed import (
    ALERT,
    APPLICATION_DATA,
    TLS12_SUITE,
    prf,
    secret_in,
    split,
    tls12_keys,
)

import pykeyupdate
from pykeyupdate import _keyupdate

SERVER_HELLO = 2
FATAL, HANDSHAKE_FAILURE, ILLEGAL_PARAMETER = 2, 40, 47
# OpenSSL's clients say illegal_parameter where RFC 5746 has them say handshake_failure
ABORTED = {HANDSHAKE_FAILURE, ILLEGAL_PARAMETER}
EXTENDED_MASTER_SECRET, UNKNOWN_EXTENSION = 23, 0xFAFB
OP_LEGACY_SERVER_CONNECT = 0x4  # ssl exports it since Python 3.12
WARNING, NO_RENEGOTIATION = 1, 100
LEGACY_CONNECT_IS_ON = pytest.mark.skipif(
    _keyupdate.libssl["version_number"] < 0x30000000,
    reason="OpenSSL 1.1.1 has OP_LEGACY_SERVER_CONNECT set, and takes such a server",
)


class Spoken(Link):
    """Keeps the messages themselves."""

    def __init__(self, *contexts):
        self.messages = []
        super().__init__(*contexts)

    def saw(self, conn, end, verb, content_type, data):
        super().saw(conn, end, verb, content_type, data)
        if content_type == HANDSHAKE and verb == "sent":
            self.messages.append((end, data))

    def last(self, end, kind):
        return [
            data for who, data in self.messages if who == end and data[0] == kind
        ].pop()

    def hellos(self):
        """Return the last ones, the client's and the server's."""
        return (
            Hello(self.last("client", CLIENT_HELLO)),
            Hello(self.last("server", SERVER_HELLO)),
        )

    def verify_data(self, end):
        """Return that of its last Finished."""
        return self.last(end, FINISHED)[4:]


@pytest.fixture
def contexts(make_contexts, tmp_path):
    client, server = make_contexts("tls12")
    for context in (client, server):
        context.set_ciphers(TLS12_SUITE)
    client.keylog_filename = str(tmp_path / "keys")
    return client, server


@pytest.fixture
def link(contexts):
    return Spoken(*contexts)


# -- what they carry -------------------------------------------------------------------


def test_the_first_handshake_offers_it_in_one_way_and_grants_it(link):
    link.handshake()
    client, server = link.hellos()
    offers = [SCSV in client.suites, client.renegotiated_connection == b""]
    assert offers.count(True) == 1
    assert server.renegotiated_connection == b""


def test_so_does_a_first_handshake_that_resumes_a_session(link, contexts):
    link.handshake()
    again = Spoken(*contexts)
    session = link.client.session
    again.client = contexts[0].wrap_bio(
        again.to_client, again.to_server, server_hostname="localhost", session=session
    )
    again.handshake()
    assert again.client.session_reused
    client, server = again.hellos()
    assert (SCSV in client.suites) != (client.renegotiated_connection == b"")
    assert server.renegotiated_connection == b""


@pytest.mark.parametrize(
    "call", [pykeyupdate.renegotiate, pykeyupdate.renegotiate_abbreviated]
)
def test_a_renegotiation_carries_the_last_finished_messages(link, role, call):
    """Each one those of the handshake before it."""
    link.handshake()
    for _ in range(3):
        clients, servers = link.verify_data("client"), link.verify_data("server")
        call(link.end(role))
        with contextlib.suppress(ssl.SSLWantReadError):
            link.end(role).do_handshake()
        link.settle()
        client, server = link.hellos()
        assert client.renegotiated_connection == clients
        assert SCSV not in client.suites
        assert server.renegotiated_connection == clients + servers
        assert link.verify_data("client") != clients
    assert link.talks()


def test_a_server_that_never_renegotiates_grants_it_too(contexts):
    contexts[1].options |= ssl.OP_NO_RENEGOTIATION
    _, server = Spoken(*contexts).handshake().hellos()
    assert server.renegotiated_connection == b""


def test_a_server_sends_no_extension_that_was_not_offered(link):
    client, server = link.handshake().hellos()
    assert set(server.extensions) - {RENEGOTIATION_INFO} <= set(client.extensions)


# -- a first handshake that somebody has altered ---------------------------------------


def altered(record, change):
    hello = Hello(record[5:])
    change(hello)
    message = hello.message()
    return record[:3] + len(message).to_bytes(2, "big") + message


def first_server_hello(link, change):
    """Return what the server says to an altered ClientHello: a hello or an alert."""
    with contextlib.suppress(ssl.SSLWantReadError):
        link.client.do_handshake()
    link.to_server.write(altered(link.to_server.read(), change))
    with contextlib.suppress(ssl.SSLError):
        link.server.do_handshake()
    return split(link.to_client.read())[0]


@pytest.mark.parametrize(
    ("extension", "scsv", "granted"),
    [(None, True, b""), (b"", False, b""), (b"", True, b""), (None, False, None)],
    ids=["SCSV", "extension", "both", "neither"],
)
def test_a_server_grants_what_is_offered(link, extension, scsv, granted):
    answer = first_server_hello(
        link, lambda hello: hello.offer(extension=extension, scsv=scsv)
    )
    assert Hello(answer[5:]).renegotiated_connection == granted


def test_a_first_client_hello_is_no_renegotiation(link):
    answer = first_server_hello(link, lambda hello: hello.offer(extension=b"\xaa" * 12))
    assert answer == bytes([ALERT, 3, 3, 0, 2, FATAL, HANDSHAKE_FAILURE])


def test_unknown_extensions_and_higher_versions_are_no_obstacle(link):
    def change(hello):
        hello.version = b"\x03\x99"
        hello.extensions[UNKNOWN_EXTENSION] = b"what is this?"

    answer = Hello(first_server_hello(link, change)[5:])
    assert answer.kind == SERVER_HELLO
    assert answer.version == b"\x03\x03"
    assert UNKNOWN_EXTENSION not in answer.extensions


def clients_alert(link, change):
    """Return what the client says to an altered ServerHello."""
    for end in link.ends:
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    first, *others = split(link.to_client.read())
    link.to_client.write(b"".join([altered(first, change), *others]))
    with pytest.raises(ssl.SSLError):
        link.client.do_handshake()
    (alert,) = split(link.to_server.read())
    assert alert[:6] == bytes([ALERT, 3, 3, 0, 2, FATAL])
    return alert[6]


def test_a_first_server_hello_is_no_renegotiation(link):
    def change(hello):
        hello.renegotiated_connection = b"\xaa" * 24

    assert clients_alert(link, change) in ABORTED


@LEGACY_CONNECT_IS_ON
def test_a_server_without_it_is_refused(link):
    def change(hello):
        del hello.extensions[RENEGOTIATION_INFO]

    assert clients_alert(link, change) == HANDSHAKE_FAILURE


# -- a renegotiation that somebody has altered -----------------------------------------


@pytest.fixture
def keys(link, tmp_path):
    """The client's and the server's, after the first handshake."""
    link.handshake()
    return keys_of(link, tmp_path / "keys")


def keys_of(link, keylog):
    client, server = link.hellos()
    master = secret_in(keylog, f"CLIENT_RANDOM {client.random.hex()}")
    return tls12_keys(master, client.random, server.random)


def begin(link):
    pykeyupdate.renegotiate(link.client)
    with pytest.raises(ssl.SSLWantReadError):
        link.client.do_handshake()


def resealed(keys, record, change):
    """Return the record of the altered hello."""
    number = keys.number
    _, message = keys.open(record)
    keys.number = number
    return keys.seal(HANDSHAKE, altered(bytes(5) + message, change)[5:])


def with_scsv(hello):
    hello.suites.append(SCSV)


def without_info(hello):
    del hello.extensions[RENEGOTIATION_INFO]


def of_the_client(hello):
    """Alter its half."""
    own = hello.renegotiated_connection
    hello.renegotiated_connection = bytes([own[0] ^ 1]) + own[1:]


def of_the_server(hello):
    own = hello.renegotiated_connection
    hello.renegotiated_connection = own[:-1] + bytes([own[-1] ^ 1])


def cut_in_half(hello):
    own = hello.renegotiated_connection
    hello.renegotiated_connection = own[: len(own) // 2]


def alert_in(keys, data):
    (record,) = split(data)
    content_type, (level, description) = keys.open(record)
    assert (content_type, level) == (ALERT, FATAL)
    return description


def test_what_is_not_altered_is_taken(link, keys):
    """Of the next tests, that it is the change which they see."""
    begin(link)
    link.to_server.write(resealed(keys[0], link.to_server.read(), lambda hello: None))
    with pytest.raises(ssl.SSLWantReadError):
        link.server.read(1)
    first, *others = split(link.to_client.read())
    first = resealed(keys[1], first, lambda hello: None)
    link.to_client.write(b"".join([first, *others]))
    assert link.settle() == {"client": b"", "server": b""}
    assert link.said("client")[-1] == link.said("server")[-1] == "Finished"
    assert link.talks()


@pytest.mark.parametrize(
    "change", [with_scsv, without_info, of_the_client, cut_in_half]
)
def test_a_server_verifies_the_hello_of_a_renegotiation(link, keys, change):
    begin(link)
    link.to_server.write(resealed(keys[0], link.to_server.read(), change))
    with pytest.raises(ssl.SSLError):
        link.server.read(1)
    assert alert_in(keys[1], link.to_client.read()) == HANDSHAKE_FAILURE


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(without_info, marks=LEGACY_CONNECT_IS_ON),
        of_the_client,
        of_the_server,
        cut_in_half,
    ],
)
def test_a_client_verifies_the_hello_of_a_renegotiation(link, keys, change):
    begin(link)
    keys[0].number += 1  # its ClientHello
    with pytest.raises(ssl.SSLWantReadError):
        link.server.read(1)
    first, *others = split(link.to_client.read())
    link.to_client.write(b"".join([resealed(keys[1], first, change), *others]))
    with pytest.raises(ssl.SSLError):
        link.client.do_handshake()
    alert = alert_in(keys[0], link.to_server.read())
    assert alert in ABORTED


# -- a peer that knows nothing of it ---------------------------------------------------


def messages(records):
    return b"".join(record[5:] for record in split(records) if record[0] == HANDSHAKE)


class Unknowing:
    """An end whose peer does not know RFC 5746: an OpenSSL whose offer was left out.

    What both then think was said is not the same: the peer's Finished is made to fit,
    and all that it says afterwards is the test's.
    """

    def __init__(self, contexts, keylog, role):
        for context in contexts:
            context.options |= ssl.OP_NO_TICKET  # it would come before the Finished
        contexts[0].options |= OP_LEGACY_SERVER_CONNECT
        self.link, self.role = Spoken(*contexts), role
        self.end = self.link.end(role)
        bios = self.link.to_client, self.link.to_server
        self.incoming, self.outgoing = bios if role == "client" else bios[::-1]
        said, last_flight = self.hellos_and_keys()
        client, server = self.link.hellos()
        master = secret_in(keylog, f"CLIENT_RANDOM {client.random.hex()}")
        keys = tls12_keys(master, client.random, server.random)
        self.ours, self.theirs = keys if role == "client" else keys[::-1]
        self.finish(master, said, last_flight)

    def hellos_and_keys(self):
        """Return what was said in the end's eyes, and the client's last flight."""

        def change(hello):
            hello.offer()
            del hello.extensions[EXTENDED_MASTER_SECRET]  # of the true ClientHello

        link = self.link
        with pytest.raises(ssl.SSLWantReadError):
            link.client.do_handshake()
        true_hello = link.to_server.read()
        false_hello = altered(true_hello, change)
        link.to_server.write(false_hello)
        with pytest.raises(ssl.SSLWantReadError):
            link.server.do_handshake()
        flight = link.to_client.read()
        link.to_client.write(flight)
        with pytest.raises(ssl.SSLWantReadError):
            link.client.do_handshake()
        last_flight = link.to_server.read()
        key_exchange, *_ = split(last_flight)
        hello = true_hello if self.role == "client" else false_hello
        return b"".join(map(messages, (hello, flight, key_exchange))), last_flight

    def finish(self, master, said, last_flight):
        key_exchange, change_cipher_spec, _ = split(last_flight)
        label = b"server finished"
        if self.role == "client":
            said += self.link.last("client", FINISHED)
            self.incoming.write(change_cipher_spec)
        else:
            label = b"client finished"
            self.incoming.write(key_exchange + change_cipher_spec)
        verify_data = prf(master, label, hashlib.sha256(said).digest(), 12)
        self.theirs.number = 0
        self.says(bytes([FINISHED, 0, 0, 12]) + verify_data)
        self.end.do_handshake()
        self.outgoing.read()
        self.link.wire.clear()

    def says(self, message):
        """Have the peer say it."""
        self.incoming.write(self.theirs.seal(HANDSHAKE, message))

    def heard(self):
        """Return what the peer gets, type and content."""
        return [self.ours.open(record) for record in split(self.outgoing.read())]

    def goes_on(self):
        """The end reads what the peer sends as data."""
        self.incoming.write(self.theirs.seal(APPLICATION_DATA, b"as before"))
        return self.end.read(100) == b"as before"


@pytest.fixture
def unknowing(contexts, tmp_path):
    return lambda role: Unknowing(contexts, tmp_path / "keys", role)


@pytest.mark.parametrize(
    "call",
    [
        pykeyupdate.renegotiate,
        pykeyupdate.renegotiate_abbreviated,
        pykeyupdate.rekey,
    ],
)
def test_we_do_not_begin_with_a_peer_without_it(unknowing, role, call):
    case = unknowing(role)
    assert pykeyupdate.secure_renegotiation(case.end) is False
    with pytest.raises(pykeyupdate.InsecureRenegotiationError, match="RFC 5746"):
        call(case.end)
    assert case.goes_on()
    assert case.heard() == []


def test_a_server_does_not_follow_a_client_without_it(unknowing):
    case = unknowing("server")
    case.says(case.link.last("client", CLIENT_HELLO))
    assert case.goes_on()
    assert case.heard() == [(ALERT, bytes([WARNING, NO_RENEGOTIATION]))]


def test_a_client_that_must_not_renegotiate_does_not_follow_a_server_without_it(
    unknowing, contexts
):
    contexts[0].options |= ssl.OP_NO_RENEGOTIATION
    case = unknowing("client")
    case.says(bytes([HELLO_REQUEST, 0, 0, 0]))
    assert case.goes_on()
    assert case.heard() == [(ALERT, bytes([WARNING, NO_RENEGOTIATION]))]


def test_limits_that_say_never_keep_a_client_from_following_a_server_without_it(
    unknowing, contexts
):
    limits = pykeyupdate.PeerLimits(renegotiation="never")
    pykeyupdate.manage(contexts[0], policy=None, limits=limits)
    case = unknowing("client")
    case.says(bytes([HELLO_REQUEST, 0, 0, 0]))
    assert case.goes_on()
    assert case.heard() == [(ALERT, bytes([WARNING, NO_RENEGOTIATION]))]


@pytest.mark.parametrize("info", [b"", b"\xaa" * 12, b"\xaa" * 24])
def test_a_client_that_follows_such_a_server_is_on_its_guard(unknowing, info):
    """OpenSSL's does follow. It says what it knows, and takes no false extension."""
    case = unknowing("client")
    case.says(bytes([HELLO_REQUEST, 0, 0, 0]))
    with pytest.raises(ssl.SSLWantReadError):
        case.end.read(1)
    ((_, message),) = case.heard()
    client_hello = Hello(message)
    assert client_hello.renegotiated_connection == case.link.verify_data("client")
    assert SCSV not in client_hello.suites
    answer = Hello(case.link.last("server", SERVER_HELLO))
    answer.renegotiated_connection = info
    case.says(answer.message())
    with pytest.raises(ssl.SSLError):
        case.end.read(1)
    ((content_type, (level, alert)),) = case.heard()
    assert (content_type, level) == (ALERT, FATAL)
    assert alert in ABORTED


def test_other_threads_are_told_of_a_peer_without_it(unknowing, contexts, role):
    policy = pykeyupdate.RekeyPolicy(renegotiate=True)
    pykeyupdate.manage(contexts[role == "server"], policy=policy)
    end = unknowing(role).end
    [info] = [it for it in pykeyupdate.connections() if it.connection is end]
    assert "does not support RFC 5746" in info.obstacle
