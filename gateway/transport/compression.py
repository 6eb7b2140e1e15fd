"""Compresses messages (RFC 7692, permessage-deflate): what is agreed, and both directions of it.

Only ever without context takeover: every message is compressed by itself, so that many sockets can be sent
the same bytes, and none keeps a window.
"""

import zlib
from collections.abc import Callable, Iterable
from typing import Final

from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import OP_BINARY, OP_TEXT, Frame
from websockets.headers import build_extension, parse_extension

from gateway.transport.framing import RSV1, frame, header_size

LEVEL: Final = 1
"""zlib's quickest: 2 KB of JSON take some 20 µs and shrink to 37 %, with its default to 35 %."""

LONGEST_BYTES: Final = 1024 * 1024
"""A longer message is sent as it is: this much takes some 8 ms, in which no other socket is served."""

LONGEST_OFFER: Final = 1024
"""Characters of what a client offers; more is not read."""

WINDOW_BITS: Final = 15
"""What all messages are compressed with, as all sockets get the same bytes."""

_SYNC_TAIL: Final = b"\x00\x00\xff\xff"  # not sent (section 7.2.1)
_LAST_BLOCK: Final = (
    b"\x01\x00\x00\xff\xff"  # an empty one, which shows that all before it is there
)
_factory: Final = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True, client_no_context_takeover=True
)


def negotiate(offers: Iterable[str]) -> str:
    """Accept the first of a client's offers that can be met (RFC 7692 section 5).

    One for a window smaller than that of all others cannot.

    Args:
        offers: Values of the request's ``Sec-WebSocket-Extensions``.

    Returns:
        That header's value for the answer; empty where there is no such offer, or none that can be read.
    """
    offered = ", ".join(offers)
    if not offered or len(offered) > LONGEST_OFFER:
        return ""
    try:
        extensions = parse_extension(offered)
    except InvalidHeader:
        return ""
    for name, wanted in extensions:
        if name != _factory.name:
            continue
        try:
            agreed, how = _factory.process_request_params(wanted, ())
        except NegotiationError:
            continue
        if how.local_max_window_bits == WINDOW_BITS:
            return build_extension([(name, agreed)])
    return ""


class Deflater:
    """Makes messages smaller.

    Args:
        min_bytes: What a message must have to be compressed.
        before: Counts the bytes of those that were looked at.
        after: Counts what became of them.
    """

    def __init__(
        self, min_bytes: int, *, before: Callable[[int], None], after: Callable[[int], None]
    ) -> None:
        self._min_bytes = min_bytes
        self._before = before
        self._after = after

    def __call__(self, plain: bytes) -> bytes:
        """A message's frame with its payload compressed, or as it is where that is no smaller."""
        start = header_size(plain)
        size = len(plain) - start
        if not self._min_bytes <= size <= LONGEST_BYTES:
            return plain
        deflate = zlib.compressobj(LEVEL, wbits=-WINDOW_BITS)
        data = deflate.compress(memoryview(plain)[start:]) + deflate.flush(zlib.Z_SYNC_FLUSH)
        compressed = frame(RSV1 | plain[0] & 0x0F, data[: -len(_SYNC_TAIL)])
        smallest = min(plain, compressed, key=len)
        self._before(len(plain))
        self._after(len(smallest))
        return smallest


def inflate(data: bytes | bytearray | memoryview, most: int) -> bytes:
    """A message of a client; of one longer than ``most`` bytes the first ``most + 1``.

    Raises:
        zlib.error: It is not compressed, or not all of it is there.
    """
    decoder = zlib.decompressobj(wbits=-WINDOW_BITS)  # of smaller windows, too
    message = decoder.decompress(bytes(data) + _SYNC_TAIL + _LAST_BLOCK, most + 1)
    if not decoder.eof and len(message) <= most:
        raise zlib.error("a compressed message is cut off")
    return message


class CompressedMessages(Extension):
    """Tells the core of the ``websockets`` library that a message may be compressed.

    Attributes:
        compressed: Whether the last message that began is.
    """

    name = _factory.name
    compressed = False

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Take note of the bit and clear it; set in any other frame it remains a fault (section 6)."""
        del max_size
        if frame.opcode in (OP_TEXT, OP_BINARY):
            self.compressed, frame.rsv1 = frame.rsv1, False
        return frame

    def encode(self, frame: Frame) -> Frame:
        """Of what is sent the core sees control frames alone, which are never compressed."""
        return frame
