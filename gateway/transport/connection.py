"""One client connection: its frames, its timers, and how it ends."""

from typing import TYPE_CHECKING, Final, Protocol

from gateway.auth.claims import Claims
from gateway.device import Device
from gateway.protocol.effects import Effect, RefuseJoin, Send, Unsubscribe
from gateway.protocol.messages import NULL, Json, Undecodable
from gateway.protocol.reasons import CloseCode
from gateway.protocol.socket import Socket
from gateway.sessions.client import Origin
from gateway.transport import joins
from gateway.transport.effects import perform
from gateway.transport.encoding import SocketEncoding
from gateway.transport.endpoint import Endpoint
from gateway.transport.framing import PONG, frame
from gateway.wheel import Timed

if TYPE_CHECKING:
    import asyncio

    from gateway.history.position import Position
    from gateway.transport.lane import Lane
    from gateway.transport.membership import Joining, Membership

CLOSE_GRACE_SECONDS: Final = 5.0
"""How long a client has to answer a close frame before its TCP connection is cut."""


class Wire(Protocol):
    """What carries bytes to the client: a transport of asyncio, or a mailbox."""

    def write(self, data: bytes) -> None:
        """Send, in order; never waits."""

    def get_write_buffer_size(self) -> int:
        """Bytes that were not sent yet."""

    def is_closing(self) -> bool:
        """Whether nothing is sent any more."""

    def abort(self) -> None:
        """Drop what was not sent, and end."""


class Connection(Timed):
    """The server's side of one socket.

    Args:
        idle_seconds: Silence after which it is closed.

    Attributes:
        id: Unique among all sockets of all replicas.
        claims: What its token says; None for an anonymous socket.
        origin: Where it comes from, its device among that.
        state: What the backend keeps with the session, JSON.
        core: Its protocol state.
        members: Its memberships, by topic.
        joining: Its joins between their admission and their reply, by attempt.
        departed: The topic of the channel that ended last, and the position it was sent; a join that
            follows at once replaces it.
        lane: The callbacks about it that are under way or wait; None while there are none.
        refreshing: The token being looked at; None while there is none.
        heard_at: When the client's last frame came, monotonic seconds.
        close_code: What the gateway closed it with; None while it is open.
    """

    __slots__ = (
        "_ages_at",
        "_idle_seconds",
        "_token_ends_at",
        "_wire",
        "buffered",
        "claims",
        "close_code",
        "core",
        "departed",
        "encoding",
        "endpoint",
        "heard_at",
        "id",
        "joining",
        "lane",
        "members",
        "origin",
        "refreshing",
        "state",
        "write",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        wire: Wire,
        encoding: SocketEncoding,
        claims: Claims | None,
        origin: Origin,
        *,
        id: str,  # noqa: A002 -- what it is called everywhere
        state: Json = NULL,
        idle_seconds: float,
    ) -> None:
        super().__init__()
        self.id = id
        self.encoding = encoding
        self.claims = claims
        self.origin = origin
        self.state = state
        self.heard_at = endpoint.clock()
        self.close_code: CloseCode | None = None
        # Fan-out calls these for every message: bound methods, so nothing of ours is in between. All
        # others use send: uvloop's write raises when the connection is gone.
        self.write = wire.write
        self.buffered = wire.get_write_buffer_size
        self.endpoint = endpoint
        self.core = Socket(max_channels=endpoint.limits.max_channels_per_socket)
        self.members: dict[str, Membership] = {}
        self.joining: dict[int, Joining] = {}
        self.departed: tuple[str, Position] | None = None
        self.lane: Lane | None = None
        self.refreshing: asyncio.Task[None] | None = None
        self._wire = wire
        self._idle_seconds = idle_seconds
        self._ages_at = endpoint.expiry(self.heard_at)
        self._token_ends_at = endpoint.token_end(claims)
        endpoint.wheel.add(self, self._next_look())

    async def receive(self, data: str | bytes) -> None:
        """A text or binary frame came."""
        known = self.encoding.serializer
        try:
            message = known.decode(data) if isinstance(data, str) else known.decode_binary(data)
        except Undecodable as problem:
            if problem.malformed:
                self.endpoint.metrics.malformed_frames.inc()
            await self.perform(self.core.undecodable(problem, now=self.endpoint.clock()))
        else:
            await self.perform(self.core.receive(message))

    async def perform(self, effects: list[Effect]) -> None:
        """Carry out effects in order, and what follows from them."""
        await perform(self, effects)

    @property
    def device(self) -> Device:
        """The device it is on."""
        return self.origin.device

    @property
    def topics(self) -> list[str]:
        """Topics it has joined."""
        return self.core.topics

    def last_seen(self) -> float:
        """When its last frame came, unix seconds."""
        endpoint = self.endpoint
        return endpoint.wall_clock() - (endpoint.clock() - self.heard_at)

    def end_session(self, reason: str) -> None:
        """Take it off all topics, then close it with 4001: it may not come back by itself."""
        if self.close_code is None:
            self.carry_out(self.core.end_all())
            self.close(CloseCode.SESSION_ENDED, reason)

    def go_away(self) -> bool:
        """Close it with 1001, it may come back; False if it is closed already."""
        if self.close_code is not None or self._wire.is_closing():
            return False
        self.close(CloseCode.GOING_AWAY)
        return True

    def leave_topic(self, topic: str) -> bool:
        """Take it off a topic; False if it is not on it."""
        effects = self.core.end(topic)
        self.carry_out(effects)
        return bool(effects)

    def rejoin(self, topic: str, member: object) -> None:
        """Have the client join a topic again, with the position it has; unless it has done so already."""
        known = self.members.get(topic)
        if known is member and known is not None:
            self.carry_out(self.core.crash(topic, known.attempt))

    def take_claims(self, claims: Claims) -> None:
        """Newer credentials of the same user."""
        before = self._token_ends_at
        self.claims = claims
        self._token_ends_at = self.endpoint.token_end(claims)
        if self._token_ends_at < before:
            self.endpoint.wheel.add(self, self._token_ends_at)

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close from the gateway's side; the client hears nothing after the close frame."""
        if self.close_code is not None or self._wire.is_closing():
            return
        self.close_code = code
        if code is CloseCode.SERVICE_RESTART:
            self._move()
        self.release()
        self.send(self.encoding.carrier.farewell(code, reason))
        self.cut_off_later()

    def cut_off_later(self) -> None:
        """Cut the TCP connection in a while, if it has not ended by then."""
        self.endpoint.wheel.add(self, self.endpoint.clock() + CLOSE_GRACE_SECONDS)

    def overflowed(self) -> None:
        """Close as a slow consumer: more than the outbound bound waits for this client."""
        if self.close_code is not None:
            return
        self.endpoint.metrics.slow_consumers.inc()
        self.close(CloseCode.TRY_AGAIN_LATER)

    def pong(self, data: bytes) -> None:
        """Answer a ping (RFC 6455 section 5.5.3)."""
        self.send(frame(PONG, data))

    def abort(self) -> None:
        """Cut the TCP connection now, whatever still waits for it."""
        self._wire.abort()

    def release(self) -> None:
        """Leave all topics and end joins under way; the connection is gone or about to be.

        Pushes that wait for the backend still go there: who says something and closes the lid has said it.
        Not so those of a client who may not say it any more: see :meth:`Endpoint.leave_topic`.
        """
        self.endpoint.wheel.discard(self)
        self.carry_out(self.core.disconnected())
        self.joining.clear()
        if self.refreshing is not None:
            self.refreshing.cancel()
        if self.claims is not None:
            self.endpoint.sessions.leave(self)

    def due(self, now: float) -> float | None:
        """The timer wheel's look: idle, too old, its token expired, or closed and never answered?"""
        if self._wire.is_closing() or self.close_code is not None:
            self._wire.abort()  # no client of ours, or one that does not take its last bytes
            return None
        if now >= self._token_ends_at:
            self.close(CloseCode.TOKEN_EXPIRED)
            return None
        if now >= self._ages_at:
            self.close(CloseCode.SERVICE_RESTART)
            return None
        if now >= self.heard_at + self._idle_seconds:
            self.close(CloseCode.IDLE)
            return None
        return self._next_look()

    def carry_out(self, effects: list[Effect]) -> None:
        """Carry out effects that nothing follows from."""
        for effect in effects:
            if isinstance(effect, Unsubscribe):
                joins.unsubscribe(self, effect)
            else:
                assert isinstance(effect, Send | RefuseJoin)  # noqa: S101 -- as the core promises
                if isinstance(effect, RefuseJoin) and effect.reason is not None:
                    self.endpoint.metrics.joins.labels(effect.reason.value).inc()
                self.send(self.encoding.outgoing(effect.message))
        self.departed = None  # nothing replaces what ended here

    def send(self, data: bytes) -> None:
        """Write, if there is still somebody to read it."""
        if not self._wire.is_closing():
            self.write(data)

    def _move(self) -> None:
        """Its client is expected on another replica in a moment: nobody shall see it leave and come."""
        if self.claims is None:
            return
        self.endpoint.sessions.move(self)
        for topic, member in self.members.items():
            if member.rule.presence:
                self.endpoint.presences.move(topic, self)

    def _next_look(self) -> float:
        return min(self._ages_at, self._token_ends_at, self.heard_at + self._idle_seconds)
