"""RFC 6455 frames from server to client, and the encodings that end in them."""

import struct
from typing import Final

from gateway.hub.broadcast import Broadcast
from gateway.protocol.messages import NULL, Outgoing
from gateway.protocol.serializer import Serializer
from gateway.protocol.v1 import V1
from gateway.protocol.v2 import V2

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PONG: Final = 0xA

_FINAL: Final = 0x80
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_MAX_16: Final = 0xFFFF


def frame(opcode: int, payload: bytes) -> bytes:
    """One unfragmented, unmasked frame (RFC 6455 section 5.2)."""
    length = len(payload)
    first = _FINAL | opcode
    if length < _LENGTH_16:
        return bytes((first, length)) + payload
    if length <= _MAX_16:
        return struct.pack("!BBH", first, _LENGTH_16, length) + payload
    return struct.pack("!BBQ", first, _LENGTH_64, length) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame; the reason is at most 123 bytes of UTF-8 (RFC 6455 section 5.5.1)."""
    return frame(CLOSE, struct.pack("!H", code) + reason.encode())


class WebSocketEncoding:
    """A protocol version in WebSocket frames: one object for all sockets that speak it.

    Attributes:
        positions: Whether broadcasts come with their position.
        with_positions: The same version, with them.
    """

    def __init__(self, serializer: Serializer, version: str, *, positions: bool = False) -> None:
        self.serializer = serializer
        self.version = version
        self.positions = positions
        self.with_positions: WebSocketEncoding = (
            self if positions else WebSocketEncoding(serializer, version, positions=True)
        )

    def outgoing(self, message: Outgoing) -> bytes:
        """One message for one client, as a frame."""
        return frame(TEXT, self.serializer.encode(message))

    def broadcast(self, message: Broadcast) -> bytes | None:
        """One message for many clients, as a frame; None for binary data on version 1."""
        if not message.binary:
            ref = (message.position or NULL) if self.positions else NULL
            payload = self.serializer.broadcast(message.topic, message.event, message.payload, ref)
            return frame(TEXT, payload)
        data = self.serializer.broadcast_binary(message.topic, message.event, message.payload)
        return None if data is None else frame(BINARY, data)


V1_FRAMES: Final = WebSocketEncoding(V1(), "1.0.0")
V2_FRAMES: Final = WebSocketEncoding(V2(), "2.0.0")
