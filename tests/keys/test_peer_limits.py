"""``PeerLimits``: how much a peer may make a managed connection do, and the cut-off.

The peer is an unmanaged connection of ``ssl``. The number of its messages that the
victim processed comes from the victim's OpenSSL, which reports each to its message
callback (``Link``), not from ``stats()``.
"""

import contextlib
import logging
import pickle
import ssl
import time

import pytest
from support import pace
from support.libssl_table import libssl, pointer
from support.link import NOT_REQUESTED, REQUESTED, Link, write_nothing

import pykeyupdate
from pykeyupdate import EventKind, PeerLimitError, PeerLimits
from pykeyupdate.testing import advance_clock

MINUTE = 60
TYPES = pytest.mark.parametrize("type_and_name", [(0, NOT_REQUESTED), (1, REQUESTED)])
OF_A_SOCKET = pytest.mark.parametrize("over", ["socket"])
ON_A_CLIENT = pytest.mark.parametrize("role", ["client"])
ON_A_SERVER = pytest.mark.parametrize("role", ["server"])
RENEGOTIATION = ssl.OP_NO_RENEGOTIATION | pykeyupdate.OP_ALLOW_CLIENT_RENEGOTIATION


def options(conn):
    """Return what is set about renegotiation on the connection, not its context."""
    return libssl.SSL_get_options(pointer(conn)) & RENEGOTIATION


def read_all(conn):
    data = b""
    with contextlib.suppress(ssl.SSLWantReadError):
        while True:
            data += conn.read(65536)
    return data


class Watched:
    """A connection with limits, and its peer, which has none."""

    def __init__(self, link, role):
        self.link = link
        self.role = role
        self.conn = link.end(role)
        self.peer = link.peer(role)

    @property
    def taken(self):
        """The handshake messages that the connection has received."""
        return self.link.said(self.role, "received")

    def updates(self, count, update_type=0):
        """Have the peer send so many KeyUpdates, each by itself.

        OpenSSL may not let it, or let it only in minutes.
        """
        if count > 40 or (count > 1 and update_type):
            pace.skip_if_kept()
        for _ in range(count):
            pykeyupdate.key_update(self.peer, update_type)
            self.peer.do_handshake()

    def read(self):
        return read_all(self.conn)

    def is_cut(self):
        """Read what has come: no data, and the peer is cut."""
        with pytest.raises(PeerLimitError):
            self.conn.read(65536)
        return True

    def ask(self):
        """Have the peer begin a renegotiation, whatever became of the last."""
        assert libssl.SSL_renegotiate(pointer(self.peer)) == 1
        with contextlib.suppress(ssl.SSLWantReadError):
            self.peer.do_handshake()

    def renegotiates(self):
        """Have the peer renegotiate, to the end."""
        self.ask()
        self.link.settle()
        return not pykeyupdate.renegotiate_pending(self.peer)

    def refuses(self):
        """Have the peer begin a renegotiation, and get the alert no_renegotiation."""
        with pytest.raises(ssl.SSLError) as refused:
            self.renegotiates()
        return refused.value.reason == "NO_RENEGOTIATION"


@pytest.fixture(params=["memory", "socket"])
def over(request):
    """An SSLObject, or an SSLSocket."""
    return request.param


@pytest.fixture
def watched(make_contexts, over, role):
    links = []

    def make(version="tls13", *, option=None, **limits):
        contexts = dict(zip(("client", "server"), make_contexts(version)))
        contexts["client"].post_handshake_auth = True
        if option is not None:
            contexts[role].options = contexts[role].options & ~RENEGOTIATION | option
        pykeyupdate.manage(contexts[role], policy=None, limits=PeerLimits(**limits))
        links.append(Link(contexts["client"], contexts["server"], over=over))
        return Watched(links[-1].handshake(), role)

    yield make
    for link in links:
        link.close()


@pytest.fixture
def events():
    """What ``on_event()`` tells, from here on."""
    seen = []
    remove = pykeyupdate.on_event(seen.append)
    yield seen
    remove()


@pytest.fixture
def warnings(caplog):
    """Return the warnings in the log, so far."""
    caplog.set_level(logging.DEBUG, "pykeyupdate")

    def get():
        return [
            record.getMessage()
            for record in caplog.records
            if record.name == "pykeyupdate" and record.levelno >= logging.WARNING
        ]

    return get


# -- key updates -----------------------------------------------------------------------


@TYPES
def test_so_many_in_a_row_and_not_one_more(watched, type_and_name):
    update_type, name = type_and_name
    case = watched(key_updates_in_a_row=5)
    case.updates(5, update_type)
    case.peer.write(b"data")
    assert case.read() == b"data"
    case.updates(6, update_type)
    case.peer.write(b"more")
    assert case.is_cut()
    assert case.taken == [name] * 11


def test_the_default_is_32_in_a_row(watched):
    case = watched()
    case.updates(32)
    case.peer.write(b"data")
    assert case.read() == b"data"
    case.updates(33)
    assert case.is_cut()
    assert case.taken == [NOT_REQUESTED] * 65


def test_nothing_is_read_behind_the_limit(watched):
    """OpenSSL takes all records that are there in one SSL_read()."""
    case = watched(key_updates_in_a_row=5)
    case.updates(60)
    case.peer.write(b"data")
    assert case.is_cut()
    assert case.taken == [NOT_REQUESTED] * 6


def test_data_in_between_begins_a_new_row(watched):
    case = watched(key_updates_in_a_row=5)
    for _ in range(10):
        case.updates(5)
        case.peer.write(b"x")
    assert case.read() == b"x" * 10
    assert case.taken == [NOT_REQUESTED] * 50


def test_so_many_in_a_window_and_not_one_more(watched):
    case = watched(key_updates=10)
    for _ in range(10):
        case.updates(1)
        case.peer.write(b"x")
    assert case.read() == b"x" * 10
    case.updates(1)
    case.peer.write(b"x")
    assert case.is_cut()
    assert case.taken == [NOT_REQUESTED] * 11


def test_the_default_is_480_in_a_minute(watched):
    pace.skip_if_kept()
    case = watched()
    begin = time.monotonic()
    for _ in range(16):
        case.updates(30)
        case.peer.write(b"x")
        assert case.read() == b"x"
    with pytest.raises(PeerLimitError):
        for _ in range(480):
            case.updates(1)
            assert case.read() == b""
    # one is too many, and one more for each 1/8 s that it took
    assert 481 <= len(case.taken) <= 482 + 8 * (time.monotonic() - begin)
    assert set(case.taken) == {NOT_REQUESTED}


def test_a_window_ends(watched):
    case = watched(key_updates=10, key_update_window_seconds=MINUTE)
    for _ in range(3):
        case.updates(10)
        case.peer.write(b"x")
        assert case.read() == b"x"
        advance_clock(MINUTE)
    case.updates(9)
    assert case.read() == b""
    advance_clock(MINUTE // 2)  # five of the ten have come back
    case.updates(6)
    assert case.read() == b""
    case.updates(1)
    assert case.is_cut()
    assert case.taken == [NOT_REQUESTED] * 46


def test_no_more_than_the_limit_around_the_end_of_a_window(watched):
    case = watched(key_updates=10, key_update_window_seconds=MINUTE)
    case.updates(1)
    assert case.read() == b""
    advance_clock(MINUTE - 1)
    case.updates(9)
    assert case.read() == b""
    advance_clock(2)
    case.updates(1)
    assert case.read() == b""
    case.updates(1)
    assert case.is_cut()


def test_a_peer_that_keeps_to_the_limit_is_never_cut(watched):
    """However its messages lie in time: one early, and ten at once a minute later."""
    case = watched(key_updates=10, key_update_window_seconds=MINUTE)
    for wait, count in ((0, 10), (61, 1), (59, 9), (2, 1), (59, 9), (7, 1), (60, 9)):
        advance_clock(wait)
        case.updates(count)
        assert case.read() == b""


def test_a_row_is_a_row_across_the_end_of_a_window(watched):
    case = watched(key_updates_in_a_row=5, key_update_window_seconds=MINUTE)
    case.peer.write(b"x")
    assert case.read() == b"x"
    advance_clock(MINUTE - 1)
    case.updates(5)
    assert case.read() == b""
    advance_clock(2)
    case.updates(1)
    assert case.is_cut()


def test_data_of_ours_ends_a_row_too(watched):
    """A peer that only receives may ask for new keys again and again."""
    case = watched(key_updates_in_a_row=5)
    for _ in range(10):
        case.updates(5)
        assert case.read() == b""
        case.conn.write(b"data")
        case.peer.read(10)
    case.updates(6)
    assert case.is_cut()


def test_each_answer_to_a_request_of_ours_is_free(watched):
    """Also where the program did not wait for one before the next request."""
    pace.skip_if_kept()
    case = watched(key_updates=3, key_updates_in_a_row=3)
    for _ in range(10):
        pykeyupdate.key_update(case.conn, 1)
        case.conn.write(b"data")
        case.peer.read(10)
    case.peer.write(b"x")  # behind the last answer; the others went as it read
    assert case.read() == b"x"
    assert case.taken == [NOT_REQUESTED] * 10
    case.updates(3)
    assert case.read() == b""
    case.updates(1)
    assert case.is_cut()


def test_a_row_ends_with_its_window(watched):
    """An idle peer that changes keys from time to time sends no data at all."""
    case = watched(key_updates_in_a_row=5, key_update_window_seconds=MINUTE)
    for _ in range(4):
        case.updates(5)
        assert case.read() == b""
        advance_clock(MINUTE + 1)
    case.updates(6)
    assert case.is_cut()


@pytest.mark.parametrize("limit", ["key_updates", "key_updates_in_a_row"])
def test_none_at_all(watched, limit):
    case = watched(**{limit: 0})
    case.peer.write(b"data")
    assert case.read() == b"data"
    case.updates(1)
    assert case.is_cut()
    assert case.taken == [NOT_REQUESTED]


def test_without_limits(watched):
    case = watched(key_updates=None, key_updates_in_a_row=None)
    for _ in range(5):
        case.updates(200)
        assert case.read() == b""
    assert case.taken == [NOT_REQUESTED] * 1000


def test_answers_do_not_count(watched):
    case = watched(key_updates=1, key_updates_in_a_row=1)
    for _ in range(10):
        pykeyupdate.rekey(case.conn, request_peer=True)
        assert read_all(case.peer) == b""
        write_nothing(case.peer)
        assert case.read() == b""
    assert case.link.said(case.role) == [REQUESTED] * 10
    assert case.taken == [NOT_REQUESTED] * 10
    case.updates(1)
    assert case.read() == b""
    case.updates(1)
    assert case.is_cut()


def test_a_request_excuses_one_answer(watched):
    case = watched(key_updates=1)
    pykeyupdate.rekey(case.conn, request_peer=True)
    assert read_all(case.peer) == b""
    case.updates(1)
    case.updates(1)
    assert case.read() == b""
    case.updates(1)
    assert case.is_cut()


def test_a_request_of_the_peers_is_no_answer(watched):
    """An answer is update_not_requested (RFC 9846 4.7.3); both may ask at once."""
    case = watched(key_updates=10, key_updates_in_a_row=10)
    for _ in range(10):
        pykeyupdate.rekey(case.conn, request_peer=True)
        pykeyupdate.key_update(case.peer, pykeyupdate.KeyUpdateType.REQUESTED)
        case.peer.do_handshake()
        assert case.read() == b""
        assert pykeyupdate.stats(case.conn).request_outstanding
        assert read_all(case.peer) == b""
        write_nothing(case.peer)
        assert case.read() == b""
        assert not pykeyupdate.stats(case.conn).request_outstanding
        case.conn.write(b"with our answer")
        assert read_all(case.peer) == b"with our answer"
    assert pykeyupdate.stats(case.conn).counts.requests_received == 10


def test_two_ends_that_ask_and_send_all_the_time_are_not_cut(connect, threads):
    """Two threads a side, data between all updates, and the default limit in a row."""
    pace.skip_if_kept()
    limits = pykeyupdate.PeerLimits(key_updates=None)
    client, server = connect(
        setup=lambda *contexts: [
            pykeyupdate.manage(context, limits=limits) for context in contexts
        ]
    )
    rounds, piece = 600, b"z" * 200

    def write(end):
        for i in range(rounds):
            end.sendall(piece)
            if i % 3 == 0:
                pykeyupdate.rekey(end, request_peer=True)

    def read(end):
        left = rounds * len(piece)
        while left > 0:
            left -= len(end.recv(65536))

    for result in [
        threads.start(work, end) for end in (client, server) for work in (write, read)
    ]:
        result()


# -- what is left of a connection that was cut -----------------------------------------


def test_data_in_front_is_returned(watched):
    case = watched(key_updates_in_a_row=5)
    case.peer.write(b"the ")
    case.updates(5)
    case.peer.write(b"last data")
    case.updates(6)
    case.peer.write(b"and some that is lost")
    data = case.conn.read(6)
    while len(data) < 13:
        data += case.conn.read(4)
    assert data == b"the last data"
    assert case.is_cut()


@OF_A_SOCKET
@ON_A_SERVER
def test_data_that_was_put_aside_is_returned(watched):
    """``request_client_certificate()`` reads by itself, and keeps data for others."""
    case = watched(key_updates_in_a_row=5)
    with pytest.raises(ssl.SSLWantReadError):
        pykeyupdate.request_client_certificate(case.conn)
    case.peer.write(b"data")
    case.updates(6)
    with pytest.raises(PeerLimitError):
        pykeyupdate.request_client_certificate(case.conn)
    assert case.taken[-6:] == [NOT_REQUESTED] * 6
    assert case.conn.read(100) == b"data"
    assert case.is_cut()


def test_it_stays_cut(watched):
    case = watched(key_updates_in_a_row=0)
    case.updates(1)
    for _ in range(2):
        for call in (
            lambda: case.conn.read(1),
            lambda: case.conn.read(1, bytearray(1)),
            lambda: case.conn.write(b"x"),
        ):
            with pytest.raises(PeerLimitError):
                call()
    advance_clock(2 * MINUTE)
    case.peer.write(b"after a while")
    assert case.is_cut()
    assert case.taken == [NOT_REQUESTED]
    assert case.link.said(case.role) == []


@OF_A_SOCKET
def test_all_methods_of_a_socket_say_so(watched):
    case = watched(key_updates_in_a_row=0)
    case.updates(1)
    for call in (
        lambda: case.conn.recv(1),
        lambda: case.conn.recv_into(bytearray(1)),
        lambda: case.conn.send(b"x"),
        lambda: case.conn.sendall(b"x"),
        case.conn.do_handshake,
    ):
        with pytest.raises(PeerLimitError):
            call()


def test_a_cut_in_unwrap_is_no_end_of_tls(watched):
    """To OpenSSL it looks like the peer's close_notify, and what follows like data."""
    case = watched()
    case.updates(33)
    case.peer.write(b"behind it")
    with pytest.raises(PeerLimitError):
        case.conn.unwrap()


def test_it_can_be_closed_and_no_more(watched, over):
    """What was received behind the cut is TLS, and not what follows its end."""
    case = watched(key_updates_in_a_row=0)
    case.updates(1)
    case.peer.write(b"behind it")
    assert case.is_cut()
    for call in (
        case.conn.unwrap,
        case.conn.do_handshake,
        lambda: case.conn.write(b"x"),
    ):
        with pytest.raises(PeerLimitError):
            call()
    for call in (pykeyupdate.key_update, pykeyupdate.rekey, pykeyupdate.flush):
        with pytest.raises(pykeyupdate.ConnectionFailedError):
            call(case.conn)
    if over == "socket":
        case.conn.close()


def test_the_error(watched):
    case = watched(key_updates_in_a_row=0)
    case.updates(1)
    with pytest.raises(PeerLimitError) as cut:
        case.conn.read(1)
    assert isinstance(cut.value, ssl.SSLError)
    assert isinstance(cut.value, pykeyupdate.PyKeyUpdateError)
    assert cut.value.errno == ssl.SSL_ERROR_SSL
    assert cut.value.library is cut.value.reason is None


@pytest.mark.parametrize(
    ("version", "limit"),
    [
        ("tls13", "key_updates"),
        ("tls13", "key_updates_in_a_row"),
        ("tls12", "renegotiations"),
    ],
)
def test_the_message_names_the_connection_and_the_limit(watched, version, limit):
    case = watched(version, **{limit: 0})
    case.updates(1) if version == "tls13" else case.ask()
    for call, name in ((case.conn.read, "read"), (case.conn.write, "write")):
        with pytest.raises(PeerLimitError) as cut:
            call(1 if name == "read" else b"x")
        assert str(cut.value).startswith(f"{name}({case.conn!r}): the peer exceeded ")
        assert f"PeerLimits.{limit} and was cut off" in str(cut.value)
        for error in (cut.value, pickle.loads(pickle.dumps(cut.value))):
            assert error.limit == limit
        assert "close it" in str(cut.value)


@pytest.mark.parametrize(
    ("version", "limit"), [("tls13", "key_updates"), ("tls12", "renegotiations")]
)
def test_one_event_and_one_warning(watched, events, warnings, version, limit):
    case = watched(version, **{limit: 2})
    for _ in range(2):
        assert case.renegotiates() if version == "tls12" else not case.updates(1)
    assert case.read() == b""
    events.clear()
    case.updates(1) if version == "tls13" else case.ask()
    for _ in range(3):
        assert case.is_cut()
        with pytest.raises(PeerLimitError):
            case.conn.write(b"x")
    (cut,) = [event for event in events if event.kind is EventKind.CUT_OFF]
    assert cut.connection is case.conn
    assert f"PeerLimits.{limit}" in cut.detail
    (warning,) = warnings()
    assert warning.startswith(f"{case.conn!r} was cut off")
    assert f"PeerLimits.{limit}" in warning


def test_a_handler_may_use_the_connection(watched):
    case = watched(key_updates_in_a_row=0)
    found = []
    remove = pykeyupdate.on_event(
        lambda event: found.append(pykeyupdate.stats(event.connection).counts.cut_off)
    )
    case.updates(1)
    try:
        assert case.is_cut()
    finally:
        remove()
    assert found[-1] == 1


def test_it_is_counted(watched):
    before = pykeyupdate.totals().counts.cut_off
    case = watched(key_updates=4, key_updates_in_a_row=2)  # both at once
    case.updates(2, 1)
    case.peer.write(b"data")
    assert case.read() == b"data"
    assert pykeyupdate.stats(case.conn).counts.cut_off == 0
    case.updates(5)
    assert case.is_cut()
    assert case.is_cut()
    counts = pykeyupdate.stats(case.conn).counts
    assert (counts.cut_off, counts.key_updates_received) == (1, 5)
    assert (counts.key_updates_received, counts.requests_received) == (
        len(case.taken),
        case.taken.count(REQUESTED),
    )
    assert pykeyupdate.totals().counts.cut_off == before + 1


@ON_A_SERVER
def test_a_cut_while_something_else_reads(watched, events, warnings):
    case = watched(key_updates_in_a_row=5)
    with pytest.raises(ssl.SSLWantReadError):
        pykeyupdate.request_client_certificate(case.conn)
    case.updates(6)
    with pytest.raises(PeerLimitError):
        pykeyupdate.request_client_certificate(case.conn)
    assert case.is_cut()
    assert [event.kind for event in events].count(EventKind.CUT_OFF) == 1
    assert len(warnings()) == 1


# -- renegotiations --------------------------------------------------------------------


def test_so_many_renegotiations_and_not_one_more(watched):
    case = watched("tls12")
    for _ in range(3):
        assert case.renegotiates()
        assert case.link.talks()
    assert case.taken.count("Finished") == 3
    case.link.wire.clear()
    case.ask()
    assert case.is_cut()
    assert "Finished" not in case.taken
    assert case.link.said(case.role) == []  # no ServerHello, no ClientHello


def test_a_window_of_renegotiations_ends(watched):
    case = watched("tls12", renegotiations=2, renegotiation_window_seconds=MINUTE)
    for _ in range(3):
        assert case.renegotiates()
        assert case.renegotiates()
        advance_clock(MINUTE)
    assert case.renegotiates()
    advance_clock(MINUTE // 4)
    assert case.renegotiates()
    case.ask()
    assert case.is_cut()


def test_our_own_renegotiations_do_not_count(watched):
    case = watched("tls12", renegotiations=1)
    assert case.renegotiates()
    for _ in range(5):
        pykeyupdate.rekey(case.conn)
        case.link.settle()
        assert not pykeyupdate.renegotiate_pending(case.conn)
    counts = pykeyupdate.stats(case.conn).counts
    assert (counts.renegotiations, counts.peer_renegotiations) == (5, 1)
    case.ask()
    assert case.is_cut()


def test_renegotiation_without_a_limit(watched):
    case = watched("tls12", renegotiations=None)
    for _ in range(10):
        assert case.renegotiates()
    assert case.link.talks()
    assert pykeyupdate.stats(case.conn).counts.peer_renegotiations == 10


def test_never(watched, events):
    case = watched("tls12", renegotiation="never")
    assert options(case.conn) & ssl.OP_NO_RENEGOTIATION
    assert case.refuses()
    assert len(case.taken) == 1  # the first message, and nothing follows it
    counts = pykeyupdate.stats(case.conn).counts
    assert (counts.refused, counts.cut_off) == (1, 0)
    assert [event.kind for event in events] == [EventKind.RENEGOTIATION_REFUSED]
    with pytest.raises(pykeyupdate.RenegotiationForbiddenError):
        pykeyupdate.rekey(case.conn)


def test_a_refused_renegotiation_is_none(watched):
    """Keys are as old as before."""
    case = watched("tls12", renegotiation="never")
    case.conn.write(b"data")
    assert read_all(case.peer) == b"data"
    sent = pykeyupdate.stats(case.conn).sent
    case.ask()
    assert case.read() == b""
    use = pykeyupdate.stats(case.conn)
    assert (use.counts.renegotiations, use.counts.peer_renegotiations) == (0, 0)
    assert use.sent[:2] == sent[:2] == (1, 4)
    assert use.sent.age_seconds > sent.age_seconds


@ON_A_CLIENT  # OpenSSL's own does not begin again after the alert
def test_what_is_refused_counts_too(watched):
    case = watched("tls12", renegotiations=2, renegotiation="never")
    for _ in range(2):
        case.ask()
        assert case.read() == b""
    assert case.taken == ["HelloRequest"] * 2
    case.ask()
    assert case.is_cut()


def test_once(watched):
    case = watched("tls12", renegotiation="once")
    assert case.renegotiates()
    assert case.link.talks()
    assert options(case.conn) & ssl.OP_NO_RENEGOTIATION
    assert case.refuses()
    counts = pykeyupdate.stats(case.conn).counts
    assert (counts.peer_renegotiations, counts.refused) == (1, 1)


def test_once_is_about_the_peers(watched):
    case = watched("tls12", renegotiation="once")
    for _ in range(2):
        pykeyupdate.rekey(case.conn)
        case.link.settle()
    assert case.renegotiates()
    assert case.refuses()


# -- allow_renegotiation() -------------------------------------------------------------


def test_allowed_for_a_block(watched):
    case = watched("tls12", renegotiation="never")
    with pykeyupdate.allow_renegotiation(case.conn):
        assert case.renegotiates()
        assert case.renegotiates()
    assert case.link.talks()
    assert case.refuses()
    counts = pykeyupdate.stats(case.conn).counts
    assert (counts.peer_renegotiations, counts.refused) == (2, 1)


@pytest.mark.parametrize("mode", ["never", "once", "freely"])
@pytest.mark.parametrize(
    "option",
    [0, ssl.OP_NO_RENEGOTIATION, pykeyupdate.OP_ALLOW_CLIENT_RENEGOTIATION],
    ids=["no option", "no renegotiation", "client renegotiation"],
)
def test_options_are_as_before(watched, mode, option):
    case = watched("tls12", option=option, renegotiation=mode)
    before = options(case.conn)
    refused = before & ssl.OP_NO_RENEGOTIATION
    assert bool(refused) == (mode == "never" or option == ssl.OP_NO_RENEGOTIATION)
    with pykeyupdate.allow_renegotiation(case.conn):
        assert options(case.conn) == pykeyupdate.OP_ALLOW_CLIENT_RENEGOTIATION
        assert case.renegotiates()
        assert case.renegotiates()
    assert options(case.conn) == before


def test_blocks_nest(watched):
    case = watched("tls12", renegotiation="never")
    with pykeyupdate.allow_renegotiation(case.conn):
        with pykeyupdate.allow_renegotiation(case.conn):
            assert case.renegotiates()
        with pytest.raises(ZeroDivisionError):
            with pykeyupdate.allow_renegotiation(case.conn):
                raise ZeroDivisionError
        assert case.renegotiates()
    assert case.refuses()


def test_what_has_begun_goes_on_after_the_block(watched):
    case = watched("tls12", renegotiation="never")
    with pykeyupdate.allow_renegotiation(case.conn):
        case.ask()
        assert case.read() == b""
    case.link.settle()
    assert not pykeyupdate.renegotiate_pending(case.peer)
    assert pykeyupdate.stats(case.conn).counts.peer_renegotiations == 1
    assert case.link.talks()
    assert case.refuses()


def test_how_often_is_still_limited(watched):
    case = watched("tls12", renegotiations=2)
    assert not options(case.conn) & ssl.OP_NO_RENEGOTIATION
    with pykeyupdate.allow_renegotiation(case.conn):
        assert case.renegotiates()
        assert case.renegotiates()
        case.ask()
        assert case.is_cut()
    with pykeyupdate.allow_renegotiation(case.conn):
        assert case.is_cut()
        assert options(case.conn) & ssl.OP_NO_RENEGOTIATION
    assert options(case.conn) & ssl.OP_NO_RENEGOTIATION


def test_allowing_it_takes_a_managed_connection(make_link, over):
    link = make_link("tls12", over)
    with pytest.raises(pykeyupdate.NotManagedError):
        with pykeyupdate.allow_renegotiation(link.client):
            pytest.fail("an unmanaged connection")
