"""_events.py: what is reported to the program and to the log."""

import functools
import logging
import os
import signal
import subprocess
import sys

import pytest
from support.wire import at_once

import pykeyupdate
from pykeyupdate import RekeyPolicy


def test_events_and_the_log(make_wire, caplog):
    caplog.set_level(logging.DEBUG, "pykeyupdate")
    seen = []
    remove = pykeyupdate.on_event(seen.append)
    broken = pykeyupdate.on_event(lambda event: 1 / 0)
    try:
        wire = make_wire(at_once(sent_records=1))
        wire.write(b"data")
        assert seen == []
        wire.write(b"data")
        pykeyupdate.key_update(wire.peer)
        wire.peer_writes(b"data")
    finally:
        remove()
        broken()
    wire.write(b"data")
    kind = pykeyupdate.EventKind
    assert [event[:3] for event in seen] == [
        (kind.KEY_UPDATE_SENT, wire.end, None),
        (kind.KEY_UPDATE_RECEIVED, wire.end, None),
    ]
    messages = [record.getMessage() for record in caplog.records]
    assert sum("sends under new keys (records)" in it for it in messages) == 2
    assert sum("failed" in message for message in messages) == 2
    with pytest.raises(TypeError, match="takes a function"):
        pykeyupdate.on_event(None)


@pytest.mark.parametrize(("level", "told"), [("INFO", 0), ("DEBUG", 2)])
def test_no_event_is_built_if_nobody_listens(make_wire, caplog, level, told):
    caplog.set_level(level, "pykeyupdate")
    wire = make_wire(at_once(sent_records=1))
    wire.write(b"data")
    called = []

    def profile(frame, what, argument):
        if what == "call" and frame.f_globals["__name__"] == "pykeyupdate._events":
            called.append(frame.f_code.co_name)

    sys.setprofile(profile)
    try:
        wire.write(b"data")
        wire.write(b"data")
    finally:
        sys.setprofile(None)
    assert called.count("tell_events") == told


def test_warnings_are_logged_though_nobody_has_imported_logging():
    code = (
        "import sys, pykeyupdate\n"
        "from pykeyupdate import _events\n"
        "assert 'logging' not in sys.modules\n"
        "_events._tell([pykeyupdate.Event(pykeyupdate.EventKind.CUT_OFF, 'it', 'why')])"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert result.stderr.startswith("'it' was cut off"), result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("inspect", "pykeyupdate.on_event(print)"),
        ("logging", "pykeyupdate._events.note('INFO', 'text')"),
    ],
)
def test_a_child_that_is_forked_during_an_import_can_import(module, call):
    """Python's lock of the module would be held there for ever."""
    code = f"""if True:
        import os, signal, sys, threading, time, pykeyupdate
        assert {module!r} not in sys.modules
        begun = threading.Event()
        class Slow:
            def find_spec(self, name, *more):
                if name == {module!r}:
                    begun.set()
                    time.sleep(0.5)
        sys.meta_path.insert(0, Slow())
        threading.Thread(target=lambda: {call}).start()
        begun.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(5)
            import {module}
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    """
    subprocess.run(
        [sys.executable, "-S", "-W", "ignore", "-c", code],
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def test_a_registration_that_is_taken_back_is_that_one(make_wire):
    seen = []

    def once(event):
        seen.append("once")

    def twice(event):
        seen.append("twice")

    def told():
        seen.clear()
        wire.write(b"data")
        return list(seen)

    wire = make_wire(at_once(sent_records=1))
    wire.write(b"data")
    first, between, last = map(pykeyupdate.on_event, (twice, once, twice))
    try:
        assert told() == ["twice", "once", "twice"]
        last()
        last()
        assert told() == ["twice", "once"]
        last = pykeyupdate.on_event(twice)
        first()
        assert told() == ["once", "twice"]
    finally:
        for remove in (first, between, last):
            remove()
    assert told() == []


def test_an_interrupt_in_a_handler_is_an_interrupt(make_wire):
    """And what was written has been written."""

    def handler(event):
        if event.kind is pykeyupdate.EventKind.KEY_UPDATE_SENT:
            raise KeyboardInterrupt

    remove = pykeyupdate.on_event(handler)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        wire = make_wire(at_once(sent_records=1))
        wire.write(b"one")
        with pytest.raises(KeyboardInterrupt):
            wire.write(b"two")
            for _ in range(1000):
                pass
    finally:
        signal.signal(signal.SIGINT, before)
        remove()
    wire.carry()
    assert wire.peer_read_all() in (b"two", b"")


def test_a_handler_may_use_the_connection(make_wire):
    def handler(event):
        if event.kind is pykeyupdate.EventKind.KEY_UPDATE_SENT and not done:
            done.append(True)
            event.connection.write(b"from the handler")

    done = []
    remove = pykeyupdate.on_event(handler)
    try:
        wire = make_wire(at_once(sent_records=1))
        wire.write(b"one")
        assert wire.write(b"two") == b"twofrom the handler"
    finally:
        remove()
    assert [len(records) for records in wire.under_each_key()] == [1, 1, 1]


def test_what_would_have_to_be_awaited_is_no_function():
    """Its policy would be ignored, as to return is to ignore."""

    async def function(*arguments):
        raise AssertionError

    class Called:
        async def __call__(self, *arguments):
            raise AssertionError

    for wrong in (
        function,
        functools.partial(function, 1),
        Called(),
        Called().__call__,
    ):
        with pytest.raises(TypeError, match="takes a function, and no `async def`"):
            pykeyupdate.on_event(wrong)
        with pytest.raises(TypeError, match="or a function that is no `async def`"):
            RekeyPolicy(on_impossible=wrong)


def test_the_logger_is_looked_for_once(make_wire, monkeypatch, caplog):
    """To look takes a lock, which an interrupted thread may leave locked."""
    wire = make_wire(at_once(sent_records=1))
    caplog.set_level(logging.DEBUG, "pykeyupdate")
    wire.write(b"data")
    wire.write(b"data")

    looked = []
    with monkeypatch.context() as patched:
        patched.setattr(logging, "getLogger", lambda *name: looked.append(name))
        wire.write(b"data")
    assert not looked
    assert len(caplog.records) == 2
