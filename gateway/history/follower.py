"""Keeps the topics this replica is subscribed to level with the store."""

import asyncio
import time as clocks
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import structlog
from msgspec.structs import replace

from gateway.bus.placement import Placement
from gateway.errors import BusError
from gateway.history.base import History, Stored, Tip
from gateway.history.policy import HistoryPolicy
from gateway.history.position import Position
from gateway.history.steps import Fetch, Step
from gateway.history.topiclog import TopicLog

RING_BYTES: Final = 1024 * 1024
"""What one topic keeps in memory at most."""

CHECK_SECONDS: Final = 30.0
"""A live copy that was lost with nothing after it is found at the latest after so long."""

FIRST_CHECK_SECONDS: Final = 1.0

CHECKED_AT_ONCE: Final = 1024
"""Topics asked for in one request."""

FETCHED_AT_ONCE: Final = 500
"""Messages read at a time where live copies were lost."""

FETCHES_AT_ONCE: Final = 64

RETRY_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)


class FollowerMetrics(Protocol):
    """What following counts."""

    def repaired(self, messages: int) -> None:
        """Messages whose live copies did not come were fetched and delivered."""


class Followed:
    """One topic.

    Attributes:
        resuming: Members that want positions.
        told_at: When those were last told one, monotonic seconds.
    """

    __slots__ = ("log", "policy", "resuming", "told_at", "topic")

    def __init__(self, topic: str, policy: HistoryPolicy, now: float) -> None:
        self.topic = topic
        self.policy = policy
        self.log = TopicLog(policy, RING_BYTES)
        self.resuming = 0
        self.told_at = now

    @property
    def visit_seconds(self) -> float:
        """Time between two looks at it; no position shall be older than a third of what counts."""
        return max(1.0, min(CHECK_SECONDS, self.policy.seconds / 6))


class Follower:
    """All topics that are followed.

    Args:
        deliver: Given a topic and its next messages, in order, each exactly once.
        lost: Told of a topic of which messages are gone before its members got them.
        tell_position: Given a topic and the position its members have reached; called while it is quiet.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        history: History,
        *,
        deliver: Callable[[str, Sequence[Stored]], None],
        lost: Callable[[str], None],
        tell_position: Callable[[str, Position], None],
        metrics: FollowerMetrics,
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        self._history = history
        self._deliver = deliver
        self._lost = lost
        self._tell_position = tell_position
        self._metrics = metrics
        self._clock = clock
        self._topics: dict[str, Followed] = {}
        self._visits: defaultdict[int, list[Followed]] = defaultdict(list)
        self._next_slot = int(clock())
        self._epoch = ""
        self._shaken = asyncio.Event()
        self._fetching = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        history.listen(self._shaken.set)

    def __getitem__(self, topic: str) -> Followed:
        """A topic that is followed."""
        return self._topics[topic]

    def ready(self, topic: str) -> bool:
        """Whether a topic is followed and what is stored from now on will be delivered."""
        known = self._topics.get(topic)
        return known is not None and known.log.ready

    async def follow(self, topic: str, policy: HistoryPolicy) -> None:
        """Deliver everything that is stored on a topic from now on; its subject is subscribed.

        Raises:
            BusError: The store does not answer.
        """
        known = self._topics.get(topic)
        if known is None:
            known = self._topics[topic] = Followed(topic, policy, self._clock())
        if known.log.ready:
            return
        tip = await self.tip()
        fresh = known.log.floor is None
        self._take(known, known.log.baseline(tip.offset, tip.time))
        if fresh:
            self._visit_at(known, self._clock() + FIRST_CHECK_SECONDS)

    def forget(self, topic: str) -> None:
        """Its subject is no longer subscribed."""
        self._topics.pop(topic, None)

    def live(self, topic: str, placement: Placement, body: bytes) -> None:
        """A live copy came from the bus."""
        known = self._topics.get(topic)
        if known is not None:  # else it is covered by the tip that following will begin with
            step = known.log.live(placement.offset, placement.previous, placement.time, body)
            self._take(known, step)

    def erased(self, topic: str) -> None:
        """The topic's messages were erased on purpose."""
        known = self._topics.get(topic)
        if known is not None:
            known.log.erased()

    @property
    def epoch(self) -> str:
        """Which counting of offsets the logs are of."""
        return self._epoch

    def position(self, offset: int, time: float) -> Position:
        """A position in the current epoch."""
        return Position(self._epoch or self._history.epoch, offset, time)

    def resuming(self, topic: str, change: int) -> None:
        """So many more members of a topic want positions, or fewer."""
        known = self._topics.get(topic)
        if known is not None:
            known.resuming += change

    def since(self, topic: str, offset: int, read_upto: int) -> list[Stored] | None:
        """What was delivered above an offset, from memory; None if some of it may be gone from there.

        Args:
            read_upto: What lies at or below this offset need not be there: it was read from the store.
        """
        return self._topics[topic].log.ring.since(offset, read_upto)

    async def read(self, topic: str, offset: int) -> tuple[list[Stored], int]:
        """What the store has of a topic above an offset, and up to which offset that is all there is.

        Raises:
            BusError: The store does not answer.
        """
        tip = await self.tip()
        upto = max(tip.offset, offset)
        found = await self._history.after(topic, offset, limit=FETCHED_AT_ONCE, upto=upto)
        return found, upto if len(found) < FETCHED_AT_ONCE else found[-1].offset

    def level(self, topic: str, offset: int) -> bool:
        """Whether everything up to an offset has been delivered here; if not, it is looked for."""
        known = self._topics[topic]
        log = known.log
        if log.floor is not None and log.floor >= offset:
            return True
        self._take(known, log.check(offset, log.standing(0)[1]))
        return log.floor is not None and log.floor >= offset

    async def run(self) -> None:
        """Check, for ever: each topic from time to time, and all of them when there is a reason."""
        while True:
            try:
                async with asyncio.timeout(1.0):
                    await self._shaken.wait()
            except TimeoutError:
                due = self._due()
            else:
                self._shaken.clear()
                due = list(self._topics.values())
            for start in range(0, len(due), CHECKED_AT_ONCE):
                try:
                    await self._check(due[start : start + CHECKED_AT_ONCE])
                except BusError:
                    break  # when the store is back, it says so, and all are checked
                except Exception:  # noqa: BLE001 -- a bug with one topic must not end all checks
                    _log.exception("position check failed")
                await asyncio.sleep(0)

    async def tip(self) -> Tip:
        """The end of the history; where that is another than before, everything begins anew."""
        tip = await self._history.tip()
        self._note(tip.epoch, tip.time)
        return tip

    def _note(self, epoch: str, time: float) -> None:
        """Begin anew, if offsets do."""
        if epoch == self._epoch:
            return
        if self._epoch:
            _log.warning("history began anew", topics=len(self._topics))
            for known in self._topics.values():
                known.log.reset(time)
                self._lost(known.topic)
            self._shaken.set()
        self._epoch = epoch

    async def _check(self, due: Sequence[Followed]) -> None:
        """Compare the last offsets of topics with the store's."""
        tip = await self.tip()
        last = await self._history.last_offsets([known.topic for known in due])
        now = self._clock()
        for known in due:
            if self._topics.get(known.topic) is not known:
                continue
            self._take(known, known.log.check(last.get(known.topic, 0), tip.time))
            self._remind(known, tip, now)

    def _remind(self, known: Followed, tip: Tip, now: float) -> None:
        """Let the members of a quiet topic know where they stand."""
        quiet = now - known.told_at
        if known.resuming and quiet >= known.policy.seconds / 3 - known.visit_seconds:
            known.told_at = now
            self._tell_position(known.topic, self.position(*known.log.standing(tip.time)))

    def _due(self) -> list[Followed]:
        now = self._clock()
        due: list[Followed] = []
        while self._next_slot <= int(now):
            for known in self._visits.pop(self._next_slot, ()):
                if self._topics.get(known.topic) is known:
                    due.append(known)
                    self._visit_at(known, now + known.visit_seconds)
            self._next_slot += 1
        return due

    def _visit_at(self, known: Followed, when: float) -> None:
        self._visits[max(int(when), self._next_slot + 1)].append(known)

    def _take(self, known: Followed, step: Step) -> None:
        if step.deliver:
            known.told_at = self._clock()
            self._deliver(known.topic, step.deliver)
        if step.restarted:
            self._shaken.set()
        if step.doubtful:
            _log.warning("messages were lost before they could be read")
            self._lost(known.topic)
        if step.fetch is not None:
            self._start(self._fetch(known, step.fetch))

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fetch(self, known: Followed, fetch: Fetch) -> None:
        """Read what is missing, until there is nothing more."""
        wanted: Fetch | None = fetch
        limit = max(FETCHED_AT_ONCE, known.policy.messages + 1)
        while wanted is not None and self._topics.get(known.topic) is known:
            try:
                async with self._fetching:
                    tip = await self._history.tip()
                    found = await self._history.after(
                        known.topic, wanted.after, limit=limit, upto=wanted.upto
                    )
            except BusError:
                known.log.failed(wanted)
                await asyncio.sleep(RETRY_SECONDS)
                step = known.log.retry()
            else:
                upto = wanted.upto if len(found) < limit else found[-1].offset
                step = known.log.fetched(wanted, found, upto=upto, time=tip.time)
                self._metrics.repaired(len(found))
            wanted = step.fetch
            self._take(known, replace(step, fetch=None))
