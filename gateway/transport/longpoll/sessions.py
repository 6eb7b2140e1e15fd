"""The long-poll sessions of this replica: answers their polls and handles their messages."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec
import structlog

from gateway.channels.connection import ENDS, Connection
from gateway.channels.connections import Connections
from gateway.channels.encoding import Carrier, encodings
from gateway.channels.services import Services
from gateway.cluster import LongCommand
from gateway.log import teardown
from gateway.pacer import Pacer
from gateway.protocol.reasons import CloseCode
from gateway.sessions.client import Origin
from gateway.transport.handshake import Accepted
from gateway.transport.longpoll.batch import BatchMessage
from gateway.transport.longpoll.mailbox import Mailbox, entry, no_farewell
from gateway.transport.longpoll.ticket import new_secret
from gateway.transport.rate import RateLimit

WINDOW_SECONDS: Final = 10.0
"""How long a poll waits for messages, and how long a batch may take: Phoenix's ``window_ms``."""

IDLE_SECONDS: Final = 15.0
"""Silence after which a session ends, if ``limits.idle_timeout_seconds`` is not shorter."""

WAITING_SHARE: Final = WINDOW_SECONDS / IDLE_SECONDS
"""A poll waits for this share of the idle time, at most: one that waits is not silence."""

LINES_PER_TURN: Final = 32
"""Messages of all batches together handled in one turn of the event loop: joins may take 0.1 ms each."""

OK: Final = 200
EMPTY: Final = 204
TIMEOUT: Final = 408
GONE: Final = 410
TOO_LARGE: Final = 413
FAILED: Final = 500

LONGPOLL: Final = Carrier("longpoll", entry, None, no_farewell)
LONGPOLL_ENCODINGS: Final = encodings(LONGPOLL)

_log = structlog.get_logger(__name__)


class Polled(msgspec.Struct, frozen=True, array_like=True):
    """What came of a poll or a push.

    Attributes:
        status: For the client: 200, 204, 408, 410, 413 or 500.
        received: What its ticket is to say once it has this.
        messages: As :func:`gateway.transport.longpoll.mailbox.entry` has them.
    """

    status: int
    received: int = 0
    messages: bytes = b""


class Poll(LongCommand[Polled], frozen=True, tag=True):
    """A client wants what there is, and waits for it.

    Attributes:
        secret: Of its session.
        received: As its ticket has it.
    """

    secret: str
    received: int


class Push(LongCommand[Polled], frozen=True, tag=True):
    """A client says something.

    Attributes:
        seconds: For how long it may be handled; what is left then is not.
    """

    secret: str
    messages: Sequence[BatchMessage]
    seconds: float


class PollSession:
    """A socket whose client polls.

    Args:
        lines: Lets messages of all sessions be handled, some in each turn of the event loop.
        window_seconds: How long a poll waits for messages.
    """

    def __init__(
        self,
        services: Services,
        connection: Connection,
        mailbox: Mailbox,
        lines: Pacer,
        *,
        window_seconds: float,
    ) -> None:
        self._services = services
        self._connection = connection
        self._mailbox = mailbox
        self._lines = lines
        self._window_seconds = window_seconds
        self._clock = services.clock
        self._one_batch = asyncio.Lock()
        self._rate = RateLimit(services.limits.messages_per_second, self._clock())
        self._next_at = self._clock()

    @property
    def user(self) -> str | None:
        """Whom the client's token names."""
        claims = self._connection.claims
        return None if claims is None else claims.user

    async def poll(self, received: int) -> Polled:
        """What the client has not got yet; if there is nothing, wait for it."""
        self._heard()
        messages = self._mailbox.parcel(received)
        if not messages and not self._ended:
            wanted = await self._mailbox.filled(self._window_seconds)
            self._heard()
            messages = self._mailbox.parcel(received) if wanted else b""
        if messages:
            return Polled(OK, self._mailbox.number, messages)
        # A poll that is of no use any more does not end the session: its last words may still wait.
        if self._ended and not self._mailbox.get_write_buffer_size():
            self._connection.abort()
            return Polled(GONE)
        return Polled(EMPTY, received)

    async def push(self, messages: Sequence[BatchMessage], seconds: float) -> Polled:
        """Handle what the client says, in its order; batches that come together go one by one."""
        services, connection = self._services, self._connection
        until = self._clock() + seconds
        async with self._one_batch:
            for number, message in enumerate(messages):
                await self._lines.wait()
                if not await self._may_go_on(until):
                    left = len(messages) - number
                    services.metrics.messages_dropped.labels("longpoll_timeout").inc(left)
                    return Polled(TIMEOUT)
                if self._ended:
                    return Polled(GONE)
                if len(message.data) > services.limits.max_message_bytes:
                    connection.close(CloseCode.TOO_BIG)
                    return Polled(TOO_LARGE)
                self._heard()
                services.metrics.messages_received.inc()
                connection.receive(message.data if message.binary else message.data.decode())
                if connection.buffered() > services.limits.outbound_buffer_bytes:
                    connection.overflowed()
                now = self._clock()
                self._next_at = now + self._rate.spend(now)
        self._heard()
        return Polled(OK)

    def crashed(self) -> None:
        self._connection.close(CloseCode.INTERNAL_ERROR)

    async def _may_go_on(self, until: float) -> bool:
        """Wait for the next message's turn; False if that does not come in time."""
        now = self._clock()
        if max(now, self._next_at) > until:
            return False
        if self._next_at > now:
            await asyncio.sleep(self._next_at - now)
        return True

    @property
    def _ended(self) -> bool:
        return self._connection.close_code is not None or self._mailbox.is_closing()

    def _heard(self) -> None:
        self._connection.heard_at = self._clock()


class PollSessions:
    """All of this replica."""

    def __init__(self, services: Services, connections: Connections) -> None:
        self._services = services
        self._connections = connections
        self._sessions: dict[str, PollSession] = {}
        self._lines = Pacer(LINES_PER_TURN)
        self._idle_seconds = min(IDLE_SECONDS, services.limits.idle_timeout_seconds)
        self._window_seconds = min(WINDOW_SECONDS, self._idle_seconds * WAITING_SHARE)

    def open(self, accepted: Accepted, origin: Origin, session: str) -> str:
        """Begin a session; returns its secret."""
        secret = new_secret()

        def ended() -> None:
            del self._sessions[secret]
            remove = partial(self._connections.remove, connection, LONGPOLL.name)
            teardown(ENDS, connection.release, remove)
            code = connection.close_code or CloseCode.GOING_AWAY
            self._services.metrics.disconnects.labels(str(code)).inc()

        mailbox = Mailbox(ended)
        connection = Connection(
            self._services,
            mailbox,
            accepted.encoding,
            accepted.claims,
            origin,
            id=session,
            state=accepted.state,
            idle_seconds=self._idle_seconds,
        )
        self._sessions[secret] = PollSession(
            self._services, connection, mailbox, self._lines, window_seconds=self._window_seconds
        )
        self._connections.add(connection, LONGPOLL.name)
        return secret

    def __contains__(self, secret: str) -> bool:
        return secret in self._sessions

    def user(self, secret: str) -> str | None:
        """Whose session one of this replica is, after a word no secret begins with; None if nobody's."""
        session = self._sessions.get(secret)
        return None if session is None or session.user is None else f"user {session.user}"

    @property
    def longest_message(self) -> int:
        """What one message of a client may have, in bytes."""
        return self._services.limits.max_message_bytes

    def out_of_time(self, messages: int) -> None:
        """So many messages of a client were not handled, as those before them took too long."""
        self._services.metrics.messages_dropped.labels("longpoll_timeout").inc(messages)

    def too_much_waits(self) -> None:
        """A batch of a client was not read, as those before it take up the room."""
        self._services.metrics.messages_dropped.labels("longpoll_waiting").inc()

    async def handle(self, command: Poll | Push) -> Polled:
        """Do what a client asks for, whichever replica it asked."""
        session = self._sessions.get(command.secret)
        if session is None:
            return Polled(GONE)
        try:
            if isinstance(command, Poll):
                return await session.poll(command.received)
            return await session.push(command.messages, command.seconds)
        except Exception:  # noqa: BLE001 -- top of what is done for this socket: logged, and its client is told
            _log.exception("socket crashed", throttle="")
            session.crashed()
            return Polled(GONE)
