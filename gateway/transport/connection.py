"""One client connection: carries out what the protocol core decides."""

import asyncio
from typing import Final, assert_never

import structlog

from gateway.auth.rules import Rule
from gateway.auth.tokens import Claims
from gateway.errors import BusError, EnvelopeTooLarge
from gateway.hub.registry import Member
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
)
from gateway.protocol.messages import Undecodable
from gateway.protocol.reasons import CloseCode, Reason
from gateway.protocol.socket import Socket
from gateway.transport.endpoint import Endpoint
from gateway.transport.framing import PONG, WebSocketEncoding, close_frame, frame

CLOSE_GRACE_SECONDS: Final = 5.0
"""How long a client has to answer a close frame before its TCP connection is cut."""

_log = structlog.get_logger(__name__)


class Membership(Member):
    """A member of a topic, with what the transport must know of it."""

    __slots__ = ("attempt", "rule")

    def __init__(self, connection: "Connection", rule: Rule, attempt: int) -> None:
        super().__init__(connection, drops=rule.slow_consumer == "drop")
        self.rule = rule
        self.attempt = attempt


class Joining:
    """A join between its admission and its reply."""

    __slots__ = ("rule", "task")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.task: asyncio.Task[None] | None = None


class Connection:
    """The server's side of one socket.

    Attributes:
        id: Unique among all sockets of all replicas.
        claims: What its token says; None for an anonymous socket.
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
        "write",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        transport: asyncio.WriteTransport,
        encoding: WebSocketEncoding,
        claims: Claims | None,
    ) -> None:
        self.id = endpoint.new_id()
        self.encoding = encoding
        self.claims = claims
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

    async def text(self, text: str) -> None:
        """A text frame came."""
        try:
            message = self.encoding.serializer.decode(text)
        except Undecodable as problem:
            await self._undecodable(problem)
        else:
            await self._perform(self._socket.receive(message))

    async def binary(self, data: bytes) -> None:
        """A binary frame came."""
        try:
            message = self.encoding.serializer.decode_binary(data)
        except Undecodable as problem:
            await self._undecodable(problem)
        else:
            await self._perform(self._socket.receive(message))

    def close(self, code: CloseCode) -> None:
        """Close from the gateway's side; the client hears nothing after the close frame."""
        if self.close_code is not None or self._transport.is_closing():
            return
        self.close_code = code
        self.release()
        self._send(close_frame(code))
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
        for effect in self._socket.disconnected():
            assert isinstance(effect, Unsubscribe)  # noqa: S101 -- narrows the type, as the core promises
            self._unsubscribe(effect)
        self._joining.clear()

    def due(self, now: float) -> float | None:
        """The timer wheel's look: idle, too old, or closed and never answered?"""
        if self._transport.is_closing():
            return None
        if self.close_code is not None:
            self._transport.abort()
            return None
        if now >= self._expires_at:
            self.close(CloseCode.SERVICE_RESTART)
            return None
        if now >= self.heard_at + self._endpoint.limits.idle_timeout_seconds:
            self.close(CloseCode.IDLE)
            return None
        return self._next_look()

    def _send(self, data: bytes) -> None:
        """Write, if there is still somebody to read it."""
        if not self._transport.is_closing():
            self.write(data)

    def _next_look(self) -> float:
        return min(self._expires_at, self.heard_at + self._endpoint.limits.idle_timeout_seconds)

    async def _undecodable(self, problem: Undecodable) -> None:
        if problem.malformed:
            self._endpoint.metrics.malformed_frames.inc()
        await self._perform(self._socket.undecodable(problem, now=self._endpoint.clock()))

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
        may_push = rule.push == "broadcast"
        return self._socket.join_decided(ask.topic, ask.attempt, may_push=may_push)

    def _subscribe(self, ask: Subscribe) -> list[Effect]:
        endpoint = self._endpoint
        if endpoint.relay.try_subscribe(ask.topic):
            return self._socket.subscribed(ask.topic, ask.attempt)
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
            await self._endpoint.relay.subscribe(ask.topic)
        except BusError:
            failed = Reason.BUS_UNAVAILABLE
        except Exception:  # noqa: BLE001 -- top of this task: logged, and the client is told
            _log.exception("join crashed")
            failed = Reason.JOIN_CRASHED
        else:
            await self._perform(self._socket.subscribed(ask.topic, ask.attempt))
            return
        self._joining.pop(ask.attempt, None)
        await self._perform(self._socket.subscribe_failed(ask.topic, ask.attempt, failed))

    def _activate(self, ask: Activate) -> None:
        rule = self._joining.pop(ask.attempt).rule
        member = self._members[ask.topic] = Membership(self, rule, ask.attempt)
        self._endpoint.relay.add(ask.topic, member)
        self._endpoint.joined()

    def _unsubscribe(self, ask: Unsubscribe) -> None:
        joining = self._joining.pop(ask.attempt, None)
        if joining is not None and joining.task is not None:
            joining.task.cancel()  # what it acquired until then, it gives back itself
            return
        member = self._members.pop(ask.topic, None)
        if member is not None:
            self._endpoint.relay.remove(ask.topic, member)
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
                exclude_sessions=() if rule.echo else (self.id,),
            )
        except EnvelopeTooLarge:
            refused = Reason.PAYLOAD_TOO_LARGE
        except BusError:
            refused = Reason.BUS_UNAVAILABLE
        return self._socket.push_answered(push.topic, push.attempt, push.ref, refused=refused)
