"""One client: what it says is sent back or answered, and what it did is printed."""

import socket
import ssl
import threading
import time
from typing import Any, Optional

from ... import PyKeyUpdateError
from . import http
from .actions import Action

_HANDSHAKE, _ALERT = 22, 21  # TLS content types
_FINISHED, _KEY_UPDATE = 20, 24  # handshake messages
_NEWEST = "TLSv1.3"
_TYPES = {0: "KeyUpdate(update_not_requested)", 1: "KeyUpdate(update_requested)"}
_FIRST = 10.0  # seconds for the first handshake


class Client:
    """A connection, served in a thread of its own and acted upon from others."""

    def __init__(
        self, number: int, plain: socket.socket, address: Any, context: ssl.SSLContext
    ) -> None:
        self._number = number
        self._plain = plain
        self._address = address
        self._context = context
        self._tls: Optional[ssl.SSLSocket] = None
        self._version: Optional[str] = None
        self._asked_at: Optional[float] = None
        self._counts = {"sent": 0, "received": 0, "renegotiations": 0}
        self._busy = threading.Lock()
        context._msg_callback = self._saw  # type: ignore[attr-defined]

    def say(self, text: str) -> None:
        """Print a line about this client."""
        print(f"[{self._number}] {text}", flush=True)

    def serve(self) -> None:
        """Handshake, and answer until the client goes."""
        try:
            self._plain.settimeout(_FIRST)
            tls = self._context.wrap_socket(self._plain, server_side=True)
        except OSError as error:
            self._plain.close()
            self.say(f"{self._address[0]}: no handshake: {error}")
            return
        with tls:
            tls.settimeout(None)
            self._tls, self._version = tls, tls.version()
            cipher = tls.cipher() or ("",)
            self.say(f"{self._address[0]}: {self._version} {cipher[0]}")
            how = "closed"
            try:
                self._answer(tls)
            except OSError as error:
                how = f"ended: {error}"
        self.say(
            "{how}; {sent} KeyUpdates sent, {received} received, "
            "{renegotiations} renegotiations".format(how=how, **self._counts)
        )

    def _answer(self, tls: ssl.SSLSocket) -> None:
        """Send back what comes, or speak HTTP."""
        while data := tls.recv(65536):
            if http.is_request(data):
                self.say(http.first_line(data))
                tls.sendall(http.answer(data, self.do))
            else:
                tls.sendall(data)

    def do(self, action: Action) -> str:
        """Do something to the connection; print and return what came of it."""
        tls = self._tls
        if tls is None:
            return "not connected yet"
        with self._busy:
            try:
                done = action.do(tls)
            except (PyKeyUpdateError, OSError) as error:
                done = f"/{action.path} failed: {error}"
        self.say(done)
        return done

    def _saw(self, *message: Any) -> None:
        """Print what came from the client; called by OpenSSL."""
        _conn, direction, _version, content_type, _type, data = message
        if self._tls is None or content_type not in (_HANDSHAKE, _ALERT):
            return  # the first handshake is not worth a line
        if content_type == _ALERT:
            if direction == "read" and data[1]:
                self.say(f"received an alert, number {data[1]}")
        elif data[0] == _KEY_UPDATE:
            self._saw_update(direction, data[-1])
        elif data[0] == _FINISHED and direction == "read" and self._version != _NEWEST:
            self._counts["renegotiations"] += 1
            self.say("received Finished of a new handshake")

    def _saw_update(self, direction: str, requested: int) -> None:
        if direction == "write":
            self._counts["sent"] += 1
            self._asked_at = time.perf_counter() if requested else self._asked_at
            return
        self._counts["received"] += 1
        answer = ""
        if self._asked_at is not None and not requested:
            taken = (time.perf_counter() - self._asked_at) * 1e3
            answer, self._asked_at = f", {taken:.1f} ms after the request", None
        self.say(f"received {_TYPES.get(requested, 'KeyUpdate')}{answer}")
