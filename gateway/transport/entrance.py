"""Lets new clients in or refuses them, over any transport: limits, handshake, log line and metric."""

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import hdrs, web

from gateway.channels.connections import Connections
from gateway.log import QUIET_SECONDS, Throttle
from gateway.metrics import Metrics
from gateway.pacer import Pacer
from gateway.sessions.client import Origin
from gateway.transport.handshake import Accepted, Refused, describe
from gateway.transport.peer import PeerAddress

RETRY_AFTER_SECONDS: Final = 5

HANDSHAKES_PER_TURN: Final = 32
"""Handshakes in one turn of the event loop: some 8 ms of work."""

BAD_REQUEST: Final = "bad_request"
"""Reason, in metric and log, where a request was none or had too long a header."""

Check = Callable[[web.Request, str], Awaitable[Accepted]]
"""A transport's handshake, given the request and the id its socket will have."""

_log = structlog.get_logger(__name__)


class Entrance:
    """One for all transports of a replica."""

    def __init__(self, connections: Connections, peers: PeerAddress, metrics: Metrics) -> None:
        self._connections = connections
        self._connects = metrics.connects
        self._peers = peers
        self._throttle = Throttle(QUIET_SECONDS)
        self._pacer = Pacer(HANDSHAKES_PER_TURN)

    async def admit(self, request: web.Request, check: Check) -> tuple[str, Accepted]:
        """Let a client in; returns the id of its socket and what the handshake settled.

        Raises:
            Refused: There is no room, or the handshake failed.
        """
        await self._pacer.wait()
        if (
            request.method == hdrs.METH_GET
        ):  # the check refuses others, whether there is room or not
            self._require_room()
        session = self._connections.new_id()
        accepted = await check(request, session)
        self._require_room()  # the checks may have waited, for the backend say
        return session, accepted

    def refused(self, request: web.Request, refused: Refused) -> dict[str, str]:
        """Count and log a refusal; returns the headers its answer has."""
        self._connects.labels("refused", refused.reason).inc()
        _log.info("connect refused", reason=refused.reason, ip=self._peers.of(request))
        return {hdrs.RETRY_AFTER: str(RETRY_AFTER_SECONDS)} if refused.status == 503 else {}

    def bad_request(self, request: web.BaseRequest, _: BaseException | None) -> web.Response:
        """Count, log and answer what could not be read as HTTP, or was too long."""
        self._connects.labels("refused", BAD_REQUEST).inc()
        if (held := self._throttle.admit(BAD_REQUEST)) is not None:
            _log.info("connect refused", reason=BAD_REQUEST, peer=request.remote, held=held)
        return web.Response(status=400)

    def welcome(self, request: web.Request, accepted: Accepted) -> Origin:
        """Count a client that is in; returns where it comes from."""
        self._connects.labels("ok", "").inc()
        return describe(request, accepted, self._peers.of(request))

    def _require_room(self) -> None:
        if busy := self._connections.refusal():
            raise Refused(503, busy)
