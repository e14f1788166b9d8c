"""ext/calls/controls.c, key update: SSL_key_update(3), statement by statement.

Renegotiation is in test_renegotiation.py. Each test names the statement that it checks.
The witness is always OpenSSL's message callback or the key log, never our own return
value alone.
"""

import ssl
import threading

import pytest
from support.link import NOT_REQUESTED, REQUESTED, Link, fill_to_the_brim, write_nothing
from support.sockets import needs_unix_pair, socket_pair

import pykeyupdate
from pykeyupdate import KeyUpdateType, _keyupdate

BOTH_TYPES = pytest.mark.parametrize(
    ("update_type", "message"),
    [
        (KeyUpdateType.NOT_REQUESTED, NOT_REQUESTED),
        (KeyUpdateType.REQUESTED, REQUESTED),
    ],
)


# -- SSL_key_update: schedules, and what the peer is told ------------------------


@BOTH_TYPES
def test_key_update_sends_nothing_when_called(tls13, role, update_type, message):
    pykeyupdate.key_update(tls13.end(role), update_type)
    assert tls13.wire == []
    if tls13.over == "memory":
        assert tls13.to_client.pending == tls13.to_server.pending == 0


@BOTH_TYPES
def test_key_update_informs_the_peer(tls13, role, update_type, message):
    end, peer = tls13.end(role), tls13.peer(role)
    pykeyupdate.key_update(end, update_type)
    end.write(b"x")
    assert tls13.said(role) == [message]
    assert peer.read(10) == b"x"
    other = "server" if role == "client" else "client"
    assert tls13.said(other, "received") == [message]


def test_key_update_default_is_not_requested(tls13, role):
    pykeyupdate.key_update(tls13.end(role))
    assert pykeyupdate.get_key_update_type(tls13.end(role)) == (
        KeyUpdateType.NOT_REQUESTED
    )
    tls13.end(role).do_handshake()
    assert tls13.said(role) == [NOT_REQUESTED]


def test_not_requested_changes_only_our_sending_keys(tls13, role):
    pykeyupdate.key_update(tls13.end(role))
    assert tls13.talks()
    assert [w for w in tls13.wire if w[1] == "sent"] == [(role, "sent", NOT_REQUESTED)]


def test_requested_makes_the_peer_update_its_keys_with_its_next_write(tls13, role):
    end, peer = tls13.end(role), tls13.peer(role)
    other = "server" if role == "client" else "client"
    pykeyupdate.key_update(end, KeyUpdateType.REQUESTED)
    end.do_handshake()
    tls13.settle()
    assert tls13.said(other) == []
    peer.write(b"x")
    assert tls13.said(other) == [NOT_REQUESTED]
    assert tls13.settle()[role] == b"x"


@pytest.mark.skipif(
    _keyupdate.libssl["version_number"] < 0x30000060,
    reason="OpenSSL before 3.0.6 does not log key updates",
)
def test_key_log_shows_a_new_secret_for_each_update(make_contexts, tmp_path, role):
    contexts = make_contexts("tls13")
    contexts[0].keylog_filename = str(tmp_path / "keys")
    link = Link(*contexts).handshake()

    def secrets():
        lines = (tmp_path / "keys").read_text().splitlines()
        return {line.split()[2] for line in lines if "_TRAFFIC_SECRET_N" in line}

    assert secrets() == set()
    for count in (1, 2, 3):
        pykeyupdate.key_update(link.end(role))
        link.end(role).do_handshake()
        link.settle()
        assert len(secrets()) == count


# -- SSL_key_update: when it takes place -----------------------------------------


@pytest.mark.parametrize(
    "perform",
    [
        lambda end: end.do_handshake(),
        lambda end: end.write(b"x"),
        write_nothing,
        lambda end: pytest.raises(ssl.SSLWantReadError, end.read, 1),
    ],
    ids=["do_handshake", "write", "empty write", "read"],
)
def test_update_takes_place_at_the_next_io(tls13, role, perform):
    end = tls13.end(role)
    pykeyupdate.key_update(end)
    perform(end)
    assert tls13.said(role) == [NOT_REQUESTED]
    assert pykeyupdate.get_key_update_type(end) == KeyUpdateType.NONE
    tls13.settle()
    assert tls13.talks()


def test_pending_is_no_io(tls13, role):
    pykeyupdate.key_update(tls13.end(role))
    tls13.end(role).pending()
    assert tls13.wire == []


def test_do_handshake_does_not_wait_for_the_peer(make_contexts):
    """On a blocking socket whose peer does not read at all."""
    client_context, server_context = make_contexts("tls13")
    near, far = socket_pair()
    with near, far:
        accept = threading.Thread(
            target=lambda: ends.append(
                server_context.wrap_socket(far, server_side=True)
            )
        )
        ends = []
        accept.start()
        with client_context.wrap_socket(near, server_hostname="localhost") as client:
            accept.join()
            with ends[0]:
                pykeyupdate.key_update(client, KeyUpdateType.REQUESTED)
                client.do_handshake()
                assert pykeyupdate.get_key_update_type(client) == KeyUpdateType.NONE


def test_while_scheduled_the_connection_is_in_a_handshake_for_ssl(tls13, role):
    """What our documentation warns of, as the ssl module shows it."""
    end = tls13.end(role)
    pykeyupdate.key_update(end)
    assert end.version() is None
    with pytest.raises(ValueError, match="handshake not done yet"):
        end.getpeercert()
    if tls13.over != "managed":  # which sends the update first
        with pytest.raises(ssl.SSLError, match="SHUTDOWN_WHILE_IN_INIT"):
            end.unwrap()
    end.do_handshake()
    assert end.version() == "TLSv1.3"
    assert tls13.talks()


# -- SSL_key_update: errors -------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        KeyUpdateType.NONE,
        -1,
        2,
        253,
        -(2**31),
        2**31,
        2**32,
        2**64,
        2**64 + 1,
        -(2**70),
        None,
        "REQUESTED",
        b"\x00",
        0.0,
        1.0,
        float("nan"),
        [],
        object(),
        KeyUpdateType,
    ],
    ids=repr,
)
def test_other_update_types_are_a_value_error(tls13, role, value):
    end = tls13.end(role)
    with pytest.raises(ValueError, match="update_type must be") as caught:
        pykeyupdate.key_update(end, value)
    assert isinstance(caught.value, pykeyupdate.InvalidKeyUpdateTypeError)
    assert pykeyupdate.get_key_update_type(end) == KeyUpdateType.NONE
    assert tls13.talks()


@pytest.mark.parametrize(
    ("value", "message"),
    [(0, NOT_REQUESTED), (1, REQUESTED), (False, NOT_REQUESTED), (True, REQUESTED)],
)
def test_plain_integers_are_update_types(make_link, value, message):
    link = make_link("tls13")
    pykeyupdate.key_update(link.client, update_type=value)
    link.client.do_handshake()
    assert link.said("client") == [message]


def test_key_update_before_the_handshake_is_refused(make_link, over, role):
    link = make_link("tls13", over, connected=False)
    with pytest.raises(pykeyupdate.HandshakeNotDoneError, match="handshake not done"):
        pykeyupdate.key_update(link.end(role))
    assert link.handshake().talks()


def test_key_update_inside_the_handshake_is_refused(make_link, role):
    """At every step of a first handshake, on the end that has just been driven."""
    link = make_link("tls13", connected=False)
    for _ in range(3):
        for end in link.ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                with pytest.raises(pykeyupdate.HandshakeNotDoneError):
                    pykeyupdate.key_update(end)
    link.settle()
    assert link.talks()


def test_key_update_on_tls12_is_refused(tls12, role):
    with pytest.raises(pykeyupdate.WrongProtocolVersionError, match=r"is TLSv1\.2"):
        pykeyupdate.key_update(tls12.end(role))
    assert tls12.talks()


@BOTH_TYPES
def test_second_key_update_before_io_is_refused(tls13, role, update_type, message):
    end = tls13.end(role)
    pykeyupdate.key_update(end, update_type)
    for other in (KeyUpdateType.NOT_REQUESTED, KeyUpdateType.REQUESTED):
        with pytest.raises(pykeyupdate.AlreadyPendingError, match="is scheduled"):
            pykeyupdate.key_update(end, other)
    end.do_handshake()
    assert tls13.said(role) == [message]
    assert tls13.talks()


def test_key_update_with_a_write_pending_is_refused(make_link, role):
    """The manual: the application needs to have completed the writing of data."""
    link = make_link("tls13", "socket")
    end, peer = link.end(role), link.peer(role)
    data = link.fill(role)
    for update_type in (KeyUpdateType.NOT_REQUESTED, KeyUpdateType.REQUESTED):
        with pytest.raises(pykeyupdate.WritePendingError, match="half-way"):
            pykeyupdate.key_update(end, update_type)
    with pytest.raises(ssl.SSLWantReadError):  # a read in between changes nothing
        end.read(1)
    with pytest.raises(pykeyupdate.WritePendingError):
        pykeyupdate.key_update(end)
    finish_write(end, peer, data)
    pykeyupdate.key_update(end)
    end.do_handshake()
    assert link.said(role) == [NOT_REQUESTED]
    link.settle()
    assert link.talks()


def finish_write(end, peer, data):
    """Repeat an incomplete write until it is through, the peer reading meanwhile."""
    while True:
        try:
            while peer.read(65536):
                pass
        except ssl.SSLWantReadError:
            pass
        try:
            return end.write(data)
        except ssl.SSLWantWriteError:
            pass


def test_key_update_after_close_notify_is_refused(tls13, role):
    end = tls13.end(role)
    with pytest.raises(ssl.SSLWantReadError):
        end.unwrap()
    with pytest.raises(pykeyupdate.CloseNotifyError, match="close_notify"):
        pykeyupdate.key_update(end)
    assert tls13.wire == []


def test_key_update_after_the_peers_close_notify_is_allowed(tls13, role):
    """TLS 1.3 closes each direction by itself: ours is still open."""
    end, peer = tls13.end(role), tls13.peer(role)
    with pytest.raises(ssl.SSLWantReadError):
        peer.unwrap()
    try:
        assert end.read(1) == b""
    except ssl.SSLZeroReturnError:
        pass
    pykeyupdate.key_update(end)
    end.write(b"last words")
    assert tls13.said(role) == [NOT_REQUESTED]


def test_key_update_after_a_fatal_error_is_refused_for_good(make_link, role):
    link = make_link("tls13")
    end = link.end(role)
    incoming = link.to_client if role == "client" else link.to_server
    incoming.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError, match="(?i)bad.record.mac|record.layer.failure"):
        end.read(1)
    with pytest.raises(pykeyupdate.ConnectionFailedError, match="fatal TLS error"):
        pykeyupdate.key_update(end)


# -- SSL_get_key_update_type ------------------------------------------------------


def test_type_is_none_when_nothing_is_pending(tls13, role):
    kind = pykeyupdate.get_key_update_type(tls13.end(role))
    assert kind is KeyUpdateType.NONE
    assert kind == -1


@BOTH_TYPES
def test_type_is_the_pending_one_until_it_is_performed(
    tls13, role, update_type, message
):
    end = tls13.end(role)
    pykeyupdate.key_update(end, update_type)
    assert pykeyupdate.get_key_update_type(end) is update_type
    end.do_handshake()
    assert pykeyupdate.get_key_update_type(end) is KeyUpdateType.NONE


def test_type_is_none_before_the_handshake_and_on_tls12(make_link, tls12, role):
    fresh = make_link("tls13", connected=False)
    assert pykeyupdate.get_key_update_type(fresh.end(role)) is KeyUpdateType.NONE
    assert pykeyupdate.get_key_update_type(tls12.end(role)) is KeyUpdateType.NONE


@pytest.mark.skipif(
    _keyupdate.libssl["version_number"] < 0x1010104F, reason="answers at once"
)
def test_type_is_not_requested_while_we_owe_an_answer(tls13, role):
    """Nobody called anything here; reading and do_handshake() do not send it."""
    end, peer = tls13.end(role), tls13.peer(role)
    pykeyupdate.key_update(peer, KeyUpdateType.REQUESTED)
    peer.do_handshake()
    for _ in range(2):
        with pytest.raises(ssl.SSLWantReadError):
            end.read(1)
        end.do_handshake()
        assert pykeyupdate.get_key_update_type(end) is KeyUpdateType.NOT_REQUESTED
    assert tls13.said(role) == []
    write_nothing(end)
    assert tls13.said(role) == [NOT_REQUESTED]
    assert pykeyupdate.get_key_update_type(end) is KeyUpdateType.NONE


def test_owed_answer_is_not_replaced_by_a_request(tls13, role):
    """RFC 9846 4.7.3: the answer must be update_not_requested."""
    end, peer = tls13.end(role), tls13.peer(role)
    pykeyupdate.key_update(peer, KeyUpdateType.REQUESTED)
    peer.do_handshake()
    tls13.settle()
    with pytest.raises(pykeyupdate.AlreadyPendingError, match="answer comes first"):
        pykeyupdate.key_update(end, KeyUpdateType.REQUESTED)
    pykeyupdate.key_update(end)
    end.do_handshake()
    assert tls13.said(role) == [NOT_REQUESTED]
    assert tls13.talks()


@needs_unix_pair
def test_type_is_none_when_built_but_not_sent(make_link, role):
    """With a full send buffer NONE does not mean "on the wire"."""
    link = make_link("tls13", "socket")
    end, peer = link.end(role), link.peer(role)
    fill_to_the_brim(end, peer)
    pykeyupdate.key_update(end)
    with pytest.raises(ssl.SSLWantWriteError):
        end.do_handshake()
    assert pykeyupdate.get_key_update_type(end) is KeyUpdateType.NONE
    with pytest.raises(pykeyupdate.NotNowError):
        pykeyupdate.key_update(end)
    link.settle()
    assert link.said(role) == [NOT_REQUESTED]
    assert pykeyupdate.get_key_update_type(end) is KeyUpdateType.NONE
    link.settle()
    assert link.talks()
