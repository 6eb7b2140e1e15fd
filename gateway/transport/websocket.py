"""The WebSocket transport: from an HTTP request to a socket, and its frames until it ends."""

import asyncio
from functools import partial
from typing import Final

import structlog
from aiohttp import WSMsgType, web

from gateway.channels.connection import Connection
from gateway.channels.connections import Connections
from gateway.channels.encoding import Carrier, encodings
from gateway.channels.services import Services
from gateway.hub.turnstile import Turnstile
from gateway.protocol.reasons import CloseCode
from gateway.transport.entrance import Entrance
from gateway.transport.framing import BINARY, PONG, TEXT, close_frame, frame
from gateway.transport.handshake import Handshake, Refused
from gateway.transport.rate import RateLimit

PATH: Final = "/socket/websocket"

FRAMES_PER_TURN: Final = 64
"""
Frames of one socket handled before other sockets get a turn.

Frames that arrived together are handed over without a wait in between, so a client that sends
thousands at once would hold up the event loop.
"""

ENDS_PER_TURN: Final = 64
"""Sockets that end in one turn: some 3 ms of work, where a load balancer or a network took all with it."""

WEBSOCKET_ENCODINGS: Final = encodings(
    Carrier("websocket", partial(frame, TEXT), partial(frame, BINARY), close_frame)
)

_log = structlog.get_logger(__name__)
_ENDS: Final = frozenset({WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR})
_COUNTED_CLOSES: Final = frozenset({1000, 1001, 1002, 1005, 1006, 1007, 1009, 1011, *CloseCode})


class WebSocketTransport:
    """Serves ``/socket/websocket``."""

    def __init__(
        self,
        services: Services,
        connections: Connections,
        handshake: Handshake,
        entrance: Entrance,
    ) -> None:
        self._services = services
        self._connections = connections
        self._handshake = handshake
        self._entrance = entrance
        self._exit = Turnstile(ENDS_PER_TURN)

    def routes(self) -> list[web.RouteDef]:
        """The transport's routes; with a trailing slash too, as phoenix.js users write it."""
        return [web.route("*", path, self.serve) for path in (PATH, f"{PATH}/")]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Handle one request, for the whole life of its socket."""
        try:
            session, accepted = await self._entrance.admit(request, self._handshake.websocket)
            ws = web.WebSocketResponse(
                autoclose=False,
                autoping=False,
                compress=False,
                max_msg_size=self._services.limits.max_message_bytes,
                protocols=(accepted.subprotocol,) if accepted.subprotocol else (),
            )
            try:
                await ws.prepare(request)
            except web.HTTPBadRequest:
                raise Refused(400, "no_upgrade") from None
            except ConnectionResetError:
                # The client went away during the handshake. This gets to nobody, and aiohttp takes that
                # well; of a half-made WebSocketResponse it would complain.
                return web.Response()
        except Refused as refused:
            headers = self._entrance.refused(request, refused)
            return web.Response(status=refused.status, headers=headers)
        origin = self._entrance.welcome(request, accepted)
        transport = request.transport
        if transport is not None:  # else it went away just now
            connection = Connection(
                self._services,
                transport,
                accepted.encoding,
                accepted.claims,
                origin,
                id=session,
                state=accepted.state,
                idle_seconds=self._services.limits.idle_timeout_seconds,
            )
            await self._run(connection, ws, transport)
        return ws

    async def _run(
        self, connection: Connection, ws: web.WebSocketResponse, transport: asyncio.Transport
    ) -> None:
        self._connections.add(connection, "websocket")
        code: int = CloseCode.INTERNAL_ERROR
        try:
            code = await self._read(connection, ws, transport)
        except Exception:  # noqa: BLE001 -- top of this task: logged, and the client is told
            _log.exception("socket crashed")
            connection.close(CloseCode.INTERNAL_ERROR)
        finally:
            connection.release()
            self._connections.remove(connection, "websocket")
            code = connection.close_code or code
            label = str(code) if code in _COUNTED_CLOSES else "other"
            self._services.metrics.disconnects.labels(label).inc()
            # Flushes what was written, the close frame included, then ends the TCP connection; aiohttp
            # would otherwise send a close frame of its own.
            transport.close()
            connection.cut_off_later()

    async def _read(
        self, connection: Connection, ws: web.WebSocketResponse, transport: asyncio.Transport
    ) -> int:
        """Handle frames until the socket ends; returns its close code."""
        services = self._services
        received = services.metrics.messages_received.inc
        clock = services.clock
        rate = RateLimit(services.limits.messages_per_second, clock())
        frames = 0
        while True:
            message = await ws.receive()
            kind = message.type
            if kind in _ENDS:
                # before a close frame is answered: the socket is a member until then, and is sent messages
                await self._exit.passed()
            if kind is WSMsgType.CLOSE:
                if connection.close_code is None and not transport.is_closing():
                    transport.write(close_frame(CloseCode.NORMAL))
                return int(message.data or 1005)
            if kind in _ENDS:
                return ws.close_code or 1006
            if connection.close_code is not None:
                continue  # sent before the client saw the close frame
            connection.heard_at = now = clock()
            if kind is WSMsgType.PING:
                connection.send(frame(PONG, bytes(message.data)))
            elif kind in (WSMsgType.TEXT, WSMsgType.BINARY):
                received()
                connection.receive(message.data)
            if connection.buffered() > services.limits.outbound_buffer_bytes:
                connection.overflowed()  # replies and pongs pile up too, if nobody reads them
            frames += 1
            if pause := rate.spend(now):
                await asyncio.sleep(pause)
                connection.heard_at = clock()  # who is made to wait is not idle
            elif frames % FRAMES_PER_TURN == 0:
                await asyncio.sleep(0)
