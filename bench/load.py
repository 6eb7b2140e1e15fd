"""The clients: all of a server's in one process of their own, which checks every byte it is sent."""

import contextlib
import os
import select
import socket
import time
from functools import partial
from itertools import islice
from typing import Final

from bench.remote import Remote
from bench.servers import Server
from bench.wire import PING, PONG, TEXT, LoadError, Wire, masked, split, unmasked

BROADCAST_SECONDS: Final = 30.0
"""Time one broadcast may take to reach everybody."""

JOIN_SECONDS: Final = 0.05
"""Time a client may take to join, on average."""

_READ_BYTES: Final = 4096
_QUIET_SECONDS: Final = 0.1


class Clients:
    """All clients of a server, within their process."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._message = server.text()
        self._frame = unmasked(self._message)
        self._epoll = select.epoll()
        self._received: dict[int, int] = {}  # descriptor -> messages
        self._partial: dict[int, bytes] = {}  # descriptor -> bytes of a frame that is not all there
        self._wanted = 0
        self._number = 0  # of the next client

    def join(self, count: int) -> None:
        """Connect and join until there are so many clients, one after another."""
        while len(self._received) < count:
            wire = Wire(self._server.port)
            try:
                self._server.join(wire, self._number)
                descriptor = wire.detach()
            except BaseException:
                wire.close()
                raise
            self._number += 1
            self._received[descriptor] = 0
            self._epoll.register(descriptor, select.EPOLLIN)

    def deliver(self, broadcasts: int, every: float = 0.0) -> None:
        """Publish so many messages, each when all clients have the one before.

        Args:
            every: Seconds from one to the next, at least.
        """
        request = self._server.publish()
        wire = Wire(self._server.publish_port)
        with contextlib.closing(wire):
            begun = time.monotonic()
            for number in range(broadcasts):
                while time.monotonic() < begun + number * every:
                    self._read(0)
                self._wanted += 1
                wire.ask(request)
                self._collect()
                wire.answered()
        self._read(_QUIET_SECONDS)  # fails if anybody gets a message too many

    def leave(self, count: int) -> None:
        """Have so many leave, those that came first: by a close frame, or like a client that is gone.

        Every third leaves its channel before.
        """
        for descriptor in list(islice(self._received, count)):
            number = self._number - len(self._received)
            self._epoll.unregister(descriptor)
            del self._received[descriptor]
            with contextlib.closing(Wire(socket.socket(fileno=descriptor))) as wire:
                if number % 3 == 0:
                    self._server.leave(wire, number)
                if number % 3 != 1:
                    wire.part()

    def close(self) -> None:
        for descriptor in self._received:
            os.close(descriptor)
        self._received.clear()
        self._epoll.close()

    def _collect(self) -> None:
        """Read until everybody has the message.

        It never sleeps meanwhile: the kernel would charge the server for waking this process, which is
        no part of serving clients on other machines.
        """
        missing = len(self._received)
        deadline = time.monotonic() + BROADCAST_SECONDS
        while missing:
            missing -= self._read(0)
            if missing and time.monotonic() > deadline:
                raise LoadError(f"{missing} of {len(self._received)} clients lack a message")

    def _read(self, seconds: float) -> int:
        """Read what there is, waiting so long for some; returns how many clients got the message."""
        frame, received, partial = self._frame, self._received, self._partial
        got = 0  # at most one message each: the next is published when all have this one
        for descriptor, _ in self._epoll.poll(seconds, 1024):
            data = os.read(descriptor, _READ_BYTES)
            if data == frame and descriptor not in partial:
                messages = 1
            elif data:
                messages = self._parse(descriptor, partial.pop(descriptor, b"") + data)
            else:
                raise LoadError("a client was closed by the server")
            if messages:
                received[descriptor] += messages
                if received[descriptor] != self._wanted:
                    raise LoadError("a client got a message too many")
                got += 1
        return got

    def _parse(self, descriptor: int, data: bytes) -> int:
        """The slow way: frames in pieces, pings, and whatever should not be there."""
        messages = 0
        while (found := split(data)) is not None:
            opcode, payload, data = found
            if opcode == TEXT and payload == self._message:
                messages += 1
            elif opcode == TEXT and (answer := self._server.answer(payload)) is not None:
                os.write(descriptor, masked(TEXT, answer))
            elif opcode == PING:
                os.write(descriptor, masked(PONG, payload))
            else:
                raise LoadError(f"unexpected frame {opcode}: {payload[:200]!r}")
        if data:
            self._partial[descriptor] = data
        return messages


class Load(Remote[Clients]):
    """The clients' process, seen from the benchmark; entering starts it, leaving ends it."""

    def __init__(self, server: Server) -> None:
        super().__init__(partial(Clients, server))

    def join(self, count: int) -> None:
        """Connect and join until there are so many clients; returns when all have joined."""
        self.call(30.0 + count * JOIN_SECONDS, Clients.join, count)

    def leave(self, count: int) -> None:
        """Have so many leave, those that came first; returns when the server has said goodbye."""
        self.call(30.0 + count * JOIN_SECONDS, Clients.leave, count)

    def deliver(self, broadcasts: int, every: float = 0.0) -> None:
        """Publish so many messages; returns when every client has got each of them.

        Args:
            every: Seconds from one to the next, at least.
        """
        self.call(BROADCAST_SECONDS * 2 + broadcasts, Clients.deliver, broadcasts, every)
