"""Plays a case under asyncio, uvloop, trio or anyio.

Each end is a stream of that library, with a task that always receives. If the call is a
coroutine of ``pykeyupdate.aio``, the callback starts it as a task, as a program would.
"""

import asyncio
import contextlib
import importlib.util
import inspect
import os
import time

import pykeyupdate
import pykeyupdate.aio

from ..sockets import socket_pair
from . import calls, scenes
from .books import Books

PATIENCE = 2.0  # seconds for data to arrive, and for a task of the callback's
BRIEFLY = 0.2  # seconds for a coroutine that waits
LONGEST = 30.0  # seconds for a case
HANGS = "all of it"
NAMES = [
    name
    for name in ("asyncio", "uvloop", "trio", "anyio")
    if importlib.util.find_spec(name)
]


class Asyncio:
    """asyncio's and uvloop's streams."""

    SLICE = None  # receiving goes on beside sending

    def __init__(self):
        self.tasks = []

    def turn(self):
        """Return a lock for what may be done by one task at a time: anything may."""
        return asyncio.Semaphore(1000)

    async def for_some_time(self, seconds, function, *arguments):
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(function(*arguments), seconds)

    @contextlib.asynccontextmanager
    async def nursery(self):
        try:
            yield self
        finally:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    def start_soon(self, function, *arguments):
        loop = asyncio.get_running_loop()
        self.tasks.append(loop.create_task(function(*arguments)))

    sleep = staticmethod(asyncio.sleep)

    async def connect(self, contexts):
        near, far = socket_pair()
        return await asyncio.gather(
            asyncio.open_connection(
                sock=near, ssl=contexts[0], server_hostname="localhost"
            ),
            self._accept(far, contexts[1]),
        )

    async def _accept(self, sock, context):
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, sock, ssl=context
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def tls(self, end):
        return end[1].get_extra_info("ssl_object")

    async def send(self, end, data):
        end[1].write(data)
        await end[1].drain()

    async def receive(self, end):
        return await end[0].read(65536)

    async def close(self, end):
        end[1].close()
        await end[1].wait_closed()

    async def abort(self, end):
        end[1].transport.abort()


class Trio:
    """trio's SSLStream."""

    SLICE = None

    def turn(self):
        import trio

        return trio.Lock()  # one task sends

    async def for_some_time(self, seconds, function, *arguments):
        import trio

        with trio.move_on_after(seconds):
            await function(*arguments)

    @contextlib.asynccontextmanager
    async def nursery(self):
        import trio

        async with trio.open_nursery() as nursery:
            self.start_soon = nursery.start_soon
            yield self
            nursery.cancel_scope.cancel()

    async def sleep(self, seconds):
        import trio

        await trio.sleep(seconds)

    async def connect(self, contexts):
        import trio

        carriers = [
            trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            for sock in socket_pair()
        ]
        ends = [
            trio.SSLStream(carriers[0], contexts[0], server_hostname="localhost"),
            trio.SSLStream(carriers[1], contexts[1], server_side=True),
        ]
        async with trio.open_nursery() as nursery:
            for end in ends:
                nursery.start_soon(end.do_handshake)
        return ends

    def tls(self, end):
        return end._ssl_object

    async def send(self, end, data):
        await end.send_all(data)

    async def receive(self, end):
        return await end.receive_some(65536)

    async def close(self, end):
        await end.aclose()

    async def abort(self, end):
        import trio

        await trio.aclose_forcefully(end)


class Anyio:
    """anyio's TLSStream, on asyncio.

    Its receive() may send, which must not meet another task's: so one thing is done at
    a time, and receiving makes room.
    """

    SLICE = 0.02

    def turn(self):
        import anyio

        return anyio.Lock()

    async def for_some_time(self, seconds, function, *arguments):
        import anyio

        with anyio.move_on_after(seconds):
            await function(*arguments)

    @contextlib.asynccontextmanager
    async def nursery(self):
        import anyio

        async with anyio.create_task_group() as group:
            self.start_soon = group.start_soon
            yield self
            group.cancel_scope.cancel()

    async def sleep(self, seconds):
        await asyncio.sleep(seconds)

    async def connect(self, contexts):
        import anyio

        ends = [None, None]
        listener = (
            await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        ).listeners[0]
        address = listener.extra(anyio.abc.SocketAttribute.local_address)

        async def wrap(which, stream):
            from anyio.streams.tls import TLSStream

            ends[which] = await TLSStream.wrap(
                _uncancelled(stream),
                server_side=which == 1,
                hostname=None if which else "localhost",
                ssl_context=contexts[which],
            )

        async with listener, anyio.create_task_group() as group:
            near = await anyio.connect_tcp(*address[:2])
            group.start_soon(wrap, 1, await listener.accept())
            group.start_soon(wrap, 0, near)
        return ends

    def tls(self, end):
        from anyio.streams.tls import TLSAttribute

        return end.extra(TLSAttribute.ssl_object)

    async def send(self, end, data):
        await end.send(data)

    async def receive(self, end):
        return await end.receive(65536)

    async def close(self, end):
        await end.aclose()

    async def abort(self, end):
        import anyio

        await anyio.aclose_forcefully(end)


def _uncancelled(stream):
    """Return a stream whose sends are not cancelled, over which TLSStream breaks."""
    import anyio

    class Uncancelled(anyio.abc.ByteStream):
        extra_attributes = stream.extra_attributes
        receive, send_eof, aclose = stream.receive, stream.send_eof, stream.aclose

        async def send(self, item):
            with anyio.CancelScope(shield=True):
                await stream.send(item)

    return Uncancelled()


class Flow(Books):
    """Two ends, and a task at each that receives."""

    def __init__(self, net, ends, seen):
        super().__init__(seen)
        self.net, self.ends = net, ends
        self.turns = [net.turn(), net.turn()]
        for end in (0, 1):
            net.start_soon(self.receive, end)

    async def receive(self, end):
        while not self.ended[end]:
            if self.net.SLICE is None:
                await self.receive_some(end)
                continue
            async with self.turns[end]:
                await self.net.for_some_time(self.net.SLICE, self.receive_some, end)
            await self.net.sleep(0)

    async def receive_some(self, end):
        data = None
        with self.operation("receive", end):
            data = await self.net.receive(self.ends[end])
        if data:
            self.got[end].append(data)
        else:
            self.ended[end] = True

    async def send(self, end, data):
        if self.ended[end]:
            return
        async with self.turns[end]:
            with self.operation("send", end):
                self.sent[end] += data
                await self.net.send(self.ends[end], data)

    def has_all(self):
        return all(
            len(b"".join(self.got[1 - end])) >= len(self.sent[end])
            or self.ended[1 - end]
            for end in (0, 1)
        )

    async def talk(self):
        for end in (0, 1, 0, 1):
            await self.send(end, f"after that, from {end}. ".encode() * 30)

    async def close(self, end):
        """Close one end, with a close_notify; a task of ours may be receiving there."""
        with contextlib.suppress(OSError), self.operation("close", end):
            try:
                await self.net.close(self.ends[end])
            except Exception as error:
                if not type(error).__name__.endswith("ResourceError"):
                    raise


async def until(net, is_true):
    """Wait until something is true, for some time; return whether it is."""
    end = time.monotonic() + PATIENCE
    while not is_true() and time.monotonic() < end:
        await net.sleep(0.001)
    return is_true()


class Scene:
    """What ``scenes.play()`` does, in an event loop."""

    def __init__(self, case, coroutine, trap):
        self.case, self.coroutine, self.trap = case, coroutine, trap
        self.result = trap.result
        self.begun = self.over = 0  # tasks of the callback's
        if coroutine is not None:
            trap.do = self.begin
        if case.after == "fork":  # an event loop has no two processes
            trap.then = lambda: os._exit(0) if self.result.is_child else None
        self.flows = {"own": None, "other": None}

    def begin(self, tls, hands):
        """Begin a coroutine, in a callback."""
        self.begun += 1
        self.net.start_soon(self.finish, self.flows[self.case.target], tls)

    async def finish(self, flow, tls):
        """Take it to its end: in its turn, as a program has to do it."""
        role = self.case.role
        carrier = tls if flow is None else flow.ends[role]
        async with self.net.turn() if flow is None else flow.turns[role]:
            try:
                await self.net.for_some_time(BRIEFLY, self.coroutine, carrier)
            except Exception as error:
                self.result.error = error
        self.over += 1

    async def play(self, net, contexts, others):
        self.net = net
        hangs = self.result.own.failures
        hangs.append((HANGS, TimeoutError("it hangs")))
        arguments = net, contexts, others, hangs
        await net.for_some_time(LONGEST, self.play_in_time, *arguments)

    async def play_in_time(self, net, contexts, others, hangs):
        role = self.case.role
        async with net.nursery():
            other = Flow(net, await net.connect(others), self.result.other)
            self.trap.other = net.tls(other.ends[role])
            self.flows["other"] = other
            if self.case.moment in ("handshake", "keylog"):
                self.trap.arm((role, "write"))
            elif self.case.moment in ("sni", "psk"):
                self.trap.arm()
            own = await self.connect(net, contexts)
            if own is not None:
                await self.moment(own)
                await until(net, lambda: self.begun == self.over)
                if not own.breaks_off and not own.seen.came_out:
                    await own.talk()  # nobody receives where a receive() has raised
                await until(net, own.has_all)
            await other.talk()
            await until(net, other.has_all)
            self.look_back(own, other)
            del hangs[0]
        for flow in filter(None, (own, other)):
            for end in flow.ends:
                with contextlib.suppress(Exception):
                    await net.abort(end)

    async def connect(self, net, contexts):
        books = Books(self.result.own)
        with books.operation("handshake", self.case.role):
            ends = await net.connect(contexts)
            self.trap.ends = [net.tls(end) for end in ends]
            self.flows["own"] = Flow(net, ends, self.result.own)
            return self.flows["own"]
        return None

    async def moment(self, own):
        role, moment = self.case.role, self.case.moment
        if moment in ("write", *scenes.FINALIZERS):
            self.trap.arm((role, "write"))
            await own.send(role, scenes.DATA)
        elif moment == "read":
            self.trap.arm((role, "read"))
            await own.send(1 - role, scenes.DATA)
            await until(self.net, lambda: self.result.sprung)
        elif moment == "keys":
            self.trap.arm((role, "write"))
            async with own.turns[role]:
                with own.operation("rekey", role):
                    await pykeyupdate.aio.rekey(own.ends[role])
            await until(self.net, lambda: self.result.sprung)
        elif moment == "unwrap":
            self.trap.arm((role, "write"))
            own.breaks_off = True
            self.net.start_soon(own.close, role)
            await until(self.net, lambda: self.result.sprung)
        elif moment in scenes.EVENTS:
            self.trap.arm()
            pykeyupdate.request_rekey(self.net.tls(own.ends[role]))
            await own.send(role, scenes.DATA)
            await until(self.net, lambda: self.result.sprung)
        elif moment == "impossible":
            self.trap.arm()
            for _ in range(3):
                await own.send(role, scenes.DATA)
        elif moment == "signal":
            await self.between(own)

    async def between(self, own):
        scenes.signal_soon(self.trap)
        end = time.monotonic() + PATIENCE
        while not self.result.sprung and time.monotonic() < end:
            await own.send(0, scenes.DATA)
            await own.send(1, scenes.DATA)
            await self.net.sleep(0)

    def look_back(self, own, other):
        nothing = calls.Hands()
        is_own = self.case.target == "own"
        if own is not None:
            own.compare(self.case.role, self.trap.hands if is_own else nothing)
        other.compare(self.case.role, nothing if is_own else self.trap.hands)


def _run_asyncio(loop, scene, *contexts):
    loop.set_exception_handler(lambda *_: None)
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(scene.play(Asyncio(), *contexts))
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def run(carrier, scene, *contexts):
    if carrier == "asyncio":
        _run_asyncio(asyncio.new_event_loop(), scene, *contexts)
    elif carrier == "uvloop":
        import uvloop

        _run_asyncio(uvloop.new_event_loop(), scene, *contexts)
    elif carrier == "trio":
        import trio

        trio.run(scene.play, Trio(), *contexts)
    else:
        import anyio

        anyio.run(scene.play, Anyio(), *contexts)


def play(case, do, certificates, folder):
    """Play a case; ``do`` is a coroutine function of ``pykeyupdate.aio``'s or not."""
    result = scenes.Result()
    trap = scenes.Trap(case, result)
    coroutine = do if inspect.iscoroutinefunction(do) else None
    trap.do = do
    scene = Scene(case, coroutine, trap)
    contexts, others = scenes.contexts_for(case, trap, certificates)
    with scenes.set_up(case, trap, contexts, folder):
        run(case.carrier, scene, contexts, others)
    pykeyupdate.uninstall()
    return result


def hangs(result):
    """Return whether a case was not over in time."""
    return any(name == HANGS for name, _ in result.own.failures)
