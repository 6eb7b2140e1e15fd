"""Carries messages from publishers to members: to the bus, and from the bus to the local sockets.

Everything goes by way of the bus, also for members on the publisher's own replica, so all of them see
one replica's messages in one order.
"""

from collections.abc import Callable
from typing import Protocol

import structlog

from gateway.bus.base import Bus, Unheard
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
from gateway.bus.placement import Placement
from gateway.bus.subjects import Subjects
from gateway.hub.broadcast import Audience, Broadcast
from gateway.hub.fanout import Fanout
from gateway.hub.registry import Member, Registry
from gateway.protocol.reserved import is_reserved_event

LINGER_SECONDS = 2.0
"""
How long a topic's subscription outlives its last local member.

A page that reloads leaves and joins the same topics within a second; that should not cost the bus two
changes of interest, nor the join a round trip.
"""

JOIN_WAIT_SECONDS = 2.0
"""How long a join waits for a bus that is down, before it is refused."""

_log = structlog.get_logger(__name__)


class RelayMetrics(Protocol):
    """What the relay counts."""

    def arrived(self, seconds: float) -> None:
        """A message came from the bus, so long after it was published."""

    def undecodable(self) -> None:
        """A message came from the bus that this release cannot read."""


class Relay:
    """One replica's way to all members of a topic.

    Args:
        clock: Unix seconds; publish times are compared between replicas.

    Attributes:
        on_control: Told what gateways say to those who are subscribed to a topic.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        subjects: Subjects,
        registry: Registry,
        fanout: Fanout,
        metrics: RelayMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._registry = registry
        self._fanout = fanout
        self._metrics = metrics
        self._clock = clock
        self.on_control: Callable[[Control, bytes], None] = lambda _kind, _message: None
        self._interest = Interest(
            bus,
            subjects,
            self._deliver,
            linger_seconds=LINGER_SECONDS,
            wait_seconds=JOIN_WAIT_SECONDS,
        )

    @property
    def subscriptions(self) -> int:
        """Subjects this replica is subscribed to for its members."""
        return self._interest.topics

    async def publish(
        self,
        topic: str,
        event: str,
        payload: bytes,
        *,
        binary: bool = False,
        audience: Audience | None = None,
    ) -> None:
        """Send a message to the members of a topic on all replicas.

        Args:
            topic: A topic that matches a rule.
            event: Not a reserved one.
            payload: A JSON object in UTF-8, passed on byte for byte; any bytes when ``binary``.
            binary: Whether only clients that understand binary frames can get it.
            audience: Which members get it; None for all.

        Raises:
            BusUnavailable: Certainly nobody gets it.
            EnvelopeTooLarge: The bus cannot carry it; nobody gets it.
        """
        envelope = Envelope(event, payload, binary, self._clock(), *_filters(audience))
        await self._bus.publish(self._subjects.topic(topic), encode(envelope))

    def try_subscribe(self, topic: str) -> bool:
        """:meth:`subscribe`, if it can be done without waiting."""
        return self._interest.try_acquire(topic)

    async def subscribe(self, topic: str) -> None:
        """Have a topic's messages come to this replica: every one published after this returns.

        Each call that succeeds is to be matched by one of :meth:`unsubscribe`.

        Raises:
            BusError: The bus is down, or does not let this replica listen.
        """
        await self._interest.acquire(topic)

    def unsubscribe(self, topic: str, *, linger: bool = True) -> None:
        """Undo one :meth:`subscribe`; the last one ends the subscription, after a while or at once."""
        self._interest.release(topic, linger=linger)

    def add(self, topic: str, member: Member) -> None:
        """Deliver a topic's messages to a socket, from the next to arrive on."""
        self._registry.add(topic, member)

    def remove(self, topic: str, member: Member) -> None:
        """Deliver nothing more of a topic to a socket."""
        self._registry.remove(topic, member)

    async def publish_control(
        self, topic: str, kind: Control, message: bytes, *, unheard: Unheard | None = None
    ) -> None:
        """Send a message to all replicas that are subscribed to a topic.

        Args:
            unheard: Called if there is none.

        Raises:
            BusError: Nobody gets it.
        """
        data = encode_control(kind, message)
        await self._bus.publish(self._subjects.topic(topic), data, unheard=unheard)

    def send_here(self, topic: str, event: str, payload: bytes) -> None:
        """Send a message of the gateway's own to the members of a topic on this replica."""
        self._fanout.send(Broadcast(topic, event, payload))

    def _deliver(self, topic: str, data: bytes, _placement: Placement | None) -> None:
        control = control_in(data)
        if control is not None:
            self.on_control(*control)
            return
        try:
            envelope = decode(data)
        except EnvelopeError as problem:
            self._metrics.undecodable()
            _log.warning("envelope dropped", problem=str(problem))
            return
        if is_reserved_event(envelope.event):
            # Whoever wrote to the bus is no gateway, or no well-behaved one.
            self._metrics.undecodable()
            _log.warning("envelope dropped", problem="reserved event")
            return
        self._metrics.arrived(max(0.0, self._clock() - envelope.published_at))
        self._fanout.send(
            Broadcast(
                topic,
                envelope.event,
                envelope.payload,
                envelope.binary,
                _audience(envelope),
            )
        )


def _filters(audience: Audience | None) -> tuple[tuple[str, ...], ...]:
    if audience is None:
        return ()
    return (
        tuple(audience.excluded_sessions),
        tuple(audience.excluded_devices),
        tuple(audience.device_types),
    )


def _audience(envelope: Envelope) -> Audience | None:
    if not (envelope.exclude_sessions or envelope.exclude_devices or envelope.device_types):
        return None
    return Audience(
        frozenset(envelope.exclude_sessions),
        frozenset(envelope.exclude_devices),
        frozenset(envelope.device_types),
    )
