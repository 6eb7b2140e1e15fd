"""Reads messages from a stream, completely, though any of its servers may answer.

Direct gets are answered by any server that has a copy. A copy lacks nothing between two messages it has, but
it may lack the newest. So where servers replicate, what must be complete is compared with what the leader
says is the subject's last message; what is missing is asked for again, and at last read from the leader, one
by one.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from gateway.bus.requests import Reply
from gateway.bus.stream_position import StreamPosition, pending_in, stream_position_in
from gateway.bus.subjects import Subjects
from gateway.errors import HistoryUnavailable
from gateway.history.base import Stored
from gateway.history.jetstream.api import StreamApi

READS_AT_A_TIME: Final = 16
READ_BYTES: Final = 2 * 1024 * 1024
"""
What one answer may hold.

A server cuts off a client for which 64 MiB wait; this many at a time stay below it.
"""

SUBJECTS_AT_A_TIME: Final = 1024
"""More are refused with status 413."""

AGAIN_SECONDS: Final = (0.005, 0.02, 0.08)
"""When a copy that lags is asked again, before its leader is; it mostly lags by milliseconds."""

READ_PAST: Final = 3
"""How many times as much is read as was asked for, before the place to begin at is searched for."""


class StreamReader:
    """Reads one stream.

    Args:
        replicated: Whether there are servers with copies that may lag.
    """

    def __init__(self, api: StreamApi, subjects: Subjects, replicated: Callable[[], bool]) -> None:
        self._api = api
        self._subjects = subjects
        self._replicated = replicated
        self._turns = asyncio.Semaphore(READS_AT_A_TIME)

    async def after(self, topic: str, offset: int, limit: int, upto: int | None) -> list[Stored]:
        if limit <= 0 or (upto is not None and upto <= offset):
            return []
        subject = self._subjects.stored(topic)
        found, _ = await self._read(subject, offset + 1, limit)
        if upto is None:
            return found
        if self._replicated():
            await self._complete(subject, found, offset, limit, upto)
        return [stored for stored in found if stored.offset <= upto]

    async def newest(self, topic: str, count: int) -> list[Stored]:
        if count <= 0:
            return []
        subject = self._subjects.stored(topic)
        last = await self._last(subject) if self._replicated() else 0
        found = await self._newest(topic, subject, count)
        reached = found[-1].offset if found else 0
        if reached < last:
            found += await self.after(topic, reached, last - reached, last)
        return found[-count:]

    async def time_at(self, offset: int) -> float | None:
        message = await self._api.message(seq=offset) if offset > 0 else None
        return None if message is None else message.stored_at

    async def last_offsets(self, topics: Iterable[str]) -> dict[str, int]:
        offsets: dict[str, int] = {}
        topic_of = {self._subjects.stored(topic): topic for topic in topics}
        for subjects in _portions(topic_of, self._api.max_query_bytes // 2):
            missing = dict.fromkeys(subjects)
            while missing:
                async with self._turns:
                    parts = await self._api.direct(multi_last=list(missing), max_bytes=READ_BYTES)
                parts.pop()
                for part in parts:
                    position = _position_in(part)
                    if position.subject not in missing:
                        raise HistoryUnavailable("unavailable", "DIRECT.GET: not what was asked")
                    del missing[position.subject]
                    offsets[topic_of[position.subject]] = position.offset
                # nats-server 2.11.0 counts wrongly what it left out
                if sum(len(part.headers) + len(part.body) for part in parts) < READ_BYTES:
                    break
        return offsets

    async def _read(self, subject: str, start: int, count: int) -> tuple[list[Stored], int]:
        """The first messages from an offset on, and how many there are after them."""
        found: list[Stored] = []
        while True:
            async with self._turns:
                parts = await self._api.direct(
                    seq=start, next_by_subj=subject, batch=count - len(found), max_bytes=READ_BYTES
                )
            end = parts.pop()
            found += map(_stored_in, parts)
            pending = pending_in(end.headers)
            if not parts or not pending or len(found) >= count:
                return found, pending
            start = found[-1].offset + 1

    async def _newest(self, topic: str, subject: str, count: int) -> list[Stored]:
        found, pending = await self._read(subject, 1, count)
        if not pending:
            return found
        if pending <= READ_PAST * count:
            more, _ = await self._read(subject, found[-1].offset + 1, pending + count)
            return (found + more)[-count:]
        last = (await self.last_offsets((topic,))).get(topic, 0)
        start = await self._search(subject, count, found[-1].offset + 1, last)
        found, _ = await self._read(subject, start, (READ_PAST + 1) * count)
        return found[-count:]

    async def _search(self, subject: str, count: int, low: int, high: int) -> int:
        """An offset from which on there are so many messages, and not many more.

        The server counts what follows any offset, but cannot read backwards.

        Args:
            low: An offset with enough messages after it.
            high: One without.
        """
        while low < high:
            middle = (low + high) // 2
            found, pending = await self._read(subject, middle, 1)
            there = len(found) + pending
            if there < count:
                high = middle
            elif there > READ_PAST * count:
                low = middle + 1
            else:
                return middle
        return low

    async def _complete(
        self, subject: str, found: list[Stored], offset: int, limit: int, upto: int
    ) -> None:
        """Add what the server that answered lacked, up to an offset."""

        def reached() -> int:
            return found[-1].offset if found else offset

        if len(found) >= limit or reached() >= upto:
            return
        last = await self._last(subject)
        for pause in AGAIN_SECONDS:
            if reached() >= min(last, upto) or len(found) >= limit:
                return
            await asyncio.sleep(pause)
            more, _ = await self._read(subject, reached() + 1, limit - len(found))
            found += more
        while reached() < upto and len(found) < limit:
            message = await self._api.message(seq=reached() + 1, next_by_subj=subject)
            if message is None:
                return
            found.append(Stored(message.seq, message.stored_at, message.data))

    async def _last(self, subject: str) -> int:
        message = await self._api.message(last_by_subj=subject)
        return 0 if message is None else message.seq


def _stored_in(part: Reply) -> Stored:
    position = _position_in(part)
    return Stored(position.offset, position.time, part.body)


def _position_in(part: Reply) -> StreamPosition:
    position = stream_position_in(part.headers)
    if position is None:
        raise HistoryUnavailable(
            "unavailable", "DIRECT.GET: a message does not say where it stands"
        )
    return position


def _portions(subjects: Iterable[str], most_bytes: int) -> Iterator[list[str]]:
    """As many at a time as one request may hold."""
    portion: list[str] = []
    size = 0
    for subject in subjects:
        if portion and (len(portion) == SUBJECTS_AT_A_TIME or size + len(subject) > most_bytes):
            yield portion
            portion, size = [], 0
        portion.append(subject)
        size += len(subject)
    if portion:
        yield portion
