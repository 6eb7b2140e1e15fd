"""Joins that resume, while the store changes under them."""

from collections.abc import Callable

from gateway.bus.memory import MemoryBus
from gateway.bus.subjects import Subjects
from gateway.history.base import HistoryLimits, Stored
from gateway.history.follower import Follower
from gateway.history.memory import MemoryHistory, MemoryStore
from gateway.history.position import Position
from gateway.history.resume import After
from gateway.history.resumer import Resumer
from tests.unit.bus.counters import Ignored as BusMetrics

ROOM = "room:1"
LIMITS = HistoryLimits(messages=10, seconds=60)


class Ignored:
    def repaired(self, messages: int) -> None: ...
    def resumed(self, result: str) -> None: ...


class ChangingHistory(MemoryHistory):
    """One that a test interferes with whenever messages are read."""

    def __init__(self, bus: MemoryBus, store: MemoryStore, reading: Callable[[], None]) -> None:
        super().__init__(bus, Subjects("t"), store)
        self._reading = reading

    async def after(
        self, topic: str, offset: int, *, limit: int, upto: int | None = None
    ) -> list[Stored]:
        self._reading()
        return await super().after(topic, offset, limit=limit, upto=upto)


async def test_a_store_that_begins_anew_while_it_is_read_is_told_to_who_resumes() -> None:
    """Else the join would be answered by the old counting, of which the new store knows nothing."""
    clock = 1000.0
    bus = MemoryBus(metrics=BusMetrics())
    await bus.start()

    def begin_anew() -> None:
        history._store = MemoryStore(lambda _: LIMITS, 0, lambda: clock + 1)
        follower._note(history.epoch, clock + 1)  # as another join's question brings it to light

    history = ChangingHistory(bus, MemoryStore(lambda _: LIMITS, 0, lambda: clock), begin_anew)
    for _ in range(3):
        await history.append(ROOM, b"")
    follower = Follower(
        history,
        deliver=lambda _topic, _messages: None,
        lost=lambda _topic: None,
        tell_position=lambda _topic, _position: None,
        metrics=Ignored(),
    )
    await follower.follow(ROOM, LIMITS)
    resumer = Resumer(history, follower, Ignored(), bounded=False)
    before = Position(history.epoch, 1, clock)
    outcome, tail = await resumer.resume(ROOM, After(before), None)

    assert (outcome.recovered, outcome.reason) == (False, "epoch_changed")
    assert outcome.position.epoch == history.epoch
    assert not tail
    await bus.close()
