"""The WebSocket transport: answers a handshake, then takes the connection over from aiohttp."""

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from gateway.channels.connection import Connection
from gateway.channels.connections import Connections
from gateway.channels.services import Services
from gateway.pacer import Pacer
from gateway.sessions.client import Origin
from gateway.transport.backlog import Backlog
from gateway.transport.entrance import Entrance
from gateway.transport.handshake import Accepted, Handshake, Refused
from gateway.transport.listener import Descriptors
from gateway.transport.request import HandshakeRequest, UpgradeRequest
from gateway.transport.takeover import ANSWERED, take_over
from gateway.transport.websocket import ENDS_PER_TURN, NAME, WebSocket
from gateway.transport.wire import SocketWire

PATHS: Final = tuple(
    f"/socket{slashes}websocket{end}" for slashes in ("/", "//") for end in ("", "/")
)
"""As clients write it: some put a slash at the end of it, or of the socket's URL before they add the rest."""

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


class WebSocketTransport:
    """Serves ``/socket/websocket``."""

    def __init__(
        self,
        services: Services,
        connections: Connections,
        handshake: Handshake,
        entrance: Entrance,
        descriptors: Descriptors,
    ) -> None:
        self._services = services
        self._connections = connections
        self._handshake = handshake
        self._entrance = entrance
        self._descriptors = descriptors
        self._backlog = Backlog(services.clock)
        self._ends = Pacer(ENDS_PER_TURN)

    def routes(self) -> list[web.RouteDef]:
        """The transport's routes."""
        return [web.route("*", path, self.serve) for path in PATHS]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a handshake, after which aiohttp has nothing more to do with the connection."""
        try:
            session, accepted = await self._entrance.admit(request, self._handshake.websocket)
        except Refused as refused:
            headers = self._entrance.refused(request, refused)
            return web.Response(status=refused.status, headers=headers)
        origin = self._entrance.welcome(request, accepted)
        transport = request.transport
        if transport is None:  # it went away just now
            return ANSWERED
        behind = take_over(request)
        self._descriptors.open += 1
        self._open(request, transport, session, accepted, origin).data_received(behind)
        return ANSWERED

    async def answer(
        self, request: UpgradeRequest, transport: asyncio.Transport
    ) -> WebSocket | None:
        """The same for a request that aiohttp never sees; returns its socket, if one came of it."""
        await self._entrance.turn()
        try:
            session, accepted = await self._entrance.admit(request, self._handshake.websocket)
        except Refused as refused:
            headers = {**self._entrance.refused(request, refused), hdrs.CONTENT_LENGTH: "0"}
            if not transport.is_closing():  # else it went away meanwhile
                transport.write(_head(refused.status, headers))
            return None
        origin = self._entrance.welcome(request, accepted)
        if transport.is_closing():
            return None
        return self._open(request, transport, session, accepted, origin)

    def _open(
        self,
        request: HandshakeRequest,
        transport: asyncio.Transport,
        session: str,
        accepted: Accepted,
        origin: Origin,
    ) -> WebSocket:
        """Answer a client that is let in, and have its socket serve the connection from now on."""
        wire = SocketWire(transport)
        wire.write(_switching_protocols(request, accepted))
        connection = Connection(
            self._services,
            wire,
            accepted.encoding,
            accepted.claims,
            origin,
            id=session,
            state=accepted.state,
            idle_seconds=self._services.limits.idle_timeout_seconds,
        )
        socket = WebSocket(
            self._services,
            self._connections,
            connection,
            wire,
            backlog=self._backlog,
            ends=self._ends,
            descriptors=self._descriptors,
            inflates=bool(accepted.extension),
        )
        transport.set_protocol(socket)
        self._connections.add(connection, NAME)
        return socket


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    """The answer to a request that is refused, without a body."""
    date = formatdate(usegmt=True)
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"{hdrs.DATE}: {date}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def _switching_protocols(request: HandshakeRequest, accepted: Accepted) -> bytes:
    """The answer to a handshake (RFC 6455 section 4.2.2)."""
    key = request.headers[hdrs.SEC_WEBSOCKET_KEY].strip().encode()
    digest = hashlib.sha1(key + _GUID, usedforsecurity=False).digest()
    protocol, extension = accepted.subprotocol, accepted.extension
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n%b%b\r\n"
    ) % (
        base64.b64encode(digest),
        b"Sec-WebSocket-Protocol: %b\r\n" % protocol.encode() if protocol else b"",
        b"Sec-WebSocket-Extensions: %b\r\n" % extension.encode() if extension else b"",
    )
