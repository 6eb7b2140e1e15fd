"""One open WebSocket after its handshake: reads its client's frames until it ends."""

import asyncio
import logging
import zlib
from functools import partial
from typing import Final

import structlog
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

from gateway.channels.connection import ENDS, Connection
from gateway.channels.connections import Connections
from gateway.channels.encoding import Carrier, Encodings, encodings
from gateway.channels.services import Services
from gateway.log import teardown
from gateway.pacer import Pacer
from gateway.protocol.reasons import CloseCode
from gateway.transport.backlog import FRAME_COST, Backlog
from gateway.transport.compression import CompressedMessages, Deflater, inflate
from gateway.transport.framing import (
    BINARY,
    CLOSE,
    MAX_CONTROL_BYTES,
    TEXT,
    Fragments,
    client_frame_size,
    close_frame,
    frame,
    whole_message,
)
from gateway.transport.listener import Descriptors
from gateway.transport.rate import RateLimit
from gateway.transport.wire import SocketWire

NAME: Final = "websocket"
"""What the transport is called in metrics."""

_CARRIER: Final = Carrier(NAME, partial(frame, TEXT), partial(frame, BINARY), close_frame)

WEBSOCKET_ENCODINGS: Final = encodings(_CARRIER)


def compressed_encodings(compress: Deflater) -> Encodings:
    """The forms for sockets that agreed to compression."""
    return encodings(_CARRIER._replace(compress=compress))


ENDS_PER_TURN: Final = 64
"""Sockets that end in one turn: some 3 ms of work, where a load balancer or a network took all with it."""

_log = structlog.get_logger(__name__)
_library_log = logging.getLogger("websockets")
_NO_CODE: Final = 1006
"""What is counted where no close frame was sent or received (RFC 6455 section 7.1.5)."""

_COUNTED_CLOSES: Final = frozenset({1000, 1001, 1005, _NO_CODE, *CloseCode})


class WebSocket(asyncio.Protocol):
    """A connection after its handshake.

    A message that comes whole in one frame is read at once. Everything else is handed to the sans-I/O core of
    the ``websockets`` library, which also finds what is wrong with a frame. Most sockets never have a core,
    which saves 1.1 KiB a socket and 3 µs a message.

    Args:
        wire: What all that the gateway sends goes to.
        backlog: Shares the reading among all sockets.
        ends: Lets sockets end, some in each turn of the event loop.
        descriptors: Told when this one's TCP connection is gone.
        inflates: Whether the client may compress its messages.
    """

    __slots__ = (
        "_backlog",
        "_connection",
        "_connections",
        "_core",
        "_descriptors",
        "_ended",
        "_ends",
        "_fragments",
        "_inflated",
        "_inflates",
        "_missing",
        "_opcode",
        "_paused",
        "_pending",
        "_rate",
        "_services",
        "_transport",
        "_wire",
    )

    def __init__(
        self,
        services: Services,
        connections: Connections,
        connection: Connection,
        wire: SocketWire,
        *,
        backlog: Backlog,
        ends: Pacer,
        descriptors: Descriptors,
        inflates: bool = False,
    ) -> None:
        limits = services.limits
        self._services = services
        self._connections = connections
        self._connection = connection
        self._transport = wire.transport
        self._wire = wire
        self._backlog = backlog
        self._ends = ends
        self._descriptors = descriptors
        self._inflates = inflates
        self._inflated = 0  # bytes that the frame at hand came to
        self._core: Protocol | None = None
        self._rate: RateLimit | None = None
        if limits.messages_per_second:
            self._rate = RateLimit(limits.messages_per_second, services.clock())
        self._pending = b""  # what has to wait, or is too little of a frame to tell its size
        self._missing = 0  # bytes of the frame under way that are still to come
        self._opcode = 0  # of that frame
        self._fragments: Fragments | None = None
        self._paused = False
        self._ended = False

    def data_received(self, data: bytes) -> None:
        self._pending = self._pending + data if self._pending else data
        if not self._paused:
            self._begin()

    def resume_writing(self) -> None:
        self._wire.resumed()

    def connection_lost(self, _: Exception | None) -> None:
        self._wire.lost()
        self._descriptors.open -= 1
        self._pending = b""
        if not self._ended:
            self._ends.call(partial(self._end, _NO_CODE))

    def _begin(self) -> None:
        """Read what came, as far as this turn of the event loop allows; the rest when its turn has come."""
        if self._read(self._backlog.left):
            self._backlog.add(self._read)

    def _read(self, most: int) -> bool:
        """Go through what came, frame by frame; reading is paused while some of it has to wait.

        Args:
            most: What the frames may cost, after the first.

        Returns:
            Whether it has to wait for its turn, and for nothing else.
        """
        data, at, cost, go_on = self._pending, 0, 0, True
        spent = False
        while go_on and not spent and at < len(data):
            whole = False
            if not self._missing:
                self._missing = client_frame_size(data, at)
                if not self._missing:
                    break
                self._opcode = data[at] & 0x0F
                whole = at + self._missing <= len(data)
            piece = data[at : at + self._missing]
            at += len(piece)
            self._missing -= len(piece)
            try:
                go_on = self._take(piece, whole=whole)
            except Exception as problem:  # noqa: BLE001 -- top of what is done for this socket
                _log.error("socket crashed", exc_info=problem, throttle="")
                self._fail(CloseCode.INTERNAL_ERROR)
            cost += len(piece) if self._missing else len(piece) + FRAME_COST
            if self._inflated:  # that cost as much as if it had come so
                cost += self._inflated
                self._inflated = 0
            # With a part of a frame, too: the rest may be in the kernel, and be read in the same turn.
            spent = cost >= most and (at < len(data) or self._missing > 0)
        self._backlog.spend(cost)
        self._pending = data[at:]
        spent = spent and go_on
        paused = spent or not go_on
        if self._paused != paused:
            self._paused = paused
            if not self._transport.is_closing():
                change = self._transport.pause_reading if paused else self._transport.resume_reading
                change()
        return spent

    def _take(self, piece: bytes, *, whole: bool) -> bool:
        """Handle a frame or a part of one; False if what follows must wait, and is seen to then."""
        if self._ended or self._connection.close_code is not None:
            if self._missing or self._opcode != CLOSE:
                return True  # after a close frame of ours, only that of the client matters
            self._ends.call(partial(self._part, _NO_CODE))
            return False
        if whole and self._fragments is None:
            if (data := whole_message(piece)) is not None:
                return self._message(data, is_text=self._opcode == TEXT)
            if self._inflates and (data := whole_message(piece, compressed=True)) is not None:
                return self._compressed(data, is_text=self._opcode == TEXT)
        return self._feed(piece)

    def _feed(self, piece: bytes) -> bool:
        core = self._core
        if core is None:
            # The library holds control frames too against what a message under way may still have.
            most = self._services.limits.max_message_bytes + MAX_CONTROL_BYTES
            core = self._core = Protocol(Side.SERVER, max_size=most, logger=_library_log)
            if self._inflates:
                core.extensions.append(CompressedMessages())
        core.receive_data(piece)
        if core.close_expected():
            if core.close_rcvd is not None:
                # It is a member until its turn has come, and is sent messages: only then is it answered.
                self._ends.call(partial(self._part, core.close_rcvd.code))
                return False
            assert core.close_sent is not None  # noqa: S101 -- else it would not expect a close
            return self._fail(CloseCode(core.close_sent.code))
        for event in core.events_received():  # one at most, as it gets one frame at a time
            assert isinstance(event, Frame)  # noqa: S101 -- as all events are after the handshake
            if event.opcode not in (Opcode.PING, Opcode.PONG):
                return self._data(event)
            self._connection.heard_at = self._services.clock()
            for pong in core.data_to_send():
                self._connection.send(pong)
            return self._may_go_on()
        return True

    def _data(self, part: Frame) -> bool:
        """A message, or a part of one."""
        fragments = self._fragments
        if fragments is None:
            is_text = part.opcode is Opcode.TEXT
            if part.fin:
                return self._assembled(part.data, is_text=is_text)
            fragments = self._fragments = Fragments(is_text=is_text)
        if not fragments.add(part.data, self._services.limits.max_message_bytes):
            return self._fail(CloseCode.TOO_BIG)
        if not part.fin:
            self._connection.heard_at = self._services.clock()
            return True
        self._fragments = None
        return self._assembled(fragments.data, is_text=fragments.is_text)

    def _assembled(self, data: bytes | bytearray | memoryview, *, is_text: bool) -> bool:
        """A message that came by way of the core."""
        extensions = () if self._core is None else self._core.extensions
        if any(isinstance(each, CompressedMessages) and each.compressed for each in extensions):
            return self._compressed(data, is_text=is_text)
        return self._message(data, is_text=is_text)

    def _compressed(self, data: bytes | bytearray | memoryview, *, is_text: bool) -> bool:
        most = self._services.limits.max_message_bytes
        if len(data) > most:
            return self._fail(CloseCode.TOO_BIG)
        try:
            message = inflate(data, most)
        except zlib.error:
            return self._fail(CloseCode.INVALID_DATA)
        self._inflated += len(message)
        return self._message(message, is_text=is_text)

    def _message(self, data: bytes | bytearray | memoryview, *, is_text: bool) -> bool:
        if len(data) > self._services.limits.max_message_bytes:
            return self._fail(CloseCode.TOO_BIG)
        try:
            message = str(data, "utf-8") if is_text else bytes(data)
        except UnicodeDecodeError:
            return self._fail(CloseCode.INVALID_DATA)
        services, connection = self._services, self._connection
        services.metrics.messages_received.inc()
        connection.heard_at = services.clock()
        connection.receive(message)
        return self._may_go_on()

    def _may_go_on(self) -> bool:
        """Apply the socket's limits; False if it has to wait."""
        connection, services = self._connection, self._services
        if connection.buffered() > services.limits.outbound_buffer_bytes:
            connection.overflowed()  # replies and pongs pile up too, if nobody reads them
        if self._rate is not None and (pause := self._rate.spend(connection.heard_at)):
            asyncio.get_running_loop().call_later(pause, self._rested)
            return False
        return True

    def _rested(self) -> None:
        self._connection.heard_at = self._services.clock()  # who is made to wait is not idle
        self._begin()

    def _fail(self, code: CloseCode) -> bool:
        """Fail the connection (RFC 6455 section 7.1.7).

        It is over at once, but what the client sent and goes on sending is taken for a while: a TCP
        connection closed before that could lose the close frame on its way.
        """
        try:
            self._connection.close(code)
        finally:
            self._end(_NO_CODE)
        return True

    def _part(self, code: int) -> None:
        """The client's close frame came and, if it is the first, is answered: nothing is left to say."""
        connection, wire = self._connection, self._wire
        if not wire.is_closing():
            if connection.close_code is None:
                wire.write(close_frame(CloseCode.NORMAL))
            wire.close()
        self._end(code)
        connection.cut_off_later()  # who closes and reads nothing would keep what was written to it

    def _end(self, code: int) -> None:
        """The socket is no member any more. Idempotent.

        Args:
            code: Of the client's close frame; one of the gateway's counts before it.
        """
        if self._ended:
            return
        self._ended = True
        connection = self._connection
        teardown(ENDS, connection.release, partial(self._connections.remove, connection, NAME))
        code = self._connection.close_code or code
        label = str(code) if code in _COUNTED_CLOSES else "other"
        self._services.metrics.disconnects.labels(label).inc()
