"""A TCP connection that can be cut between a client and its server, while both live on."""

import asyncio
from typing import Self
from urllib.parse import urlsplit


class Link:
    """Forwards a port of its own to a server's.

    Args:
        url: Of the server, with a port.
    """

    def __init__(self, url: str) -> None:
        self._server = urlsplit(url)
        self._port = 0
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """Where clients connect, once it is open."""
        return f"{self._server.scheme}://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        await self.restore()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def restore(self) -> None:
        """Let connections through."""
        self._listener = await asyncio.start_server(self._forward, "127.0.0.1", self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """End all connections and refuse new ones."""
        if self._listener is None:
            return
        self._listener.close()
        for writer in self._writers:
            writer.close()
        await self._listener.wait_closed()
        self._listener = None

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server = await asyncio.open_connection("127.0.0.1", self._server.port)
        pair = {writer, to_server[1]}
        self._writers |= pair
        try:
            await asyncio.gather(_pump(reader, to_server[1]), _pump(to_server[0], writer))
        finally:
            self._writers -= pair


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        return
    finally:
        writer.close()
