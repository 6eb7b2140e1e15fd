"""One client connection: carries out what the protocol core decides."""

import asyncio
from functools import partial
from typing import Final, assert_never

import structlog

from gateway.auth.tokens import Claims
from gateway.device import Device
from gateway.errors import BusError, EnvelopeTooLarge
from gateway.hub.broadcast import Audience
from gateway.protocol.effects import (
    Activate,
    Authorize,
    Close,
    Effect,
    Forward,
    RefuseJoin,
    Resume,
    Send,
    Subscribe,
    Unsubscribe,
    UpdatePresence,
)
from gateway.protocol.messages import Undecodable, encode_json
from gateway.protocol.reasons import CloseCode, Reason
from gateway.protocol.socket import Socket
from gateway.sessions.client import Origin
from gateway.sessions.presence import MetaTooLarge
from gateway.tracker.presence import Event
from gateway.transport.endpoint import Endpoint
from gateway.transport.framing import PONG, WebSocketEncoding, close_frame, frame
from gateway.transport.membership import Joining, Membership, prepare

CLOSE_GRACE_SECONDS: Final = 5.0
"""How long a client has to answer a close frame before its TCP connection is cut."""

_log = structlog.get_logger(__name__)


class Connection:
    """The server's side of one socket.

    Attributes:
        id: Unique among all sockets of all replicas.
        claims: What its token says; None for an anonymous socket.
        origin: Where it comes from, its device among that.
        heard_at: When the client's last frame came, monotonic seconds.
        close_code: What the gateway closed it with; None while it is open.
    """

    __slots__ = (
        "_endpoint",
        "_expires_at",
        "_joining",
        "_members",
        "_socket",
        "_transport",
        "buffered",
        "claims",
        "close_code",
        "encoding",
        "heard_at",
        "id",
        "origin",
        "write",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        transport: asyncio.WriteTransport,
        encoding: WebSocketEncoding,
        claims: Claims | None,
        origin: Origin,
    ) -> None:
        self.id = endpoint.new_id()
        self.encoding = encoding
        self.claims = claims
        self.origin = origin
        self.heard_at = endpoint.clock()
        self.close_code: CloseCode | None = None
        # Fan-out calls these for every message: bound methods, so nothing of ours is in between. All
        # others use _send: uvloop's write raises when the connection is gone.
        self.write = transport.write
        self.buffered = transport.get_write_buffer_size
        self._endpoint = endpoint
        self._transport = transport
        self._socket = Socket(max_channels=endpoint.limits.max_channels_per_socket)
        self._members: dict[str, Membership] = {}
        self._joining: dict[int, Joining] = {}
        self._expires_at = endpoint.expiry(self.heard_at)
        endpoint.wheel.add(self, self._next_look())

    async def receive(self, data: str | bytes) -> None:
        """A text or binary frame came."""
        known = self.encoding.serializer
        try:
            message = known.decode(data) if isinstance(data, str) else known.decode_binary(data)
        except Undecodable as problem:
            if problem.malformed:
                self._endpoint.metrics.malformed_frames.inc()
            await self._perform(self._socket.undecodable(problem, now=self._endpoint.clock()))
        else:
            await self._perform(self._socket.receive(message))

    @property
    def device(self) -> Device:
        """The device it is on."""
        return self.origin.device

    @property
    def topics(self) -> list[str]:
        """Topics it has joined."""
        return self._socket.topics

    def last_seen(self) -> float:
        """When its last frame came, unix seconds."""
        endpoint = self._endpoint
        return endpoint.wall_clock() - (endpoint.clock() - self.heard_at)

    def end_session(self, reason: str) -> None:
        """Take it off all topics, then close it with 4001: it may not come back by itself."""
        if self.close_code is None:
            self._carry_out(self._socket.end_all())
            self.close(CloseCode.SESSION_ENDED, reason)

    def go_away(self) -> bool:
        """Close it with 1001, it may come back; False if it is closed already."""
        if self.close_code is not None or self._transport.is_closing():
            return False
        self.close(CloseCode.GOING_AWAY)
        return True

    def leave_topic(self, topic: str) -> bool:
        """Take it off a topic; False if it is not on it."""
        effects = self._socket.end(topic)
        self._carry_out(effects)
        return bool(effects)

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close from the gateway's side; the client hears nothing after the close frame."""
        if self.close_code is not None or self._transport.is_closing():
            return
        self.close_code = code
        if code is CloseCode.SERVICE_RESTART:
            self._move()
        self.release()
        self._send(close_frame(code, reason))
        self.cut_off_later()

    def cut_off_later(self) -> None:
        """Cut the TCP connection in a while, if it has not ended by then."""
        self._endpoint.wheel.add(self, self._endpoint.clock() + CLOSE_GRACE_SECONDS)

    def overflowed(self) -> None:
        """Close as a slow consumer: more than the outbound bound waits for this client."""
        if self.close_code is not None:
            return
        self._endpoint.metrics.slow_consumers.inc()
        self.close(CloseCode.TRY_AGAIN_LATER)

    def pong(self, data: bytes) -> None:
        """Answer a ping (RFC 6455 section 5.5.3)."""
        self._send(frame(PONG, data))

    def abort(self) -> None:
        """Cut the TCP connection now, whatever still waits for it."""
        self._transport.abort()

    def release(self) -> None:
        """Leave all topics and end joins under way; the connection is gone or about to be."""
        self._carry_out(self._socket.disconnected())
        self._joining.clear()
        if self.claims is not None:
            self._endpoint.sessions.leave(self)

    def due(self, now: float) -> float | None:
        """The timer wheel's look: idle, too old, or closed and never answered?"""
        if self._transport.is_closing() or self.close_code is not None:
            # No client of ours, or one that does not take its last bytes.
            self._transport.abort()
            return None
        if now >= self._expires_at:
            self.close(CloseCode.SERVICE_RESTART)
            return None
        if now >= self.heard_at + self._endpoint.limits.idle_timeout_seconds:
            self.close(CloseCode.IDLE)
            return None
        return self._next_look()

    def _move(self) -> None:
        """Its client is expected on another replica in a moment: nobody shall see it leave and come."""
        if self.claims is None:
            return
        self._endpoint.sessions.move(self)
        for topic, member in self._members.items():
            if member.rule.presence:
                self._endpoint.presences.move(topic, self)

    def _carry_out(self, effects: list[Effect]) -> None:
        """Carry out effects that nothing follows from."""
        for effect in effects:
            if isinstance(effect, Unsubscribe):
                self._unsubscribe(effect)
            else:
                assert isinstance(effect, Send | RefuseJoin)  # noqa: S101 -- as the core promises
                self._send(self.encoding.outgoing(effect.message))

    def _send(self, data: bytes) -> None:
        """Write, if there is still somebody to read it."""
        if not self._transport.is_closing():
            self.write(data)

    def _next_look(self) -> float:
        return min(self._expires_at, self.heard_at + self._endpoint.limits.idle_timeout_seconds)

    async def _perform(self, effects: list[Effect]) -> None:
        """Carry out effects in order; what follows from one is appended and comes after the rest."""
        for effect in effects:
            match effect:
                case Send():
                    self._send(self.encoding.outgoing(effect.message))
                case Forward():
                    effects += await self._forward(effect)
                case Authorize():
                    effects += self._authorize(effect)
                case Subscribe():
                    effects += self._subscribe(effect)
                case Activate():
                    self._activate(effect)
                case Resume():
                    effects += self._socket.resume(effect.topic, effect.attempt)
                case RefuseJoin():
                    self._endpoint.metrics.joins.labels(effect.reason.value).inc()
                    self._send(self.encoding.outgoing(effect.message))
                case Unsubscribe():
                    self._unsubscribe(effect)
                case UpdatePresence():
                    effects += self._update_presence(effect)
                case Close():
                    self.close(effect.code)
                case _:
                    assert_never(effect)

    def _authorize(self, ask: Authorize) -> list[Effect]:
        decision = self._endpoint.admission.join(ask.topic, self.claims)
        rule = decision.rule
        if rule is None:
            return self._socket.join_decided(ask.topic, ask.attempt, refused=decision.refused)
        self._joining[ask.attempt] = Joining(rule)
        return self._socket.join_decided(
            ask.topic,
            ask.attempt,
            may_push=rule.push == "broadcast",
            shows_presence=bool(rule.presence) and self.claims is not None,
        )

    def _subscribe(self, ask: Subscribe) -> list[Effect]:
        endpoint = self._endpoint
        known = self.claims is None or endpoint.sessions.has(self)
        if known and endpoint.relay.try_subscribe(ask.topic):
            return self._joined(ask)
        if endpoint.joins_in_flight >= endpoint.limits.joins_in_flight:
            del self._joining[ask.attempt]
            return self._socket.subscribe_failed(ask.topic, ask.attempt, Reason.RATE_LIMITED)
        task = asyncio.create_task(self._wait_for_bus(ask))
        # Counted here and not in the task: a task that is cancelled before its first step never runs.
        endpoint.joins_in_flight += 1
        task.add_done_callback(endpoint.join_waited)
        self._joining[ask.attempt].task = task
        return []

    async def _wait_for_bus(self, ask: Subscribe) -> None:
        try:
            failed = await prepare(self._endpoint, self, ask.topic)
        except BusError:
            failed = Reason.BUS_UNAVAILABLE
        except Exception:  # noqa: BLE001 -- top of this task: logged, and the client is told
            _log.exception("join crashed")
            failed = Reason.JOIN_CRASHED
        if failed is None:
            await self._perform(self._joined(ask))
            return
        self._joining.pop(ask.attempt, None)
        await self._perform(self._socket.subscribe_failed(ask.topic, ask.attempt, failed))

    def _joined(self, ask: Subscribe) -> list[Effect]:
        claims = self.claims
        if claims is None or ask.topic != self._endpoint.sessions.topic(claims.user):
            return self._socket.subscribed(ask.topic, ask.attempt)
        response = encode_json({"session": self.id})
        return self._socket.subscribed(ask.topic, ask.attempt, response)

    def _activate(self, ask: Activate) -> None:
        rule = self._joining.pop(ask.attempt).rule
        if not self._joining:
            self._joining = {}  # an emptied dict keeps its table, 168 bytes a socket
        member = self._members[ask.topic] = Membership(self, rule, ask.attempt)
        self._endpoint.relay.add(ask.topic, member)
        self._endpoint.joined()
        if rule.presence is not False:
            greet = partial(self._greet, ask.topic, ask.attempt)
            self._endpoint.presences.enter(ask.topic, self, rule.presence, greet)

    def _greet(self, topic: str, attempt: int, events: list[Event]) -> None:
        for event, payload in events:
            self._carry_out(self._socket.push(topic, attempt, event, payload))

    def _update_presence(self, ask: UpdatePresence) -> list[Effect]:
        refused: Reason | None = None
        try:
            self._endpoint.presences.update(ask.topic, self, ask.meta)
        except MetaTooLarge:
            refused = Reason.PAYLOAD_TOO_LARGE
        except ValueError:
            refused = Reason.MALFORMED
        return self._socket.push_answered(ask.topic, ask.attempt, ask.ref, refused=refused)

    def _unsubscribe(self, ask: Unsubscribe) -> None:
        joining = self._joining.pop(ask.attempt, None)
        if joining is not None and joining.task is not None:
            joining.task.cancel()  # what it acquired until then, it gives back itself
            return
        member = self._members.pop(ask.topic, None)
        if member is not None:
            self._endpoint.relay.remove(ask.topic, member)
            if member.rule.presence:
                self._endpoint.presences.leave(ask.topic, self)
        self._endpoint.relay.unsubscribe(ask.topic)

    async def _forward(self, push: Forward) -> list[Effect]:
        rule = self._members[push.topic].rule
        refused: Reason | None = None
        try:
            await self._endpoint.relay.publish(
                push.topic,
                push.event,
                push.payload,
                binary=push.binary,
                audience=None if rule.echo else Audience(frozenset((self.id,))),
            )
        except EnvelopeTooLarge:
            refused = Reason.PAYLOAD_TOO_LARGE
        except BusError:
            refused = Reason.BUS_UNAVAILABLE
        return self._socket.push_answered(push.topic, push.attempt, push.ref, refused=refused)
