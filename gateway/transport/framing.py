"""Writes RFC 6455 frames, and finds where those of clients end."""

import struct
from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # there is none for this platform
    from websockets.utils import apply_mask

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8

RSV1: Final = 0x40
"""In the first frame of a message: it is compressed (RFC 7692 section 6)."""

MAX_CONTROL_BYTES: Final = 125
"""What a ping, pong or close frame may carry (section 5.5)."""

MAX_FRAGMENTS: Final = 65_536
"""Fragments of one message; empty ones have no other bound."""

_FINAL: Final = 0x80
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_MAX_16: Final = 0xFFFF
_WHOLE: Final = (_FINAL | TEXT, _FINAL | BINARY)
_WHOLE_COMPRESSED: Final = (_FINAL | RSV1 | TEXT, _FINAL | RSV1 | BINARY)


def frame(opcode: int, payload: bytes) -> bytes:
    """One unfragmented, unmasked frame (RFC 6455 section 5.2).

    Args:
        opcode: With ``RSV1`` for a compressed payload.
    """
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


def header_size(frame: bytes) -> int:
    """Bytes before the payload of an unmasked frame."""
    return 2 if frame[1] < _LENGTH_16 else 4 if frame[1] == _LENGTH_16 else 10


def client_frame_size(data: bytes, at: int) -> int:
    """Bytes of the whole frame that begins there; 0 if they are too few to tell."""
    if len(data) < at + 2:
        return 0
    second = data[at + 1]
    length = second & 0x7F
    header = 6 if second & 0x80 else 2  # a masking key has four bytes
    if length < _LENGTH_16:
        return header + length
    extended = 2 if length == _LENGTH_16 else 8
    if len(data) < at + 2 + extended:
        return 0
    return header + extended + int.from_bytes(data[at + 2 : at + 2 + extended])


def whole_message(frame: bytes, *, compressed: bool = False) -> bytes | None:
    """The message in a client's frame; None if it is none by itself, or has a fault.

    Args:
        frame: All of it, and no more.
        compressed: Whether it is one that is compressed, or one that is not.
    """
    first, second = frame[0], frame[1]
    if first not in (_WHOLE_COMPRESSED if compressed else _WHOLE) or second < 0x80:
        return None
    begin = 6 if second < 0x80 | _LENGTH_16 else 8 if second == 0x80 | _LENGTH_16 else 14
    return apply_mask(frame[begin:], frame[begin - 4 : begin])


class Fragments:
    """A message that comes in several frames (section 5.4)."""

    __slots__ = ("_count", "data", "is_text")

    def __init__(self, *, is_text: bool) -> None:
        self.data = bytearray()
        self.is_text = is_text
        self._count = 0

    def add(self, data: bytes | bytearray | memoryview, most: int) -> bool:
        """Take the next; False if there are too many, or more bytes than ``most``."""
        self.data += data
        self._count += 1
        return len(self.data) <= most and self._count <= MAX_FRAGMENTS
