"""A backend on loopback that does byte for byte what a test says, HTTP or not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

from gateway.upstream.client import Upstream


class Request:
    """One request as it came, and the connection it came on."""

    def __init__(
        self, head: bytes, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        lines = head.decode("ascii").split("\r\n")
        self.line = lines[0]
        self.fields = [tuple(line.split(": ", 1)) for line in lines[1:] if line]
        self.headers = {name.lower(): value for name, value in self.fields}
        self.body = body
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Bytes to the client."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: int = 200, body: bytes = b"", *fields: str) -> None:
        """A proper answer."""
        await self.send(response(status, body, *fields))

    async def hung_up(self) -> None:
        """Return once the client closed the connection."""
        with suppress(ConnectionError):
            while await self.reader.read(65_536):
                pass


Script: TypeAlias = Callable[[Request], Awaitable[None]]


def response(status: int, body: bytes, *fields: str) -> bytes:
    """An answer's bytes."""
    head = "\r\n".join((f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *fields))
    return head.encode() + b"\r\n\r\n" + body


class Scripted:
    """The backend.

    Attributes:
        script: What it does with a request.
        requests: What came, in order.
        connections: How many connections were made.
        active: Requests whose script is not done.
        most: The most of those at a time.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.connections = 0
        self.active = 0
        self.most = 0
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while True:
                await self._one(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        request = Request(head, b"", reader, writer)
        request.body = await reader.readexactly(int(request.headers["content-length"]))
        self.requests.append(request)
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            await self.script(request)
        finally:
            self.active -= 1

    async def stop(self) -> None:
        """End every script."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Scripted]:
    """A running backend."""
    backend = Scripted(script)
    server = await asyncio.start_server(backend.serve, "127.0.0.1", 0)
    backend.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/gateway?key=1"
    try:
        yield backend
    finally:
        server.close()
        await backend.stop()


@asynccontextmanager
async def closing(upstream: Upstream) -> AsyncIterator[Upstream]:
    """An upstream that is closed afterwards."""
    try:
        yield upstream
    finally:
        await upstream.close()
