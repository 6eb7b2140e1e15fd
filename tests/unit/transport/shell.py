"""A WebSocket's surroundings: a transport, the socket's logic and its replica, all in memory."""

import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

from gateway.metrics import Metrics
from gateway.pacer import Pacer
from gateway.protocol.reasons import CloseCode
from gateway.transport.backlog import Backlog
from gateway.transport.framing import CLOSE, close_frame
from gateway.transport.listener import Descriptors
from gateway.transport.websocket import ENDS_PER_TURN, WebSocket
from gateway.transport.wire import SocketWire

Answer = Callable[[str | bytes], None]

CONTINUATION: Final = 0x0
PING: Final = 0x9
PONG: Final = 0xA
MAX_BYTES: Final = 1000
OUTBOUND_BYTES: Final = 5000
MOST_DESCRIPTORS: Final = 12
KEY: Final = b"\x01\x9f\x00\xfe"


def client_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = True,
    length_form: int = 0,
    length: int | None = None,
) -> bytes:
    """A frame as a client sends it.

    Args:
        reserved: The three reserved bits.
        length_form: 126 or 127 for that form of the length, whether or not it is needed.
        length: What it says its length is, where that is not so.
    """
    size = len(payload) if length is None else length
    form = max(length_form, 127 if size > 0xFFFF else 126 if size > 125 else 0)
    mask = 0x80 if masked else 0
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    if form == 127:
        head = struct.pack("!BBQ", first, mask | 127, size)
    elif form == 126:
        head = struct.pack("!BBH", first, mask | 126, size)
    else:
        head = bytes((first, mask | size))
    if not masked:
        return head + payload
    return head + KEY + bytes(byte ^ KEY[n % 4] for n, byte in enumerate(payload))


def client_close(code: int, reason: bytes = b"") -> bytes:
    """A close frame as a client sends it."""
    return client_frame(CLOSE, struct.pack("!H", code) + reason)


class FakeTransport:
    """Remembers what was written, and whether it is read from."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.waiting = 0
        self.reading = True
        self.pauses = 0
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def get_extra_info(self, _: str) -> None:
        """There is no descriptor."""

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        assert self.reading, "it is paused already"
        self.reading = False
        self.pauses += 1

    def resume_reading(self) -> None:
        assert not self.reading, "it is not paused"
        self.reading = True


class FakeConnection:
    """The logic of a socket: remembers messages and does with each what the test wants."""

    def __init__(self, transport: FakeTransport) -> None:
        self.transport = transport
        self.close_code: CloseCode | None = None
        self.heard_at = 0.0
        self.messages: list[str | bytes] = []
        self.answer: Answer = lambda _: None
        self.released = 0
        self.cut_off = False
        self.buffered = transport.get_write_buffer_size

    def receive(self, data: str | bytes) -> None:
        self.messages.append(data)
        self.answer(data)

    def send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def close(self, code: CloseCode) -> None:
        if self.close_code is None and not self.transport.is_closing():
            self.close_code = code
            self.release()
            self.send(close_frame(code))

    def overflowed(self) -> None:
        self.close(CloseCode.TRY_AGAIN_LATER)

    def release(self) -> None:
        self.released += 1

    def cut_off_later(self) -> None:
        self.cut_off = True


class FakeReplica:
    """As much of a replica as a socket needs: the services and the list of connections."""

    def __init__(self, *, messages_per_second: int = 0) -> None:
        self.metrics = Metrics()
        self.now = 100.0
        self.limits = SimpleNamespace(
            max_message_bytes=MAX_BYTES,
            messages_per_second=messages_per_second,
            outbound_buffer_bytes=OUTBOUND_BYTES,
        )
        self.removed: list[Any] = []
        self.backlog = Backlog(self.clock)
        self.ends = Pacer(ENDS_PER_TURN)
        self.descriptors = Descriptors(MOST_DESCRIPTORS, self.metrics)

    def clock(self) -> float:
        return self.now

    def add(self, _: Any, transport: str) -> None:
        assert transport == "websocket"

    def remove(self, connection: Any, transport: str) -> None:
        assert transport == "websocket"
        self.removed.append(connection)

    def disconnects(self) -> dict[str, float]:
        """Sockets that ended, by code."""
        return {
            sample.labels["code"]: sample.value
            for metric in self.metrics.disconnects.collect()
            for sample in metric.samples
            if sample.name.endswith("_total") and sample.value
        }


class Shell:
    """One socket with all that is around it."""

    def __init__(self, replica: FakeReplica | None = None, *, inflates: bool = False) -> None:
        self.replica = replica or FakeReplica()
        self.transport = FakeTransport()
        self.connection = FakeConnection(self.transport)
        its: Any = self.replica
        connection: Any = self.connection
        transport: Any = self.transport
        self.socket = WebSocket(
            its,
            its,
            connection,
            SocketWire(transport),
            backlog=self.replica.backlog,
            ends=self.replica.ends,
            descriptors=self.replica.descriptors,
            inflates=inflates,
        )

    def feed(self, *data: bytes) -> None:
        """Have bytes arrive."""
        self.socket.data_received(b"".join(data))

    @property
    def sent(self) -> bytes:
        """All that was written."""
        return b"".join(self.transport.written)

    @property
    def ended(self) -> bool:
        """Whether the replica has taken it off its list, once."""
        assert self.replica.removed.count(self.connection) <= 1
        return self.connection in self.replica.removed
