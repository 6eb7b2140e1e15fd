"""One client's connection while it joins: blocking, with a time limit on every wait."""

import os
import socket
import struct

TIMEOUT_SECONDS = 20.0
TEXT = 0x1
CLOSE = 0x8
PING = 0x9
PONG = 0xA


class LoadError(Exception):
    """A client did not get what it should, so there is nothing to report."""


def masked(opcode: int, payload: bytes) -> bytes:
    """A client's frame of at most 65,535 bytes, with a mask of zeros: valid, and free to make."""
    length = len(payload)
    if length < 126:
        return struct.pack("!BBI", 0x80 | opcode, 0x80 | length, 0) + payload
    return struct.pack("!BBHI", 0x80 | opcode, 0x80 | 126, length, 0) + payload


def unmasked(payload: bytes) -> bytes:
    """A server's text frame of at most 65,535 bytes, as it must arrive."""
    length = len(payload)
    if length < 126:
        return struct.pack("!BB", 0x80 | TEXT, length) + payload
    return struct.pack("!BBH", 0x80 | TEXT, 126, length) + payload


def split(data: bytes) -> tuple[int, bytes, bytes] | None:
    """The first whole frame of a server: opcode, payload and what follows it; None if it is not all there."""
    found = head(data)
    if found is None:
        return None
    opcode, start, length = found
    end = start + length
    return (opcode, data[start:end], data[end:]) if len(data) >= end else None


def head(data: bytes) -> tuple[int, int, int] | None:
    """The head of a server's frame: opcode, its own length and the payload's; None if it is not all there."""
    if len(data) < 2:
        return None
    length, start = data[1], 2
    if length > 125:
        start = 4 if length == 126 else 10
        if len(data) < start:
            return None
        length = int.from_bytes(data[2:start], "big")
    return data[0] & 0x0F, start, length


def upgrade(path: str) -> bytes:
    """The HTTP request that asks for a WebSocket."""
    return (
        b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        % path.encode()
    )


def check_upgraded(answer: bytes) -> None:
    """Make sure that the head of an HTTP response lets a WebSocket begin."""
    if not answer.startswith(b"HTTP/1.1 101"):
        raise LoadError(f"no upgrade: {answer[:200]!r}")


class Wire:
    """A TCP connection to a port of loopback.

    Args:
        port: A port, or the connection itself.
    """

    def __init__(self, port: int | socket.socket) -> None:
        self.socket = (
            socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
            if isinstance(port, int)
            else port
        )
        self.socket.settimeout(TIMEOUT_SECONDS)
        self.rest = b""

    def upgrade(self, path: str) -> None:
        """Become a WebSocket."""
        self.socket.sendall(upgrade(path))
        check_upgraded(self.head())

    def ask(self, request: bytes) -> None:
        """Send a whole HTTP request; :meth:`answered` reads the answer."""
        self.socket.sendall(request)

    def answered(self) -> bytes:
        """Wait for the answer to a request, which must be of the 200s; returns its body."""
        start = self.head()
        if not start.startswith(b"HTTP/1.1 20"):
            raise LoadError(f"request refused: {start[:200]!r}")
        length = 0
        for line in start.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        while len(self.rest) < length:
            self._more()
        body, self.rest = self.rest[:length], self.rest[length:]
        return body

    def send(self, text: bytes) -> None:
        """Send a text message."""
        self.socket.sendall(masked(TEXT, text))

    def receive(self) -> bytes:
        """The next text message."""
        opcode, payload = self.frame()
        if opcode != TEXT:
            raise LoadError(f"unexpected frame {opcode}: {payload[:200]!r}")
        return payload

    def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame."""
        while (found := split(self.rest)) is None:
            self._more()
        opcode, payload, self.rest = found
        return opcode, payload

    def detach(self) -> int:
        """The descriptor, non-blocking, once the client has joined."""
        if self.rest:
            raise LoadError(f"more than the join's answer: {self.rest[:200]!r}")
        descriptor = self.socket.detach()
        os.set_blocking(descriptor, False)
        return descriptor

    def part(self) -> None:
        """Say goodbye, and wait for the server to say it, too, and to close the connection."""
        self.socket.sendall(masked(CLOSE, struct.pack("!H", 1000)))
        opcode, payload = self.frame()
        if opcode != CLOSE or payload != struct.pack("!H", 1000):
            raise LoadError(f"no goodbye: {opcode} {payload[:200]!r}")
        if self.socket.recv(1):
            raise LoadError("something after the goodbye")

    def close(self) -> None:
        self.socket.close()

    def head(self) -> bytes:
        """The head of the answer to a request, without the empty line."""
        while b"\r\n\r\n" not in self.rest:
            self._more()
        start, _, self.rest = self.rest.partition(b"\r\n\r\n")
        return start

    def _more(self) -> None:
        data = self.socket.recv(4096)
        if not data:
            raise LoadError(f"closed by the server after {self.rest[:200]!r}")
        self.rest += data
