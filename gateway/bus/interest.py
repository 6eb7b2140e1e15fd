"""Keeps one bus subscription for each topic that anybody on this replica wants."""

import asyncio
from collections.abc import Callable
from functools import partial

from gateway.bus.base import Bus, Subscription
from gateway.bus.placement import Placement
from gateway.bus.subjects import Subjects
from gateway.errors import BusUnavailable


class _Topic:
    """One topic.

    Attributes:
        holders: Acquired and not yet released.
        waiting: Callers of ``acquire`` that do not know yet.
        subscription: What stands on the bus; it stays through reconnects.
        attempt: The subscribing under way, shared by all who wait.
        farewell: Ends the subscription that nobody holds any more.
    """

    __slots__ = ("attempt", "farewell", "holders", "name", "subscription", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.holders = 0
        self.waiting = 0
        self.subscription: Subscription | None = None
        self.attempt: asyncio.Task[None] | None = None
        self.farewell: asyncio.TimerHandle | None = None


class Interest:
    """Who holds which topics, counted.

    Args:
        bus: Where to subscribe.
        subjects: Where the topics are on it.
        deliver: Called with the topic, the body and the placement of each message, also while a topic
            lingers.
        linger_seconds: How long a subscription outlives its last holder.
        wait_seconds: How long :meth:`acquire` waits for a bus that is down.
        left: Told of each topic that is subscribed no longer.
    """

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        deliver: Callable[[str, bytes, Placement | None], None],
        *,
        linger_seconds: float,
        wait_seconds: float,
        left: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._deliver = deliver
        self._linger_seconds = linger_seconds
        self._wait_seconds = wait_seconds
        self._left = left
        self._topics: dict[str, _Topic] = {}
        self._subscribed = 0
        self._up = asyncio.Event()
        if bus.connected:
            self._up.set()
        bus.listen(self._bus_changed)

    @property
    def topics(self) -> int:
        """Subjects subscribed, those that linger among them."""
        return self._subscribed

    def try_acquire(self, topic: str) -> bool:
        """:meth:`acquire`, if that can be done at once; otherwise nothing is counted."""
        known = self._topics.get(topic)
        if known is None or known.subscription is None or not self._bus.connected:
            return False
        self._hold(known)
        return True

    async def acquire(self, topic: str) -> None:
        """Have a topic's messages delivered: all that are published after this returns.

        Each call that returns is to be matched by one of :meth:`release`; one that raises or is
        cancelled is not.

        Raises:
            BusUnavailable: The bus was down all the time, or went down too often.
            SubscriptionRefused: The bus server denies the topic.
        """
        if self.try_acquire(topic):
            return
        known = self._topics.get(topic)
        if known is None:
            known = self._topics[topic] = _Topic(topic)
        known.waiting += 1
        self._stay(known)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._stands(known)
            self._hold(known)
        except TimeoutError:
            raise BusUnavailable("the bus did not come back in time") from None
        finally:
            known.waiting -= 1
            self._tidy(known)

    def release(self, topic: str, *, linger: bool = True) -> None:
        """Undo one acquire; the last one ends the subscription, after a while or at once.

        Raises:
            KeyError: Nobody holds the topic, which is the caller's bug.
        """
        known = self._topics[topic]
        if not known.holders:
            raise KeyError(topic)
        known.holders -= 1
        self._tidy(known)
        if not linger and known.farewell is not None:
            known.farewell.cancel()
            self._leave(known)

    def _hold(self, topic: _Topic) -> None:
        topic.holders += 1
        self._stay(topic)

    def _stay(self, topic: _Topic) -> None:
        if topic.farewell is not None:
            topic.farewell.cancel()
            topic.farewell = None

    async def _stands(self, topic: _Topic) -> None:
        """Return once the topic is subscribed on a connected bus."""
        while True:
            await self._up.wait()
            try:
                if topic.subscription is None:
                    await self._subscribe_once(topic)
            except BusUnavailable:
                if self._bus.connected:
                    raise
            if self._bus.connected:
                return
            # It went down, and may not have said so yet; it will say when it is up again.
            self._up.clear()

    async def _subscribe_once(self, topic: _Topic) -> None:
        if topic.attempt is None:
            topic.attempt = asyncio.create_task(self._subscribe(topic))
            # if all who waited were cancelled, nobody else would look at what became of it
            topic.attempt.add_done_callback(lambda task: task.cancelled() or task.exception())
        # shielded, because others may wait for it too
        await asyncio.shield(topic.attempt)

    async def _subscribe(self, topic: _Topic) -> None:
        try:
            topic.subscription = await self._bus.subscribe(
                self._subjects.topic(topic.name), partial(self._deliver, topic.name)
            )
            self._subscribed += 1
        finally:
            topic.attempt = None
            self._tidy(topic)

    def _tidy(self, topic: _Topic) -> None:
        """Let go of a topic nobody wants: at once if there is nothing on the bus, else after a while."""
        if (
            topic.holders
            or topic.waiting
            or topic.attempt is not None
            or topic.farewell is not None
        ):
            return
        if topic.subscription is None:
            self._topics.pop(topic.name, None)
            return
        topic.farewell = asyncio.get_running_loop().call_later(
            self._linger_seconds, self._leave, topic
        )

    def _leave(self, topic: _Topic) -> None:
        del self._topics[topic.name]
        if topic.subscription is not None:
            topic.subscription.close()
            self._subscribed -= 1
            self._left(topic.name)

    def _bus_changed(self, up: bool) -> None:
        if up:
            self._up.set()
        else:
            self._up.clear()
