"""TCP connections through this process, that can be cut: the routes between servers of a cluster."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

CHUNK_BYTES = 65_536


class Link:
    """A port on loopback that leads to another, unless it is cut.

    Args:
        target: The other port.

    Attributes:
        port: Where to connect.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._cut = False
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Begin to accept connections."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End it with all that goes through it."""
        await self.cut()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def cut(self) -> None:
        """Break all connections, and each new one."""
        self._cut = True
        for writer in tuple(self._open):
            writer.transport.abort()

    async def heal(self) -> None:
        """Let new connections through."""
        self._cut = False

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if not self._cut:
                await self._connect(reader, writer)
        except OSError:
            pass  # the server is down
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._open.add(back)
        if self._cut:
            back.transport.abort()
        await asyncio.gather(_pass(reader, back), _pass(there, writer))
        self._open.discard(back)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.transport.abort()


class Links:
    """Links in a thread of their own, so that they work whatever the test does."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._links: list[Link] = []
        self._thread.start()

    def add(self, target: int) -> Link:
        """A link to a port, accepting connections."""
        link = Link(target)
        self._run(link.start())
        self._links.append(link)
        return link

    def cut(self, link: Link) -> None:
        """Break what goes through a link, now and later."""
        self._run(link.cut())

    def heal(self, link: Link) -> None:
        """Let connections through again."""
        self._run(link.heal())

    def stop(self) -> None:
        """End all links."""
        for link in self._links:
            self._run(link.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)
