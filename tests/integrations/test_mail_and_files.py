"""smtplib, imaplib, poplib and ftplib against other projects' servers.

Twisted and pyftpdlib use pyOpenSSL for TLS, so the peer has another OpenSSL.
"""

import ftplib
import imaplib
import io
import os
import poplib
import smtplib
import subprocess
import sys
from pathlib import Path

import pytest
from support.link import NOT_REQUESTED, Witness

import pykeyupdate

SERVERS = Path(__file__).with_name("mail_and_file_servers.py")


@pytest.fixture
def start(library, certificate, tmp_path):
    """Start one of the servers in a process of its own; return its port."""
    processes = []
    key = tmp_path / "server.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(key))

    def start(name, *needs):
        for need in needs:
            library(need)
        process = subprocess.Popen(
            [sys.executable, SERVERS, name, key],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            cwd=tmp_path,
            text=True,
        )
        processes.append(process)
        return int(process.stdout.readline())

    yield start
    for process in processes:
        process.stdin.close()
        process.terminate()
        process.wait(20)
        process.stdout.close()


@pytest.fixture
def client(make_contexts, version):
    """Return a client's context, its witness, and a test for new keys."""
    context, _ = make_contexts(version)
    witness = Witness()
    witness.watch("client", context)

    def rekey(conn):
        witness.wire.clear()
        pykeyupdate.rekey(conn)
        pykeyupdate.wait_for_renegotiation(conn, 20)
        said = witness.said("client")
        if version == "tls13":
            assert said == [NOT_REQUESTED]
        else:
            assert said.count("Finished") == 1

    return context, rekey


def test_smtp(start, client):
    context, rekey = client
    port = start("smtp", "twisted.mail.smtp", "OpenSSL")
    with smtplib.SMTP("localhost", port, timeout=20) as smtp:
        with pytest.raises(TypeError, match="plain one, without TLS"):
            pykeyupdate.rekey(smtp)
        smtp.starttls(context=context)
        smtp.mail("me@localhost")
        rekey(smtp)
        smtp.rcpt("you@localhost")
        code, text = smtp.data(b"Subject: keys\r\n\r\n" + b"new ones\r\n" * 1000)
        assert (code, text.split()[0]) == (250, b"Delivery")


def test_imap(start, client):
    context, rekey = client
    port = start("imap", "twisted.mail.imap4", "OpenSSL")
    with imaplib.IMAP4_SSL("localhost", port, ssl_context=context, timeout=20) as imap:
        assert imap.noop()[0] == "OK"
        rekey(imap)
        assert "IMAP4REV1" in imap.capability()[1][0].decode().upper()


def test_pop(start, client):
    context, rekey = client
    port = start("pop", "twisted.mail.pop3", "OpenSSL")
    pop = poplib.POP3_SSL("localhost", port, context=context, timeout=20)
    assert "CAPA" not in pop.capa()
    rekey(pop)
    assert pop.user("me").startswith(b"+OK")
    pop.quit()


def test_ftp(start, client, tmp_path):
    context, rekey = client
    port = start("ftp", "pyftpdlib", "OpenSSL")
    data = os.urandom(300_000)
    with ftplib.FTP_TLS(context=context, timeout=20) as ftp:
        ftp.connect("localhost", port)
        ftp.login("user", "password")
        ftp.prot_p()
        ftp.voidcmd("TYPE I")
        rekey(ftp)
        with ftp.transfercmd("STOR file") as transfer:
            transfer.sendall(data[:150_000])
            rekey(transfer)
            transfer.sendall(data[150_000:])
            transfer.unwrap()
        assert ftp.voidresp().startswith("226")
        got = io.BytesIO()
        ftp.retrbinary("RETR file", got.write)
        assert got.getvalue() == data
