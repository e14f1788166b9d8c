"""TLS servers of other projects: their configurations, and how to start them.

Each function writes what its server needs into a folder and returns the command. A
certificate is there as ``server.pem`` (key and chain), ``chain.pem`` and ``key.pem``.
"""

import os
import shutil
import sys
from pathlib import Path

PLACES = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/lib/postgresql/15/bin"
_NOBODY = 65534
_COMMANDS = {"managed_python": sys.executable}


def find(name):
    """Return a program's path, or None; servers are not on everybody's PATH."""
    return shutil.which(_COMMANDS.get(name, name), path=PLACES)


def write(path, text):
    path.write_text(text)
    return str(path)


def write_certificate(certificate, folder):
    """Write a server's certificate, readable for the servers' own users."""
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
    (folder / "chain.pem").write_bytes(chain)


def nginx(folder, port):
    text = f"""
        daemon off; master_process off; pid {folder}/pid; error_log stderr;
        events {{}}
        http {{
            access_log off;
            server {{
                listen 127.0.0.1:{port} ssl;
                ssl_protocols TLSv1.2 TLSv1.3;
                ssl_certificate {folder}/server.pem;
                ssl_certificate_key {folder}/server.pem;
                location / {{ return 200 "hello"; }}
            }}
        }}
    """
    config = write(folder / "nginx.conf", text)
    return [find("nginx"), "-p", str(folder), "-c", config]


def haproxy(folder, port):
    text = f"""
defaults
    mode http
    timeout connect 9s
    timeout client 9s
    timeout server 9s
frontend f
    bind 127.0.0.1:{port} ssl crt {folder}/server.pem
    http-request return status 200
"""
    return [find("haproxy"), "-db", "-f", write(folder / "haproxy.cfg", text)]


def stunnel4(folder, port):
    """It runs a program for each connection: one that answers a line."""
    text = f"""
foreground = yes
pid =
[hello]
accept = 127.0.0.1:{port}
cert = {folder}/server.pem
exec = {find("cat")}
"""
    return [find("stunnel4"), write(folder / "stunnel.conf", text)]


def mosquitto(folder, port):
    text = f"""
listener {port} 127.0.0.1
certfile {folder}/chain.pem
keyfile {folder}/key.pem
allow_anonymous true
"""
    return [find("mosquitto"), "-c", write(folder / "mosquitto.conf", text)]


def postgres(folder, port):
    """Root must not run it."""
    data = folder / "data"
    data.mkdir()
    os.chown(data, _NOBODY, _NOBODY)
    for name in ("key.pem", "chain.pem"):
        os.chown(folder / name, _NOBODY, _NOBODY)
    (folder / "key.pem").chmod(0o600)
    as_nobody = [find("setpriv"), "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    script = (
        f"{find('initdb')} -D {data} -A trust >/dev/null && exec {find('postgres')} "
        f"-D {data} -p {port} -k {data} -h 127.0.0.1 -c ssl=on "
        f"-c ssl_cert_file={folder}/chain.pem -c ssl_key_file={folder}/key.pem"
    )
    return [*as_nobody, "sh", "-c", script]


def dovecot(folder, port, protocol="imap", tls="no"):
    text = f"""
protocols = {protocol}
base_dir = {folder}/run
log_path = /dev/stderr
ssl = yes
ssl_cert = <{folder}/chain.pem
ssl_key = <{folder}/key.pem
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={folder}
}}
service {protocol}-login {{
  inet_listener {protocol} {{
    port = {port}
    address = 127.0.0.1
    ssl = {tls}
  }}
  inet_listener {protocol}s {{
    port = 0
  }}
  chroot =
}}
"""
    return [find("dovecot"), "-F", "-c", write(folder / "dovecot.conf", text)]


def postfix(folder, port):
    """One service, without the chroot that Debian's own configuration has."""
    for name in ("etc", "queue", "data"):
        (folder / name).mkdir()
    shutil.chown(folder / "data", "postfix")
    write(folder / "etc" / "master.cf", _POSTFIX_MASTER.format(port=port))
    main = f"""
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
myhostname = localhost
maillog_file = /dev/stdout
alias_maps =
local_recipient_maps =
smtpd_peername_lookup = no
smtpd_tls_cert_file = {folder}/chain.pem
smtpd_tls_key_file = {folder}/key.pem
smtpd_tls_security_level = may
"""
    write(folder / "etc" / "main.cf", main)
    postfix = f"{find('postfix')} -c {folder}/etc"  # which leaves its session
    return ["sh", "-c", f"trap '{postfix} stop' TERM; {postfix} start-fg & wait; wait"]


_POSTFIX_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
tlsmgr unix - - n 1000? 1 tlsmgr
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


def slapd(folder, port):
    (folder / "db").mkdir()
    text = f"""
include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/pid
TLSCertificateFile {folder}/chain.pem
TLSCertificateKeyFile {folder}/key.pem
TLSVerifyClient never
database mdb
suffix "dc=example"
directory {folder}/db
"""
    config = write(folder / "slapd.conf", text)
    return [find("slapd"), "-d", "0", "-f", config, "-h", f"ldap://127.0.0.1:{port}"]


def vsftpd(folder, port):
    (folder / "empty").mkdir()
    text = f"""
listen=YES
listen_address=127.0.0.1
listen_port={port}
background=NO
secure_chroot_dir={folder}/empty
ssl_enable=YES
rsa_cert_file={folder}/server.pem
rsa_private_key_file={folder}/server.pem
seccomp_sandbox=NO
"""
    return [find("vsftpd"), write(folder / "vsftpd.conf", text.lstrip())]


def mariadbd(folder, port):
    install = find("mariadb-install-db")
    script = (
        f"{install} --no-defaults --datadir={folder}/data --user=root "
        f">/dev/null 2>&1 && exec {find('mariadbd')} --no-defaults --user=root "
        f"--datadir={folder}/data --socket={folder}/socket --bind-address=127.0.0.1 "
        f"--port={port} --ssl-cert={folder}/chain.pem --ssl-key={folder}/key.pem "
        f"--ssl-ca={folder}/chain.pem"
    )
    return ["sh", "-c", script]


def prosody(folder, port):
    text = f"""
run_as_root = true
daemonize = false
pidfile = "{folder}/pid"
data_path = "{folder}"
modules_enabled = {{ "saslauth", "tls" }}
modules_disabled = {{ "s2s", "posix" }}
c2s_ports = {{ {port} }}
c2s_interfaces = {{ "127.0.0.1" }}
ssl = {{ certificate = "{folder}/chain.pem", key = "{folder}/key.pem" }}
log = {{ error = "*console" }}
VirtualHost "localhost"
"""
    return [find("prosody"), "--config", write(folder / "prosody.cfg.lua", text), "-F"]


def node(folder, port):
    text = f"""
const pem = require("fs").readFileSync("{folder}/server.pem");
require("https").createServer({{key: pem, cert: pem}}, (request, response) =>
    response.end("hello")).listen({port}, "127.0.0.1");
"""
    return [find("node"), write(folder / "server.js", text)]


def java(folder, port):
    """JSSE, behind the JDK's own HTTP server; Java compiles the file by itself."""
    text = _JAVA.format(port=port, folder=folder)
    keys = folder / "server.p12"
    openssl = f"openssl pkcs12 -export -in {folder}/server.pem -out {keys}"
    source = write(folder / "Jsse.java", text)
    script = f"{openssl} -passout pass:changeit && exec {find('java')} {source}"
    return ["sh", "-c", script]


_JAVA = """
import com.sun.net.httpserver.*;
import javax.net.ssl.*;

public class Jsse {{
    public static void main(String[] arguments) throws Exception {{
        char[] password = "changeit".toCharArray();
        var keys = java.security.KeyStore.getInstance("PKCS12");
        keys.load(new java.io.FileInputStream("{folder}/server.p12"), password);
        var factory = KeyManagerFactory.getInstance("SunX509");
        factory.init(keys, password);
        var context = SSLContext.getInstance("TLS");
        context.init(factory.getKeyManagers(), null, null);
        var address = new java.net.InetSocketAddress("127.0.0.1", {port});
        var server = HttpsServer.create(address, 0);
        server.setHttpsConfigurator(new HttpsConfigurator(context));
        server.createContext("/", exchange -> {{
            exchange.sendResponseHeaders(200, -1);
            exchange.close();
        }});
        server.start();
    }}
}}
"""


def go(folder, port):
    """Go's crypto/tls, behind its own HTTP server."""
    source = write(folder / "server.go", _GO)
    program, pem = folder / "go-server", folder / "server.pem"
    build = f"{find('go')} build -o {program} {source}"
    return ["sh", "-c", f"{build} && exec {program} 127.0.0.1:{port} {pem}"]


_GO = """
package main

import (
	"net/http"
	"os"
)

func main() {
	address, pem := os.Args[1], os.Args[2]
	answer := func(out http.ResponseWriter, _ *http.Request) { out.WriteHeader(200) }
	panic(http.ListenAndServeTLS(address, pem, pem, http.HandlerFunc(answer)))
}
"""


def lighttpd(folder, port, module):
    """A web server with one of several TLS libraries: mbedtls, nss, wolfssl."""
    key = folder / "key8.pem"  # NSS reads no other form
    text = f"""
server.modules = ("mod_{module}")
server.document-root = "{folder}"
server.bind = "127.0.0.1"
server.port = {port}
ssl.engine = "enable"
ssl.pemfile = "{folder}/chain.pem"
ssl.privkey = "{key}"
ssl.openssl.ssl-conf-cmd = ("MinProtocol" => "TLSv1.2")
"""
    config = write(folder / "lighttpd.conf", text)
    convert = f"openssl pkcs8 -topk8 -nocrypt -in {folder}/key.pem -out {key}"
    return ["sh", "-c", f"{convert} && exec {find('lighttpd')} -D -f {config}"]


def has_lighttpd_module(module):
    """Return whether Debian's package ``lighttpd-mod-...`` is there."""
    return Path(f"/usr/lib/lighttpd/mod_{module}.so").exists()


def granian(folder, port):
    """rustls."""
    write(folder / "hello.py", _ASGI)
    options = f"--interface asgi --host 127.0.0.1 --port {port} --no-ws".split()
    tls = ["--ssl-certificate", f"{folder}/chain.pem", "--ssl-keyfile"]
    command = [find("granian"), *options, *tls, f"{folder}/key.pem"]
    return [*command, "--working-dir", str(folder), "hello:app"]


_ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        headers = [(b"content-length", b"0")]
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": b""})
"""


def managed_python(folder, port):
    script = Path(write(folder / "managed.py", _MANAGED))
    return [sys.executable, str(script), f"{folder}/server.pem", str(port)]


_MANAGED = """
import http.server, ssl, sys
import pykeyupdate

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
pykeyupdate.manage(context)
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
