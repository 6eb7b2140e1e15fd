"""TCP connections through this process, that can be cut, delayed, and made deaf in one direction."""

import asyncio
import random
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")

ANSWER_SECONDS = 30.0

_NO_LINGER = struct.pack("ii", 1, 0)
"""Makes a close a reset (RFC 9293 section 3.10.5): what is still on its way is lost."""


class Way(StrEnum):
    """A direction."""

    THERE = "from clients to the server"
    BACK = "from the server to clients"


class Link:
    """A port on loopback that leads to the next of some others that takes a connection.

    Args:
        targets: The other ports.

    Attributes:
        port: Where to connect.
        closed: Whether new connections are broken at once.
        deaf: The direction in which nothing passes for now; what was sent waits, as if the network lost it.
        delay_seconds: How much later all bytes arrive, in both directions.
    """

    def __init__(self, *targets: int) -> None:
        self._targets = targets
        self._turn = 0
        self._listener: asyncio.Server | None = None
        self._clients: dict[_End, None] = {}  # in order of arrival, so that chance can be repeated
        self._connecting: set[asyncio.Task[None]] = set()
        self.port = 0
        self.closed = False
        self.deaf: Way | None = None
        self.delay_seconds = 0.0

    async def start(self) -> None:
        """Begin to accept connections."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _End(self, Way.THERE), "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End it with all that goes through it."""
        self.closed = True
        self.reset()
        if self._listener is not None:
            self._listener.close()
        if self._connecting:
            await asyncio.wait(self._connecting)

    def reset(self, share: float = 1.0, chance: random.Random | None = None) -> int:
        """Reset a share of all connections, both ends of each; returns how many."""
        clients = list(self._clients)
        victims = (chance or random).sample(clients, round(share * len(clients)))
        for client in victims:
            client.reset()
        return len(victims)

    def deafen(self, way: Way | None) -> None:
        """Let nothing pass in a direction, or with None everything in both."""
        self.deaf = way
        for client in self._clients:
            client.listen()
            if client.other is not None:
                client.other.listen()

    def arrived(self, client: "_End") -> None:
        """Find a server for a client."""
        if self.closed:
            client.reset()
            return
        self._clients[client] = None
        task = asyncio.ensure_future(self._connect(client))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def left(self, client: "_End") -> None:
        """Forget a client."""
        self._clients.pop(client, None)

    async def _connect(self, client: "_End") -> None:
        loop = asyncio.get_running_loop()
        for _ in self._targets:
            self._turn += 1
            port = self._targets[self._turn % len(self._targets)]
            try:
                _, server = await loop.create_connection(
                    lambda: _End(self, Way.BACK), "127.0.0.1", port
                )
            except OSError:
                continue  # that one is down
            client.join(server)
            return
        client.reset()


class _End(asyncio.Protocol):
    """One end of a forwarded connection; what it reads, the other writes.

    Args:
        way: Where to the bytes go that are read here.
    """

    def __init__(self, link: Link, way: Way) -> None:
        self.other: _End | None = None
        self._link = link
        self._way = way
        self._full = False
        self._late: deque[tuple[float, bytes]] = deque()
        self._ended = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there; nothing is read before the other end is."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.pause_reading()
        if self._way is Way.THERE:
            self._link.arrived(self)

    def join(self, other: "_End") -> None:
        """Begin to forward, both ways."""
        self.other, other.other = other, self
        if self._link.closed or self._transport.is_closing() or other._transport.is_closing():
            self.reset()
            return
        self.listen()
        other.listen()

    def listen(self) -> None:
        """Read, if bytes may pass and the other end takes them."""
        if self._transport.is_closing():
            return
        if self.other is None or self.other._full or self._link.deaf is self._way:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Forward, now or later."""
        if self.other is None:
            return
        loop = asyncio.get_running_loop()
        if self._late or self._link.delay_seconds:
            if not self._late:
                loop.call_later(self._link.delay_seconds, self._deliver)
            self._late.append((loop.time() + self._link.delay_seconds, data))
        else:
            self.other._transport.write(data)

    def pause_writing(self) -> None:
        """Who reads slowly holds up who writes, as without us."""
        self._full = True
        if self.other is not None:
            self.other.listen()

    def resume_writing(self) -> None:
        """Who reads slowly holds up who writes, as without us."""
        self._full = False
        if self.other is not None:
            self.other.listen()

    def connection_lost(self, _problem: Exception | None) -> None:
        """The other end closes when it has written what it has."""
        self._link.left(self)
        self._ended = True
        if self.other is not None and not self._late:
            self.other._transport.close()

    def reset(self) -> None:
        """Cut both ends; whatever is on its way is lost."""
        for end in (self, self.other):
            if end is None:
                continue
            end._late.clear()
            if end._transport.is_closing():
                continue
            connection = end._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            end._transport.abort()

    def _deliver(self) -> None:
        """Forward what is due."""
        assert self.other is not None
        loop = asyncio.get_running_loop()
        while self._late and self._late[0][0] <= loop.time():
            self.other._transport.write(self._late.popleft()[1])
        if self._late:
            loop.call_at(self._late[0][0], self._deliver)
        elif self._ended:
            self.other._transport.close()


class Links:
    """Links in a thread of their own, so that they work whatever the test does."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._links: list[Link] = []
        self._thread.start()

    def add(self, *targets: int) -> Link:
        """A link to a port, or to the next of several, accepting connections."""
        link = Link(*targets)
        asyncio.run_coroutine_threadsafe(link.start(), self._loop).result(ANSWER_SECONDS)
        self._links.append(link)
        return link

    def cut(self, link: Link) -> None:
        """Break what goes through a link, now and later."""
        link.closed = True
        self._run(link.reset)

    def heal(self, link: Link) -> None:
        """Let everything pass again, as before."""
        link.closed, link.delay_seconds = False, 0.0
        self._run(lambda: link.deafen(None))

    def reset(self, link: Link, share: float = 1.0, chance: random.Random | None = None) -> int:
        """Break a share of what goes through a link now; returns how many connections."""
        return self._run(lambda: link.reset(share, chance))

    def deafen(self, link: Link, way: Way) -> None:
        """Let nothing pass in one direction, while connections stay."""
        self._run(lambda: link.deafen(way))

    def delay(self, link: Link, seconds: float) -> None:
        """Let everything arrive so much later."""
        link.delay_seconds = seconds

    def stop(self) -> None:
        """End all links."""
        for link in self._links:
            asyncio.run_coroutine_threadsafe(link.stop(), self._loop).result(ANSWER_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, what: Callable[[], T]) -> T:
        async def done() -> T:
            return what()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(ANSWER_SECONDS)
