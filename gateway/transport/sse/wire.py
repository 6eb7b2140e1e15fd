"""Chunks of an HTTP/1.1 answer that goes on and on (RFC 9112, section 7.1)."""

from typing import Final

from gateway.protocol.sse import complete
from gateway.transport.wire import SocketWire

LAST_CHUNK: Final = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Some data as a chunk; none at all is no chunk, as that would be the last."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class SeveralTopicsWire:
    """The sending side of a stream with several topics, whose ids have a part that is its own."""

    __slots__ = ("_places", "_wire")

    def __init__(self, wire: SocketWire) -> None:
        self._wire = wire
        self._places: dict[bytes, bytes] = {}

    @property
    def clear(self) -> bool:
        return self._wire.clear

    def write(self, data: bytes) -> None:
        """Take events of one topic, or of none."""
        self._wire.write(chunk(complete(data, self._places)))

    def get_write_buffer_size(self) -> int:
        return self._wire.get_write_buffer_size()

    def is_closing(self) -> bool:
        return self._wire.is_closing()

    def abort(self) -> None:
        self._wire.abort()
