"""Keeps one bus subscription for each topic that anybody on this replica wants."""

import asyncio
from collections.abc import Callable
from functools import partial

from gateway.bus.base import Bus, Subscription
from gateway.bus.stream_position import StreamPosition
from gateway.bus.subjects import Subjects
from gateway.errors import BusUnavailable, SubscriptionRefused
from gateway.leases import Lease, Leases
from gateway.log import teardown


class Interest:
    """The topics this replica is subscribed to.

    Args:
        bus: Where to subscribe.
        subjects: Where the topics are on it.
        deliver: Called with the topic, the body and the position of each message, also while a topic
            lingers.
        linger_seconds: How long a subscription outlives its last lease.
        wait_seconds: How long :meth:`acquire` waits for a bus that is down.
        left: Told of each topic that is subscribed no longer.
    """

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        deliver: Callable[[str, bytes, StreamPosition | None], None],
        *,
        linger_seconds: float,
        wait_seconds: float,
        left: Callable[[str], None],
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._deliver = deliver
        self._wait_seconds = wait_seconds
        self._left = left
        self._leases: Leases[Subscription] = Leases(
            self._unsubscribe, linger_seconds=linger_seconds
        )
        self._up = asyncio.Event()
        if bus.connected:
            self._up.set()
        bus.listen(self._bus_changed)

    @property
    def topics(self) -> int:
        """Subjects subscribed, those that linger among them."""
        return len(self._leases)

    def try_acquire(self, topic: str) -> Lease | None:
        """:meth:`acquire`, if that can be done at once; else None."""
        if not self._bus.connected or self._refusal(topic):
            return None
        return self._leases.try_acquire(topic, partial(self._subscribe_now, topic))

    async def acquire(self, topic: str) -> Lease:
        """Have a topic's messages delivered: all that are published after this returns.

        Raises:
            BusUnavailable: The bus was down all the time, or went down too often.
            SubscriptionRefused: The bus server denies the topic, or took it away and has not given it back.
        """
        if (lease := self.try_acquire(topic)) is not None:
            return lease  # the usual case, in a fraction of what a deadline costs
        try:
            async with asyncio.timeout(self._wait_seconds):
                while True:
                    await self._up.wait()
                    try:
                        lease = await self._leases.acquire(topic, partial(self._subscribe, topic))
                    except BusUnavailable:
                        if self._bus.connected:
                            raise
                    else:
                        if self._bus.connected:
                            if refusal := self._refusal(topic):
                                lease.close()
                                raise SubscriptionRefused(refusal)
                            return lease
                        lease.close()
                    # It went down, and may not have said so yet; it will say when it is up again.
                    self._up.clear()
        except TimeoutError:
            raise BusUnavailable("the bus did not come back in time") from None

    def _refusal(self, topic: str) -> str:
        """The server's words, where members of the topic hear nothing though it is subscribed."""
        subscription = self._leases.value(topic)
        return "" if subscription is None else subscription.refusal

    def _subscribe_now(self, topic: str) -> Subscription | None:
        subject, deliver = self._subjects.topic(topic), partial(self._deliver, topic)
        return self._bus.subscribe_now(subject, deliver)

    async def _subscribe(self, topic: str) -> Subscription:
        return await self._bus.subscribe(self._subjects.topic(topic), partial(self._deliver, topic))

    def _unsubscribe(self, topic: str, subscription: Subscription) -> None:
        teardown("bus", subscription.close, partial(self._left, topic))

    def _bus_changed(self, up: bool) -> None:
        if up:
            self._up.set()
        else:
            self._up.clear()
