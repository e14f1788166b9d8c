"""Serve TLS connections whose keys change on command, to try a client of your own.

The server sends back what it receives, or speaks HTTP if the client does. Keys change
by a URL, by a key that you press, or by --every. It prints what each client did.
"""

import argparse
import contextlib
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from ... import OP_ALLOW_CLIENT_RENEGOTIATION, manage
from .. import inputs, local_connections
from ..exit_codes import CannotRun, program, start_thread
from .actions import ACTIONS
from .client import Client
from .keyboard import pressed_keys

_EPILOG = """\
keys and URLs:
{actions}
  q               end

examples, in another terminal (ca.pem: the path that it prints):
  curl --cacert ca.pem https://localhost:8443/rekey
  openssl s_client -CAfile ca.pem -connect localhost:8443
"""
_PAUSE = 0.5  # seconds before another client is accepted, if one could not be
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def main(argv: list[str]) -> int:
    """Serve until somebody presses q or Ctrl-C."""
    chosen = parser().parse_args(argv)
    inputs.check_key(chosen.key, chosen.cert)
    with contextlib.ExitStack() as stack:
        pem, key, trusted = stack.enter_context(_certificate(chosen))
        server = _Server(chosen, pem, key, trusted)
        listener = stack.enter_context(_listen(chosen.host, chosen.port))
        host, port = listener.getsockname()[:2]
        print(f"https://localhost:{port}/ on {host}, to be trusted by {trusted}")
        print("keys: k K r c, q ends (see --help)", flush=True)
        start_thread(server.accept, listener)
        if chosen.every is not None:
            start_thread(server.repeat)
        server.obey(pressed_keys())
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of this command's options."""
    lines = (
        f"  {key}  /{action.path:<12} {action.text}" for key, action in ACTIONS.items()
    )
    made = argparse.ArgumentParser(
        prog=f"{program()} serve",
        description=__doc__,
        epilog=_EPILOG.format(actions="\n".join(lines)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("port", type=int, nargs="?", default=8443, help="port to listen on (8443)")
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    add(
        "--cert",
        metavar="FILE",
        help="certificate (PEM); without it one is made, and a client.pem for clients",
    )
    add("--key", metavar="FILE", help="its key, if that is in another file")
    add("--cafile", metavar="FILE", help="whose client certificates are accepted")
    add("--tls", choices=_VERSIONS, help="this version alone (both)")
    add("--every", type=inputs.seconds, metavar="S", help="do --action every S seconds")
    paths = {action.path: key for key, action in ACTIONS.items()}
    add("--action", choices=paths, default="rekey", help="what --every does (rekey)")
    return made


@contextlib.contextmanager
def _certificate(
    chosen: argparse.Namespace,
) -> Iterator[tuple[str, Optional[str], str]]:
    """Yield the certificate's file, its key's, and that of the authority to trust."""
    if chosen.cert:
        yield chosen.cert, chosen.key, chosen.cafile or chosen.cert
        return
    authority = local_connections.trustme().CA()
    with tempfile.TemporaryDirectory() as folder:
        pem, trusted = Path(folder, "server.pem"), Path(folder, "ca.pem")
        made = authority.issue_cert(local_connections.NAME, "127.0.0.1", "::1")
        made.private_key_and_cert_chain_pem.write_to_path(str(pem))
        authority.cert_pem.write_to_path(str(trusted))
        own = authority.issue_cert("client.invalid").private_key_and_cert_chain_pem
        own.write_to_path(str(Path(folder, "client.pem")))
        yield str(pem), None, str(trusted)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, TypeError) as error:  # TypeError: no UTF-8
        raise CannotRun(f"cannot listen on {host} port {port}: {error}") from None


class _Server:
    """The clients there are, and what is done to all of them."""

    def __init__(
        self, chosen: argparse.Namespace, pem: str, key: Optional[str], trusted: str
    ) -> None:
        self._chosen = chosen
        self._files = pem, key, chosen.cafile or trusted
        self._clients: set[Client] = set()
        self._lock = threading.Lock()
        self._count = 0
        self._context()  # files that cannot be read are reported at once

    def _context(self) -> ssl.SSLContext:
        """Return a context for one client: its messages are that client's."""
        pem, key, trusted = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(pem, key)
            context.load_verify_locations(trusted)
        except (OSError, ssl.SSLError) as error:
            raise CannotRun(f"cannot load the certificates: {error}") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._chosen.tls:
            context.minimum_version = _VERSIONS[self._chosen.tls]
            context.maximum_version = _VERSIONS[self._chosen.tls]
        context.options |= OP_ALLOW_CLIENT_RENEGOTIATION
        context.post_handshake_auth = True
        manage(context, policy=None, limits=None)
        return context

    def accept(self, listener: socket.socket) -> None:
        """Serve each client in a thread of its own, until the listener is closed."""
        while listener.fileno() >= 0:
            self._accept_one(listener)

    def _accept_one(self, listener: socket.socket) -> None:
        try:
            plain, address = listener.accept()
        except OSError as error:  # too many clients, or one that has gone already
            if listener.fileno() >= 0:
                print(f"cannot accept a client: {error}", flush=True)
                time.sleep(_PAUSE)
            return
        self._welcome(plain, address)

    def _welcome(self, plain: socket.socket, address: Any) -> None:
        self._count += 1
        try:
            client = Client(self._count, plain, address, self._context())
            start_thread(self._serve, client)
        except (CannotRun, RuntimeError) as error:  # its files have gone; no thread
            plain.close()
            print(f"[{self._count}] {address[0]}: not served: {error}", flush=True)

    def _serve(self, client: Client) -> None:
        with self._lock:
            self._clients.add(client)
        try:
            client.serve()
        finally:
            with self._lock:
                self._clients.discard(client)

    def do(self, key: str) -> None:
        """Do something to all clients, each in a thread: one may not answer."""
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            start_thread(client.do, ACTIONS[key])
        if not clients:
            print("no client is connected", flush=True)

    def repeat(self) -> None:
        """Do what ``--every`` says, for ever."""
        (key,) = (k for k, a in ACTIONS.items() if a.path == self._chosen.action)
        while True:
            time.sleep(self._chosen.every)
            if self._clients:
                self.do(key)

    def obey(self, keys: Iterator[str]) -> None:
        """Do what the keys say, until ``q``."""
        for key in keys:
            if key == "q":
                return
            if key in ACTIONS:
                self.do(key)
        threading.Event().wait()  # there is no keyboard; Ctrl-C is left
