"""A load balancer for TCP, as simple as can be, that can also cut its clients' connections."""

import asyncio
import random
import socket
import struct
from collections.abc import Callable
from typing import Self

_NO_LINGER = struct.pack("ii", 1, 0)
"""Makes a close a reset (RFC 9293 section 3.10.5): what is still on its way is lost."""


class Balancer:
    """Forwards each connection to the next server that takes it.

    Args:
        ports: Of the servers, on loopback.
    """

    def __init__(self, ports: list[int]) -> None:
        self._ports = ports
        self._turn = 0
        self._listener: asyncio.Server | None = None
        self._ways: dict[_Client, None] = {}  # in order of arrival, so that chance can be repeated
        self._connecting: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where clients connect, once it is open."""
        assert self._listener is not None
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: _Client(self._arrived, self._left), "127.0.0.1", 0
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self._listener.close()
        for client in list(self._ways):
            client.reset()
        if self._connecting:
            await asyncio.wait(self._connecting)

    def cut(self, share: float, chance: random.Random) -> int:
        """Reset a share of all connections, both ends of each; returns how many."""
        victims = chance.sample(list(self._ways), round(share * len(self._ways)))
        for client in victims:
            client.reset()
        return len(victims)

    def _arrived(self, client: "_Client") -> None:
        self._ways[client] = None
        task = asyncio.ensure_future(self._connect(client))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def _left(self, client: "_Client") -> None:
        self._ways.pop(client, None)

    async def _connect(self, client: "_Client") -> None:
        loop = asyncio.get_running_loop()
        for _ in self._ports:
            self._turn += 1
            port = self._ports[self._turn % len(self._ports)]
            try:
                _, server = await loop.create_connection(_End, "127.0.0.1", port)
            except OSError:
                continue  # that one is down
            client.join(server)
            return
        client.reset()


class _End(asyncio.Protocol):
    """One end of a forwarded connection; what it reads, the other writes."""

    def __init__(self) -> None:
        self.other: _End | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there; nothing is read before the other end is."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.pause_reading()

    def join(self, other: "_End") -> None:
        """Begin to forward, both ways."""
        self.other, other.other = other, self
        for end in (self, other):
            if end._transport.is_closing():
                self.reset()
                return
            end._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Forward."""
        if self.other is not None:
            self.other._transport.write(data)

    def pause_writing(self) -> None:
        """Who reads slowly holds up who writes, as without us."""
        if self.other is not None:
            self.other._transport.pause_reading()

    def resume_writing(self) -> None:
        """Who reads slowly holds up who writes, as without us."""
        if self.other is not None:
            self.other._transport.resume_reading()

    def connection_lost(self, _problem: Exception | None) -> None:
        """The other end closes when it has written what it has."""
        if self.other is not None:
            self.other._transport.close()

    def reset(self) -> None:
        """Cut both ends; whatever is on its way is lost."""
        for end in (self, self.other):
            if end is None or end._transport.is_closing():
                continue
            connection = end._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            end._transport.abort()


class _Client(_End):
    """The end to a client.

    Args:
        arrived: Told when it is there.
        left: Told when it is gone.
    """

    def __init__(
        self, arrived: Callable[["_Client"], None], left: Callable[["_Client"], None]
    ) -> None:
        super().__init__()
        self._arrived = arrived
        self._left = left

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Look for a server."""
        super().connection_made(transport)
        self._arrived(self)

    def connection_lost(self, problem: Exception | None) -> None:
        """Be forgotten."""
        super().connection_lost(problem)
        self._left(self)
