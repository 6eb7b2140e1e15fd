"""Answers joins that resume: from memory where it reaches back far enough, else from the store."""

from typing import Final, Protocol

from gateway.errors import HistoryUnavailable
from gateway.history.base import History, Stored, Tip
from gateway.history.followed import Followed
from gateway.history.follower import Follower
from gateway.history.once import Once
from gateway.history.position import Position
from gateway.history.resume import Latest, Missed, Outcome, Request, examine

TRIES: Final = 5
"""How often a resume begins again because the memory moved on while the store was read."""


class ResumerMetrics(Protocol):
    """What is counted."""

    def resumed(self, result: str) -> None:
        """A join was answered: ``recovered``, ``fresh``, or why nothing was recovered."""


class Resumer:
    """All joins of one replica.

    Args:
        bounded: Whether the store lets go of messages for want of room, before their time.
    """

    def __init__(
        self, history: History, follower: Follower, metrics: ResumerMetrics, *, bounded: bool
    ) -> None:
        self._history = history
        self._follower = follower
        self._metrics = metrics
        self._bounded = bounded
        self._reads: Once[tuple[str, int, int], tuple[list[Stored], int]] = Once()
        self._times: Once[int, float | None] = Once()

    async def resume(
        self, topic: str, request: Request, sent: Position | None
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
            tip = await self._follower.stand(known)
            generation = known.generation
            outcome = await self._outcome(known, request, sent, tip)
            tail = known.log.ring.since(outcome.reached, outcome.known)
            if tail is not None and self._follower.goes_on(topic, generation):
                self._metrics.resumed(_result(outcome))
                return outcome, tail
        raise HistoryUnavailable("unavailable", "the topic moves faster than it can be read")

    async def _outcome(
        self, known: Followed, request: Request, sent: Position | None, tip: Tip
    ) -> Outcome:
        log = known.log
        offset, time = log.standing(tip.time)
        answer = examine(
            request,
            known.policy,
            here=Position(tip.epoch, offset, time),
            last=tip.offset,
            now=tip.time,
            sent=sent,
        )
        match answer:
            case Missed():
                return await self._missed(known, answer, tip)
            case Latest():
                newest = log.ring.newest(answer.count, tip.time)
                if newest is not None:
                    return answer.settle(newest)
                stored = await self._history.newest(known.topic, answer.count)
                return answer.settle(stored, known=tip.offset)
        return answer

    async def _missed(self, known: Followed, ask: Missed, tip: Tip) -> Outcome:
        log, after, generation = known.log, ask.position.offset, known.generation
        stored_at = None if log.vouches(ask.position.time) else await self._time_at(after)
        messages = log.ring.missed(after)
        if messages is not None:
            return ask.settle(messages, stored_at)

        async def read() -> tuple[list[Stored], int]:
            found = await self._history.after(
                known.topic, after, limit=ask.limit, upto=max(tip.offset, after)
            )
            if len(found) < ask.limit and known.generation == generation:
                log.ring.extend(after, found, tip.offset)
            return found, tip.offset

        # a crowd that comes back stands at the same place: one of them reads for all, up to his tip
        messages, upto = await self._reads.get((known.topic, generation, after), read)
        kept_since = None
        if self._bounded and tip.first > after + 1:
            kept_since = await self._time_at(tip.first)
        return ask.settle(messages, stored_at, known=upto, kept_since=kept_since)

    async def _time_at(self, offset: int) -> float | None:
        return await self._times.get(offset, lambda: self._history.time_at(offset))


def _result(outcome: Outcome) -> str:
    if outcome.reason is not None:
        return outcome.reason
    return "fresh" if outcome.recovered is None else "recovered"
