"""Lets new clients in or refuses them, over any transport: limits, handshake, log line and metric."""

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from gateway.channels.connections import Connections
from gateway.metrics import Metrics
from gateway.pacer import Pacer
from gateway.sessions.client import Origin
from gateway.transport.handshake import ORIGIN, Accepted, Refused, describe
from gateway.transport.peer import PeerAddress
from gateway.transport.request import HandshakeRequest

RETRY_AFTER_SECONDS: Final = 5

REQUESTS_PER_TURN: Final = 4
"""Requests of all clients in one turn of the event loop, handshakes among them: some 2 ms of work."""

BAD_REQUEST: Final = "bad_request"
"""Reason, in metric and log, where a request was none or had too long a header."""

LOGGED_CHARACTERS: Final = 200
"""Of what a client sends, so much is logged at most."""

Check = Callable[[HandshakeRequest, str], Awaitable[Accepted]]
"""A transport's handshake, given the request and the id its socket will have."""

_log = structlog.get_logger(__name__)


class Entrance:
    """One for all transports of a replica."""

    def __init__(self, connections: Connections, peers: PeerAddress, metrics: Metrics) -> None:
        self._connections = connections
        self._connects = metrics.connects
        self._welcomed = metrics.connects.labels("ok", "").inc
        self._peers = peers
        self._pacer = Pacer(REQUESTS_PER_TURN)

    @web.middleware
    async def take_turns(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Have requests handled one after the other, a bounded number at a time, whatever they are.

        A client may send thousands in a row on one connection, which aiohttp goes through without a pause.
        """
        await self.turn()
        return await handler(request)

    async def turn(self) -> None:
        """Return when a request may be handled."""
        await self._pacer.wait()

    async def admit(self, request: HandshakeRequest, check: Check) -> tuple[str, Accepted]:
        """Let a client in; returns the id of its socket and what the handshake settled.

        Raises:
            Refused: There is no room, or the handshake failed.
        """
        if (
            request.method == hdrs.METH_GET
        ):  # the check refuses others, whether there is room or not
            self._require_room()
        session = self._connections.new_id()
        accepted = await check(request, session)
        self._require_room()  # the checks may have waited, for the backend say
        return session, accepted

    def refused(self, request: HandshakeRequest, refused: Refused) -> dict[str, str]:
        """Count and log a refusal; returns the headers its answer has."""
        self._connects.labels("refused", refused.reason).inc()
        reason = refused.reason
        details = {"ip": self._peers.of(request)}
        if reason == ORIGIN:
            details["origin"] = request.headers.get(hdrs.ORIGIN, "")[:LOGGED_CHARACTERS]
            details["allow_with"] = "server.allowed_origins"
        _log.info("connect refused", reason=reason, throttle=reason, **details)
        return {hdrs.RETRY_AFTER: str(RETRY_AFTER_SECONDS)} if refused.status == 503 else {}

    def bad_request(self, request: web.BaseRequest, _: BaseException | None) -> web.Response:
        """Count, log and answer what could not be read as HTTP, or was too long."""
        self._connects.labels("refused", BAD_REQUEST).inc()
        _log.info("connect refused", reason=BAD_REQUEST, peer=request.remote, throttle=BAD_REQUEST)
        return web.Response(status=400)

    def welcome(self, request: HandshakeRequest, accepted: Accepted) -> Origin:
        """Count a client that is in; returns where it comes from."""
        self._welcomed()
        return describe(request, accepted, self._peers.of(request))

    def _require_room(self) -> None:
        if busy := self._connections.refusal():
            raise Refused(503, busy)
