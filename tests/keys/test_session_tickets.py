"""``PeerLimits.session_tickets``: how many tickets a server may give a managed client.

The server is an unmanaged connection of ``ssl``. It gives ``num_tickets`` after the
handshake, and again after each request for a certificate. How many of them the client
processed comes from the client's OpenSSL (``Link``).
"""

import contextlib
import ssl

import pytest
from support.link import Link

import pykeyupdate
from pykeyupdate import PeerLimitError, PeerLimits
from pykeyupdate.testing import advance_clock

MINUTE = 60
MORE_THAN_A_SOCKET_TAKES = pytest.mark.parametrize("over", ["memory"])


@pytest.fixture(params=["memory", "socket"])
def over(request):
    """An SSLObject, or an SSLSocket."""
    return request.param


class Ticketing:
    """A managed client and a server that has sent it tickets."""

    def __init__(self, link):
        self.link = link
        for _ in range(3):
            for end in (link.server, link.client):  # the client has read no ticket
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()

    @property
    def taken(self):
        return self.link.said("client", "received").count("NewSessionTicket")

    def read(self):
        """Read as much as has come."""
        data = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while True:
                data += self.link.client.read(100)
        return data

    def is_cut(self):
        with pytest.raises(PeerLimitError):
            self.link.client.read(100)
        return True

    def ask(self):
        """Have the server ask for the certificate, and send new tickets."""
        server = self.link.server
        with pytest.raises(ssl.SSLWantReadError):
            pykeyupdate.request_client_certificate(server)
        assert self.read() == b""
        pykeyupdate.request_client_certificate(server)


@pytest.fixture
def ticketing(make_contexts, over, certificate):
    links = []

    def make(num_tickets, version="tls13", **limits):
        client, server = make_contexts(version)
        certificate.configure_cert(client)
        client.post_handshake_auth = True
        server.load_verify_locations(cadata=b"".join(client.get_ca_certs(True)))
        server.num_tickets = num_tickets
        pykeyupdate.manage(client, policy=None, limits=PeerLimits(**limits))
        links.append(Link(client, server, over=over))
        return Ticketing(links[-1])

    yield make
    for link in links:
        link.close()


def test_so_many_and_not_one_more(ticketing):
    case = ticketing(5, session_tickets=5)
    case.link.server.write(b"data")
    assert case.read() == b"data"
    case = ticketing(6, session_tickets=5)
    case.link.server.write(b"data")
    assert case.is_cut()
    assert case.taken == 6


def test_nothing_is_read_behind_the_limit(ticketing):
    case = ticketing(60, session_tickets=5)
    assert case.is_cut()
    assert case.taken == 6


@MORE_THAN_A_SOCKET_TAKES
def test_the_default_is_five_thousand_in_a_minute(ticketing):
    case = ticketing(5000)
    case.link.server.write(b"data")
    assert case.read() == b"data"
    assert case.taken == 5000
    case = ticketing(5500)
    assert case.is_cut()
    assert 5001 <= case.taken < 5500


def test_a_client_that_is_asked_all_the_time(ticketing):
    """An OpenSSL server sends 2 tickets after each certificate; it is honest."""
    case = ticketing(2)
    for _ in range(200):
        case.ask()
    assert case.read() == b""
    assert case.taken == 2 * 201
    assert case.link.talks()


def test_a_window_ends(ticketing):
    case = ticketing(5, session_tickets=10, session_ticket_window_seconds=MINUTE)
    for _ in range(10):
        case.ask()
        assert case.read() == b""
        advance_clock(MINUTE // 2)
    case.ask()
    case.ask()
    assert case.is_cut()


def test_none_at_all(ticketing):
    case = ticketing(1, session_tickets=0)
    assert case.is_cut()
    case = ticketing(0, session_tickets=0)
    case.link.server.write(b"data")
    assert case.read() == b"data"


@MORE_THAN_A_SOCKET_TAKES
def test_without_a_limit(ticketing):
    case = ticketing(3000, session_tickets=None)
    case.link.server.write(b"data")
    assert case.read() == b"data"
    assert case.taken == 3000


def test_a_ticket_below_tls13_is_part_of_its_handshake(ticketing):
    case = ticketing(2, "tls12", session_tickets=0)
    case.link.server.write(b"data")
    assert case.read() == b"data"
    assert case.taken == 1


def test_what_is_told(ticketing, caplog):
    events, before = [], pykeyupdate.totals().counts.cut_off
    remove = pykeyupdate.on_event(events.append)
    case = ticketing(6, session_tickets=5)
    try:
        for call in (case.link.client.read, case.link.client.write):
            with pytest.raises(PeerLimitError, match=r"PeerLimits\.session_tickets"):
                call(100 if call == case.link.client.read else b"x")
    finally:
        remove()
    (cut,) = [it for it in events if it.kind is pykeyupdate.EventKind.CUT_OFF]
    assert "PeerLimits.session_tickets" in cut.detail
    assert "PeerLimits.session_tickets" in caplog.text
    assert pykeyupdate.stats(case.link.client).counts.cut_off == 1
    assert pykeyupdate.totals().counts.cut_off == before + 1
