"""A connection of the public listener until its first request: for a WebSocket, or for aiohttp."""

import asyncio
from collections.abc import Callable
from typing import Final, cast

import structlog

from gateway.transport.listener import Descriptors
from gateway.transport.request import UpgradeRequest, read
from gateway.transport.upgrade import WebSocketTransport

BEHIND_BYTES: Final = 65_536
"""What may come behind a request that waits for its answer before no more is read."""

_CRASHED: Final = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)

_log = structlog.get_logger(__name__)


class Arrival(asyncio.Protocol):
    """Reads the first bytes; then a WebSocket or an HTTP handler of aiohttp takes the connection over.

    Most that connect ask for a WebSocket and for nothing else, which costs a third of what it does by way of
    aiohttp. It gets whatever is not the plain form of that request, with all bytes there are.

    Args:
        here: All that are in this state; this one is among them while it is.
        http: Makes a handler.
        most: Bytes a request may have.
        seconds: How long the first bytes may take to come.
    """

    __slots__ = (
        "_behind",
        "_descriptors",
        "_here",
        "_http",
        "_most",
        "_sockets",
        "_task",
        "_timer",
        "_transport",
    )

    def __init__(
        self,
        sockets: WebSocketTransport,
        here: "set[Arrival]",
        http: Callable[[], asyncio.Protocol],
        *,
        descriptors: Descriptors,
        most: int,
        seconds: float,
    ) -> None:
        self._sockets = sockets
        self._here = here
        self._http = http
        self._descriptors = descriptors
        self._most = most
        self._behind = b""
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(seconds, self.close)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its type
        self._descriptors.open += 1
        self._here.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._gone()

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        assert transport is not None  # noqa: S101 -- it is what they come from
        if self._task is not None:
            self._behind += data
            if len(self._behind) > BEHIND_BYTES:
                transport.pause_reading()
            return
        self._timer.cancel()
        peer = transport.get_extra_info("peername")
        request = read(data, self._most, peer[0] if peer else None)
        if request is None:
            self._leave_to_http(transport, data)
        else:
            self._behind = data[request.size :]
            self._task = asyncio.create_task(self._serve(transport, request))

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    async def _serve(self, transport: asyncio.Transport, request: UpgradeRequest) -> None:
        try:
            socket = await self._sockets.answer(request, transport)
        except Exception:  # noqa: BLE001 -- top of this task
            _log.exception("handshake crashed", throttle="")
            if self._transport is not None:
                transport.write(_CRASHED)
                transport.close()
            return
        if self._transport is None:
            return  # it went away
        if socket is None:
            self._leave_to_http(transport, self._behind)  # for another request, perhaps
        else:
            self._gone()
            self._descriptors.open += 1  # the socket's
            transport.resume_reading()
            socket.data_received(self._behind)

    def _leave_to_http(self, transport: asyncio.Transport, data: bytes) -> None:
        self._gone()
        handler = self._http()
        transport.set_protocol(handler)
        handler.connection_made(transport)
        transport.resume_reading()
        handler.data_received(data)

    def _gone(self) -> None:
        """Have nothing to do with the connection any more."""
        self._descriptors.open -= 1
        self._here.discard(self)
        self._timer.cancel()
        self._transport = None
        self._task = None
