"""A WebSocket client that hides nothing: opcodes, close codes and HTTP status as they are."""

import asyncio
import base64
import contextlib
import json
import os
import struct
from typing import Any, Self

import msgspec

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
WITHIN_SECONDS = 30.0


class Received(msgspec.Struct, frozen=True):
    """One frame from the server; ``opcode`` 0 stands for the end of the TCP connection."""

    opcode: int
    data: bytes = b""

    @property
    def value(self) -> Any:
        """What a vector says of it: parsed JSON, hex, or the close code."""
        if self.opcode == TEXT:
            return json.loads(self.data)
        if self.opcode == CLOSE:
            return struct.unpack("!H", self.data[:2])[0] if self.data else None
        return self.data.hex()


class Wire:
    """One TCP connection after its handshake."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._waiting = bytearray()
        self.head = head

    @property
    def status(self) -> int:
        """HTTP status of the handshake."""
        return int(self.head.split(" ", 2)[1])

    def header(self, name: str) -> str | None:
        """A header of the handshake's answer."""
        for line in self.head.split("\r\n")[1:]:
            found, _, value = line.partition(":")
            if found.lower() == name.lower():
                return value.strip()
        return None

    @classmethod
    async def request(cls, port: int, request: str) -> Self:
        """Send an HTTP request as it is and read the head of the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request.encode())
        async with asyncio.timeout(WITHIN_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        return cls(reader, writer, head.decode())

    @classmethod
    async def connect(cls, port: int, query: str, *headers: str) -> Self:
        """Open a socket; ``headers`` are whole lines."""
        return await cls.request(port, handshake(query, *headers))

    def send(self, opcode: int, data: bytes) -> None:
        """Queue a frame; all that is queued leaves in one write."""
        mask = os.urandom(4)
        length = len(data)
        if length < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
        else:
            head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        self._waiting += head + mask + masked

    def flush(self) -> None:
        """Send what is queued."""
        if self._waiting:
            self._writer.write(bytes(self._waiting))
            self._waiting.clear()

    async def receive(self) -> Received:
        """The next frame, after sending what is queued."""
        self.flush()
        try:
            async with asyncio.timeout(WITHIN_SECONDS):
                first, second = await self._reader.readexactly(2)
                length = second & 0x7F
                if length == 126:
                    (length,) = struct.unpack("!H", await self._reader.readexactly(2))
                return Received(first & 0x0F, await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return Received(0)

    async def close(self) -> None:
        """Cut the connection."""
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def handshake(
    query: str, *headers: str, path: str = "/socket/websocket", method: str = "GET"
) -> str:
    """The text of a WebSocket handshake."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"{method} {path}?{query} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return "\r\n".join(lines) + "\r\n\r\n"
