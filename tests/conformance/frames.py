"""WebSocket frames as a client may, or may not, write them, and a TCP socket that sends any of them.

Nothing is checked on the way out: reserved bits, lengths and masks are what the test says. What comes
in is checked as RFC 6455 section 5 has it for a server's frames.
"""

import base64
import contextlib
import os
import socket
import struct
from collections.abc import Iterable
from typing import Final, Self

import msgspec

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

MASK: Final = b"\x37\xfa\x21\x3d"
"""The masking key of the examples in section 5.7."""

WITHIN_SECONDS: Final = 10.0


class Frame(msgspec.Struct, frozen=True):
    """A frame of the server's. All are final and whole, as the gateway never fragments."""

    opcode: int
    data: bytes = b""


class End(msgspec.Struct, frozen=True):
    """The server ended the TCP connection."""


def masked(data: bytes, key: bytes) -> bytes:
    """A payload under a mask (section 5.3); applied twice it is the payload again."""
    whole = key * (len(data) // 4 + 1)
    number = int.from_bytes(data) ^ int.from_bytes(whole[: len(data)])
    return number.to_bytes(len(data))


def frame(
    opcode: int,
    data: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    form: int | None = None,
    claims: int | None = None,
) -> bytes:
    """A client's frame.

    Args:
        opcode: Four bits.
        data: The payload, not masked yet.
        fin: Whether it is the last of its message.
        rsv: The three reserved bits as a number: RSV1 is 4.
        mask: The masking key; None for an unmasked frame.
        form: How many bits the length takes: 7, 16 or 64; None for the shortest.
        claims: A length other than the payload's own.
    """
    length = len(data) if claims is None else claims
    if form is None:
        form = 7 if length < 126 else 16 if length < 0x10000 else 64
    first = fin << 7 | rsv << 4 | opcode
    bit = 0 if mask is None else 0x80
    if form == 7:
        head = struct.pack("!BB", first, bit | length)
    elif form == 16:
        head = struct.pack("!BBH", first, bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, bit | 127, length)
    return head + data if mask is None else head + mask + masked(data, mask)


def message(opcode: int, parts: Iterable[bytes]) -> list[bytes]:
    """The frames of a fragmented message, one for each part (section 5.4)."""
    pieces = list(parts)
    last = len(pieces) - 1
    return [
        frame(CONTINUATION if index else opcode, piece, fin=index == last)
        for index, piece in enumerate(pieces)
    ]


def close(code: int, reason: bytes = b"") -> bytes:
    """A close frame with a body (section 5.5.1)."""
    return frame(CLOSE, struct.pack("!H", code) + reason)


class RawSocket:
    """One WebSocket, from its handshake on; it blocks."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = bytearray()

    @classmethod
    def connect(cls, port: int, path: str) -> Self:
        """Open a socket; the handshake must succeed."""
        connection = socket.create_connection(("127.0.0.1", port), WITHIN_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
        )
        connection.sendall("\r\n".join((*lines, "", "")).encode())
        opened = cls(connection)
        while b"\r\n\r\n" not in opened._received:
            assert opened._more(), "no answer to the handshake"
        head, _, rest = opened._received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        opened._received = rest
        return opened

    def send(self, data: bytes) -> None:
        """Send bytes as they are; a server that has gone is told to :meth:`receive`."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.sendall(data)

    def end(self) -> None:
        """Send no more: half-close the TCP connection, if it is still there."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def receive(self) -> Frame | End:
        """The next frame."""
        head = self._read(2)
        if not head:
            return End()
        assert len(head) == 2, "the connection ended within a frame"
        assert head[0] & 0xF0 == 0x80, f"reserved bits, or not final: {head[0]:08b}"
        assert head[1] & 0x80 == 0, "a server's frame is not masked"
        length = head[1]
        if length == 126:
            (length,) = struct.unpack("!H", self._read(2))
            assert length > 125, "not the shortest form of the length"
        elif length == 127:
            (length,) = struct.unpack("!Q", self._read(8))
            assert length > 0xFFFF, "not the shortest form of the length"
        data = self._read(length)
        assert len(data) == length, "the connection ended within a frame"
        return Frame(head[0] & 0x0F, data)

    def _read(self, count: int) -> bytes:
        """So many bytes, or fewer at the end of the connection."""
        while len(self._received) < count and self._more():
            pass
        data = bytes(self._received[:count])
        del self._received[:count]
        return data

    def _more(self) -> bool:
        """Wait for more bytes; False at the end of the connection.

        A server that closes while something of ours is still unread resets the connection. Linux
        delivers first what it sent before.
        """
        try:
            data = self._connection.recv(0x10000)
        except ConnectionResetError:
            return False
        self._received += data
        return bool(data)

    def abandon(self) -> None:
        """Drop the TCP connection."""
        self._connection.close()
