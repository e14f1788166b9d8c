"""One interface to asyncio, uvloop, trio and anyio, for tests that cover all of them.

``conn`` is what a user of the framework holds; the rest makes traffic.
"""

import asyncio
import contextlib
import importlib
import sys

import pytest


class AsyncioStream:
    """A StreamReader and StreamWriter."""

    def __init__(self, reader, writer):
        self.reader, self.conn = reader, writer

    async def send(self, data):
        self.conn.write(data)
        await self.conn.drain()

    async def receive(self, size=65536):
        return await self.reader.read(size)

    async def close(self):
        self.conn.close()
        with contextlib.suppress(Exception):
            await self.conn.wait_closed()


class Asyncio:
    name = "asyncio"
    sleep = staticmethod(asyncio.sleep)

    def new_event_loop(self):
        return asyncio.new_event_loop()

    def run(self, main):
        loop = self.new_event_loop()
        try:
            return loop.run_until_complete(asyncio.wait_for(main(), 60))
        finally:
            loop.run_until_complete(self._let_servers_end())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _let_servers_end(self):
        """Wait for what closes its connection by now, or the transport warns."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=1)

    async def connect(self, address, context):
        return AsyncioStream(
            *await asyncio.open_connection(
                *address, ssl=context, server_hostname="localhost"
            )
        )

    @contextlib.asynccontextmanager
    async def serving(self, context, handler):
        async def handle(reader, writer):
            stream = AsyncioStream(reader, writer)
            await handler(stream)
            await stream.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
        yield server.sockets[0].getsockname()
        server.close()

    @contextlib.asynccontextmanager
    async def beside(self, function):
        """Run a coroutine function beside the block; cancel it at its end."""
        task = asyncio.ensure_future(function())
        try:
            yield task.cancel
            await task
        except asyncio.CancelledError:
            pass
        finally:
            task.cancel()

    @contextlib.contextmanager
    def timeout_error(self):
        try:
            yield
        except (asyncio.TimeoutError, TimeoutError):
            return
        raise AssertionError("no timeout")

    async def within(self, seconds, awaitable):
        return await asyncio.wait_for(awaitable, seconds)


class Uvloop(Asyncio):
    name = "uvloop"

    def new_event_loop(self):
        return importlib.import_module("uvloop").new_event_loop()


class TrioStream:
    def __init__(self, stream):
        self.conn = stream

    async def send(self, data):
        await self.conn.send_all(data)

    async def receive(self, size=65536):
        return bytes(await self.conn.receive_some(size))

    async def close(self):
        with contextlib.suppress(Exception):
            await self.conn.aclose()


class Structured:
    """What trio and anyio have alike."""

    def __init__(self, name, library, too_slow, group, **settings):
        self.name, self.library, self.settings = name, library, settings
        self.too_slow, self.group = too_slow, group
        self.sleep = library.sleep

    def run(self, main):
        async def limited():
            return await self.within(60, main())

        return self.library.run(limited, **self.settings)

    @contextlib.asynccontextmanager
    async def beside(self, function):
        async with self.group() as group:
            group.start_soon(function)
            yield group.cancel_scope.cancel

    @contextlib.contextmanager
    def timeout_error(self):
        try:
            yield
        except self.too_slow:
            return
        raise AssertionError("no timeout")

    async def within(self, seconds, awaitable):
        with self.library.fail_after(seconds):
            return await awaitable


class Trio(Structured):
    def __init__(self):
        trio = importlib.import_module("trio")
        super().__init__("trio", trio, trio.TooSlowError, trio.open_nursery)

    async def connect(self, address, context):
        stream = await self.library.open_ssl_over_tcp_stream(
            *address, ssl_context=context
        )
        await stream.do_handshake()
        return TrioStream(stream)

    @contextlib.asynccontextmanager
    async def serving(self, context, handler):
        async def handle(stream):
            await stream.do_handshake()
            stream = TrioStream(stream)
            await handler(stream)
            await stream.close()

        async with self.library.open_nursery() as nursery:
            listeners = await nursery.start(
                lambda task_status: self.library.serve_ssl_over_tcp(
                    handle, 0, context, host="127.0.0.1", task_status=task_status
                )
            )
            yield listeners[0].transport_listener.socket.getsockname()
            nursery.cancel_scope.cancel()


class AnyioStream(TrioStream):
    async def send(self, data):
        await self.conn.send(data)

    async def receive(self, size=65536):
        return await self.conn.receive(size)


class Anyio(Structured):
    def __init__(self, backend="asyncio"):
        anyio = importlib.import_module("anyio")
        group, name = anyio.create_task_group, f"anyio on {backend}"
        super().__init__(name, anyio, TimeoutError, group, backend=backend)
        self.tls = importlib.import_module("anyio.streams.tls")
        self.backend = backend

    async def connect(self, address, context):
        return AnyioStream(
            await self.library.connect_tcp(
                *address, ssl_context=context, tls_hostname="localhost"
            )
        )

    @contextlib.asynccontextmanager
    async def serving(self, context, handler):
        if self.backend == "asyncio" and sys.version_info < (3, 10):
            pytest.skip("anyio waits for ever for a cancelled server there")

        async def handle(stream):
            stream = AnyioStream(stream)
            await handler(stream)
            await stream.close()

        both = await self.library.create_tcp_listener(local_host="127.0.0.1")
        listener = self.tls.TLSListener(both.listeners[0], context)
        async with self.library.create_task_group() as group:
            group.start_soon(listener.serve, handle)
            attribute = importlib.import_module("anyio.abc").SocketAttribute
            yield both.listeners[0].extra(attribute.local_address)
            group.cancel_scope.cancel()
        await listener.aclose()


class AnyioOnTrio(Anyio):
    def __init__(self):
        super().__init__("trio")
        importlib.import_module("trio")


ALL = [Asyncio, Uvloop, Trio, Anyio, AnyioOnTrio]
