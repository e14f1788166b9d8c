"""A blocking TLS server of the standard library, in threads, and what it saw."""

import contextlib
import socket
import ssl
import threading

from link import Witness


def echo(tls):
    """Send back what comes."""
    while data := tls.recv(65536):
        tls.sendall(data)


class Server(Witness):
    """Serves each connection with ``handler(SSLSocket)`` in a thread of its own."""

    def __init__(self, context, handler=echo):
        super().__init__()
        self.watch("server", context)
        self.context, self.handler = context, handler
        self.listener = socket.create_server(("127.0.0.1", 0))
        # so that a peer that does not read is soon noticed
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.address = self.listener.getsockname()
        self.threads, self.sockets, self.errors = [], [], []
        self.start(self.accept)

    def start(self, target, *arguments):
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self.threads.append(thread)
        thread.start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self.listener.accept()
                self.start(self.serve, plain)

    def serve(self, plain):
        plain.settimeout(30)
        try:
            with self.context.wrap_socket(plain, server_side=True) as tls:
                self.sockets.append(tls)
                self.handler(tls)
        except (OSError, ssl.SSLError) as error:
            self.errors.append(error)

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for tls in self.sockets:  # not SSLSocket's: that one takes the TLS off it
            with contextlib.suppress(OSError):
                socket.socket.shutdown(tls, socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()
