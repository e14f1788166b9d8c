"""Which keys protect a record, around a KeyUpdate (RFC 9846 4.7.3).

The test makes the peer's records itself, and decrypts what the connection sends
(``sealed``), so that it does not rely on what OpenSSL says.
"""

import contextlib
import ssl

import pytest
from cryptography.exceptions import InvalidTag
from support.link import HANDSHAKE, Link
from support.sealed import APPLICATION_DATA, SUITE, Keys, key_update, secret_in, split

import pykeyupdate
from pykeyupdate import KeyUpdateType

UNEXPECTED_MESSAGE, BAD_RECORD_MAC, ILLEGAL_PARAMETER = 10, 20, 47  # alerts
BAD_MAC = "(?i)bad.record.mac|record.layer.failure"


class Case:
    """A connection over memory whose keys are in the test's hands."""

    def __init__(self, contexts, role, managed, keylog):
        self.role, self.keylog = role, keylog
        self.mine = contexts[role == "server"]
        self.mine.keylog_filename = str(keylog)
        contexts[1].num_tickets = 0  # records are counted from 0
        if managed:
            pykeyupdate.manage(self.mine, policy=None, limits=None)
        self.link = Link(*contexts)
        self.end = self.link.end(role)
        bios = self.link.to_client, self.link.to_server
        self.incoming, self.outgoing = bios if role == "client" else bios[::-1]

    def connected(self):
        self.link.handshake()
        assert self.end.cipher()[0] == SUITE
        return self

    def keys(self, name, secret="TRAFFIC_SECRET_0"):
        return Keys(secret_in(self.keylog, f"{name.upper()}_{secret}"))

    @property
    def ours(self):
        """The keys of what the end sends, at the beginning."""
        return self.keys(self.role)

    @property
    def theirs(self):
        """The keys of what the end receives, at the beginning."""
        return self.keys("server" if self.role == "client" else "client")

    def reads(self, *records):
        """Return what the end reads of the records."""
        self.incoming.write(b"".join(records))
        data = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while True:
                data += self.end.read(100)
        return data

    def sent(self):
        return split(self.outgoing.read())


@pytest.fixture(params=[False, True], ids=["ssl's own", "managed"])
def managed(request):
    return request.param


@pytest.fixture
def case(make_contexts, role, managed, tmp_path):
    return Case(make_contexts("tls13"), role, managed, tmp_path / "keys").connected()


def test_a_key_update_is_under_the_old_keys_and_what_follows_under_the_next(case):
    keys = case.ours
    for update_type in (0, 0, 0, 1):
        pykeyupdate.key_update(case.end, update_type)
        case.end.write(b"data")
        update, data = case.sent()
        assert keys.open(update) == (HANDSHAKE, key_update(update_type))
        with pytest.raises(InvalidTag):
            keys.open(data)
        keys = keys.next()
        assert keys.open(data) == (APPLICATION_DATA, b"data")
        case.end.write(b"more")
        assert [keys.open(record)[1] for record in case.sent()] == [b"more"]


def test_rekey_sends_the_message_under_the_old_keys_too(case):
    keys = case.ours
    pykeyupdate.rekey(case.end)
    (update,) = case.sent()
    assert keys.open(update) == (HANDSHAKE, key_update(0))
    case.end.write(b"data")
    (data,) = case.sent()
    assert keys.next().open(data) == (APPLICATION_DATA, b"data")


def test_receiving_keys_change_with_each_key_update(case):
    keys = case.theirs
    assert case.reads(keys.seal_data(b"0")) == b"0"
    for number in (b"1", b"2", b"3"):
        update, keys = keys.seal_key_update(), keys.next()
        assert case.reads(update, keys.seal_data(number)) == number
        assert case.reads(keys.seal_data(b"more")) == b"more"


def ends_with(case, alert, match, *records):
    """The records end the connection, with an alert for the peer."""
    with pytest.raises(ssl.SSLError, match=match):
        case.reads(*records)
    (last,) = case.sent()
    assert case.ours.open_alert(last) == alert
    with pytest.raises(pykeyupdate.ConnectionFailedError):
        pykeyupdate.key_update(case.end)


def test_the_old_keys_are_not_taken_behind_a_key_update(case):
    keys = case.theirs
    stale = [keys.seal_key_update(), keys.seal_data(b"stale")]
    ends_with(case, BAD_RECORD_MAC, BAD_MAC, *stale)


@pytest.mark.parametrize("what", ["data", "key update"])
def test_the_next_keys_are_not_taken_before_their_key_update(case, what):
    """A KeyUpdate was held back on the way: what follows it must not pass."""
    keys = case.theirs.next()
    early = keys.seal_data(b"early") if what == "data" else keys.seal_key_update()
    ends_with(case, BAD_RECORD_MAC, BAD_MAC, early)


@pytest.mark.parametrize("value", [2, 3, 128, 255])
def test_another_value_of_request_update_ends_the_connection(case, value):
    wrong = case.theirs.seal_key_update(value)
    ends_with(case, ILLEGAL_PARAMETER, "(?i)bad.key.update", wrong)


def test_an_answer_goes_before_the_next_data(case):
    ours, theirs = case.ours, case.theirs
    for _ in range(3):
        request, theirs = theirs.seal_key_update(1), theirs.next()
        assert case.reads(request, theirs.seal_data(b"question")) == b"question"
        case.end.write(b"data")
        answer, data = case.sent()
        assert ours.open(answer) == (HANDSHAKE, key_update(0))
        ours = ours.next()
        assert ours.open(data) == (APPLICATION_DATA, b"data")
        case.end.write(b"more")  # answered once
        assert [ours.open(record)[1] for record in case.sent()] == [b"more"]


def test_anything_may_come_before_the_answer_to_a_request(case):
    """It was on its way already: data, and the peer's own KeyUpdates."""
    pykeyupdate.key_update(case.end, KeyUpdateType.REQUESTED)
    case.end.write(b"data")
    request, _ = case.sent()
    assert case.ours.open(request) == (HANDSHAKE, key_update(1))
    keys, records = case.theirs, []
    for number in range(10):
        records.append(keys.seal_data(b"%d" % number))
        records.append(keys.seal_key_update())
        keys = keys.next()
    assert case.reads(*records, keys.seal_data(b"!")) == b"0123456789!"
    assert case.sent() == []


# -- before there are keys of data -----------------------------------------------------


def test_a_key_update_before_finished_ends_the_handshake(
    make_contexts, role, managed, tmp_path
):
    """Under the keys of the handshake, in place of the peer's next message there."""
    case = Case(make_contexts("tls13"), role, managed, tmp_path / "keys")
    for end in case.link.ends:
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    flight = split(case.link.to_client.read())
    if role == "client":
        server_hello, change_cipher_spec = flight[:2]
        case.incoming.write(server_hello + change_cipher_spec)
        with pytest.raises(ssl.SSLWantReadError):
            case.end.do_handshake()
    peer = "server" if role == "client" else "client"
    keys = case.keys(peer, "HANDSHAKE_TRAFFIC_SECRET")
    case.incoming.write(keys.seal_key_update())
    with pytest.raises(ssl.SSLError, match="(?i)unexpected.message"):
        case.end.do_handshake()
    last = case.sent()[-1]
    if role == "client":  # its own keys come with its Finished
        assert last == b"\x15\x03\x03\x00\x02\x02" + bytes([UNEXPECTED_MESSAGE])
    else:
        assert case.ours.open_alert(last) == UNEXPECTED_MESSAGE
