"""See what pykeyupdate does, on TLS connections inside this process.

The demo changes keys on a live connection, has a policy do it, cuts a flooder off, and
lets two threads use a connection whose keys never stay. No network is needed.
"""

import argparse
import contextlib
import logging
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

from .. import (
    DeferredByOpenSSLError,
    PeerLimitError,
    PeerLimits,
    RekeyPolicy,
    manage,
    rekey,
    stats,
)
from . import demo_all, doctor, local_connections, tables
from .exit_codes import program

_HANDSHAKE, _KEY_UPDATE = 22, 24  # TLS content type; handshake message type
_RECORDS = 35
_A_KEY = 10  # records
_FLOOD = 1000  # key updates
_MESSAGES = 2000  # in each direction
_MESSAGES_IN_PACE = 20
_PACE = 0.15  # seconds; a coming OpenSSL wants 0.1 between two key updates

_INDENT = " " * 3
_NEXT = {
    "demo --all": "each call, and each message on the wire",
    "probe HOST:PORT": "what a server makes of new keys",
    "run -- PROGRAM": "your program, with managed connections",
}

Ends = tuple[ssl.SSLSocket, ssl.SSLSocket]


def main(argv: list[str]) -> int:
    """Tell the story, or use all calls; return 0 if all went as it should."""
    if parser().parse_args(argv).all:
        return demo_all.main()
    story = Story()
    print(doctor.version_line())
    with _quiet_log():
        story.on_a_live_connection()
        story.by_a_policy()
        story.a_flooder()
        story.two_threads()
    print()
    rows = [(f"{program()} {key}", text) for key, text in _NEXT.items()]
    print("\n".join(tables.plain_lines(("next:", ""), rows)))
    return story.exit_code


def parser() -> argparse.ArgumentParser:
    """Return the parser of this command's options."""
    made = argparse.ArgumentParser(prog=f"{program()} demo", description=__doc__)
    made.add_argument(
        "--all",
        action="store_true",
        help="use every control, in both roles, and show each message (52 calls)",
    )
    return made


class Story:
    """Four short scenes, each on a connection of its own."""

    def __init__(self) -> None:
        self.exit_code = 0
        self._authority = local_connections.trustme().CA()
        self._certificate = self._authority.issue_cert(local_connections.NAME)
        self._received: list[bytes] = []
        self._pace = _pace(*self._contexts())

    def on_a_live_connection(self) -> None:
        """Call rekey() once."""
        self._head("1. New keys on a live connection")
        with self._connection() as (client, server):
            begin = time.perf_counter()
            rekey(client)
            taken = (time.perf_counter() - begin) * 1e6
            client.sendall(b"hello")
            data = server.recv(5)
            tables.say(f"rekey(client) took {taken:.0f} us", _INDENT)
            kind = {0: "update_not_requested", 1: "update_requested"}
            for message in self._received:
                name = kind[message[-1]]
                text = f"on the wire: KeyUpdate({name}), {message.hex(' ')}"
                tables.say(text, _INDENT)
            self._say(
                data == b"hello" and len(self._received) == 1,
                f"the server read {data!r} under the new key",
            )

    def by_a_policy(self) -> None:
        """Have a policy change keys."""
        self._head(f"2. By a policy: RekeyPolicy(sent_records={_A_KEY})")
        policy = RekeyPolicy(sent_records=_A_KEY, min_interval_seconds=0.0)
        with self._connection(client={"policy": policy}) as (client, server):
            for number in range(_RECORDS):
                if number % _A_KEY == 0:
                    time.sleep(self._pace)
                client.sendall(b"x")
                server.recv(1)
            most = stats(client).sent.most_records
            count = len(self._received)
            self._say(
                count == _RECORDS // _A_KEY and most == _A_KEY,
                f"{_RECORDS} records sent, {count} key updates, "
                f"never more than {most} records under one key",
            )

    def a_flooder(self) -> None:
        """Cut off a client that sends nothing but key updates."""
        self._head("3. A flooder is cut off: PeerLimits()")
        with self._connection(server={"limits": PeerLimits()}) as (client, server):
            flooder = threading.Thread(
                target=_flood, args=(client, self._pace), daemon=True
            )
            flooder.start()
            reason = "not cut off"
            try:
                server.recv(1)
            except PeerLimitError as error:
                reason = type(error).__name__
            counts = stats(server).counts
            server.close()
            flooder.join()
            tables.say("the client sends key updates, and no data", _INDENT)
            self._say(
                counts.cut_off == 1,
                f"the server took {counts.key_updates_received} of them, "
                f"then recv() raised {reason}",
            )

    def two_threads(self) -> None:
        """Read and write at once while the keys change with every record."""
        self._head("4. A reader and a writer thread, new keys with every message")
        policy = RekeyPolicy(sent_records=1, min_interval_seconds=0.0)
        rules = {"policy": policy, "limits": None}
        number = _MESSAGES_IN_PACE if self._pace else _MESSAGES
        with self._connection(client=rules, server=rules) as (client, server):
            begin = time.perf_counter()
            echo = threading.Thread(target=_echo, args=(server,), daemon=True)
            writer = threading.Thread(
                target=_write, args=(client, number, self._pace), daemon=True
            )
            echo.start()
            writer.start()
            got = 0
            while got < number and (data := client.recv(65536)):
                got += len(data)
            writer.join()
            counts = stats(client).counts
            taken = time.perf_counter() - begin
            self._say(
                got == number and counts.key_updates_sent >= number - 1,
                f"{got} messages each way in {taken:.1f} s, "
                f"{counts.key_updates_sent} key updates sent, "
                f"{counts.key_updates_received} received, nothing lost",
            )
            client.close()
            echo.join()

    def _head(self, text: str) -> None:
        print()
        tables.say(text)

    def _say(self, held: bool, text: str) -> None:
        self.exit_code |= not held
        tables.say(text if held else f"WRONG: {text}", _INDENT)

    @contextlib.contextmanager
    def _connection(self, **rules: dict[str, Any]) -> Iterator[Ends]:
        """Connect two ends by a socket pair, and note what the server receives."""
        contexts = dict(zip(("client", "server"), self._contexts()))
        for end, those in rules.items():
            manage(contexts[end], **{"policy": None, "limits": None, **those})
        contexts["server"]._msg_callback = self._saw  # type: ignore[attr-defined]
        with local_connections.socket_connection(**contexts) as ends:
            self._received = []
            yield ends

    def _contexts(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        return local_connections.contexts(
            self._authority, self._certificate, ssl.TLSVersion.TLSv1_3
        )

    def _saw(self, *message: Any) -> None:
        _conn, direction, _version, content_type, _type, data = message
        if (direction, content_type) == ("read", _HANDSHAKE) and data[0] == _KEY_UPDATE:
            self._received.append(bytes(data))


@contextlib.contextmanager
def _quiet_log() -> Iterator[None]:
    """Keep the warning about the flooder off standard error: the story tells it."""
    logger, handler = logging.getLogger("pykeyupdate"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _pace(client: ssl.SSLContext, server: ssl.SSLContext) -> float:
    """Return the seconds to leave between two key updates: 0.0 with most OpenSSLs."""
    conn, _ = local_connections.memory_connection(client, server)
    rekey(conn)
    try:
        rekey(conn)
    except DeferredByOpenSSLError:
        return _PACE
    return 0.0


def _flood(conn: ssl.SSLSocket, pause: float) -> None:
    with contextlib.suppress(OSError):  # the end that it is meant to have
        for _ in range(_FLOOD):
            rekey(conn)
            time.sleep(pause)


def _echo(conn: ssl.SSLSocket) -> None:
    with contextlib.suppress(OSError):
        while data := conn.recv(1):
            conn.sendall(data)


def _write(conn: ssl.SSLSocket, number: int, pause: float) -> None:
    for _ in range(number):
        conn.sendall(b"x")
        time.sleep(pause)
