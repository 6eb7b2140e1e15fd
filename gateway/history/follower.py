"""Follows the history of subscribed topics: delivers in the store's order, and fetches what the bus lost."""

import asyncio
import contextlib
import math
import time as clocks
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from msgspec.structs import replace

from gateway.bus.stream_position import StreamPosition
from gateway.errors import BusError, HistoryUnavailable
from gateway.history.base import MessageHistory, Stored, Tip
from gateway.history.epoch import BELIEVED_SECONDS, EpochWatch
from gateway.history.position import CLOCK_SECONDS, Position
from gateway.history.topiclog import FetchRange, Step, TopicLog
from gateway.log import background_error
from gateway.metrics import Metrics
from gateway.retention import Retention
from gateway.wheel import Timed, TimerWheel

RING_BYTES: Final = 1024 * 1024
"""What one topic keeps in memory at most."""

CHECK_SECONDS: Final = 28.0
"""
A live copy that was lost with nothing after it is found at the latest after so long.

Two seconds less than what is promised, for the check itself, and because a second decides which are due.
"""

CHECKED_AT_ONCE: Final = 1024
"""Topics asked for in one request."""

FETCHED_AT_ONCE: Final = 500
"""Messages read at a time where live copies were lost."""

FETCHES_AT_ONCE: Final = 64

AGAIN_SECONDS: Final = 5.0
"""When all is checked once more after something happened: copies of the store may lag for as long."""

RETRY_SECONDS: Final = 1.0

LEVEL_SECONDS: Final = 0.01
"""How often is checked whether the topic has come to where a client that waits for it is already."""

LAG_SECONDS: Final = 0.1
"""How often a leader that lags behind the one before is asked again."""

SETTLE_SECONDS: Final = 5.0
"""How long a join waits for a topic whose offsets began anew."""

TIP_SECONDS: Final = 10.0
"""How often the end of the history is asked for at least."""

_log = structlog.get_logger(__name__)


class FollowedTopic(Timed):
    """A topic that is followed.

    Args:
        due: The list it joins when it is to be checked.
        now: Monotonic seconds.

    Attributes:
        forgotten: Whether its subject is no longer subscribed; the topic may be followed anew by another.
        resuming: Members that want positions.
        told_at: When those were last told one, monotonic seconds.
        generation: How often its offsets began anew.
        away: Whether the store was away, or led by another server, since the last check.
        beyond_since: Since when the store says that it ends before the topic does, monotonic seconds.
        fetches: Reads of what is missing that are under way, or wait to be tried again.
    """

    __slots__ = (
        "_due",
        "away",
        "beyond_since",
        "fetches",
        "forgotten",
        "generation",
        "log",
        "name",
        "resuming",
        "retention",
        "told_at",
    )

    def __init__(
        self, name: str, retention: Retention, due: "list[FollowedTopic]", now: float
    ) -> None:
        super().__init__()
        self.name = name
        self.retention = retention
        self.log = TopicLog(retention, RING_BYTES)
        self.forgotten = False
        self.resuming = 0
        self.told_at = now
        self.generation = 0
        self.away = False
        self.beyond_since: float | None = None
        self.fetches = 0
        self._due = due

    @property
    def check_seconds(self) -> float:
        """Time between two checks; no position shall be older than a third of what counts."""
        return max(1.0, min(CHECK_SECONDS, self.retention.seconds / 6))

    def due(self, now: float) -> float | None:
        if self.forgotten:
            return None
        self._due.append(self)
        return now + self.check_seconds - 1.0  # the wheel may be a second late


class Follower:
    """All topics with history that this replica is subscribed to.

    Epochs and generations count how often offsets began anew; what was found out before does not count after.

    Args:
        deliver: Given a topic and its next messages, in order, each exactly once, and whether they were
            missed when they were due; says whether one of them was for all members, so that all know where
            they stand.
        lost: Told of a topic of which messages are gone before its members got them.
        refused: Told of a live copy that cannot be the store's: its topic, and what is wrong with it.
        tell_position: Given a topic and the position its members have reached; called while nothing else
            tells them.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        history: MessageHistory,
        *,
        deliver: Callable[[str, Sequence[Stored], bool], bool],
        lost: Callable[[str], None],
        tell_position: Callable[[str, Position], None],
        refused: Callable[[str, str], None],
        metrics: Metrics,
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        self._history = history
        self._deliver = deliver
        self._lost = lost
        self._tell_position = tell_position
        self._refused = refused
        self._repaired = metrics.history_repairs.inc
        self._clock = clock
        self._topics: dict[str, FollowedTopic] = {}
        self._wheel = TimerWheel(clock())
        self._due: list[FollowedTopic] = []
        self._epochs = EpochWatch()
        self._asked_at = -math.inf  # for the end of the history, monotonic seconds
        self._ahead = math.inf  # the store's clock less the monotonic one
        self._check_all = asyncio.Event()
        self._check_all_again_at = math.inf
        self._fetching = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        history.listen(self._returned)

    def __getitem__(self, topic: str) -> FollowedTopic:
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

    async def follow(self, topic: str, retention: Retention) -> None:
        """Deliver everything that is stored on a topic from now on; its subject is subscribed.

        Raises:
            BusError: The store does not answer.
        """
        known = self._topics.get(topic)
        if known is None:
            known = FollowedTopic(topic, retention, self._due, self._clock())
            self._topics[topic] = known
        if known.log.ready:
            return
        tip = await self.tip()
        fresh = known.log.floor is None
        self._take(known, known.log.baseline(tip.offset, tip.time))
        if fresh:
            self._wheel.add(known, self._clock())  # so within a second
        await self._settle(known)

    async def settled_tip(self, known: FollowedTopic) -> Tip:
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
        known = self._topics.pop(topic, None)
        if known is not None:
            known.forgotten = True
            self._wheel.discard(known)

    def live(self, topic: str, position: StreamPosition, body: bytes) -> bool:
        """A live copy came from the bus; False if its topic is not followed."""
        known = self._topics.get(topic)
        if known is None:
            return False
        problem = self._epochs.implausible(position, self._clock() + self._ahead)
        if problem is not None:
            self._refused(topic, problem)
            # were it the store's all the same, it is found there in a second
            self._wheel.add(known, self._clock())
            return True
        step = known.log.live(position.offset, position.previous, position.time, body)
        self._take(known, step)
        return True

    def erased(self, topic: str) -> None:
        """The topic's messages were erased on purpose."""
        known = self._topics.get(topic)
        if known is not None:
            known.log.erased()

    @property
    def epochs(self) -> int:
        """The number of epochs so far, of all topics."""
        return self._epochs.generation

    def position(self, offset: int, time: float) -> Position:
        """A position in the current epoch."""
        return Position(self._epochs.epoch or self._history.epoch, offset, time)

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
            limit = known.retention.stored_messages
            found = await self._history.after(topic, reached.offset, limit=limit, upto=upto)
            kept = known.retention.stored_seconds - CLOCK_SECONDS
            late = len(found) == limit or tip.time - reached.time > kept
            if late or self.may_lack(tip, reached.offset, reached.time, len(found)):
                raise HistoryUnavailable("unavailable", "the client reads too slowly")
            if found:
                self._require(topic, generation)
                return found
            # nothing was stored until then; what came while that was read is in memory

    def may_lack(self, tip: Tip, offset: int, time: float, found: int = 0) -> bool:
        """See :meth:`gateway.history.epoch.EpochWatch.may_lack`."""
        return self._epochs.may_lack(tip, offset, time, found)

    def _require(self, topic: str, generation: int) -> None:
        if not self.goes_on(topic, generation):
            raise HistoryUnavailable("unavailable", "offsets began anew")

    async def run(self) -> None:
        """Check, for ever: each topic from time to time, and all of them when there is a reason."""
        left: list[FollowedTopic] = []  # could not be checked the last time
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._check_all.wait()
            due = list(dict.fromkeys((*left, *self._take_due())))
            left = []
            if not due and self._clock() - self._asked_at >= TIP_SECONDS:
                with contextlib.suppress(BusError):
                    await self.tip()
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
        until = self._clock() + BELIEVED_SECONDS
        while True:
            asked = self._epochs.known()
            self._asked_at = self._clock()
            tip = await self._history.tip()
            if not self._epochs.went_back(tip, asked) or self._clock() >= until:
                break
            await asyncio.sleep(LAG_SECONDS)
        self._ahead = tip.time - self._clock()
        if self._epochs.note(tip, asked):
            _log.warning("history began anew", topics=len(self._topics))
            for known in tuple(self._topics.values()):
                known.log.reset(tip.time)
                known.generation += 1
                self._lost(known.name)
            self._check_all.set()
        return tip

    async def _settle(self, known: FollowedTopic) -> None:
        """Wait for a log to be ready, after its offsets began anew."""
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                while not known.log.ready:
                    await self._check((known,))
                    if not known.log.ready:
                        await asyncio.sleep(LEVEL_SECONDS)
        except TimeoutError:
            raise HistoryUnavailable("unavailable", "the topic cannot be read") from None

    async def _check(self, due: Sequence[FollowedTopic]) -> None:
        """Compare the last offsets of topics with the store's."""
        reached = [(known.log.floor or 0, known.generation) for known in due]
        tip = await self.tip()
        generation = self._epochs.generation
        last = await self._history.last_offsets([known.name for known in due])
        if self._epochs.generation != generation:
            return  # it is the answer to a question about what was; all will be checked again
        now = self._clock()
        for known, (floor, before) in zip(due, reached, strict=True):
            if known.forgotten:
                continue
            reached_there = max(
                tip.offset, last.get(known.name, 0)
            )  # any copy may say more than the leader
            if floor > reached_there and known.generation == before:
                self._doubt(known, tip)
            elif not known.fetches:
                known.beyond_since = None
            lacking = known.away and self.may_lack(tip, floor, known.log.standing(0)[1])
            known.away = False
            step = known.log.check(last.get(known.name, 0), tip.time)
            if lacking and step.fetch is None:  # else what is read tells
                known.log.erased(tip.offset)
                step = replace(step, doubtful=True)
            self._take(known, step)
            self._remind(known, tip, now)

    def _remind(self, known: FollowedTopic, tip: Tip, now: float) -> None:
        """Send members their position, if no message has told it all of them for long."""
        quiet = now - known.told_at
        if known.resuming and quiet >= known.retention.seconds / 3 - known.check_seconds:
            known.told_at = now
            self._tell_position(known.name, self.position(*known.log.standing(tip.time)))

    def _returned(self) -> None:
        """The store can be used again, or is led by another server."""
        for known in self._topics.values():
            known.away = True
        self._check_all.set()

    def _doubt(self, known: FollowedTopic, tip: Tip) -> None:
        """A topic is further than the store, though it was asked later: a live copy was none of the store's.

        Or the store was replaced by an older copy, which has the topic's messages up to somewhere. Either way
        its offsets are looked at anew, if that is so for long, and who resumes is judged by them.
        """
        now = self._clock()
        if known.beyond_since is None:
            known.beyond_since = now
        if now < known.beyond_since + BELIEVED_SECONDS:
            self._wheel.add(known, known.beyond_since + BELIEVED_SECONDS)
            return
        known.beyond_since = None
        self._refused(known.name, "sequence beyond the stream's end")
        known.log.reset(tip.time)
        known.generation += 1
        self._lost(known.name)
        self._wheel.add(known, self._clock())

    def _take_due(self) -> list[FollowedTopic]:
        """The topics that are to be checked now."""
        now = self._clock()
        self._wheel.turn(now)
        due = self._due.copy()
        self._due.clear()
        check_all = self._check_all.is_set()
        if check_all or now >= self._check_all_again_at:
            self._check_all.clear()
            self._check_all_again_at = now + AGAIN_SECONDS if check_all else math.inf
            return list(self._topics.values())
        return due

    def _take(self, known: FollowedTopic, step: Step, *, missed: bool = False) -> None:
        if step.deliver and self._deliver(known.name, step.deliver, missed):
            known.told_at = self._clock()
        if step.restarted:
            known.generation += 1
            self._check_all.set()
        if step.doubtful:
            _log.warning("messages were lost before they could be read")
            self._lost(known.name)
        if step.fetch is not None:
            task = asyncio.create_task(self._fetch(known, step.fetch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _fetch(self, known: FollowedTopic, fetch: FetchRange) -> None:
        """Read what is missing, until there is nothing more."""
        wanted: FetchRange | None = fetch
        known.fetches += 1
        try:
            while wanted is not None and not known.forgotten:
                step = await self._read(known, wanted)
                if step is None:
                    known.log.failed(wanted)
                    await asyncio.sleep(RETRY_SECONDS)
                    step = known.log.retry()
                wanted = step.fetch
                if not known.forgotten:
                    self._take(known, replace(step, fetch=None), missed=True)
        finally:
            known.fetches -= 1

    async def _read(self, known: FollowedTopic, wanted: FetchRange) -> Step | None:
        """What came of a fetch; None if nothing did."""
        limit = max(FETCHED_AT_ONCE, known.retention.stored_messages)
        try:
            async with self._fetching:
                tip = await self._history.tip()
                found = await self._history.after(
                    known.name, wanted.after, limit=limit, upto=wanted.upto
                )
        except BusError:
            return None
        except Exception as problem:  # noqa: BLE001 -- the log wants no other fetch before it hears of this one
            background_error("follower", problem)
            return None
        reached_there = max(tip.offset, found[-1].offset if found else 0)
        if reached_there < wanted.upto:
            self._doubt(known, tip)
            return None
        known.beyond_since = None
        upto = wanted.upto if len(found) < limit else found[-1].offset
        lacking = self.may_lack(tip, wanted.after, known.log.standing(0)[1], len(found))
        step = known.log.fetched(wanted, found, upto=upto, time=tip.time)
        if lacking:
            known.log.erased(wanted.upto)
            step = replace(step, doubtful=True)
        self._repaired(min(len(found), len(step.deliver)))
        return step
