"""Carries messages from publishers to members: to the bus, and from the bus to the local sockets.

Everything goes by way of the bus, also for members on the publisher's own replica, so all of them see
one replica's messages in one order.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import structlog

from gateway.audience import Audience
from gateway.bus.base import Bus, NoResponders
from gateway.bus.envelope import (
    Control,
    Envelope,
    EnvelopeError,
    control_in,
    decode,
    encode,
    encode_control,
)
from gateway.bus.interest import Interest
from gateway.bus.stream_position import StreamPosition
from gateway.bus.subjects import Subjects
from gateway.errors import BusError
from gateway.history.base import MessageHistory, Stored
from gateway.history.follower import Follower
from gateway.history.position import Position
from gateway.history.position import encode as encode_position
from gateway.history.resumer import Resumer
from gateway.hub.broadcast import Broadcast
from gateway.hub.fanout import Fanout
from gateway.hub.registry import Member, Registry
from gateway.hub.rejoins import Rejoins
from gateway.hub.taps import Taps
from gateway.leases import Lease
from gateway.listener_check import ListenerCheck
from gateway.metrics import Metrics
from gateway.protocol.reserved import is_reserved_event
from gateway.retention import Retention

LINGER_SECONDS = 2.0
"""
How long a topic's subscription outlives its last local member.

A page that reloads leaves and joins the same topics within a second; that should not cost the bus two
changes of interest, nor the join a round trip.
"""

JOIN_WAIT_SECONDS = 2.0
"""How long a join waits for a bus that is down, before it is refused."""

_log = structlog.get_logger(__name__)


POSITION: Final = "position"
"""Event that tells members of a quiet topic where they stand."""


class Published(msgspec.Struct, frozen=True, gc=False):
    """What became of a message.

    Attributes:
        position: Where it stands; None where nothing is kept.
        duplicate: Whether it had been published before, with the same id.
    """

    position: str | None = None
    duplicate: bool = False


NOT_KEPT: Final = Published()


class Relay:
    """One replica's way to all members of a topic.

    Args:
        history: Where messages are kept.
        policy: What is kept of a topic; None for nothing.
        control: Told what gateways say to those who are subscribed to a topic.
        clock: Unix seconds; publish times are compared between replicas.

    Attributes:
        follower: Keeps the topics with history level with the store.
        resumer: Answers those who resume.
        taps: Those who look on at what comes to this replica.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        subjects: Subjects,
        registry: Registry,
        fanout: Fanout,
        metrics: Metrics,
        history: MessageHistory,
        policy: Callable[[str], Retention | None],
        control: Callable[[Control, bytes], None],
        clock: Callable[[], float],
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._registry = registry
        self._fanout = fanout
        self._arrived = metrics.publish_to_deliver.observe
        self._dropped = metrics.bus_dropped.inc
        self._clock = clock
        self.history = history
        self.policy = policy
        self.taps = Taps()
        self._rejoins = Rejoins(registry)
        self.follower = Follower(
            history,
            deliver=self._deliver_stored,
            lost=self._lost,
            tell_position=self._remind,
            refused=self._drop,
            metrics=metrics,
        )
        self.resumer = Resumer(history, self.follower, metrics)
        self._control = control
        self._interest = Interest(
            bus,
            subjects,
            self._deliver,
            linger_seconds=LINGER_SECONDS,
            wait_seconds=JOIN_WAIT_SECONDS,
            left=self.follower.forget,
        )

    @property
    def subscriptions(self) -> int:
        """Subjects this replica is subscribed to for its members."""
        return self._interest.topics

    def send(
        self,
        topic: str,
        event: str,
        payload: bytes,
        *,
        binary: bool = False,
        audience: Audience | None = None,
        no_responders: NoResponders | None = None,
    ) -> None:
        """Send a message to the members of a topic without history, on all replicas.

        Args:
            event: Not a reserved one.
            payload: A JSON object in UTF-8, passed on byte for byte; any bytes when ``binary``.
            binary: Whether only clients that understand binary frames can get it.
            audience: Which members get it; None for all.
            no_responders: See :meth:`gateway.bus.base.Bus.publish`.

        Raises:
            BusUnavailable: Certainly nobody gets it.
            EnvelopeTooLarge: The bus cannot carry it; nobody gets it.
        """
        data = encode(Envelope(event, payload, binary, self._clock(), audience))
        self._bus.publish(self._subjects.topic(topic), data, no_responders=no_responders)

    async def store(
        self,
        topic: str,
        event: str,
        payload: bytes,
        *,
        audience: Audience | None = None,
        message_id: str | None = None,
    ) -> Published:
        """Store a message of a topic with history, which sends it to the members as :meth:`send` does.

        Args:
            message_id: What names it within its topic.

        Raises:
            BusUnavailable: Certainly nobody gets it.
            OutcomeUnknown: It was sent to be stored, and nobody knows whether it was.
            EnvelopeTooLarge: The bus cannot carry it; nobody gets it.
        """
        data = encode(Envelope(event, payload, False, self._clock(), audience))
        receipt = await self.history.append(topic, data, id=message_id)
        position = Position(self.history.epoch, receipt.offset, receipt.time)
        return Published(encode_position(position), receipt.duplicate)

    async def publish(
        self,
        topic: str,
        event: str,
        payload: bytes,
        *,
        audience: Audience | None = None,
        message_id: str | None = None,
        check: ListenerCheck | None = None,
    ) -> Published:
        """:meth:`store` a message where its topic has history, else :meth:`send` it.

        Args:
            check: To find out whether anybody listens; see :meth:`listener_check`.
        """
        no_responders = None if check is None else check.ask(topic)
        if self.policy(topic) is None:
            self.send(topic, event, payload, audience=audience, no_responders=no_responders)
            return NOT_KEPT
        if no_responders is not None:
            # the message goes to the store, which always listens; so another one asks
            with contextlib.suppress(BusError):
                probe = encode_control(Control.PROBE, b"")
                self._bus.publish(self._subjects.topic(topic), probe, no_responders=no_responders)
        return await self.store(topic, event, payload, audience=audience, message_id=message_id)

    def listener_check(self) -> ListenerCheck:
        """What :meth:`publish` finds out with whether anybody listens on topics."""
        return ListenerCheck(self._bus, self._registry)

    def try_subscribe(self, topic: str) -> Lease | None:
        """:meth:`subscribe`, if it can be done without waiting."""
        if self.policy(topic) is not None and not self.follower.ready(topic):
            return None
        return self._interest.try_acquire(topic)

    async def subscribe(self, topic: str) -> Lease:
        """Have a topic's messages come to this replica: every one published after this returns.

        They come until a while after the last lease was closed.

        Raises:
            BusError: The bus is down, or does not let this replica listen, or the history does not answer.
        """
        lease = await self._interest.acquire(topic)
        policy = self.policy(topic)
        if policy is not None:
            try:
                await self.follower.follow(topic, policy)
            except BaseException:
                lease.close()
                raise
        return lease

    def add(self, topic: str, member: Member) -> None:
        """Deliver a topic's messages to a socket, from the next to arrive on."""
        self._registry.add(topic, member)

    def remove(self, topic: str, member: Member) -> None:
        """Deliver nothing more of a topic to a socket."""
        self._registry.remove(topic, member)

    def send_here(
        self, topic: str, event: str, payload: bytes, but: frozenset[str] = frozenset()
    ) -> None:
        """Send a message of the gateway's own to the members of a topic on this replica.

        Args:
            but: Ids of sockets that do not get it.
        """
        audience = Audience(but) if but else None
        self._fanout.send(Broadcast(topic, event, payload, audience=audience))

    async def erase(self, topic: str) -> int:
        """Forget all messages of a topic, on all replicas; returns how many.

        Raises:
            BusUnavailable: Nothing was forgotten.
            OutcomeUnknown: Nobody knows.
        """
        erased = await self.history.erase(topic)
        with contextlib.suppress(BusError):  # who does not hear of it finds out by the next check
            self._bus.publish(self._subjects.topic(topic), encode_control(Control.ERASED, b""))
        return erased

    def broadcast(self, topic: str, message: Stored, *, live: bool = False) -> Broadcast | None:
        """A stored message for members; None if this release cannot read it.

        Args:
            live: Whether it is delivered for the first time, and not replayed.
        """
        position = self.follower.position(message.offset, message.time)
        return self._read(topic, message.body, encode_position(position), live=live)

    def _deliver(self, topic: str, data: bytes, position: StreamPosition | None) -> None:
        if position is not None:
            if position.subject != self._subjects.stored(topic):
                self._drop(topic, "stored under another subject")
                return
            if self.follower.live(topic, position, data):
                return
            if self.policy(topic) is not None:
                return  # it is covered by the tip that following will begin with
            # others have a rule that keeps it
        control = control_in(data)
        if control is not None:
            if control[0] is not Control.ERASED:
                self._control(*control)
            else:
                self.follower.erased(topic)
        elif (broadcast := self._read(topic, data)) is not None:
            self._fanout.send(broadcast)
            if self.taps.open:
                self.taps.offer(broadcast)

    def _deliver_stored(self, topic: str, messages: Sequence[Stored], missed: bool) -> bool:
        to_all = False
        for message in messages:
            broadcast = self.broadcast(topic, message, live=True)
            if broadcast is not None:
                self._fanout.send(broadcast, paced=missed)
                if self.taps.open:
                    self.taps.offer(broadcast)
                to_all |= broadcast.audience is None
        return to_all

    def _remind(self, topic: str, position: Position) -> None:
        reached = b'"%b"' % encode_position(position).encode()
        reminder = Broadcast(topic, POSITION, b"{}", position=reached, reminder=True)
        self._fanout.send(reminder)
        self.taps.offer(reminder)

    def _lost(self, topic: str) -> None:
        self._rejoins.begin(topic)
        self.taps.lost(topic)

    def _read(
        self, topic: str, data: bytes, position: str = "", *, live: bool = True
    ) -> Broadcast | None:
        """A message for members; None for what no gateway would send, whoever wrote it to the bus."""
        try:
            envelope = decode(data)
        except EnvelopeError as problem:
            self._drop(topic, problem.label)
            return None
        if is_reserved_event(envelope.event):
            self._drop(topic, "reserved event")
            return None
        if live:
            self._arrived(max(0.0, self._clock() - envelope.published_at))
        return Broadcast(
            topic,
            envelope.event,
            envelope.payload,
            envelope.binary,
            envelope.audience,
            b'"%b"' % position.encode() if position else b"",
        )

    def _drop(self, topic: str, problem: str) -> None:
        """A message from the bus is passed over."""
        self._dropped()
        subject = self._subjects.topic(topic)
        _log.warning("envelope dropped", subject=subject, problem=problem, throttle=problem)
