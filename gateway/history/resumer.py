"""Answers joins that resume: from memory where that reaches back far enough, else from the store."""

from typing import Final

from gateway.errors import HistoryUnavailable
from gateway.history.base import MessageHistory, Stored, Tip
from gateway.history.follower import FollowedTopic, Follower
from gateway.history.position import Position
from gateway.history.resume import NeedMissed, NeedNewest, Outcome, ResumeRequest, examine
from gateway.metrics import Metrics
from gateway.pacer import Pacer
from gateway.singleflight import SingleFlight

TRIES: Final = 5
"""How often a resume begins again because the memory moved on while the store was read."""

RECENT_SECONDS: Final = 5.0
"""How long it counts when a message was stored. Replacing the store takes as long, and checks notice it."""

RECENT_TIMES: Final = 1024

RESUMES_PER_TURN: Final = 8
"""Resumes answered in one turn of the event loop, when many waited for one read: some 2 ms of work."""


class Resumer:
    """All joins of one replica."""

    def __init__(self, history: MessageHistory, follower: Follower, metrics: Metrics) -> None:
        self._history = history
        self._follower = follower
        self._resumes = metrics.resumes
        self._reads: SingleFlight[tuple[str, int, int], tuple[list[Stored], int]] = SingleFlight()
        self._pacer = Pacer(RESUMES_PER_TURN)
        self._lookups: SingleFlight[tuple[int, int], float | None] = SingleFlight()
        # (epochs, offset) -> when it was looked up, and what was found
        self._times: dict[tuple[int, int], tuple[float, float | None]] = {}

    async def resume(
        self, topic: str, request: ResumeRequest, sent: Position | None
    ) -> tuple[Outcome, list[Stored]]:
        """Answer a join of a topic that is followed, as of the moment this returns.

        Returns:
            The outcome, and what was delivered here since it was reached; who has both is level with
            the members, provided that it becomes one in the same turn of the event loop.

        Raises:
            BusError: The store does not answer.
        """
        for _ in range(TRIES):
            known = self._follower[topic]
            tip = await self._follower.settled_tip(known)
            generation = known.generation
            await self._pacer.wait()
            if not self._follower.goes_on(topic, generation):
                continue
            outcome = await self._outcome(known, request, sent, tip)
            tail = known.log.ring.since(outcome.reached, outcome.known)
            if tail is not None and self._follower.goes_on(topic, generation):
                self._resumes.labels(_result(outcome)).inc()
                return outcome, tail
        raise HistoryUnavailable("unavailable", "the topic moves faster than it can be read")

    async def _outcome(
        self, known: FollowedTopic, request: ResumeRequest, sent: Position | None, tip: Tip
    ) -> Outcome:
        log = known.log
        offset, time = log.standing(tip.time)
        answer = examine(
            request,
            known.retention,
            here=Position(tip.epoch, offset, time),
            last=tip.offset,
            now=tip.time,
            sent=sent,
        )
        match answer:
            case NeedMissed():
                return await self._missed(known, answer, tip)
            case NeedNewest():
                newest = log.ring.newest(answer.count, tip.time)
                if newest is not None:
                    return answer.settle(newest)
                stored = await self._history.newest(known.name, answer.count)
                return answer.settle(stored, known=tip.offset)
        return answer

    async def _missed(self, known: FollowedTopic, ask: NeedMissed, tip: Tip) -> Outcome:
        log, position = known.log, ask.position
        after = position.offset
        vouched = log.vouches(position.time)
        stored_at = None if vouched else log.ring.time_at(after)
        messages = log.ring.missed(after)
        upto = 0
        gone = False
        generation = known.generation
        if messages is None:
            # the message at the position, too, because it says when it was stored
            start = after if vouched else max(0, after - 1)
            found, upto = await self._read(known, start, ask.limit + 1, tip)
            messages = [message for message in found if message.offset > after]
            if not vouched and len(messages) < len(found):
                stored_at = found[0].time
            gone = self._follower.may_lack(tip, after, position.time, len(messages))
            if (
                not gone
                and len(found) <= ask.limit
                and self._follower.goes_on(known.name, generation)
            ):
                log.ring.extend(start, found, upto)
        if not vouched and stored_at is None:
            stored_at = await self._time_at(after, tip)
        return ask.settle(messages, stored_at, known=upto, gone=gone)

    async def _read(
        self, known: FollowedTopic, start: int, limit: int, tip: Tip
    ) -> tuple[list[Stored], int]:
        """The topic's messages above an offset, and the offset up to which they are all there are."""
        generation = known.generation

        async def read() -> tuple[list[Stored], int]:
            upto = max(tip.offset, start)
            return await self._history.after(known.name, start, limit=limit, upto=upto), tip.offset

        # a crowd that comes back stands at the same place: one of them reads for all, up to his tip
        return await self._reads.share((known.name, generation, start), read)

    async def _time_at(self, offset: int, tip: Tip) -> float | None:
        """When the message at an offset was stored; what was read a moment ago counts for a crowd."""
        place = (self._follower.epochs, offset)
        looked = self._times.get(place)
        if looked is not None and tip.time - looked[0] <= RECENT_SECONDS:
            return looked[1]
        stored_at = await self._lookups.share(place, lambda: self._history.time_at(offset))
        if len(self._times) >= RECENT_TIMES:
            self._times.clear()
        self._times[place] = (tip.time, stored_at)
        return stored_at


def _result(outcome: Outcome) -> str:
    if outcome.reason is not None:
        return outcome.reason
    return "fresh" if outcome.recovered is None else "recovered"
