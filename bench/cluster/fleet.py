"""Clients of several replicas, who go to another when theirs is gone and look at nothing they are sent."""

import json
import os
import select
import time
from collections.abc import Sequence
from typing import Final

from bench.load import JOIN_SECONDS
from bench.servers.gateway import Gateway, check_joined
from bench.wire import LoadError, Wire

BACK_SECONDS: Final = 60.0
JOIN_TRIES: Final = 10
_BUSY: Final = b'"bus unavailable"'
_READ_BYTES: Final = 1 << 16


class Fleet:
    """The clients, within their process.

    Args:
        servers: They come to these in turns.
    """

    def __init__(self, servers: Sequence[Gateway]) -> None:
        self._servers = servers
        self._epoll = select.epoll()
        self._there: dict[int, tuple[int, int]] = {}  # descriptor -> number, server

    def come(self, count: int) -> None:
        """Have so many join."""
        for number in range(count):
            self._come(number, number % len(self._servers))
            self._read(0)

    def come_back(self, server: int, count: int) -> None:
        """Wait until those of a server are cut off, and have each join at another one.

        Args:
            count: How many they are, if that is known; 0 to take those that are there.
        """
        expected = count or sum(where == server for _, where in self._there.values())
        begun, gone = time.monotonic(), 0
        while gone < expected:
            if time.monotonic() > begun + BACK_SECONDS:
                raise LoadError(f"{gone} clients were cut off, not {expected}")
            for number, where in self._read(0.01):
                gone += 1
                step = 1 + number % (len(self._servers) - 1)
                self._come(number, (where + step) % len(self._servers))

    def rest(self, seconds: float) -> None:
        """Only read."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._read(min(left, 0.2)):
                raise LoadError("a client was closed by the server")

    def leave(self) -> None:
        """Close all connections."""
        for descriptor in self._there:
            self._epoll.unregister(descriptor)
            os.close(descriptor)
        self._there.clear()

    def close(self) -> None:
        self.leave()
        self._epoll.close()

    def _come(self, number: int, where: int) -> None:
        descriptor = joined(self._servers[where], number).socket.detach()
        os.set_blocking(descriptor, False)
        self._there[descriptor] = number, where
        self._epoll.register(descriptor, select.EPOLLIN)

    def _read(self, seconds: float) -> list[tuple[int, int]]:
        """Read what there is; returns who was cut off, and from which server."""
        gone = []
        for descriptor, _ in self._epoll.poll(seconds, 1024):
            try:
                data = os.read(descriptor, _READ_BYTES)
            except ConnectionResetError:
                data = b""
            if not data:
                self._epoll.unregister(descriptor)
                os.close(descriptor)
                gone.append(self._there.pop(descriptor))
        return gone


def joined(server: Gateway, number: int) -> Wire:
    """A client that has joined; who else is there is not looked at."""
    wire = Wire(server.port)
    wire.upgrade(server.path(number))
    for _ in range(JOIN_TRIES):
        wire.send(server.joining(number))
        while json.loads(text := wire.receive())[3].startswith("presence_"):
            pass
        if _BUSY not in text:
            break
    check_joined(text)
    return wire


def seconds_for(clients: int) -> float:
    """How long so many may take to join."""
    return BACK_SECONDS + clients * JOIN_SECONDS
