"""The WebSocket transport: from an HTTP request to a socket, and its frames until it ends."""

import asyncio
from typing import Final

import structlog
from aiohttp import WSMsgType, hdrs, web

from gateway.hub.turnstile import Turnstile
from gateway.protocol.reasons import CloseCode
from gateway.transport.connection import Connection
from gateway.transport.endpoint import Endpoint
from gateway.transport.framing import close_frame
from gateway.transport.handshake import Handshake, Refused, describe
from gateway.transport.peer import PeerAddress
from gateway.transport.rate import RateLimit

PATH: Final = "/socket/websocket"

RETRY_AFTER_SECONDS: Final = 5

FRAMES_PER_TURN: Final = 64
"""
Frames of one socket handled before other sockets get a turn.

Frames that arrived together are handed over without a wait in between, so a client that sends
thousands at once would hold up the event loop.
"""

HANDSHAKES_PER_TURN: Final = 32
"""Handshakes in one turn of the event loop: some 8 ms of work."""

ENDS_PER_TURN: Final = 64
"""Sockets that end in one turn: some 3 ms of work, where a load balancer or a network took all with it."""

_log = structlog.get_logger(__name__)
_COUNTED_CLOSES: Final = frozenset({1000, 1001, 1002, 1005, 1006, 1007, 1009, 1011, *CloseCode})


class WebSocketTransport:
    """Serves ``/socket/websocket``."""

    def __init__(self, endpoint: Endpoint, handshake: Handshake, peers: PeerAddress) -> None:
        self._endpoint = endpoint
        self._handshake = handshake
        self._peers = peers
        self._entrance = Turnstile(HANDSHAKES_PER_TURN)
        self._exit = Turnstile(ENDS_PER_TURN)

    def routes(self) -> list[web.RouteDef]:
        """The transport's routes; with a trailing slash too, as phoenix.js users write it."""
        return [web.route("*", path, self.serve) for path in (PATH, f"{PATH}/")]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Handle one request, for the whole life of its socket."""
        metrics = self._endpoint.metrics
        await self._entrance.passed()
        try:
            # HTTP methods first: whatever the state of the gateway, a POST is no handshake.
            if request.method == hdrs.METH_GET and (busy := self._endpoint.refusal()):
                raise Refused(503, busy)
            session = self._endpoint.new_id()
            accepted = await self._handshake.check(request, session)
            if busy := self._endpoint.refusal():  # the checks may have waited, for the backend say
                raise Refused(503, busy)
            ws = web.WebSocketResponse(
                autoclose=False,
                autoping=False,
                compress=False,
                max_msg_size=self._endpoint.limits.max_message_bytes,
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
            metrics.connects.labels("refused", refused.reason).inc()
            _log.info("connect refused", reason=refused.reason, ip=self._address(request))
            headers = (
                {hdrs.RETRY_AFTER: str(RETRY_AFTER_SECONDS)} if refused.status == 503 else None
            )
            return web.Response(status=refused.status, headers=headers)
        metrics.connects.labels("ok", "").inc()
        transport = request.transport
        if transport is not None:  # else it went away just now
            connection = Connection(
                self._endpoint,
                transport,
                accepted.encoding,
                accepted.claims,
                describe(request, accepted, self._address(request)),
                id=session,
                state=accepted.state,
            )
            await self._run(connection, ws, transport)
        return ws

    async def _run(
        self, connection: Connection, ws: web.WebSocketResponse, transport: asyncio.Transport
    ) -> None:
        endpoint = self._endpoint
        endpoint.add(connection, "websocket")
        code: int = CloseCode.INTERNAL_ERROR
        try:
            code = await self._read(connection, ws, transport)
            await self._exit.passed()
        except Exception:  # noqa: BLE001 -- top of this task: logged, and the client is told
            _log.exception("socket crashed")
            connection.close(CloseCode.INTERNAL_ERROR)
        finally:
            connection.release()
            endpoint.remove(connection, "websocket")
            code = connection.close_code or code
            label = str(code) if code in _COUNTED_CLOSES else "other"
            endpoint.metrics.disconnects.labels(label).inc()
            # Flushes what was written, the close frame included, then ends the TCP connection; aiohttp
            # would otherwise send a close frame of its own.
            transport.close()
            connection.cut_off_later()

    async def _read(
        self, connection: Connection, ws: web.WebSocketResponse, transport: asyncio.Transport
    ) -> int:
        """Handle frames until the socket ends; returns its close code."""
        endpoint = self._endpoint
        received = endpoint.metrics.messages_received.inc
        clock = endpoint.clock
        rate = RateLimit(endpoint.limits.messages_per_second, clock())
        frames = 0
        while True:
            message = await ws.receive()
            kind = message.type
            if kind is WSMsgType.CLOSE:
                if connection.close_code is None and not transport.is_closing():
                    transport.write(close_frame(CloseCode.NORMAL))
                return int(message.data or 1005)
            if kind in (WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR):
                return ws.close_code or 1006
            if connection.close_code is not None:
                continue  # sent before the client saw the close frame
            connection.heard_at = now = clock()
            if kind is WSMsgType.PING:
                connection.pong(bytes(message.data))
            elif kind in (WSMsgType.TEXT, WSMsgType.BINARY):
                received()
                await connection.receive(message.data)
            if connection.buffered() > endpoint.limits.outbound_buffer_bytes:
                connection.overflowed()  # replies and pongs pile up too, if nobody reads them
            frames += 1
            if pause := rate.spend(now):
                await asyncio.sleep(pause)
                connection.heard_at = clock()  # who is made to wait is not idle
            elif frames % FRAMES_PER_TURN == 0:
                await asyncio.sleep(0)

    def _address(self, request: web.Request) -> str:
        forwarded = request.headers.getall("X-Forwarded-For", ())
        return self._peers.resolve(request.remote, forwarded)
