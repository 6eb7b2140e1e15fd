"""Keeps the topics this replica is subscribed to level with the store."""

import asyncio
import contextlib
import math
import time as clocks
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import structlog
from msgspec.structs import replace

from gateway.bus.placement import Placement
from gateway.errors import BusError, HistoryUnavailable
from gateway.history.base import History, Stored, Tip
from gateway.history.counting import Counting
from gateway.history.followed import Followed
from gateway.history.policy import RETENTION_SLACK_SECONDS, HistoryPolicy
from gateway.history.position import CLOCK_SECONDS, Position
from gateway.history.steps import Fetch, Step
from gateway.history.visits import Visits
from gateway.log import background_error

FIRST_CHECK_SECONDS: Final = 1.0

CHECKED_AT_ONCE: Final = 1024
"""Topics asked for in one request."""

FETCHED_AT_ONCE: Final = 500
"""Messages read at a time where live copies were lost."""

FETCHES_AT_ONCE: Final = 64

AGAIN_SECONDS: Final = 5.0
"""When all is checked once more after something happened: copies of the store may lag for as long."""

RETRY_SECONDS: Final = 1.0

LEVEL_SECONDS: Final = 0.01
"""How often is looked whether the topic is where a client that waits for it is already."""

SETTLE_SECONDS: Final = 5.0
"""How long a join waits for a topic whose offsets began anew."""

_log = structlog.get_logger(__name__)


class FollowerMetrics(Protocol):
    """What following counts."""

    def repaired(self, messages: int) -> None:
        """Messages whose live copies did not come were fetched and delivered."""


class Follower:
    """All topics that are followed.

    Args:
        deliver: Given a topic and its next messages, in order, each exactly once; says whether one of them
            was for all members, so that all know where they stand.
        lost: Told of a topic of which messages are gone before its members got them.
        tell_position: Given a topic and the position its members have reached; called while nothing else
            tells them.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        history: History,
        *,
        deliver: Callable[[str, Sequence[Stored]], bool],
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
        self._visits: Visits[Followed] = Visits(clock())
        self._counting = Counting()
        self._shaken = asyncio.Event()
        self._again_at = math.inf
        self._fetching = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        history.listen(self._shaken.set)

    def __getitem__(self, topic: str) -> Followed:
        """A topic that is followed.

        Raises:
            HistoryUnavailable: It is not, or no longer.
        """
        known = self._topics.get(topic)
        if known is None:
            raise HistoryUnavailable("unavailable", "the topic is not followed any more")
        return known

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
            self._visits.add(known, self._clock() + FIRST_CHECK_SECONDS)
        await self._settle(known)

    async def stand(self, known: Followed) -> Tip:
        """The end of the history, as of which a topic's log can be asked.

        Raises:
            BusError: The store does not answer.
        """
        tip = await self.tip()
        while not known.log.ready:
            await self._settle(known)
            tip = await self.tip()
        return tip

    def forget(self, topic: str) -> None:
        """Its subject is no longer subscribed."""
        self._topics.pop(topic, None)

    def live(self, topic: str, placement: Placement, body: bytes) -> bool:
        """A live copy came from the bus; False if its topic is not followed."""
        known = self._topics.get(topic)
        if known is None:
            return False
        self._counting.highest = max(self._counting.highest, placement.offset)
        step = known.log.live(placement.offset, placement.previous, placement.time, body)
        self._take(known, step)
        return True

    def erased(self, topic: str) -> None:
        """The topic's messages were erased on purpose."""
        known = self._topics.get(topic)
        if known is not None:
            known.log.erased()

    @property
    def counting(self) -> int:
        """How often offsets began anew, of all topics: what was found out before does not count after."""
        return self._counting.generation

    def position(self, offset: int, time: float) -> Position:
        """A position in the current epoch."""
        return Position(self._counting.epoch or self._history.epoch, offset, time)

    def resuming(self, topic: str, change: int) -> None:
        """So many more members of a topic want positions, or fewer."""
        known = self._topics.get(topic)
        if known is not None:
            known.resuming += change

    def generation(self, topic: str) -> int:
        """Of a topic, to be told to :meth:`catch_up` and :meth:`goes_on`; below 0 when it is not followed."""
        known = self._topics.get(topic)
        return -1 if known is None else known.generation

    def goes_on(self, topic: str, generation: int) -> bool:
        """Whether offsets still mean what they meant."""
        return 0 <= generation == self.generation(topic)

    def level(self, topic: str, offset: int) -> bool:
        """Whether everything up to an offset has been delivered here; if not, it is looked for."""
        known = self._topics.get(topic)
        if known is None:
            return False
        log = known.log
        if log.ready and (log.floor or 0) < offset and not known.fetches:
            self._take(known, log.check(offset, log.standing(0)[1]))
        return log.ready and (log.floor or 0) >= offset

    async def catch_up(self, topic: str, generation: int, reached: Position) -> list[Stored]:
        """What a topic has above a position, for a client that becomes a member when that is nothing.

        Raises:
            BusError: The store does not answer; or the client has to join again, because offsets began
                anew, or because what it lacks may be gone, so slowly did it read.
        """
        upto = 0
        while True:
            self._require(topic, generation)
            if not self.level(topic, reached.offset):
                # the client was further elsewhere than this replica is
                await asyncio.sleep(LEVEL_SECONDS)
                continue
            known = self[topic]
            recent = known.log.ring.since(reached.offset, upto)
            if recent is not None:
                return recent
            tip = await self.tip()
            upto = max(tip.offset, reached.offset)
            limit = known.policy.messages + 1
            found = await self._history.after(topic, reached.offset, limit=limit, upto=upto)
            kept = known.policy.seconds + RETENTION_SLACK_SECONDS - CLOCK_SECONDS
            if len(found) == limit or tip.time - reached.time > kept:
                raise HistoryUnavailable("unavailable", "the client reads too slowly")
            if found:
                self._require(topic, generation)
                return found
            # nothing was stored until then; what came while that was read is in memory

    def _require(self, topic: str, generation: int) -> None:
        if not self.goes_on(topic, generation):
            raise HistoryUnavailable("unavailable", "offsets began anew")

    async def run(self) -> None:
        """Check, for ever: each topic from time to time, and all of them when there is a reason."""
        left: list[Followed] = []  # could not be checked the last time
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._shaken.wait()
            due = list(dict.fromkeys((*left, *self._due())))
            left = []
            for start in range(0, len(due), CHECKED_AT_ONCE):
                try:
                    await self._check(due[start : start + CHECKED_AT_ONCE])
                except BusError:
                    left = due[start:]
                    break
                except Exception as problem:  # noqa: BLE001 -- a bug with one topic must not end all checks
                    background_error("follower", problem)
                await asyncio.sleep(0)

    async def tip(self) -> Tip:
        """The end of the history; where that is another than before, everything begins anew."""
        asked = self._counting.mark()
        tip = await self._history.tip()
        if self._counting.note(tip, asked):
            _log.warning("history began anew", topics=len(self._topics))
            for known in tuple(self._topics.values()):
                known.log.reset(tip.time)
                known.generation += 1
                self._lost(known.topic)
            self._shaken.set()
        return tip

    async def _settle(self, known: Followed) -> None:
        """Wait for a log to be ready, after its offsets began anew."""
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                while not known.log.ready:
                    await self._check((known,))
                    if not known.log.ready:
                        await asyncio.sleep(LEVEL_SECONDS)
        except TimeoutError:
            raise HistoryUnavailable("unavailable", "the topic cannot be read") from None

    async def _check(self, due: Sequence[Followed]) -> None:
        """Compare the last offsets of topics with the store's."""
        tip = await self.tip()
        generation = self._counting.generation
        last = await self._history.last_offsets([known.topic for known in due])
        if self._counting.generation != generation:
            return  # it is the answer to a question about what was; all will be checked again
        now = self._clock()
        for known in due:
            if self._topics.get(known.topic) is not known:
                continue
            self._take(known, known.log.check(last.get(known.topic, 0), tip.time))
            self._remind(known, tip, now)

    def _remind(self, known: Followed, tip: Tip, now: float) -> None:
        """Let members know where they stand, if no message has told all of them for long."""
        quiet = now - known.told_at
        if known.resuming and quiet >= known.policy.seconds / 3 - known.visit_seconds:
            known.told_at = now
            self._tell_position(known.topic, self.position(*known.log.standing(tip.time)))

    def _due(self) -> Iterator[Followed]:
        now = self._clock()
        shaken = self._shaken.is_set()
        if shaken or now >= self._again_at:
            self._shaken.clear()
            self._again_at = now + AGAIN_SECONDS if shaken else math.inf
            yield from tuple(self._topics.values())
        for known in self._visits.due(now):
            if self._topics.get(known.topic) is known:
                self._visits.add(known, now + known.visit_seconds)
                yield known

    def _take(self, known: Followed, step: Step) -> None:
        if step.deliver and self._deliver(known.topic, step.deliver):
            known.told_at = self._clock()
        if step.restarted:
            known.generation += 1
            self._shaken.set()
        if step.doubtful:
            _log.warning("messages were lost before they could be read")
            self._lost(known.topic)
        if step.fetch is not None:
            task = asyncio.create_task(self._fetch(known, step.fetch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _fetch(self, known: Followed, fetch: Fetch) -> None:
        """Read what is missing, until there is nothing more."""
        wanted: Fetch | None = fetch
        known.fetches += 1
        try:
            while wanted is not None and self._topics.get(known.topic) is known:
                step = await self._read(known, wanted)
                if step is None:
                    known.log.failed(wanted)
                    await asyncio.sleep(RETRY_SECONDS)
                    step = known.log.retry()
                wanted = step.fetch
                if self._topics.get(known.topic) is known:  # else others follow it anew
                    self._take(known, replace(step, fetch=None))
        finally:
            known.fetches -= 1

    async def _read(self, known: Followed, wanted: Fetch) -> Step | None:
        """What came of a fetch; None if nothing did."""
        limit = max(FETCHED_AT_ONCE, known.policy.messages + 1)
        try:
            async with self._fetching:
                tip = await self._history.tip()
                found = await self._history.after(
                    known.topic, wanted.after, limit=limit, upto=wanted.upto
                )
        except BusError:
            return None
        except Exception as problem:  # noqa: BLE001 -- the log wants no other fetch before it hears of this one
            background_error("follower", problem)
            return None
        upto = wanted.upto if len(found) < limit else found[-1].offset
        step = known.log.fetched(wanted, found, upto=upto, time=tip.time)
        self._metrics.repaired(min(len(found), len(step.deliver)))
        return step
