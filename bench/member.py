"""One client of the scenario ``presence``, its socket left out."""

from typing import Final

from bench.wire import PING, PONG, TEXT, LoadError, head, masked

_HEAD_BYTES: Final = 10
_REF: Final = b'"phx_ref":'


class Member:
    """One client.

    Attributes:
        stream: All frames it was sent, if it is to be examined in the end; else None.
        handshake: What came of the answer to its upgrade; None once it is a WebSocket.
        messages: How many text messages came.
        refs: How many metas it was told of.
        started_at: When it connected, monotonic seconds.
        joined_at: When its first message came.
    """

    def __init__(self, number: int, now: float, *, examined: bool) -> None:
        self.number = number
        self.stream: bytearray | None = bytearray() if examined else None
        self.handshake: bytes | None = b""
        self.messages = 0
        self.refs = 0
        self.started_at = now
        self.joined_at = 0.0
        self._rest = b""  # a frame that is not all there, as far as it is needed
        self._skip = 0  # bytes to come of a payload that nobody looks at
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        """Take what came after the handshake; returns frames to answer with."""
        if self.stream is not None:
            self.stream += data
        seen = self._tail + data
        self.refs += seen.count(_REF)
        self._tail = seen[1 - len(_REF) :]
        if self._rest:
            data = self._rest + data
        position, answers = self._skip, b""
        while position < len(data):
            found = head(data[position : position + _HEAD_BYTES])
            if found is None:
                break
            opcode, start, length = found
            end = position + start + length
            if opcode == TEXT:
                self.messages += 1
            elif opcode != PING:
                raise LoadError(f"unexpected frame {opcode}: {data[position:end][:200]!r}")
            elif end > len(data):
                break
            else:
                answers += masked(PONG, data[position + start : end])
            position = end
        self._rest = data[position:]
        self._skip = max(0, position - len(data))
        return answers
