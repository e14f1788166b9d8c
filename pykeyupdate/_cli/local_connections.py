"""A TLS client and server in this process, for the commands that need both.

trustme (the extra ``[demo]``) makes the server's certificate on the spot.
"""

import contextlib
import socket
import ssl
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .._constants import OP_ALLOW_CLIENT_RENEGOTIATION
from .._installation import manage
from .exit_codes import CannotRun

NAME = "localhost"
_TIMEOUT = 30.0  # seconds; on loopback nothing takes even one second


def trustme() -> Any:
    """Return the module trustme, or raise CannotRun with the way to install it."""
    try:
        import trustme
    except ImportError:
        raise CannotRun(
            "This command makes its certificates with trustme, which is not installed. "
            "Install it with\n    python -m pip install 'pykeyupdate[demo]'"
        ) from None
    return trustme


def need_loopback() -> None:
    """Raise CannotRun unless this process can talk to itself over TCP."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            socket.create_connection(listener.getsockname(), _TIMEOUT).close()
    except OSError as error:
        raise CannotRun(
            "This command talks to itself over TCP on 127.0.0.1, which does not work "
            f"here: {error}. Run it where there is a loopback network"
        ) from None


def contexts(
    authority: Any, certificate: Any, version: ssl.TLSVersion
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a client's and a server's context for one protocol version."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(client)
    certificate.configure_cert(server)
    server.options |= OP_ALLOW_CLIENT_RENEGOTIATION
    for context in (client, server):
        context.minimum_version = context.maximum_version = version
    return client, server


@contextlib.contextmanager
def certificate_files() -> Iterator[tuple[str, str]]:
    """Yield the paths of a server's key with its certificates, and of the authority."""
    authority = trustme().CA()
    with tempfile.TemporaryDirectory() as folder:
        pem, trusted = Path(folder, "server.pem"), Path(folder, "authority.pem")
        chain = authority.issue_cert(NAME).private_key_and_cert_chain_pem
        chain.write_to_path(str(pem))
        authority.cert_pem.write_to_path(str(trusted))
        yield str(pem), str(trusted)


def contexts_of_files(
    kind: str, pem: str, trusted: str
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a client's and a server's context; ``kind``: "managed" or "stock"."""
    client = ssl.create_default_context(cafile=trusted)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    if kind == "managed":
        manage(client)
        manage(server)
    return client, server


@contextlib.contextmanager
def tcp_connection(
    client: ssl.SSLContext, server: ssl.SSLContext
) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """Connect over TCP on loopback and yield both ends, after their handshake."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        near = stack.enter_context(socket.create_connection(listener.getsockname()))
        far = stack.enter_context(listener.accept()[0])
        for end in (near, far):
            end.settimeout(_TIMEOUT)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with ThreadPoolExecutor(1) as pool:
            accepting = pool.submit(server.wrap_socket, far, server_side=True)
            connected = client.wrap_socket(near, server_hostname=NAME)
            accepted = accepting.result()
        yield stack.enter_context(connected), stack.enter_context(accepted)


def memory_connection(
    client: ssl.SSLContext, server: ssl.SSLContext
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Connect over memory BIOs and return both ends, after their handshake."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=NAME)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    for end in (near, far, near, far):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    far.write(b"!")  # after the session tickets, which near reads first
    near.read(1)
    return near, far


@contextlib.contextmanager
def socket_connection(
    client: ssl.SSLContext, server: ssl.SSLContext
) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """Connect over a socket pair and yield both ends, after their handshake."""
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(end) for end in socket.socketpair()]
        with ThreadPoolExecutor(1) as pool:
            accepting = pool.submit(server.wrap_socket, ends[0], server_side=True)
            connected = client.wrap_socket(ends[1], server_hostname=NAME)
            accepted = accepting.result()
        near, far = stack.enter_context(connected), stack.enter_context(accepted)
        far.write(b"!")  # after the session tickets, which near reads first
        near.read(1)
        yield near, far
