"""A store of messages that fails, waits and begins anew when it is told to."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from gateway.bus.stream_position import StreamPosition
from gateway.errors import HistoryUnavailable
from gateway.history.base import Receipt, Stored, Tip
from gateway.history.follower import Follower
from gateway.retention import Retention
from tests.support.clock import Clock
from tests.support.counted import Counted

if TYPE_CHECKING:
    from gateway.history.position import Position


RETENTION = Retention(messages=10, seconds=300)


class FakeHistory:
    """A store.

    Attributes:
        now: Its clock, Unix seconds; it stands still by itself.
        problems: What the next calls raise, by the name of the method.
        gate: Whether reads of messages and offsets may end; to be cleared by a test.
        answered: The same for answers about the end of the history.
        calls: Name and argument of each call, in order.
    """

    problem = None

    def __init__(self) -> None:
        self.epoch = "e1"
        self.now = 1_000_000.0
        self.last = 0
        self.last_at = 0.0
        self.kept: dict[int, tuple[str, Stored]] = {}
        self.problems: dict[str, list[Exception]] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.answered = asyncio.Event()
        self.answered.set()
        self.calls: list[tuple[str, object]] = []
        self.listener: Callable[[], None] = lambda: None

    def count(self, name: str) -> int:
        """How often a method was called."""
        return sum(called == name for called, _ in self.calls)

    def store(self, topic: str, body: bytes = b"") -> tuple[Stored, StreamPosition]:
        """Keep a message; returns it and where its live copy says that it stands."""
        previous = max((o for o, (t, _) in self.kept.items() if t == topic), default=0)
        self.last += 1
        self.last_at = self.now
        stored = Stored(self.last, self.now, body or b"%d" % self.last)
        self.kept[self.last] = (topic, stored)
        return stored, StreamPosition(self.last, previous, self.now, f"p.store.{topic}")

    def begin_anew(self, epoch: str = "e2") -> None:
        """Forget everything, as a stream does that is deleted and made again."""
        self.epoch, self.last, self.kept = epoch, 0, {}

    def restore(self, last: int) -> None:
        """Be an older copy, that ends with this offset."""
        self.last = last
        self.kept = {offset: kept for offset, kept in self.kept.items() if offset <= last}

    def fail(self, name: str, *problems: Exception) -> None:
        """Have the next calls of a method fail."""
        self.problems[name] = list(problems) or [HistoryUnavailable("unavailable", "it fails")]

    def _called(self, name: str, argument: object = None) -> None:
        self.calls.append((name, argument))
        if self.problems.get(name):
            raise self.problems[name].pop(0)

    async def start(self) -> None: ...
    async def close(self) -> None: ...

    def listen(self, listener: Callable[[], None]) -> None:
        self.listener = listener

    async def append(self, topic: str, body: bytes, *, id: str | None = None) -> Receipt:  # noqa: A002
        raise NotImplementedError

    async def after(
        self, topic: str, offset: int, *, limit: int, upto: int | None = None
    ) -> list[Stored]:
        self._called("after", (topic, offset))
        await self.gate.wait()
        found = [m for t, m in self.kept.values() if t == topic and m.offset > offset]
        return [m for m in found if upto is None or m.offset <= upto][:limit]

    async def newest(self, topic: str, count: int) -> list[Stored]:
        self._called("newest", (topic, count))
        await self.gate.wait()
        return [m for t, m in self.kept.values() if t == topic][-count:]

    async def tip(self) -> Tip:
        self._called("tip")
        await asyncio.sleep(0)
        first = min(self.kept, default=self.last + 1)
        since = self.kept[first][1].time if self.kept else self.last_at
        answer = Tip(self.epoch, self.last, self.now, first, since)
        await self.answered.wait()
        return answer

    async def time_at(self, offset: int) -> float | None:
        self._called("time_at", offset)
        await self.gate.wait()
        return self.kept[offset][1].time if offset in self.kept else None

    async def last_offsets(self, topics: Iterable[str]) -> dict[str, int]:
        wanted = tuple(topics)
        self._called("last_offsets", wanted)
        found = {t: m.offset for t, m in self.kept.values() if t in wanted}
        await self.gate.wait()
        return found

    async def erase(self, topic: str) -> int:
        raise NotImplementedError


class Scene:
    """A follower, its store, and what it told.

    Attributes:
        delivered: Topic and message of each delivery, in order.
        lost: Topics of which messages are gone.
        refused: Topic and problem of each live copy that cannot be the store's.
        missed: Of each delivery, whether it comes later than it was due.
        told: Topic and position of each reminder.
        metrics: What was counted.
        to_all: Whether messages are for all members.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.to_all = True
        self.history = FakeHistory()
        self.delivered: list[tuple[str, Stored]] = []
        self.lost: list[str] = []
        self.refused: list[tuple[str, str]] = []
        self.missed: list[bool] = []
        self.told: list[tuple[str, Position]] = []
        self.metrics = Counted()
        self.follower = Follower(
            self.history,
            deliver=self._deliver,
            lost=self.lost.append,
            refused=lambda topic, problem: self.refused.append((topic, problem)),
            tell_position=lambda topic, position: self.told.append((topic, position)),
            metrics=self.metrics,
            clock=lambda: clock.now,
        )

    def _deliver(self, topic: str, messages: Sequence[Stored], missed: bool) -> bool:
        self.missed.append(missed)
        self.delivered += ((topic, message) for message in messages)
        return self.to_all

    def offsets(self, topic: str = "a") -> list[int]:
        """Of what was delivered of a topic."""
        return [message.offset for at, message in self.delivered if at == topic]

    def publish(self, topic: str = "a", *, lose: bool = False) -> Stored:
        """Store a message, and have its live copy come unless it is lost."""
        stored, position = self.history.store(topic)
        if not lose:
            self.follower.live(topic, position, stored.body)
        return stored

    async def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass, for the store as for the follower."""
        for _ in range(int(seconds / step)):
            self.history.now += step
            await self.clock.run(step)
            await self.clock.run()

    async def settle(self) -> None:
        """Let happen what needs no time."""
        for _ in range(5):
            await self.clock.run()


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    """A follower that checks."""
    made = Scene(Clock())
    running = asyncio.create_task(made.follower.run())
    await made.settle()
    yield made
    running.cancel()
    for task in made.follower._tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await running
