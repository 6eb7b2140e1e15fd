"""The long-poll transport: ``GET`` for what came, ``POST`` for what the client says.

Clients may poll any replica: what is meant for a session of another one is done there. Source of the form:
``Phoenix.Transports.LongPoll`` and ``assets/js/phoenix/longpoll.js``. The status is in the body; the HTTP
status is 200 but for what no client of Phoenix's sends, and for 503 when a client is refused for now, so
that load balancers see it. The 500 in such a body has phoenix.js begin again, on another connection.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from aiohttp import hdrs, web

from gateway.inflight import InFlight
from gateway.pacer import Pacer
from gateway.transport.cors import CORS, preflight
from gateway.transport.entrance import Entrance
from gateway.transport.handshake import Handshake, Refused
from gateway.transport.longpoll.batch import in_parts, messages_in
from gateway.transport.longpoll.router import PollRouter
from gateway.transport.longpoll.sessions import (
    FAILED,
    GONE,
    OK,
    TIMEOUT,
    TOO_LARGE,
    WINDOW_SECONDS,
    PollSessions,
)
from gateway.transport.longpoll.ticket import Ticket

PATHS: Final = tuple(
    f"/socket{slashes}longpoll{end}" for slashes in ("/", "//") for end in ("", "/")
)
"""As clients write it: some put a slash at the end of it, or of the socket's URL before they add the rest."""
TICKET_HEADER: Final = "X-Phoenix-LongPoll-Token"
"""Where phoenix.js 1.9 shows its ticket; before, it is the last ``token`` of the query."""

FORBIDDEN: Final = 403

MAX_BODY_BYTES: Final = 2 * 1024 * 1024
"""A batch of messages, at most."""

MAX_USER_BYTES: Final = 4 * MAX_BODY_BYTES
"""All batches of one user under way on this replica, those being handled among them."""

MAX_TOTAL_BYTES: Final = 64 * MAX_BODY_BYTES
"""
All batches for sessions of this replica, and as much again for those of others.

Whether those are there at all is known to the others alone.
"""

PARTS_PER_TURN: Final = 2
"""Parts of all batches together that are taken out of their bodies in one turn of the event loop."""

_HEADERS: Final[dict[str, str]] = {
    **CORS,
    hdrs.CONTENT_TYPE: "application/json; charset=utf-8",
    hdrs.CACHE_CONTROL: "no-store",
}


class LongPollTransport:
    """Serves ``/socket/longpoll``.

    Args:
        sessions: Those of this replica.
        router: Routes to the sessions of all replicas.
    """

    def __init__(
        self, sessions: PollSessions, router: PollRouter, handshake: Handshake, entrance: Entrance
    ) -> None:
        self._sessions = sessions
        self._router = router
        self._handshake = handshake
        self._entrance = entrance
        self._parts = Pacer(PARTS_PER_TURN)
        self._here, self._elsewhere = (
            InFlight(longest=MAX_BODY_BYTES, each=MAX_USER_BYTES, total=MAX_TOTAL_BYTES)
            for _ in range(2)
        )

    def routes(self) -> list[web.RouteDef]:
        """The transport's routes."""
        return [web.route("*", path, self.serve) for path in PATHS]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        try:
            if request.method == hdrs.METH_OPTIONS:
                return preflight(request, "get, post, options")
            if request.method not in (hdrs.METH_GET, hdrs.METH_POST):
                return web.Response(status=400, headers=CORS)
            self._handshake.origin(request)
            ticket = _ticket(request)
            if request.method == hdrs.METH_POST:
                return await self._push(request, ticket)
            return await self._poll(request, ticket)
        except Refused as refused:
            headers = _HEADERS | self._entrance.refused(request, refused)
            if refused.status == 503:
                return _elsewhere(503, headers)
            return web.Response(body=b'{"status":%d}' % FORBIDDEN, headers=headers)

    async def _poll(self, request: web.Request, ticket: Ticket | None) -> web.Response:
        """Messages for a client, or a new session where it shows none.

        For a session that is gone Phoenix answers 410 with a new one; phoenix.js before 1.8.3 would go on
        with that as if it had joined its channels there.
        """
        if ticket is not None:
            polled = await self._router.poll(ticket)
            if polled.status == GONE:
                return _elsewhere(200, _HEADERS)
            return _answer(polled.status, ticket.after(polled.received), polled.messages)
        session, accepted = await self._entrance.admit(request, self._handshake.longpoll)
        origin = self._entrance.welcome(request, accepted)
        secret = self._sessions.open(accepted, origin, session)
        return _answer(GONE, Ticket(self._router.home, secret, 0), b"")

    async def _push(self, request: web.Request, ticket: Ticket | None) -> web.Response:
        """Messages of a client; their answers come with its next poll."""
        if ticket is None or not self._router.knows(ticket):
            return _status(GONE)  # who has no session costs no memory
        if hdrs.CONTENT_ENCODING in request.headers:
            return web.Response(status=415, headers=CORS)  # 2 KB of gzip may be 2 MiB of work
        of = self._here if ticket.home == self._router.home else self._elsewhere
        sender = self._sessions.user(ticket.secret) or f"session {ticket.secret}"
        with of.one_more(sender, request.content_length) as room:
            if not room:
                self._sessions.too_much_waits()
                return _status(TOO_LARGE)
            return await self._handle(request, ticket)

    async def _handle(self, request: web.Request, ticket: Ticket) -> web.Response:
        """Read a batch and have it handled."""
        now = asyncio.get_running_loop().time
        until = now() + WINDOW_SECONDS
        try:
            async with asyncio.timeout_at(until):
                body = await request.read()
            messages = messages_in(body, request.content_type, self._sessions.longest_message)
        except TimeoutError:
            return _status(TIMEOUT)
        except web.HTTPRequestEntityTooLarge:
            return _status(TOO_LARGE)
        except (web.RequestPayloadError, ConnectionError, UnicodeDecodeError):
            return web.Response(status=400, headers=CORS)
        status = OK
        for number, part in enumerate(in_parts(messages, self._router.part_bytes)):
            if status == TIMEOUT:
                self._sessions.out_of_time(len(part))
            elif part or number == 0:
                status = (await self._router.push(ticket, part, until - now())).status
                if status not in (OK, TIMEOUT):
                    break
            await self._parts.wait()
        return _status(status)


def _ticket(request: web.Request) -> Ticket | None:
    shown = request.headers.get(TICKET_HEADER)
    return Ticket.parse(shown or next(reversed(request.query.getall("token", ())), ""))


def _answer(status: int, ticket: Ticket, messages: bytes) -> web.Response:
    body = b'{"messages":[%b],"status":%d,"token":"%b"}' % (
        messages[:-1],
        status,
        str(ticket).encode(),
    )
    return web.Response(body=body, headers=_HEADERS)


def _status(status: int) -> web.Response:
    return web.Response(body=b'{"status":%d}' % status, headers=_HEADERS)


def _elsewhere(status: int, headers: Mapping[str, str]) -> web.Response:
    """Have a client begin again, with whichever replica a new connection leads to."""
    response = web.Response(status=status, body=b'{"status":%d}' % FAILED, headers=headers)
    response.force_close()
    return response
