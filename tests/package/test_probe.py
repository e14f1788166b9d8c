"""``pykeyupdate probe``: what it says of servers that behave, and of those that do not.

tests/peers/test_probe.py has real servers.
"""

import contextlib
import io
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support import pace
from support.sockets import close_with_reset

import pykeyupdate
from pykeyupdate import PeerLimits, _cli
from pykeyupdate._cli.exit_codes import CannotRun
from pykeyupdate._cli.probe import failures, payloads, starttls, targets
from pykeyupdate._cli.probe.deadline import Deadline
from pykeyupdate._cli.probe.failures import ProbeError
from pykeyupdate._cli.probe.targets import Target

TIMEOUT = 6  # seconds for a host; a third of it for a connection


@pytest.fixture
def listen():
    """Serve each plain connection with a function, in a thread of its own."""
    stop = threading.Event()

    def serve(handler):
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def one(plain):
            plain.settimeout(30)
            with plain, contextlib.suppress(OSError, pykeyupdate.PyKeyUpdateError):
                handler(plain)

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    plain, _ = listener.accept()
                    threading.Thread(target=one, args=(plain,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    serve.stop = stop
    with contextlib.ExitStack() as stack:
        yield serve
        stop.set()


@pytest.fixture
def ca(authority, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


@pytest.fixture
def server(certificate):
    """A server's context for TLS 1.2 and 1.3."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.fixture
def probe(ca, capsys):
    def run(*arguments):
        code = _cli.main(["probe", "--cafile", ca, *arguments])
        return code, *capsys.readouterr()

    return run


def echo_by(context):
    def handler(plain):
        with context.wrap_socket(plain, server_side=True) as tls:
            while data := tls.recv(65536):
                tls.sendall(data)

    return handler


# -- the verdicts ----------------------------------------------------------------------


def test_a_server_that_takes_all(listen, server, probe):
    code, out, err = probe(listen(echo_by(server)), "--payload", r"hello\n")
    assert (code, err) == (0, "")
    assert "TLSv1.3 TLS_AES_256_GCM_SHA384, certificate verified" in out
    assert "KeyUpdate             accepted  data intact" in out
    assert "answered with its next data" in out
    assert "verdict  safe with RekeyPolicy()" in out


def test_a_server_that_ends_the_connection_on_key_updates(listen, server, probe):
    limits = PeerLimits(key_updates=0, key_updates_in_a_row=0)
    pykeyupdate.manage(server, limits=limits)
    target = listen(echo_by(server))
    code, out, _ = probe(target, "--payload", r"hello\n")
    assert code == 1
    assert re.search("ended after one KeyUpdate: (connection |Broken pipe)", out)
    assert "verdict  ends the connection on KeyUpdate" in out
    assert "Known for Mbed TLS" in out
    assert "looks like OpenSSL" not in out
    code, out, _ = probe(target, "--payload", r"hello\n", "--check")
    assert code == 2
    assert out.startswith(f"KEYUPDATE CRITICAL: {target} ends the connection")
    assert out.count("\n") == 1


def test_a_server_that_takes_few_updates_without_data(listen, server, probe):
    """As Go does, and with 32 BoringSSL and rustls: a pause is no help, data is."""
    pace.skip_if_kept()
    limits = PeerLimits(key_updates=None, key_updates_in_a_row=16)
    pykeyupdate.manage(server, limits=limits)
    target = listen(echo_by(server))
    code, out, _ = probe(target, "--payload", r"hello\n", "--limits")
    assert code == 0
    assert "verdict  safe with RekeyPolicy(), within limits" in out
    advice = " ".join(out.partition("verdict")[2].split())
    assert "by age end a connection on which nothing is sent: " in advice
    assert "objects to update number 17 without data between." in advice
    assert "min_interval_seconds" not in advice


def test_a_server_that_takes_few_requests_is_not_blamed(listen, server, probe):
    """Its end comes without key updates, too."""
    pace.skip_if_kept()

    def three(plain):
        with server.wrap_socket(plain, server_side=True) as tls:
            for _ in range(3):
                tls.sendall(tls.recv(65536))

    code, out, _ = probe(listen(three), "--payload", "x", "--json", "--limits")
    assert code == 0
    (report,) = json.loads(out)
    assert report["checks"]["key_update"]["result"] == "accepted"
    for name in ("several_updates", "limit_with_data"):
        assert report["checks"][name]["result"] == "not tried"
    assert report["verdict"]["grade"] == "safe"


@pytest.mark.parametrize("how", ["close_notify", "reset"])
def test_a_server_that_lets_one_connection_in_is_not_blamed(listen, server, probe, how):
    """Servers that limit connections end the next ones before anything was tried."""
    seen = []

    def one(plain):
        seen.append(plain)
        with server.wrap_socket(plain, server_side=True) as tls:
            if len(seen) > 1:
                if how == "close_notify":
                    tls.unwrap()
                return
            while data := tls.recv(65536):
                tls.sendall(data)

    code, out, _ = probe(listen(one), "--payload", "x", "--json")
    assert code == 3
    (report,) = json.loads(out)
    assert report["checks"]["key_update"]["result"] == "not tried"
    assert "ended this connection at once" in report["checks"]["key_update"]["text"]
    assert report["verdict"]["grade"] == "unknown"


def test_a_server_that_goes_on_without_an_answer(listen, server, probe):
    """It only writes; its OpenSSL has not read the request."""

    def writes(plain):
        with server.wrap_socket(plain, server_side=True) as tls:
            while True:
                tls.sendall(b"x" * 1000)
                time.sleep(0.01)

    code, out, _ = probe(listen(writes), "--payload", "x", "--timeout", "15")
    assert code == 0
    assert "no answer to the request" in out
    assert "Not request_peer=True" in out


def test_a_server_that_changes_its_keys_by_itself(listen, server, probe):
    """Its own update is no answer to a request that comes later."""

    def changes(plain):
        with server.wrap_socket(plain, server_side=True) as tls:
            if tls.version() == "TLSv1.3":
                pykeyupdate.rekey(tls)
            while data := tls.recv(65536):
                tls.sendall(data)

    code, out, _ = probe(listen(changes), "--payload", r"hello\n")
    assert code == 0
    assert "answered with its next data" in out
    assert "-0." not in out


def test_a_server_that_renegotiates_without_end(listen, server, probe):
    server.maximum_version = ssl.TLSVersion.TLSv1_2

    def renegotiates(plain):
        with server.wrap_socket(plain, server_side=True) as tls:
            while True:
                with contextlib.suppress(pykeyupdate.AlreadyPendingError):
                    pykeyupdate.renegotiate(tls)
                tls.do_handshake()
                tls.sendall(b"x")
                tls.recv(1000)

    code, out, err = probe(listen(renegotiates))
    assert (code, err) == (3, "")
    assert "verdict  not probed: the server is renegotiating by itself" in out


@pytest.mark.parametrize("allow", [True, False])
def test_a_server_of_tls_1_2(listen, server, probe, allow):
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    if allow:
        server.options |= pykeyupdate.OP_ALLOW_CLIENT_RENEGOTIATION
    else:
        server.options |= ssl.OP_NO_RENEGOTIATION
    target = listen(echo_by(server))
    code, out, _ = probe(target, "--payload", "x")
    assert code == (0 if allow else 1)
    wanted = "safe with RekeyPolicy(renegotiate=True)" if allow else "refused"
    assert wanted in out
    code, out, _ = probe(target, "--payload", "x", "--check")
    assert code == 1
    assert out.startswith("KEYUPDATE WARNING")


def test_a_client_certificate_asked_for_later(listen, server, probe, ca):
    server.load_verify_locations(ca)
    server.post_handshake_auth = True

    def asks(plain):
        with server.wrap_socket(plain, server_side=True) as tls:
            tls.recv(100)
            pykeyupdate.request_client_certificate(tls, 10)
            tls.sendall(b"answer")
            tls.recv(100)

    server.verify_mode = ssl.CERT_NONE
    _, out, _ = probe(listen(asks), "--payload", "x", "--json")
    (report,) = json.loads(out)
    assert report["checks"]["client_certificate"]["text"] == (
        "asked for in mid-connection"
    )


def test_a_client_certificate_that_is_demanded(
    listen, server, probe, ca, authority, tmp_path
):
    server.load_verify_locations(ca)
    server.verify_mode = ssl.CERT_REQUIRED
    target = listen(echo_by(server))
    code, out, err = probe(target, "--payload", "x")
    assert (code, out) == (3, "")
    assert "wants a client certificate (alert certificate_required; see --cert)" in err
    own = tmp_path / "own.pem"
    identity = authority.issue_cert("probe.invalid")
    identity.private_key_and_cert_chain_pem.write_to_path(own)
    code, out, err = probe(target, "--payload", "x", "--cert", str(own))
    assert (code, err) == (0, "")
    assert "safe with RekeyPolicy()" in out


# -- servers that cannot be probed -----------------------------------------------------


def stall(plain):
    time.sleep(TIMEOUT)


def rubbish(plain):
    plain.sendall(b"\x93rubbish" * 1000)
    plain.recv(100)


def close(plain):
    pass


def close_after_hello(plain):
    plain.recv(10000)


def reset(plain):
    plain.recv(10)
    close_with_reset(plain)


def http(plain):
    plain.recv(10000)
    plain.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def ssh(plain):
    plain.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
    plain.recv(10000)


def drip(plain):
    plain.recv(10000)
    for byte in b"\x16\x03\x03\x00\x7a\x02" + bytes(100):
        plain.sendall(bytes([byte]))
        time.sleep(0.2)


def alert(plain):
    plain.recv(10000)
    plain.sendall(b"\x15\x03\x03\x00\x02\x02\x28")


CANNOT = [
    (stall, [], "the TLS handshake was not done within 2 s"),
    (rubbish, [], "the server does not speak TLS on this port"),
    (http, [], "the server does not speak TLS on this port"),
    (ssh, [], "the server does not speak TLS on this port"),
    (close, [], "the server closed during the TLS handshake"),
    (close_after_hello, [], "the server closed during the TLS handshake"),
    (reset, [], "the server closed during the TLS handshake"),
    (drip, [], "the TLS handshake was not done within 2 s"),
    (alert, [], "the server ended the handshake: alert handshake_failure"),
    (stall, ["--starttls", "smtp"], "STARTTLS (smtp) did not come within 2 s"),
    (close, ["--starttls", "imap"], "ended before STARTTLS (imap)"),
    (rubbish, ["--starttls", "ldap"], "does not offer STARTTLS"),
    (rubbish, ["--starttls", "mysql"], "does not offer STARTTLS"),
    (http, ["--starttls", "postgres"], "does not offer STARTTLS"),
]


@pytest.mark.parametrize(("handler", "options", "said"), CANNOT)
def test_one_line_and_the_exit_code_in_time(listen, probe, handler, options, said):
    target = listen(handler)
    begin = time.monotonic()
    code, out, err = probe(target, "--timeout", str(TIMEOUT), *options)
    assert time.monotonic() - begin < TIMEOUT
    assert (code, out) == (3, "")
    assert err.startswith(f"{target}: ")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("record layer failure", "the server does not speak TLS on this port"),
        ("news of 2030", "the TLS handshake failed: news of 2030"),
    ],
)
def test_errors_that_are_newer_than_the_ssl_module(text, said):
    """It was built for another OpenSSL, and knows no name for them."""
    error = ssl.SSLError(ssl.SSL_ERROR_SSL, f"[SSL] {text} (_ssl.c:1000)")
    assert str(failures.of_handshake(error, None, TIMEOUT)) == said


def test_errors_of_the_system_that_are_newer_than_the_ssl_module():
    error = ssl.SSLError(ssl.SSL_ERROR_SSL, "[SYS] unknown error (_ssl.c:1000)")
    said = "the server closed during the TLS handshake"
    assert str(failures.of_handshake(error, None, TIMEOUT)) == said
    assert failures.ending(error, None) == ("connection broken", None)


def test_a_server_that_ends_after_the_handshake(listen, server, probe):
    def ends(plain):
        server.wrap_socket(plain, server_side=True).close()

    code, out, err = probe(listen(ends))
    assert (code, out) == (3, "")
    assert "ended the connection after its handshake" in err


def test_a_server_without_end(listen, server, probe):
    """It sends as much as can be sent; the probe keeps little of it, and ends."""

    def floods(plain):
        with server.wrap_socket(plain, server_side=True) as tls:
            while True:
                tls.sendall(b"x" * 100_000)

    begin = time.monotonic()
    probe(listen(floods), "--timeout", str(TIMEOUT))
    assert time.monotonic() - begin < TIMEOUT + 1


def test_certificates_that_are_not_accepted(listen, server, probe, capsys):
    target = listen(echo_by(server))
    code, out, err = probe(target, "--servername", "example.org")
    assert (code, out) == (3, "")
    assert "certificate not accepted: Hostname mismatch" in err
    assert _cli.main(["probe", target]) == 3
    assert "--cafile" in capsys.readouterr().err
    assert _cli.main(["probe", target, "--insecure", "--payload", "x"]) == 0
    assert "certificate not verified" in capsys.readouterr().out


def test_no_connection(probe):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    code, _, err = probe(f"127.0.0.1:{port}")
    assert code == 3
    assert "cannot connect" in err
    code, _, err = probe("no.such.host.invalid")
    assert code == 3
    assert "cannot resolve the name" in err
    code, out, _ = probe(f"127.0.0.1:{port}", "--check")
    assert code == 3
    assert out.startswith("KEYUPDATE UNKNOWN")


def test_what_a_server_says_cannot_command_the_terminal(listen, probe):
    def commands(plain):
        plain.sendall(b"220 hello\r\n")
        plain.recv(100)
        plain.sendall(b"500 \x1b[2J\x1b]0;yours\x07 no\r\n")

    _, _, err = probe(listen(commands), "--starttls", "smtp")
    assert "500 ?[2J?]0;yours? no" in err
    assert "\x1b" not in err


# -- STARTTLS: the dialogs, word for word ----------------------------------------------

MYSQL_GREETING = b"\x0a8.0.0\0" + bytes(4) + bytes(8) + b"\0" + b"\x00\x0a" + bytes(30)
XMPP_FEATURES = b"<stream:features><starttls/></stream:features>"
DIALOGS = {
    "smtp": [
        (None, b"220-hello\r\n220 there\r\n"),
        (b"EHLO probe.invalid\r\n", b"250-x\r\n250 STARTTLS\r\n"),
        (b"STARTTLS\r\n", b"220 go\r\n"),
    ],
    "imap": [
        (None, b"* OK hello\r\n"),
        (b"a STARTTLS\r\n", b"* CAPABILITY\r\na OK go\r\n"),
    ],
    "pop3": [(None, b"+OK hello\r\n"), (b"STLS\r\n", b"+OK go\r\n")],
    "ftp": [
        (None, b"220-a\r\n  b\r\n220 hello\r\n"),
        (b"AUTH TLS\r\n", b"234 go\r\n"),
    ],
    "ldap": [
        (
            b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037",
            b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00",
        )
    ],
    "postgres": [(b"\0\0\0\x08\x04\xd2\x16\x2f", b"S")],
    "mysql": [
        (None, bytes([len(MYSQL_GREETING), 0, 0, 0]) + MYSQL_GREETING),
        (b"\x20\0\0\x01\0\x8a\0\0\0\0\0\x01\x21" + bytes(23), b""),
    ],
    "xmpp": [
        (starttls.xmpp_stream("localhost"), b"<stream:stream>" + XMPP_FEATURES),
        (b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", b"<proceed/>"),
    ],
}


def play(lines, plain):
    """Play a server's part; raise AssertionError if the client says anything else."""
    for said, answer in lines:
        got = b""
        while said is not None and len(got) < len(said):
            more = plain.recv(len(said) - len(got))
            assert more, got
            got += more
        assert said is None or got == said
        plain.sendall(answer)


def test_all_protocols_have_a_dialog():
    assert DIALOGS.keys() == starttls.DIALOGS.keys() == targets.STARTTLS_PORTS.keys()


@pytest.mark.parametrize("protocol", DIALOGS)
def test_starttls(protocol):
    near, far = socket.socketpair()
    raised = []

    def server():
        try:
            play(DIALOGS[protocol], far)
        except AssertionError as error:
            raised.append(error)
            far.close()

    with near, far:
        thread = threading.Thread(target=server)
        thread.start()
        starttls.upgrade(near, protocol, "localhost", Deadline(10))
        thread.join(10)
    assert raised == []


@pytest.mark.parametrize("protocol", DIALOGS)
def test_starttls_with_more_plaintext_behind_it(protocol):
    """Whoever sits in between could have put it there."""
    *lines, (_, answer) = DIALOGS[protocol]
    if protocol == "mysql":
        *lines, (_, answer) = lines
    near, far = socket.socketpair()
    with near, far:
        far.sendall(b"".join(text for _, text in lines) + answer + b"more")
        with pytest.raises(ProbeError, match="plaintext after STARTTLS"):
            starttls.upgrade(near, protocol, "localhost", Deadline(10))


@pytest.mark.parametrize("protocol", DIALOGS)
@pytest.mark.parametrize("answer", [b"", b"\x00" * 70000, b"\xff" * 70000, b"no\r\n"])
def test_starttls_with_a_strange_server(protocol, answer):
    near, far = socket.socketpair()
    with near, far:
        writer = threading.Thread(target=say, args=(far, answer))
        writer.start()
        with pytest.raises((ProbeError, OSError)):
            starttls.upgrade(near, protocol, "localhost", Deadline(10))
        near.close()
        writer.join(10)
        assert not writer.is_alive()


def say(end, data):
    with contextlib.suppress(OSError):
        end.sendall(data)
        end.shutdown(socket.SHUT_WR)


# -- what is probed, and with which words ----------------------------------------------


@pytest.mark.parametrize(
    ("text", "protocol", "target"),
    [
        ("example.org", None, ("example.org", 443)),
        ("example.org:8443", None, ("example.org", 8443)),
        ("example.org", "smtp", ("example.org", 25)),
        ("[2001:db8::1]:993", None, ("2001:db8::1", 993)),
        ("2001:db8::1", None, ("2001:db8::1", 443)),
        ("[::1]", None, ("::1", 443)),
    ],
)
def test_targets(text, protocol, target):
    assert targets.parse(text, protocol) == Target(*target)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":443", "a:", "a:0", "a:65536", "a:b", "a b:1", "a:٣", "a:" + "1" * 5000),
        *("[::1", "[::1]x", "[::1]443", "a\0b", "\x1b[2J", "\udcff"),
    ],
)
def test_what_is_no_target(text):
    with pytest.raises(CannotRun, match="is not HOST:PORT"):
        targets.parse(text, None)


def test_a_target_is_shown_as_it_is_given():
    assert str(Target("::1", 443)) == "[::1]:443"


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (r"PING\r\n", b"PING\r\n"),
        (r"\x00\xff\\n", b"\0\xff\\n"),
        (r"\q", b"\\q"),
        ("\udcff", b"\xff"),
    ],
)
def test_payloads(text, data):
    assert payloads.raw(text).request == data


def test_a_file_of_hosts(listen, server, probe, tmp_path):
    good, bad = listen(echo_by(server)), listen(close)
    hosts = tmp_path / "hosts"
    hosts.write_text(f"# ours\n{good}\n\n{bad}  # closed\n{good}\n")
    code, out, err = probe("--hosts", str(hosts), "--payload", "x", "--jobs", "2")
    assert (code, err) == (3, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines if line[0] == "1"] == [good, bad, good]
    _, out, _ = probe("--hosts", str(hosts), "--payload", "x", "--json")
    grades = [report["verdict"]["grade"] for report in json.loads(out)]
    assert grades == ["safe", "unknown", "safe"]


def test_files_that_cannot_be_read_are_reported_for_many_hosts_too(tmp_path, capsys):
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1:1\n127.0.0.1:2\n")
    assert _cli.main(["probe", "--hosts", str(hosts), "--cafile", "no/such"]) == 2
    assert "cannot load the certificates" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "said"), [(None, "standard input is closed"), (b"\xff", "can't decode")]
)
def test_hosts_that_cannot_be_read_from_standard_input(monkeypatch, capsys, data, said):
    stdin = None if data is None else io.TextIOWrapper(io.BytesIO(data))
    monkeypatch.setattr("sys.stdin", stdin)
    assert _cli.main(["probe", "--hosts", "-"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_a_file_of_hosts_of_windows(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("a.example\r\n", "utf-8-sig")
    assert targets.read(str(hosts), None) == [Target("a.example", 443)]


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero")
def test_a_file_of_hosts_without_end(capsys):
    assert _cli.main(["probe", "--hosts", "/dev/zero"]) == 2
    assert "it is longer than" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--servername", "--http", "--payload"])
def test_options_that_are_not_utf_8(listen, server, probe, option):
    code, _, err = probe(listen(echo_by(server)), option, "\udcff")
    assert "Traceback" not in err
    assert code == (3 if option == "--servername" else 0)


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
@pytest.mark.parametrize("count", [1, 3])
def test_ctrl_c_waits_for_no_server(listen, tmp_path, count):
    accepted = threading.Event()

    def stalls(plain):
        accepted.set()
        plain.recv(10000)
        time.sleep(20)

    hosts = tmp_path / "hosts"
    hosts.write_text(f"{listen(stalls)}\n" * count)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "pykeyupdate", "probe", "--hosts", str(hosts)],
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert accepted.wait(20)
    time.sleep(0.3)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - begin < 5
    assert process.returncode == 130
    assert err.endswith("interrupted\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to probe"),
        (["--hosts", "no/such/file"], "cannot read 'no/such/file'"),
        (["a", "--cafile", "no/such/file"], "cannot load the certificates"),
        (["a:b"], "is not HOST:PORT"),
        (["a", "--cafile", ""], "cannot load the certificates"),
        (["a", "--key", "key.pem"], "--key needs --cert"),
    ],
)
def test_wrong_usage_is_one_line(arguments, said, capsys):
    assert _cli.main(["probe", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["--timeout", "0"], ["--timeout", "nan"], ["--jobs", "0"], ["--json", "--check"]],
)
def test_options_that_argparse_refuses(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        _cli.main(["probe", "localhost", *arguments])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert "usage:" in err
    assert "value:" not in err  # argparse's "invalid _seconds value"


# -- the screen ------------------------------------------------------------------------


@pytest.mark.parametrize("columns", ["40", "80"])
def test_fits_the_terminal(listen, server, probe, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    _, out, _ = probe(listen(echo_by(server)), "--payload", "x")
    assert max(map(len, out.splitlines())) <= int(columns)


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_with_a_terminal_that_knows_ascii_alone(listen, server, ca):
    command = [sys.executable, "-m", "pykeyupdate", "probe", "--cafile", ca]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(
        [*command, listen(echo_by(server)), "--payload", "x"],
        check=False,
        env=environment,
        capture_output=True,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.isascii()
