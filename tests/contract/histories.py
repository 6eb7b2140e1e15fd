"""Replicas under test, as far as a history goes."""

from collections.abc import Awaitable, Callable
from itertools import pairwise

from gateway.bus.base import Bus
from gateway.bus.stream_position import StreamPosition
from gateway.bus.subjects import Subjects
from gateway.history.base import MessageHistory
from gateway.retention import Retention
from tests.support.waiting import eventually

PREFIX = "t"
SUBJECTS = Subjects(PREFIX)
RETENTION = Retention(messages=5, seconds=300)


class Live:
    """What was delivered of one topic."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, StreamPosition | None]] = []

    def take(self, body: bytes, position: StreamPosition | None) -> None:
        """The handler."""
        self.messages.append((body, position))

    @property
    def bodies(self) -> list[bytes]:
        """In the order they came."""
        return [body for body, _ in self.messages]

    @property
    def positions(self) -> list[StreamPosition]:
        """Of all messages, which must have one."""
        positions = [position for _, position in self.messages if position is not None]
        assert len(positions) == len(self.messages)
        return positions

    @property
    def offsets(self) -> list[int]:
        """In the order they came."""
        return [position.offset for position in self.positions]

    def check_chain(self) -> None:
        """Each message must name the one before it."""
        for before, after in pairwise(self.positions):
            assert after.previous == before.offset

    async def until(self, count: int) -> None:
        """Wait for so many messages."""
        await eventually(lambda: len(self.messages) >= count, what=f"{count} messages")


class Replica:
    """A bus and a history.

    Attributes:
        told: How often the history said that something may have happened.
    """

    def __init__(self, bus: Bus, history: MessageHistory) -> None:
        self.bus = bus
        self.history = history
        self.told = 0
        history.listen(self._listen)

    async def start(self) -> None:
        """Start both."""
        await self.history.start()
        await self.bus.start()

    async def close(self) -> None:
        """End both."""
        await self.history.close()
        await self.bus.close()

    async def until_ready(self, seconds: float = 30.0) -> None:
        """Wait until messages can be stored and read."""
        await eventually(lambda: self.history.problem is None, seconds, "history ready")

    async def until_told(self, times: int, seconds: float = 30.0) -> None:
        """Wait until the history has said so often that something may have happened."""
        await eventually(lambda: self.told >= times, seconds, f"told {times} times")

    async def hear(self, topic: str) -> Live:
        """Subscribe to a topic."""
        live = Live()
        await self.bus.subscribe(SUBJECTS.topic(topic), live.take)
        return live

    async def bodies(self, topic: str) -> list[bytes]:
        """All that is kept of a topic."""
        upto = (await self.history.tip()).offset
        kept = await self.history.after(topic, 0, limit=1_000_000, upto=upto)
        return [stored.body for stored in kept]

    def _listen(self) -> None:
        self.told += 1


MakeReplica = Callable[[], Replica]
"""Makes replicas that share a history, not started."""

OpenReplica = Callable[..., Awaitable[Replica]]
"""Makes and starts replicas on a server, and waits until they are ready unless told otherwise."""
