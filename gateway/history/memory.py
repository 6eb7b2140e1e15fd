"""A history inside one process, for the memory bus."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from gateway.bus.memory import MemoryBus
from gateway.bus.stream_position import StreamPosition
from gateway.bus.subjects import Subjects
from gateway.errors import HistoryProblem, HistoryUnavailable
from gateway.history.base import ID_SECONDS, Receipt, Stored, Tip
from gateway.retention import Retention

SWEPT_AT_A_TIME: Final = 2
"""Topics looked at for old messages at each append: more than one, so that the sweep gets round."""


class MemoryStore:
    """The messages of all topics.

    Args:
        retention: How much is kept of each topic.
        max_bytes: What all bodies together may take; 0 for no limit.
        clock: Unix seconds.

    Attributes:
        epoch: When the store began.
        last: The last offset that was given.
        bytes: Size of all bodies together.
    """

    def __init__(
        self, retention: Callable[[str], Retention], max_bytes: int, clock: Callable[[], float]
    ) -> None:
        self._retention = retention
        self._max_bytes = max_bytes
        self._clock = clock
        self._now = 0.0
        self._topics: OrderedDict[str, deque[Stored]] = OrderedDict()
        self._topic_at: OrderedDict[int, str] = OrderedDict()  # of every kept offset, in order
        self.bytes = 0
        self._ids: OrderedDict[tuple[str, str], Receipt] = OrderedDict()  # in the order they came
        self.epoch = f"{int(clock() * 1e9):x}"
        self.last = 0
        self._last_time = 0.0

    def now(self) -> float:
        """Unix seconds; a clock that is set back stands still, so that times grow with offsets."""
        self._now = max(self._now, self._clock())
        return self._now

    @property
    def first(self) -> int:
        """The lowest offset that is kept; above the last one when none is."""
        return next(iter(self._topic_at), self.last + 1)

    @property
    def kept_since(self) -> float:
        """As :attr:`gateway.history.base.Tip.kept_since`."""
        for topic in self._topic_at.values():
            return self._topics[topic][0].time
        return self._last_time

    def append(self, topic: str, body: bytes, id: str | None) -> tuple[Receipt, int]:  # noqa: A002
        """Keep a message; returns its receipt and the topic's offset before it, 0 if there is none."""
        now = self.now()
        self._forget_ids(now)
        if id is not None and (known := self._ids.get((topic, id))) is not None:
            return known, 0
        self._sweep(now)
        self._trim(topic, now)
        kept = self._topics.setdefault(topic, deque())
        previous = kept[-1].offset if kept else 0
        self.last += 1
        self._last_time = now
        kept.append(Stored(self.last, now, body))
        self._topic_at[self.last] = topic
        self.bytes += len(body)
        self._trim(topic, now)
        while self._max_bytes and self.bytes > self._max_bytes:
            self._drop_first(next(iter(self._topic_at.values())))
        if id is not None:
            self._ids[topic, id] = Receipt(self.last, now, True)
        return Receipt(self.last, now, False), previous

    def of(self, topic: str) -> deque[Stored]:
        """What is kept of a topic, oldest first."""
        self._trim(topic, self.now())
        return self._topics.get(topic, deque())

    def at(self, offset: int) -> Stored | None:
        kept = self.of(self._topic_at[offset]) if offset in self._topic_at else ()
        return next((stored for stored in kept if stored.offset == offset), None)

    def erase(self, topic: str) -> int:
        kept = len(self.of(topic))
        for _ in range(kept):
            self._drop_first(topic)
        return kept

    def _trim(self, topic: str, now: float) -> None:
        kept = self._topics.get(topic)
        if not kept:
            return
        retention = self._retention(topic)
        most = retention.stored_messages
        oldest = now - retention.stored_seconds
        while kept and (len(kept) > most or kept[0].time < oldest):
            self._drop_first(topic)

    def _sweep(self, now: float) -> None:
        """Drop what is too old of topics that nothing is appended to: each gets its turn."""
        for topic in list(islice(self._topics, SWEPT_AT_A_TIME)):
            self._topics.move_to_end(topic)
            self._trim(topic, now)

    def _drop_first(self, topic: str) -> None:
        kept = self._topics[topic]
        first = kept.popleft()
        self.bytes -= len(first.body)
        del self._topic_at[first.offset]
        if not kept:
            del self._topics[topic]

    def _forget_ids(self, now: float) -> None:
        while self._ids and next(iter(self._ids.values())).time < now - ID_SECONDS:
            self._ids.popitem(last=False)


class MemoryHistory:
    """A :class:`~gateway.history.base.MessageHistory` of one memory bus, or of several with one exchange.

    Args:
        bus: Delivers what was appended.
        store: Shared by the histories of buses that share an exchange.
    """

    def __init__(self, bus: MemoryBus, subjects: Subjects, store: MemoryStore) -> None:
        self._bus = bus
        self._subjects = subjects
        self._store = store
        self._listeners: list[Callable[[], None]] = []
        bus.listen(self._bus_changed)

    @property
    def problem(self) -> HistoryProblem | None:
        return None if self._bus.connected else "unavailable"

    @property
    def epoch(self) -> str:
        return self._store.epoch

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def listen(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    async def append(self, topic: str, body: bytes, *, id: str | None = None) -> Receipt:  # noqa: A002
        self._require_bus()
        self._bus.require_room(body)
        receipt, previous = self._store.append(topic, body, id)
        if not receipt.duplicate:
            position = StreamPosition(
                receipt.offset, previous, receipt.time, self._subjects.stored(topic)
            )
            self._bus.exchange.send(self._subjects.topic(topic), body, position=position)
        return receipt

    async def after(
        self, topic: str, offset: int, *, limit: int, upto: int | None = None
    ) -> list[Stored]:
        self._require_bus()
        above = (stored for stored in self._store.of(topic) if stored.offset > offset)
        within = (stored for stored in above if upto is None or stored.offset <= upto)
        return list(islice(within, limit))

    async def newest(self, topic: str, count: int) -> list[Stored]:
        self._require_bus()
        kept = self._store.of(topic)
        return list(islice(kept, max(0, len(kept) - count), None))

    async def tip(self) -> Tip:
        self._require_bus()
        store = self._store
        return Tip(store.epoch, store.last, store.now(), store.first, store.kept_since)

    async def time_at(self, offset: int) -> float | None:
        self._require_bus()
        stored = self._store.at(offset)
        return None if stored is None else stored.time

    async def last_offsets(self, topics: Iterable[str]) -> dict[str, int]:
        self._require_bus()
        return {topic: kept[-1].offset for topic in topics if (kept := self._store.of(topic))}

    async def erase(self, topic: str) -> int:
        self._require_bus()
        return self._store.erase(topic)

    def _require_bus(self) -> None:
        if not self._bus.connected:
            raise HistoryUnavailable("unavailable", "the memory bus is not open")

    def _bus_changed(self, up: bool) -> None:
        if up:
            for listener in self._listeners:  # the event loop reports the error of a bad one
                asyncio.get_running_loop().call_soon(listener)
