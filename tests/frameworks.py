"""asyncio, uvloop, trio and anyio behind one face, for tests that are for all of them.

``conn`` is what a user of the framework holds; the rest is there to make traffic.
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
    cancelled = asyncio.CancelledError
    sleep = staticmethod(asyncio.sleep)

    def new_event_loop(self):
        return asyncio.new_event_loop()

    def run(self, main):
        loop = self.new_event_loop()
        try:
            return loop.run_until_complete(asyncio.wait_for(main(), 60))
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

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


class Trio:
    name = "trio"

    def __init__(self):
        self.trio = importlib.import_module("trio")
        self.sleep = self.trio.sleep

    def run(self, main):
        async def limited():
            with self.trio.fail_after(60):
                return await main()

        return self.trio.run(limited)

    async def connect(self, address, context):
        stream = await self.trio.open_ssl_over_tcp_stream(*address, ssl_context=context)
        await stream.do_handshake()
        return TrioStream(stream)

    @contextlib.asynccontextmanager
    async def serving(self, context, handler):
        async def handle(stream):
            await stream.do_handshake()
            stream = TrioStream(stream)
            await handler(stream)
            await stream.close()

        async with self.trio.open_nursery() as nursery:
            listeners = await nursery.start(
                lambda task_status: self.trio.serve_ssl_over_tcp(
                    handle, 0, context, host="127.0.0.1", task_status=task_status
                )
            )
            yield listeners[0].transport_listener.socket.getsockname()
            nursery.cancel_scope.cancel()

    @contextlib.asynccontextmanager
    async def beside(self, function):
        async with self.trio.open_nursery() as nursery:
            nursery.start_soon(function)
            yield nursery.cancel_scope.cancel

    @contextlib.contextmanager
    def timeout_error(self):
        try:
            yield
        except self.trio.TooSlowError:
            return
        raise AssertionError("no timeout")

    async def within(self, seconds, awaitable):
        with self.trio.fail_after(seconds):
            return await awaitable


class AnyioStream(TrioStream):
    async def send(self, data):
        await self.conn.send(data)

    async def receive(self, size=65536):
        return await self.conn.receive(size)


class Anyio:
    def __init__(self, backend="asyncio"):
        self.name = f"anyio on {backend}"
        self.backend = backend
        self.anyio = importlib.import_module("anyio")
        self.tls = importlib.import_module("anyio.streams.tls")
        self.sleep = self.anyio.sleep

    def run(self, main):
        async def limited():
            with self.anyio.fail_after(60):
                return await main()

        return self.anyio.run(limited, backend=self.backend)

    async def connect(self, address, context):
        return AnyioStream(
            await self.anyio.connect_tcp(
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

        both = await self.anyio.create_tcp_listener(local_host="127.0.0.1")
        listener = self.tls.TLSListener(both.listeners[0], context)
        async with self.anyio.create_task_group() as group:
            group.start_soon(listener.serve, handle)
            attribute = importlib.import_module("anyio.abc").SocketAttribute
            yield both.listeners[0].extra(attribute.local_address)
            group.cancel_scope.cancel()
        await listener.aclose()

    @contextlib.asynccontextmanager
    async def beside(self, function):
        async with self.anyio.create_task_group() as group:
            group.start_soon(function)
            yield group.cancel_scope.cancel

    @contextlib.contextmanager
    def timeout_error(self):
        try:
            yield
        except TimeoutError:
            return
        raise AssertionError("no timeout")

    async def within(self, seconds, awaitable):
        with self.anyio.fail_after(seconds):
            return await awaitable


class AnyioOnTrio(Anyio):
    def __init__(self):
        super().__init__("trio")
        importlib.import_module("trio")


ALL = [Asyncio, Uvloop, Trio, Anyio, AnyioOnTrio]
