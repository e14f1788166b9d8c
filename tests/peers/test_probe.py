"""``pykeyupdate probe`` against real servers: each gets the right verdict.

What is right was found out with other means: OpenSSL answers a request with its next
data, JSSE, Go, NSS and wolfSSL at once; these take any number of updates, GnuTLS 8 a
second, rustls 32 without data, Mbed TLS none; OpenSSL 3, Mbed TLS, Go, NSS and wolfSSL
refuse their clients' renegotiations, Node, JSSE and GnuTLS agree to them.
"""

import json
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

import pytest
import trustme
from support import tls_servers

from pykeyupdate import _cli
from pykeyupdate._cli.probe import limits

pwd = pytest.importorskip("pwd")  # POSIX

GNUTLS_OLDER = "NORMAL:-VERS-ALL:+VERS-TLS1.2"
ANY, LINE = range(100, 101), r"hello\n"


def reaches(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def folder(certificate):
    """A folder for servers that change to users of their own, which pytest's hides."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    tls_servers.write_certificate(certificate, path)
    yield path
    shutil.rmtree(path, ignore_errors=True)  # servers may still write to it


@pytest.fixture
def started(folder, program, free_port):
    """Start a server of ``tls_servers``, or a command, and wait until it listens."""

    def start(name, *arguments):
        server = tls_servers.find(name)
        if server is None and not os.environ.get("PYKEYUPDATE_REQUIRE_SERVERS"):
            pytest.skip(f"{name} is not installed")
        assert server, f"{name} is not installed"
        make = getattr(tls_servers, name, None)
        command = make(folder, free_port, *arguments) if make else [server]
        if make is None:
            command += [each.format(folder, port=free_port) for each in arguments]
        running = program(*command)
        deadline = time.monotonic() + 60
        while not reaches(int(free_port)):
            assert time.monotonic() < deadline, running.output
            assert running.is_running(), running.output
            time.sleep(0.05)
        return f"localhost:{free_port}"

    return start


@pytest.fixture
def probe(pem, capsys):
    def run(*arguments):
        code = _cli.main(["probe", "--json", "--cafile", pem[0], *arguments])
        captured = capsys.readouterr()
        assert captured.err == ""
        (report,) = json.loads(captured.out)
        report["exit_code"] = code
        return report

    return run


def needs_module(name):
    if not tls_servers.has_lighttpd_module(name):
        assert not os.environ.get("PYKEYUPDATE_REQUIRE_SERVERS"), name
        pytest.skip(f"lighttpd-mod-{name} is not installed")


def needs_user(name):
    if os.geteuid() != 0:
        pytest.skip("its server changes to a user of its own")
    try:
        pwd.getpwnam(name)
    except KeyError:
        pytest.skip(f"no user {name}")


OPENSSL_SERVERS = [
    ("nginx", []),
    ("haproxy", []),
    ("stunnel4", ["--payload", LINE]),
    ("mosquitto", ["--payload", r"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"]),
    ("postgres", ["--starttls", "postgres"]),
    ("dovecot", ["--starttls", "imap"]),
    ("postfix", ["--starttls", "smtp"]),
    ("mariadbd", ["--starttls", "mysql"]),
    ("prosody", ["--starttls", "xmpp"]),
]


@pytest.mark.parametrize(("name", "options"), OPENSSL_SERVERS)
def test_servers_with_openssl(started, probe, name, options):
    if name in ("postgres", "postfix", "dovecot"):
        needs_user(name)
    report = probe(started(name), *options)
    assert report["version"] == "TLSv1.3"
    checks = report["checks"]
    assert checks["key_update"]["result"] == "accepted"
    assert checks["key_update_requested"]["answered"] is True
    assert checks["key_update_requested"]["at_once"] is False
    assert checks["several_updates"]["result"] == "accepted"
    assert checks["rfc5746"]["result"] == "yes"
    for renegotiation in ("renegotiation_full", "renegotiation_abbreviated"):
        assert checks[renegotiation]["result"] == "refused"
        assert checks[renegotiation]["alert"] == "no_renegotiation"
    assert report["verdict"]["text"] == "safe with RekeyPolicy()"
    assert report["looks_like"].startswith("OpenSSL or its like")
    assert report["exit_code"] == 0


@pytest.mark.parametrize("protocol", ["pop3", "imap"])
def test_dovecot_s_other_protocols(started, probe, protocol):
    needs_user("dovecot")
    report = probe(started("dovecot", protocol), "--starttls", protocol)
    assert report["checks"]["key_update"]["result"] == "accepted"


def test_vsftpd(started, probe):
    """It has one version of TLS, and asks for a certificate that it does not need."""
    report = probe(started("vsftpd"), "--starttls", "ftp")
    assert report["checks"]["key_update"]["result"] == "accepted"
    assert report["checks"]["client_certificate"]["result"] == "yes"
    assert report["verdict"]["grade"] == "safe"


def test_slapd_with_gnutls_objects_to_the_ninth(started, probe):
    report = probe(started("slapd"), "--starttls", "ldap", "--limits")
    for limit in ("limit_in_a_row", "limit_with_data"):
        assert report["checks"][limit]["result"] == "ended"
        assert report["checks"][limit]["updates"] in limits.GNUTLS
    assert report["checks"]["renegotiation_full"]["result"] == "accepted"
    assert report["verdict"]["grade"] == "limited"
    assert "GnuTLS takes 8 a second" in " ".join(report["verdict"]["advice"])
    assert report["looks_like"] == "GnuTLS"
    assert report["exit_code"] == 0


def test_gnutls_serv(started, probe):
    """It hangs up on a renegotiation that resumes by ticket."""
    target = started(
        *("gnutls-serv", "--echo", "--port", "{port}", "--disable-client-cert"),
        *("--x509certfile", "{}/server.pem", "--x509keyfile", "{}/server.pem"),
    )
    report = probe(target, "--payload", LINE, "--limits")
    assert report["checks"]["key_update_requested"]["answered"] is True
    assert report["checks"]["limit_in_a_row"]["updates"] in limits.GNUTLS
    assert report["checks"]["renegotiation_full"]["result"] == "accepted"
    assert report["checks"]["renegotiation_abbreviated"]["result"] != "accepted"


def test_gnutls_serv_without_rfc_5746(started, probe):
    target = started(
        *("gnutls-serv", "--echo", "--port", "{port}", "--disable-client-cert"),
        *("--priority", f"{GNUTLS_OLDER}:%DISABLE_SAFE_RENEGOTIATION"),
        *("--x509certfile", "{}/server.pem", "--x509keyfile", "{}/server.pem"),
    )
    report = probe(target, "--payload", LINE)
    assert report["checks"]["rfc5746"]["result"] == "no"
    assert report["checks"]["renegotiation_full"]["result"] == "not tried"
    assert report["verdict"]["grade"] == "impossible"
    assert report["exit_code"] == 1


@pytest.mark.parametrize(
    ("options", "result", "grade"),
    [
        (["-tls1_2", "-client_renegotiation"], "accepted", "limited"),
        (["-tls1_2", "-no_renegotiation"], "refused", "impossible"),
        (["-tls1_2"], "refused", "impossible"),
    ],
)
def test_openssl_s_server_with_tls_1_2(started, probe, options, result, grade):
    target = started(
        *("openssl", "s_server", "-accept", "127.0.0.1:{port}", *options, "-rev"),
        *("-cert", "{}/server.pem", "-key", "{}/server.pem", "-quiet"),
    )
    report = probe(target, "--payload", LINE)
    assert report["version"] == "TLSv1.2"
    assert report["checks"]["tls13"]["result"] == "no"
    assert report["checks"]["renegotiation_full"]["result"] == result
    assert report["verdict"]["grade"] == grade
    assert report["exit_code"] == (0 if grade == "limited" else 1)


def test_openssl_s_server_that_says_nothing(started, probe):
    """Without an answer to compare with, nothing is proved, and that is said."""
    target = started(
        *("openssl", "s_server", "-accept", "127.0.0.1:{port}", "-tls1_3", "-quiet"),
        *("-cert", "{}/server.pem", "-key", "{}/server.pem"),
    )
    report = probe(target)
    assert report["answers"] == 0
    assert report["checks"]["key_update"]["result"] == "unseen"
    assert report["checks"]["tls12"]["result"] == "no"
    assert report["verdict"]["grade"] == "limited"
    assert "as far as can be seen" in report["verdict"]["text"]


@pytest.mark.parametrize(
    ("name", "at_once", "takes", "renegotiates"),
    [
        ("node", False, ANY, True),
        ("java", True, ANY, True),
        ("granian", False, limits.RUSTLS_AND_OTHERS, None),
        ("managed_python", False, limits.RUSTLS_AND_OTHERS, False),
    ],
)
def test_other_stacks(started, probe, name, at_once, takes, renegotiates):
    report = probe(started(name), "--limits")
    checks = report["checks"]
    assert checks["key_update"]["result"] == "accepted"
    assert checks["key_update_requested"]["at_once"] is at_once
    assert checks["limit_in_a_row"]["updates"] in takes
    assert checks["limit_with_data"]["result"] == "accepted"
    if renegotiates is None:
        assert checks["tls12"]["result"] == "no"
    else:
        accepted = checks["renegotiation_full"]["result"] == "accepted"
        assert accepted is renegotiates
    assert report["verdict"]["grade"] == ("safe" if takes == ANY else "limited")


@pytest.mark.parametrize(
    ("name", "arguments", "alert", "library"),
    [
        ("go", [], "unexpected_message", "Go or wolfSSL"),
        ("lighttpd", ["wolfssl"], "unexpected_message", "Go or wolfSSL"),
        ("lighttpd", ["nss"], "no_renegotiation", "NSS"),
    ],
)
def test_stacks_that_answer_at_once(started, probe, name, arguments, alert, library):
    for module in arguments:
        needs_module(module)
    report = probe(started(name, *arguments), "--limits")
    checks = report["checks"]
    assert checks["key_update_requested"]["at_once"] is True
    in_a_row = checks["limit_in_a_row"]
    takes_16 = name == "go" and in_a_row["updates"] == 17  # since CVE-2026-56862
    assert in_a_row["result"] == ("ended" if takes_16 else "accepted")
    for check in ("limit_with_data", "update_behind_request"):
        assert checks[check]["result"] == "accepted"
    assert checks["renegotiation_full"]["result"] == "refused"
    assert checks["renegotiation_full"]["alert"] == alert
    within = ", within limits" if takes_16 else ""
    assert report["verdict"]["text"] == f"safe with RekeyPolicy(){within}"
    assert report["looks_like"].split(";")[0] == library
    assert report["exit_code"] == 0


def ends_on_key_update(report):
    assert report["checks"]["key_update"]["result"] == "ended"
    assert report["verdict"]["grade"] == "fatal"
    assert "Known for Mbed TLS" in " ".join(report["verdict"]["advice"])
    assert report["looks_like"].split(";")[0] == "Mbed TLS"
    assert report["exit_code"] == 1


def test_mbed_tls(started, probe):
    """Its own test server, which is in no package of Debian's."""
    if not tls_servers.find("ssl_server2"):
        pytest.skip("Mbed TLS' ssl_server2 is not on the PATH")
    files = ["crt_file={}/chain.pem", "key_file={}/key.pem"]
    target = started("ssl_server2", "server_port={port}", *files)
    ends_on_key_update(probe(target))


def test_mbed_tls_in_lighttpd(started, probe, folder, authority):
    """Versions before 3.6 have no TLS 1.3, and so no KeyUpdate to end on."""
    needs_module("mbedtls")
    rsa = trustme.KeyType.RSA  # of others, lighttpd 1.4.79 dies with Mbed TLS 3.6
    tls_servers.write_certificate(
        authority.issue_cert("localhost", key_type=rsa), folder
    )
    report = probe(started("lighttpd", "mbedtls"))
    if report["version"] == "TLSv1.3":
        ends_on_key_update(report)
        return
    assert report["checks"]["renegotiation_full"]["alert"] == "no_renegotiation"
    assert report["verdict"]["grade"] == "impossible"
    assert report["looks_like"].startswith("OpenSSL, Mbed TLS or their like")
    assert report["exit_code"] == 1
