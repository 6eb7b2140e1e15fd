"""RFC 6455 frames from server to client."""

import struct
from typing import Final

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
