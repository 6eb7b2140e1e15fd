"""Carries messages from publishers to members: to the bus, and from the bus to the local sockets.

Everything goes by way of the bus, also for members on the publisher's own replica, so all of them see
one replica's messages in one order.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from gateway.bus.base import Bus
from gateway.bus.envelope import Envelope, EnvelopeError, decode, encode
from gateway.bus.interest import Interest
from gateway.bus.subjects import Subjects
from gateway.hub.broadcast import Broadcast
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
        exclude_sessions: Iterable[str] = (),
    ) -> None:
        """Send a message to all members of a topic on all replicas, but for the excluded ones.

        Args:
            topic: A topic that matches a rule.
            event: Not a reserved one.
            payload: A JSON object in UTF-8, passed on byte for byte; any bytes when ``binary``.
            binary: Whether only clients that understand binary frames can get it.
            exclude_sessions: Ids of sockets that must not get it.

        Raises:
            BusUnavailable: Certainly nobody gets it.
            EnvelopeTooLarge: The bus cannot carry it; nobody gets it.
        """
        envelope = Envelope(event, payload, binary, self._clock(), tuple(exclude_sessions))
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

    def unsubscribe(self, topic: str) -> None:
        """Undo one :meth:`subscribe`."""
        self._interest.release(topic)

    def add(self, topic: str, member: Member) -> None:
        """Deliver a topic's messages to a socket, from the next to arrive on."""
        self._registry.add(topic, member)

    def remove(self, topic: str, member: Member) -> None:
        """Deliver nothing more of a topic to a socket."""
        self._registry.remove(topic, member)

    def _deliver(self, topic: str, data: bytes) -> None:
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
                frozenset(envelope.exclude_sessions),
            )
        )
