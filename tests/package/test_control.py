"""control.py: a running process seen and changed from outside."""

import contextlib
import json
import logging
import operator
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from support.waiting import eventually
from support.wire import Wire, at_once

import pykeyupdate
from pykeyupdate import RekeyPolicy, _control_commands, _line_server

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets"
)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "control.sock")


@pytest.fixture
def server(path):
    with pykeyupdate.control.serve(path) as serving:
        yield serving
    assert not os.path.exists(path)


class Client:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)  # with a timeout, it would not wait for its turn
        self.sock.settimeout(20)
        self.file = self.sock.makefile("rb")

    def send(self, data):
        self.sock.sendall(data)

    def answer(self):
        return json.loads(self.file.readline())

    def ask(self, **request):
        self.send(json.dumps(request).encode() + b"\n")
        return self.answer()

    def is_ended(self):
        """Return whether the server closes the connection, whatever it says first."""
        with contextlib.suppress(ConnectionError):
            self.file.read()
        return True

    def close(self):
        self.file.close()
        self.sock.close()


@pytest.fixture
def client(server):
    made = Client(server.path)
    yield made
    made.close()


def threads_of_ours():
    return [t for t in threading.enumerate() if t.name.startswith("pykeyupdate")]


# -- the socket ------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_nobody_else_can_open_the_file_whatever_the_umask(path, umask):
    before = os.umask(umask)
    try:
        with pykeyupdate.control.serve(path):
            found = os.stat(path)
            client = Client(path)
            assert client.ask(do="totals")["ok"]
            client.close()
    finally:
        os.umask(before)
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600


def test_it_ends_with_the_block_and_leaves_nothing(path):
    open_before = os.listdir("/proc/self/fd") if os.path.exists("/proc/self") else []
    with pykeyupdate.control.serve(path) as serving:
        clients = [Client(path) for _ in range(3)]
        assert len(threads_of_ours()) == 1
        assert "open" in repr(serving)
    assert "closed" in repr(serving)
    assert not threads_of_ours()
    assert all(client.is_ended() for client in clients)
    for client in clients:
        client.close()
    serving.close()
    if open_before:
        assert len(os.listdir("/proc/self/fd")) == len(open_before)


def test_a_live_process_keeps_its_socket_and_a_dead_ones_is_replaced(path, server):
    with pytest.raises(OSError, match="give each process a path of its own") as caught:
        pykeyupdate.control.serve(path)
    assert caught.value.filename == path
    client = Client(path)
    assert client.ask(do="totals")["ok"]
    client.close()


def test_the_file_of_a_dead_process_is_replaced(path):
    program = (
        "import os, sys, pykeyupdate\n"
        "pykeyupdate.control.serve(sys.argv[1])\n"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program, path], check=True)
    assert os.path.exists(path)
    with pykeyupdate.control.serve(path):
        client = Client(path)
        assert client.ask(do="totals")["pid"] == os.getpid()
        client.close()


def test_another_file_is_left_alone(tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(FileExistsError, match="no socket"):
        pykeyupdate.control.serve(path)
    assert path.read_text() == "data"


def test_a_file_that_replaced_ours_is_left_alone(path):
    serving = pykeyupdate.control.serve(path)
    os.unlink(path)
    with open(path, "w"):
        pass
    serving.close()
    assert os.path.exists(path)


@pytest.mark.parametrize(
    ("path", "error"),
    [(b"bytes", TypeError), (3, TypeError), ("", ValueError), ("\0name", ValueError)],
)
def test_a_path_is_the_name_of_a_file(path, error):
    with pytest.raises(error):
        pykeyupdate.control.serve(path)


class Strange(str):
    """A text that cannot be printed, compared or looked up."""

    __slots__ = ()

    def __repr__(self):
        raise AssertionError

    __str__ = __eq__ = __hash__ = __format__ = __fspath__ = __repr__


def test_a_path_and_a_signal_of_a_derived_class_are_their_texts(path):
    with pykeyupdate.control.serve(Strange(path)) as serving:
        assert type(serving.path) is str
        with pytest.raises(OSError, match="give each process a path of its own"):
            pykeyupdate.control.serve(Strange(path))
    with pytest.raises(ValueError, match="there is no signal"):
        pykeyupdate.control.on_signal(Strange("SIGNONE"))


def test_where_there_are_no_unix_sockets_it_says_so(monkeypatch):
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(NotImplementedError, match="rekey_all"):
        pykeyupdate.control.serve("path")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
def test_a_forked_child_does_not_serve_and_the_parent_goes_on(path, server, client):
    follower = Client(path)
    assert follower.ask(do="follow")["ok"]
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            server.close()
            own = pykeyupdate.control.serve(path + ".child")
            asked = Client(own.path)
            answers = asked.ask(do="totals")["pid"] == os.getpid()
            own.close()
            os._exit(0 if answers and os.path.exists(path) else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert client.ask(do="totals")["pid"] == os.getpid()
    follower.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
def test_a_child_that_is_forked_meanwhile_keeps_no_listener(path, monkeypatch):
    """A process that begins anew would take it for one that listens."""
    start, children = threading.Thread.start, []
    parent_lives, stop = os.pipe()
    child_lives, begun = os.pipe()

    def fork():
        child = os.fork()
        if child == 0:
            os.close(stop)
            os.write(begun, b"!")
            os.read(parent_lives, 1)
            os._exit(0)
        children.append(child)

    def fork_and_start(thread):
        if thread.name == "pykeyupdate control":
            threading.Thread(target=fork).start()
            time.sleep(0.2)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fork_and_start)
    with pykeyupdate.control.serve(path):
        assert os.read(child_lives, 1) == b"!"  # what a fork calls has been called
        os.rename(path, path + ".old")
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(path + ".old")
    os.close(stop)
    for end in (parent_lives, child_lives, begun):
        os.close(end)
    assert eventually(lambda: children)
    os.waitpid(children[0], 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
def test_a_child_that_is_forked_meanwhile_keeps_no_lock(tmp_path, monkeypatch):
    parent_lives, stop = os.pipe()
    listen, children = socket.socket.listen, []

    def fork_and_listen(sock, *arguments):
        children.append(os.fork())
        if children[0] == 0:
            os.close(stop)
            os.read(parent_lives, 1)
            os._exit(0)
        listen(sock, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "listen", fork_and_listen)
        pykeyupdate.control.serve(tmp_path / "one").close()
    begin = time.monotonic()
    pykeyupdate.control.serve(tmp_path / "two").close()
    assert time.monotonic() - begin < 2
    os.close(stop)
    os.close(parent_lives)
    os.waitpid(children[0], 0)


def test_it_stops_with_the_interpreter(path):
    program = (
        "import sys, pykeyupdate\nserving = pykeyupdate.control.serve(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stderr == ""
    assert not os.path.exists(path)


def test_without_a_thread_nothing_is_left(path, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError):
        pykeyupdate.control.serve(path)
    assert not os.path.exists(path)


IN_A_SUB_INTERPRETER = """
import os, sys
module = __import__(
    "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
)
one = module.create()
failure = module.run_string(one, '''
import os, sys
sys.path[:] = {path!r}
import pykeyupdate.control
try:
    with pykeyupdate.control.serve({place!r}):
        assert os.path.exists({place!r})
except RuntimeError as error:
    assert "this sub-interpreter allows none" in str(error), error
assert not os.path.exists({place!r})
''')
assert failure is None, failure
module.destroy(one)
print("done", flush=True)
"""


def test_a_sub_interpreter_serves_or_refuses(path):
    """What is printed counts: ``import ssl`` there may crash 3.12 at its end."""
    program = IN_A_SUB_INTERPRETER.format(path=sys.path, place=path)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "done\n", done.stderr


# -- the answers -----------------------------------------------------------------------


def test_connections_are_told_as_they_are(make_wire, client):
    wire = make_wire(RekeyPolicy())
    wire.end.label = "upstream\n\x1b"
    [info] = [it for it in pykeyupdate.connections() if it.connection is wire.end]
    answer = client.ask(do="connections", where=[["number", "==", info.number]])
    assert (answer["ok"], answer["total"], answer["pid"]) == (True, 1, os.getpid())
    [row] = answer["connections"]
    assert row["label"] == "upstream\n\x1b"
    assert row["version"] == "TLSv1.3"
    assert row["cipher"] == wire.end.cipher()[0]
    assert row["role"] == ("server" if wire.end.server_side else "client")
    assert row["counts"] == info.counts._asdict()
    assert "reference" not in row


def test_connections_are_chosen_and_sorted(make_contexts, client):
    wires = [
        Wire(make_contexts("tls13"), "object", "client").handshake() for _ in "123"
    ]
    for number, wire in enumerate(wires):
        wire.end.label = f"chosen {number}"
        for _ in range(number):
            wire.write(b"data")
    mine = ["label", "~", "chosen"]

    def labels(*more, **arguments):
        answer = client.ask(do="connections", where=[mine, *more], **arguments)
        return [row["label"] for row in answer["connections"]], answer["total"]

    assert labels() == (["chosen 0", "chosen 1", "chosen 2"], 3)
    assert labels(sort="-sent.records") == (["chosen 2", "chosen 1", "chosen 0"], 3)
    assert labels(sort="-sent.records", limit=1) == (["chosen 2"], 3)
    assert labels(sort="-sent.records", limit=1, offset=1) == (["chosen 1"], 3)
    assert labels(["sent.records", ">=", 1], ["label", "!=", "chosen 2"]) == (
        ["chosen 1"],
        1,
    )
    assert labels(["peer", ">", 3]) == ([], 0)
    assert labels(limit=0) == ([], 3)
    assert labels(sort="obstacle") == (["chosen 0", "chosen 1", "chosen 2"], 3)


@pytest.mark.parametrize("sort", ["number", "-sent.records", "label"])
def test_many_are_sorted_without_stopping_the_program(sort):
    """The other threads wait for as long as a list is being sorted."""
    infos = [
        SimpleNamespace(
            number=number,
            sent=SimpleNamespace(records=number * 7919 % 10007),
            label=None if number % 3 else str(number * 31 % 997),
        )
        for number in range(50_000)
    ]
    field = sort.lstrip("-")
    get = operator.attrgetter(field)
    known = [info for info in infos if get(info) is not None]
    in_order = sorted(
        known, key=lambda it: (get(it), it.number), reverse=sort.startswith("-")
    ) + [info for info in infos if get(info) is None]
    for offset, limit in ((0, 10), (0, 1000), (25_000, 1000), (49_990, 1000)):
        rows = _control_commands._Rows(sort, limit, offset)
        longest = 0.0
        for info in infos:
            begin = time.thread_time()
            rows.add(info)
            longest = max(longest, time.thread_time() - begin)
        chosen, found = rows.chosen(), []
        while True:
            begin = time.thread_time()
            info = next(chosen, "end")
            longest = max(longest, time.thread_time() - begin)
            if info == "end":
                break
            found += [info] if info is not None else []
        assert found == in_order[offset : offset + limit]
        assert longest < 0.02


def test_one_list_at_a_time_is_made(server, monkeypatch):
    """Many lists are so many objects that the garbage collector stops the program."""
    made, most = [], []

    def slowly():
        made.append(1)
        for _ in range(10):
            most.append(len(made))
            yield SimpleNamespace(number=1)
        made.pop()

    monkeypatch.setattr(_control_commands, "connections", slowly)
    clients = [Client(server.path) for _ in range(20)]
    for client in clients:
        client.send(b'{"do": "connections", "where": [["number", "<", 1]]}\n' * 2)
    for client in clients:
        assert [client.answer()["total"] for _ in "12"] == [0, 0]
        client.close()
    assert max(most) == 1


def test_a_list_that_is_not_taken_holds_up_nobody(
    make_contexts, server, client, monkeypatch
):
    monkeypatch.setattr(_line_server, "MOST_OUTPUT", 1000)
    wires = [Wire(make_contexts("tls13"), "object", "client") for _ in range(30)]
    greedy = Client(server.path)
    greedy.send(b'{"do": "connections"}\n' * 100)

    def is_stuck():
        before = [len(it.outbox) for it in list(server._server._clients)]
        time.sleep(0.1)
        return before == [len(it.outbox) for it in server._server._clients] != [0, 0]

    assert eventually(is_stuck)
    client.sock.settimeout(5)
    assert client.ask(do="connections")["total"] >= len(wires)
    greedy.close()


def test_the_program_need_not_wait_for_many_answers_in_a_row(server, monkeypatch):
    """Whoever has the GIL and does not wait keeps it for 5 ms, again and again."""
    longest, last = [], [None]

    def sleep(seconds):
        now = time.thread_time()
        longest.append(now - last[0] if last[0] is not None else 0.0)
        last[0] = now
        time.sleep(seconds)

    def answer(_):
        for _ in range(10):
            ends = time.thread_time() + 0.0005
            while time.thread_time() < ends:
                pass
            yield 0.0
        yield b"0\n"

    clients = [Client(server.path) for _ in range(50)]
    assert eventually(lambda: len(server._server._clients) == len(clients))
    monkeypatch.setattr(
        _line_server, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    )
    server._server._respond = answer
    for client in clients:
        client.send(b"x\n")
    for client in clients:
        assert client.answer() == 0
        client.close()
    assert max(longest) < 0.01


def test_totals(client):
    answer = client.ask(do="totals")
    assert answer["totals"]["opened"] == pykeyupdate.totals().opened
    assert len(answer["totals"]["sent"]["ages"]["counts"]) == 8


def test_policies_in_force_are_those_of_new_and_of_live_connections(make_wire, client):
    make_wire(RekeyPolicy(sent_records=1234567))
    answer = client.ask(do="policy")
    assert answer["default"]["policy"]["min_interval_seconds"] == 1.0
    found = [
        rules["connections"]
        for rules in answer["in_force"]
        if (rules["policy"] or {}).get("sent_records") == 1234567
    ]
    assert found == [1]


def test_rekey_does_what_rekey_all_does(make_contexts, client):
    wires = [
        Wire(make_contexts(version), "socket", "client").handshake()
        for version in ("tls13", "tls13", "tls12")
    ]
    for wire in wires[1:]:
        wire.end.label = "chosen"
    answer = client.ask(do="rekey", where=[["label", "==", "chosen"]], per_second=1e6)
    assert (answer["done"], answer["waiting"], answer["impossible"]) == (1, 0, 1)
    for wire in wires[:2]:
        wire.carry()
    assert [wire.key_updates() for wire in wires[:2]] == [0, 1]
    for wire in wires:
        wire.close()


def test_a_rekeying_that_takes_long_delays_no_other_client(make_contexts, server):
    wires = [Wire(make_contexts("tls13"), "socket", "client").handshake() for _ in "12"]
    slow, quick = Client(server.path), Client(server.path)
    for wire in wires:
        wire.end.label = "slow"
    request = {"do": "rekey", "where": [["label", "==", "slow"]], "per_second": 1}
    slow.send(json.dumps(request).encode() + b"\n")
    begin = time.monotonic()
    assert quick.ask(do="totals")["ok"]
    assert time.monotonic() - begin < 0.9
    assert slow.answer()["done"] == 2
    assert time.monotonic() - begin > 0.9
    for it in (*wires, slow, quick):
        it.close()


def test_a_rekeying_may_take_any_time(make_contexts, server):
    """So long that the system does not wait for it in one go."""
    wire = Wire(make_contexts("tls13"), "socket", "client").handshake()
    wire.end.label = "slow"
    request = {"do": "rekey", "where": [["label", "==", "slow"]], "per_second": 1e-300}
    with contextlib.closing(Client(server.path)) as slow:
        slow.send(json.dumps(request).encode() + b"\n")
        eventually(lambda: pykeyupdate.stats(wire.end).counts.key_updates_sent)
        time.sleep(0.05)
        with contextlib.closing(Client(server.path)) as quick:
            assert quick.ask(do="totals")["ok"]
    wire.close()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ZeroDivisionError])
def test_what_a_handler_raises_ends_no_server(make_contexts, server, error):
    wire = Wire(make_contexts("tls13"), "socket", "client").handshake()
    wire.end.label = "mine"

    def handler(event):
        raise error

    remove = pykeyupdate.on_event(handler)
    try:
        with contextlib.closing(Client(server.path)) as client:
            client.send(b'{"do": "rekey", "where": [["label", "==", "mine"]]}\n')
            client.file.readline()
    finally:
        remove()
    wire.close()
    with contextlib.closing(Client(server.path)) as other:
        assert other.ask(do="totals")["ok"]


def test_events_are_told_as_they_come(make_wire, client):
    wire = make_wire(at_once(sent_records=1))
    wire.end.label = "followed"
    assert client.ask(do="follow", events=["KEY_UPDATE_SENT"])["ok"]
    wire.write(b"data")
    wire.write(b"data")
    told = client.answer()
    assert told["event"] == "KEY_UPDATE_SENT"
    assert told["connection"]["label"] == "followed"
    assert abs(time.time() - told["at"]) < 30
    client.close()
    assert eventually(lambda: not pykeyupdate._events.registered)


def test_a_follower_that_does_not_read_is_dropped_and_delays_nobody(
    make_wire, client, server, monkeypatch
):
    monkeypatch.setattr(_line_server, "STALL_SECONDS", 0.5)
    wire = make_wire(at_once(sent_records=1))
    assert client.ask(do="follow")["ok"]
    longest = 0.0
    for _ in range(6000):
        begin = time.monotonic()
        wire.write(b"data")
        longest = max(longest, time.monotonic() - begin)
        if not pykeyupdate._events.registered:
            break
    assert eventually(lambda: not pykeyupdate._events.registered)
    assert longest < 0.5
    other = Client(server.path)
    assert other.ask(do="totals")["ok"]
    other.close()


def test_many_followers_cost_an_event_hardly_more_than_one(
    make_wire, server, monkeypatch
):
    looked = []
    snapshot = _control_commands.snapshot
    monkeypatch.setattr(
        _control_commands, "snapshot", lambda it: looked.append(it) or snapshot(it)
    )
    followers = [Client(server.path) for _ in range(40)]
    for follower in followers[:20]:
        assert follower.ask(do="follow", events=["CUT_OFF"])["ok"]
    for follower in followers[20:]:
        assert follower.ask(do="follow")["ok"]
    assert len(pykeyupdate._events.registered) == 1
    wire = make_wire(at_once(sent_records=1))
    for _ in range(11):
        wire.write(b"data")
    for follower in followers[20:]:
        lines = [follower.answer() for _ in range(10)]
        assert {it["event"] for it in lines} == {"KEY_UPDATE_SENT"}
        assert {it["connection"]["cipher"] for it in lines} == {wire.end.cipher()[0]}
    assert len(looked) == 10
    for follower in followers:
        follower.close()
    assert eventually(lambda: not pykeyupdate._events.registered)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({}, "`do` must be one of"),
        ({"do": "exit"}, "`do` must be one of"),
        ({"do": ["totals"]}, "`do` must be one of"),
        ({"do": "totals", "x": 1}, "unknown argument 'x': totals takes no arguments"),
        ({"do": "connections", "where": "x"}, "where must be a list"),
        ({"do": "connections", "where": [["x", "==", 1]]}, "unknown field 'x'"),
        ({"do": "connections", "where": [["peer", "=", 1]]}, "unknown operator '='"),
        ({"do": "connections", "where": [["peer"]]}, "a condition is"),
        ({"do": "connections", "where": [["peer", "==", 1]] * 21}, "at most 20"),
        ({"do": "connections", "where": [[["x"]] * 100]}, "at most 100 lists"),
        ({"do": "connections", "sort": "sent"}, "unknown field 'sent'"),
        ({"do": "connections", "limit": -1}, "from 0 to 1000"),
        ({"do": "connections", "limit": 1e9}, "from 0 to 1000"),
        ({"do": "connections", "limit": 1.5}, "from 0 to 1000"),
        ({"do": "connections", "offset": "x"}, "offset must be"),
        ({"do": "rekey", "per_second": 0}, "per_second must be above 0"),
        ({"do": "rekey", "request_peer": 1}, "request_peer must be"),
        ({"do": "follow", "events": ["X"]}, "events must be a list of some of"),
        ({"do": "follow", "events": "KEY_UPDATE_SENT"}, "events must be a list"),
    ],
)
def test_a_wrong_request_is_refused_by_its_name(client, request_, said):
    answer = client.ask(**request_)
    assert not answer["ok"]
    assert said in answer["error"]
    assert client.ask(do="totals")["ok"]


def test_brackets_in_a_text_are_no_lists(make_wire, client):
    wire = make_wire(None)
    wire.end.label = '["' * 100
    answer = client.ask(do="connections", where=[["label", "==", wire.end.label]])
    assert (answer["ok"], answer["total"]) == (True, 1)


# -- hostile clients -------------------------------------------------------------------


@pytest.mark.parametrize(
    "junk",
    [
        b"\n",
        b"junk\n",
        b"\xff\xfe\x00\n",
        b"[" * 60_000 + b"\n",
        b"1" * 60_000 + b"\n",
        b'{"do": "connections", "limit": NaN}\n',
        b"3\n",
        b"null\n",
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01\n",
    ],
)
def test_junk_is_refused_and_the_next_request_answered(client, junk):
    client.send(junk)
    assert not client.answer()["ok"]
    assert client.ask(do="totals")["ok"]


def test_a_megabyte_without_an_end_is_cut_off(client, server):
    with contextlib.suppress(OSError):
        for _ in range(1000):
            client.send(b"x" * 1024)
    assert client.is_ended()
    other = Client(server.path)
    assert other.ask(do="totals")["ok"]
    other.close()


def test_half_a_line_has_its_time(server, monkeypatch):
    monkeypatch.setattr(_line_server, "LINE_SECONDS", 0.3)
    slow = Client(server.path)
    begin = time.monotonic()
    with contextlib.suppress(OSError):
        while time.monotonic() - begin < 10:
            slow.send(b" ")
            time.sleep(0.05)
    assert slow.is_ended()
    assert time.monotonic() - begin < 5
    slow.close()


def test_many_requests_at_once_are_answered_in_their_order(client):
    client.send(b'{"do": "totals"}\n{"do": "help"}\n' * 50 + b'{"do": "totals"}')
    answers = [client.answer() for _ in range(100)]
    assert ["totals" in answer for answer in answers] == [True, False] * 50
    client.sock.shutdown(socket.SHUT_WR)
    assert client.is_ended()  # half a line is no request


def test_whoever_stops_sending_gets_its_answers(client):
    client.send(b'{"do": "totals"}\n{"do": "help"}\n')
    client.sock.shutdown(socket.SHUT_WR)
    assert "totals" in client.answer()
    assert "commands" in client.answer()
    assert client.is_ended()


def test_clients_that_do_nothing_keep_nobody_out(server):
    idle = [Client(server.path) for _ in range(3 * _line_server.MOST_CLIENTS)]
    for _ in range(3):
        honest = Client(server.path)
        assert honest.ask(do="totals")["ok"]
        honest.close()
    for client in idle:
        client.close()


def test_a_client_that_has_just_come_is_not_pushed_out(server, monkeypatch):
    monkeypatch.setattr(_line_server, "GRACE_SECONDS", 20.0)
    honest = Client(server.path)
    crowd = [Client(server.path) for _ in range(2 * _line_server.MOST_CLIENTS)]
    time.sleep(0.05)
    assert honest.ask(do="totals")["ok"]
    for client in (honest, *crowd):
        client.close()


def test_what_is_not_read_is_not_kept(server, monkeypatch):
    """A client asks and asks, and takes no answer."""
    monkeypatch.setattr(_line_server, "STALL_SECONDS", 0.5)
    greedy = Client(server.path)
    greedy.sock.settimeout(5)
    with contextlib.suppress(OSError):
        for _ in range(10_000):
            greedy.send(b'{"do": "help"}\n' * 10)
    assert all(len(it.outbox) < 200_000 for it in list(server._server._clients))
    honest = Client(server.path)
    assert honest.ask(do="totals")["ok"]
    greedy.close()
    honest.close()


def test_a_fault_of_ours_ends_one_client_and_is_logged(server, client, caplog):
    def fail(request):
        raise ZeroDivisionError

    respond, server._server._respond = server._server._respond, fail
    client.send(b'{"do": "totals"}\n')
    assert client.is_ended()
    server._server._respond = respond
    assert "the control socket failed" in caplog.text
    other = Client(server.path)
    assert other.ask(do="totals")["ok"]
    other.close()


# -- signals ---------------------------------------------------------------------------

SIGNAL = getattr(signal, "SIGUSR2", None)
needs_signals = pytest.mark.skipif(SIGNAL is None, reason="needs SIGUSR2")


@needs_signals
def test_what_a_handler_raises_while_followers_are_woken_comes_out(
    make_wire, client, server
):
    """An alarm's ``TimeoutError``, say, which is an ``OSError``."""

    class Late(TimeoutError):
        pass

    def handler(*_):
        raise Late

    wire = make_wire(at_once(sent_records=1))
    assert client.ask(do="follow")["ok"]
    waker, before = server._server._waker, signal.signal(SIGNAL, handler)
    server._server._waker = SimpleNamespace(send=lambda _: signal.raise_signal(SIGNAL))
    try:
        with pytest.raises(Late):
            for _ in range(3):
                wire.write(b"data")
    finally:
        signal.signal(SIGNAL, before)
        server._server._waker = waker
        server._server._is_woken = False


@needs_signals
def test_a_signal_gives_new_keys_and_its_handler_only_starts_a_thread(
    make_contexts, caplog
):
    wire = Wire(make_contexts("tls13"), "socket", "client").handshake()
    before = signal.getsignal(SIGNAL)
    caplog.set_level(logging.INFO, "pykeyupdate")
    restore = pykeyupdate.control.on_signal("SIGUSR2", per_second=1e6)
    try:
        os.kill(os.getpid(), SIGNAL)
        assert eventually(lambda: "rekey_all() on signal SIGUSR2" in caplog.text)
        wire.carry()
        assert wire.key_updates() == 1
    finally:
        restore()
    assert signal.getsignal(SIGNAL) == before
    restore()
    wire.close()


@needs_signals
def test_many_signals_are_served_together_and_one_after_the_other(monkeypatch):
    calls = []
    lock = threading.Lock()

    def rekey_all(**arguments):
        assert lock.acquire(blocking=False)
        calls.append(arguments)
        time.sleep(0.2)
        lock.release()

    monkeypatch.setattr(pykeyupdate.control, "rekey_all", rekey_all)
    restore = pykeyupdate.control.on_signal(SIGNAL, request_peer=True)
    try:
        for _ in range(20):
            os.kill(os.getpid(), SIGNAL)
            time.sleep(0.001)
        assert eventually(lambda: len(calls) == 2)
        time.sleep(0.5)
    finally:
        restore()
    assert len(calls) == 2
    assert calls[0]["request_peer"] is True


@needs_signals
def test_a_handler_that_came_after_ours_stays():
    before = signal.getsignal(SIGNAL)
    restore = pykeyupdate.control.on_signal()
    try:
        signal.signal(SIGNAL, signal.SIG_IGN)
        restore()
        assert signal.getsignal(SIGNAL) is signal.SIG_IGN
    finally:
        signal.signal(SIGNAL, before)


@needs_signals
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"signum": "SIGNONE"}, ValueError),
        ({"signum": -1}, ValueError),
        ({"signum": True}, ValueError),
        ({"signum": None}, ValueError),
        ({"signum": []}, ValueError),
        ({"signum": float(signal.SIGTERM)}, ValueError),
        ({"signum": "SIGKILL"}, ValueError),
        ({"signum": getattr(signal, "SIGSTOP", None)}, ValueError),
        ({"signum": "SIGUSR2", "per_second": 0}, ValueError),
        ({"signum": "SIGUSR2", "request_peer": 1}, TypeError),
    ],
)
def test_wrong_arguments_leave_the_handler_alone(arguments, error):
    before = signal.getsignal(SIGNAL)
    signum = arguments.pop("signum")
    with pytest.raises(error, match=r"on_signal\(\)"):
        pykeyupdate.control.on_signal(signum, **arguments)
    assert signal.getsignal(SIGNAL) == before


@needs_signals
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
def test_a_child_that_was_forked_during_a_round_serves_its_own_signals(monkeypatch):
    """gunicorn forks from a process that may be in the middle of one."""
    entered, go_on = threading.Event(), threading.Event()

    def rekey_all(**arguments):
        entered.set()
        go_on.wait(20)

    monkeypatch.setattr(pykeyupdate.control, "rekey_all", rekey_all)
    restore = pykeyupdate.control.on_signal()
    try:
        os.kill(os.getpid(), SIGNAL)
        assert entered.wait(20)
        child = os.fork()
        if child == 0:
            served = threading.Event()
            pykeyupdate.control.rekey_all = lambda **arguments: served.set()
            os.kill(os.getpid(), SIGNAL)
            os._exit(0 if served.wait(20) else 1)
        go_on.set()
        assert os.waitpid(child, 0)[1] == 0
    finally:
        go_on.set()
        restore()
