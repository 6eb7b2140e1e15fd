"""One client's socket: what its frames lead to, its timers, and how it ends."""

import asyncio
from functools import partial
from typing import Final, assert_never

import structlog

from gateway.auth.claims import Claims
from gateway.channels.channels import Channels
from gateway.channels.encoding import SocketEncoding
from gateway.channels.services import Services
from gateway.device import Device
from gateway.hub.broadcast import Wire
from gateway.log import teardown
from gateway.protocol.effects import (
    Activate,
    Authorize,
    Close,
    Effect,
    Forward,
    Ignore,
    Refresh,
    RefuseJoin,
    Resume,
    Send,
    Subscribe,
    Unsubscribe,
    UpdatePresence,
)
from gateway.protocol.messages import NULL, Json, Outgoing, Undecodable
from gateway.protocol.reasons import CloseCode
from gateway.protocol.socket import Socket
from gateway.sessions.client import Origin
from gateway.sessions.registry import user_of
from gateway.wheel import Timed

CLOSE_GRACE_SECONDS: Final = 5.0
"""How long a client has to answer a close frame before its TCP connection is cut."""

OVERFLOW_GRACE_SECONDS: Final = 1.0
"""The same for one that does not read, behind all that waits for it.

It would connect again and again, and each time leave as much behind.
"""

RESUMED_PER_TURN: Final = 64
"""Messages that waited for a join, handled before other sockets get a turn."""

LAST_WORD_SECONDS: Final = 0.5
"""How long after ``phx_close`` the close frame follows.

Clients in which channel and socket are tasks of their own (in Rust, Go) may notice the end of the socket
first if both come together, and would join again.
"""

BACKEND_REFUSED: Final = "upstream refused"
"""Result of a join that a backend refused in its own words, as a metric label."""

ENDS: Final = "socket"
"""What an error at its end is counted under."""

LOGGED_BYTES: Final = 200
"""Of a topic that nobody may join, which need not be bounded, so much is logged, as JSON."""

_log = structlog.get_logger(__name__)


class Connection(Timed):
    """The server's side of one socket; to sessions it is a :class:`~gateway.sessions.client.Client`.

    Args:
        idle_seconds: Silence after which it is closed.

    Attributes:
        id: Unique among all sockets of all replicas.
        claims: What its token says; None for an anonymous socket.
        origin: Where it comes from, its device among that.
        state: What the backend keeps with the session, JSON.
        core: Its protocol state.
        channels: Its joins and memberships.
        refreshing: The token being looked at; None while there is none.
        wire: What carries its bytes.
        heard_at: When the client's last frame came, monotonic seconds.
        close_code: What the gateway closed it with; None while it is open.
    """

    __slots__ = (
        "_ages_at",
        "_idle_seconds",
        "_resumed",
        "_services",
        "_token_ends_at",
        "channels",
        "claims",
        "close_code",
        "core",
        "encoding",
        "heard_at",
        "id",
        "origin",
        "refreshing",
        "state",
        "wire",
    )

    def __init__(
        self,
        services: Services,
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
        self.heard_at = services.clock()
        self.close_code: CloseCode | None = None
        self.wire = wire
        self.core = Socket(max_channels=services.limits.max_channels_per_socket)
        self.channels = Channels(services)
        self.refreshing: asyncio.Task[None] | None = None
        self._resumed = 0
        self._services = services
        self._idle_seconds = idle_seconds
        self._ages_at = services.expiry(self.heard_at)
        self._token_ends_at = services.token_end(claims)
        services.wheel.add(self, self._next_look())

    def receive(self, data: str | bytes) -> None:
        """A text or binary frame came."""
        known = self.encoding.serializer
        try:
            message = known.decode(data) if isinstance(data, str) else known.decode_binary(data)
        except Undecodable as problem:
            if problem.malformed:
                self._services.metrics.malformed_frames.inc()
            self.perform(self.core.undecodable(problem, now=self._services.clock()))
        else:
            self.perform(self.core.receive(message))

    def perform(self, effects: list[Effect]) -> None:
        """Carry out effects in order; what follows from one is appended and comes after the rest."""
        channels = self.channels
        for effect in effects:
            match effect:
                case Send():
                    self.tell(effect.message)
                case Forward():
                    rule = channels.members[effect.topic].rule
                    effects += self._services.pushes.forward(self, effect, rule)
                case Authorize():
                    effects += channels.authorize(self, effect)
                case Subscribe():
                    effects += channels.subscribe(self, effect)
                case Activate():
                    channels.activate(self, effect)
                case Resume():
                    effects += self._resume(effect)
                case RefuseJoin() | Ignore():
                    self._refuse(effect)
                case Unsubscribe():
                    channels.unsubscribe(self, effect)
                case UpdatePresence():
                    base = channels.members[effect.topic].presence
                    effects += self._services.pushes.update_presence(self, effect, base)
                case Refresh():
                    effects += self._services.credentials.refresh(self, effect)
                case Close():
                    self.close(effect.code)
                case _:
                    assert_never(effect)
        channels.departed = None  # what replaces a channel stands in the same list as its end

    def tell(self, message: Outgoing) -> None:
        """Write what is for this client alone."""
        self.send(self.encoding.outgoing(message))

    @property
    def user(self) -> str:
        return user_of(self)

    @property
    def device(self) -> Device:
        return self.origin.device

    @property
    def topics(self) -> list[str]:
        return self.core.topics

    def last_seen(self) -> float:
        services = self._services
        return services.wall_clock() - (services.clock() - self.heard_at)

    def end_session(self, reason: str) -> None:
        if self.close_code is None:
            self.perform(self.core.end_all())
            if self.wire.is_closing():
                return
            self.close_code = CloseCode.SESSION_ENDED  # what it says from now on counts no more
            self.release()
            loop = asyncio.get_running_loop()
            loop.call_later(LAST_WORD_SECONDS, self._say_farewell, CloseCode.SESSION_ENDED, reason)

    def go_away(self) -> bool:
        if self.close_code is not None or self.wire.is_closing():
            return False
        self.close(CloseCode.GOING_AWAY)
        return True

    def leave_topic(self, topic: str) -> bool:
        effects = self.core.end(topic)
        ended = bool(effects)
        self.perform(effects)
        return ended

    def rejoin(self, topic: str, member: object) -> None:
        """Have the client join a topic again, with the position it has; unless it has done so already."""
        self.perform(self.channels.crash(self, topic, member))

    def take_claims(self, claims: Claims) -> list[str]:
        """Use newer credentials of the same user from now on; returns the topics they do not allow."""
        before = self._token_ends_at
        self.claims = claims
        self._token_ends_at = self._services.token_end(claims)
        if self._token_ends_at < before:
            self._services.wheel.add(self, self._token_ends_at)
        return self.channels.not_admitted(claims)

    def move(self) -> None:
        """Expect its client on another replica: nobody shall see it leave and come. Idempotent."""
        if self.claims is None:
            return
        services = self._services
        shown = [partial(services.presences.move, topic, self) for topic in self.channels.shown()]
        teardown(ENDS, partial(services.sessions.move, self), *shown)

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close from the gateway's side; the client hears nothing after the close frame."""
        if self.close_code is not None or self.wire.is_closing():
            return
        self.close_code = code
        moves = [self.move] if code is CloseCode.SERVICE_RESTART else []
        teardown(ENDS, *moves, self.release, partial(self._say_farewell, code, reason))

    def _say_farewell(self, code: CloseCode, reason: str) -> None:
        farewell = self.encoding.carrier.farewell(code, reason)
        teardown(ENDS, partial(self.send, farewell), self.cut_off_later)

    def cut_off_later(self) -> None:
        """Cut the TCP connection in a while, if it has not ended by then."""
        self._services.wheel.add(self, self._services.clock() + CLOSE_GRACE_SECONDS)

    def overflowed(self) -> None:
        """Close as a slow consumer: more than the outbound bound waits for this client."""
        if self.close_code is not None:
            return
        self._services.metrics.slow_consumers.inc()
        self.close(CloseCode.TRY_AGAIN_LATER)
        # Whoever is to be given up for what waits shall not have it wait for longer than a moment more.
        self._services.wheel.add(self, self._services.clock() + OVERFLOW_GRACE_SECONDS)

    def abort(self) -> None:
        """Cut the TCP connection now, whatever still waits for it."""
        self.wire.abort()

    def release(self) -> None:
        """Leave all topics and end joins under way; the connection is gone or about to be. Idempotent.

        Pushes that wait for the backend still go there: who says something and closes the lid has said it.
        Not so those of a client who may not say it any more: see :meth:`Connections.leave_topic`.
        """
        self._services.wheel.discard(self)
        if self.refreshing is not None:
            self.refreshing.cancel()
        steps = [partial(self.perform, [effect]) for effect in self.core.disconnected()]
        if self.claims is not None:
            steps.append(partial(self._services.sessions.leave, self))
        teardown(ENDS, *steps)

    def due(self, now: float) -> float | None:
        """The timer wheel's look: idle, too old, its token expired, or closed and never answered?"""
        if self.wire.is_closing() or self.close_code is not None:
            self.wire.abort()  # no client of ours, or one that does not take its last bytes
            return None
        if now >= self._token_ends_at:
            self.close(CloseCode.TOKEN_EXPIRED)
            return None
        if now >= self._ages_at:
            self.close(CloseCode.SERVICE_RESTART)
            return None
        if now >= self._idle_at():
            self.close(CloseCode.IDLE)
            return None
        return self._next_look()

    def buffered(self) -> int:
        """Bytes waiting for the client in this process."""
        return self.wire.get_write_buffer_size()

    def send(self, data: bytes) -> None:
        """Write, if there is still somebody to read it: uvloop's transport would raise."""
        if not self.wire.is_closing():
            self.wire.write(data)

    def _refuse(self, effect: RefuseJoin | Ignore) -> None:
        """Count a message that comes to nothing, and answer it if its sender waits for that."""
        if isinstance(effect, Ignore):
            self._services.metrics.messages_dropped.labels("stale_join_ref").inc()
            return
        label = BACKEND_REFUSED if effect.reason is None else effect.reason.value
        self._services.joins.refused(label)
        user = None if self.claims is None else self.claims.user
        topic = effect.message.topic[:LOGGED_BYTES].decode(errors="replace")
        _log.info("join refused", user=user, topic=topic, reason=label, throttle=label)
        self.tell(effect.message)

    def _resume(self, ask: Resume) -> list[Effect]:
        """What the next message that waited leads to; after some of them, others get their turn first."""
        self._resumed += 1
        if self._resumed % RESUMED_PER_TURN:
            return self.core.resume(ask.topic, ask.attempt)
        asyncio.get_running_loop().call_soon(
            lambda: self.perform(self.core.resume(ask.topic, ask.attempt))
        )
        return []

    def _next_look(self) -> float:
        return min(self._ages_at, self._token_ends_at, self._idle_at())

    def _idle_at(self) -> float:
        """When it has been silent for too long, unless it is heard from until then."""
        return max(self.heard_at, self._services.wheel.stalled_until) + self._idle_seconds
