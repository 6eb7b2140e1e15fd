"""A replica's relay and its tails, without sockets."""

import asyncio

from gateway.bus.memory import MemoryBus
from gateway.bus.subjects import Subjects
from gateway.history.memory import MemoryHistory, MemoryStore
from gateway.hub.broadcast import Broadcast
from gateway.hub.registry import Registry
from gateway.relay import Relay
from gateway.retention import Retention
from gateway.tail import Tails
from tests.support.counted import Counted

NOW = 1000.0


class Nobody:
    """The hub of a replica without members."""

    def send(self, message: Broadcast, *, paced: bool = False) -> None:
        """To nobody."""


class TailScene:
    """A replica's relay and tails, on a memory bus with a history of topics that begin with ``kept:``."""

    def __init__(self) -> None:
        self.metrics = Counted()
        self.bus = MemoryBus(metrics=self.metrics)
        subjects = Subjects("p")
        retention = Retention(10, 300)
        store = MemoryStore(lambda _: retention, 0, lambda: NOW)
        self.relay = Relay(
            bus=self.bus,
            subjects=subjects,
            registry=Registry(),
            fanout=Nobody(),  # type: ignore[arg-type]  # it has what the relay uses
            metrics=self.metrics,
            history=MemoryHistory(self.bus, subjects, store),
            policy=lambda topic: retention if topic.startswith("kept:") else None,
            control=lambda *_: None,
            clock=lambda: NOW,
        )
        self.dropped = 0
        self.tails = Tails(self.relay, clock=lambda: NOW, dropped=self.count)

    def count(self, number: int) -> None:
        self.dropped += number

    async def publish(self, topic: str, *events: str) -> None:
        for event in events:
            await self.relay.publish(topic, event, b"{}")
        await asyncio.sleep(0)
