"""The transport of event streams: ``GET /socket/sse?topic=room:42&topic=news:1``."""

import random
from email.utils import formatdate
from functools import partial
from typing import Final

from aiohttp import HttpVersion11, hdrs, web

from gateway.channels.connections import Connections
from gateway.channels.services import Services
from gateway.pacer import Pacer
from gateway.transport.cors import CORS, preflight
from gateway.transport.entrance import RETRY_AFTER_SECONDS, Entrance
from gateway.transport.handshake import Handshake, Refused
from gateway.transport.listener import Descriptors
from gateway.transport.sse.query import LAST_EVENT_ID, wanted
from gateway.transport.sse.stream import ENDED_ID, EVENT_STREAM_ENCODINGS, NAME, EventStream
from gateway.transport.sse.wire import chunk
from gateway.transport.takeover import ANSWERED, take_over
from gateway.transport.websocket import ENDS_PER_TURN
from gateway.transport.wire import SocketWire

PATHS: Final = tuple(f"/socket{slashes}sse{end}" for slashes in ("/", "//") for end in ("", "/"))
"""As for the other transports, with a slash too many."""

RETRY_MILLISECONDS: Final = (1000, 3000)
"""When a browser is to come back: those whose replica has died do not come all at once."""

JOINS_PER_TURN: Final = 32
"""Topics of all streams together joined in one turn of the event loop: joins may take 0.1 ms each."""

FORWARDED: Final = "X-Forwarded-For"

_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
    b"X-Accel-Buffering: no\r\nAccess-Control-Allow-Origin: *\r\nTransfer-Encoding: chunked\r\n"
    b"Connection: close\r\nDate: %b\r\n\r\n"
)


class EventStreamTransport:
    """Serves ``/socket/sse``."""

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
        self._joins = Pacer(JOINS_PER_TURN)
        self._ends = Pacer(ENDS_PER_TURN)

    def routes(self) -> list[web.RouteDef]:
        """The transport's routes."""
        return [web.route("*", path, self.serve) for path in PATHS]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a request, after which aiohttp has nothing more to do with the connection."""
        if request.method == hdrs.METH_OPTIONS:
            return preflight(request, "get, options")
        try:
            return await self._serve(request)
        except Refused as refused:
            headers = CORS | self._entrance.refused(request, refused)
            if refused.status == 503 and FORWARDED not in request.headers:
                return _later(refused.reason)
            if refused.status == 405:
                headers |= {hdrs.ALLOW: "GET, OPTIONS"}
            return web.Response(status=refused.status, text=refused.advice, headers=headers)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if request.method != hdrs.METH_GET:
            raise Refused(405, "bad_method")
        self._handshake.origin(request)
        if request.version < HttpVersion11:
            raise Refused(505, "http_version", "an event stream needs HTTP/1.1, on each hop")
        if request.headers.get(LAST_EVENT_ID) == ENDED_ID:
            return web.Response(status=204, headers=CORS)  # and a browser comes no more
        asked = wanted(
            request.query, request.headers, self._services.limits.max_channels_per_socket
        )
        encodings = EVENT_STREAM_ENCODINGS[asked.presence, len(asked.resumes) > 1]
        check = partial(self._handshake.plain, encodings=encodings)
        session, accepted = await self._entrance.admit(request, check)
        origin = self._entrance.welcome(request, accepted)
        transport = request.transport
        if transport is None:  # it went away just now
            return ANSWERED
        take_over(request)  # nothing a client says here matters
        self._descriptors.open += 1
        wire = SocketWire(transport)
        wire.write(_HEAD % formatdate(usegmt=True).encode() + chunk(_retry()))
        stream = EventStream(
            self._services,
            self._connections,
            wire,
            accepted,
            origin,
            id=session,
            resumes=asked.resumes,
            lost=asked.lost,
            ends=self._ends,
            descriptors=self._descriptors,
        )
        transport.set_protocol(stream)
        self._connections.add(stream, NAME)
        for topic in asked.resumes:
            self._joins.call(partial(stream.join, topic))
        return ANSWERED


def _retry() -> bytes:
    milliseconds = random.randint(*RETRY_MILLISECONDS)  # noqa: S311 -- spreads load, guards nothing
    return b"retry: %d\n\n" % milliseconds


def _later(reason: str) -> web.Response:
    """Have a browser come back: it gives up for good at any status but 200.

    For clients that no proxy stands before, which would see a 503 and ask another replica.
    """
    body = f": refused for now: {reason}\nretry: {RETRY_AFTER_SECONDS * 1000}\n\n"
    headers = CORS | {hdrs.CACHE_CONTROL: "no-store"}
    response = web.Response(text=body, content_type="text/event-stream", headers=headers)
    response.force_close()
    return response
