"""A history in a JetStream stream: stored by the server, and delivered by it in the order it stored."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

from gateway.bus.remote import RemoteBus
from gateway.bus.subjects import Subjects
from gateway.config.sections import HistorySettings
from gateway.errors import HistoryProblem
from gateway.history.base import Receipt, Stored, Tip
from gateway.history.jetstream.api import StreamApi
from gateway.history.jetstream.appender import Appender
from gateway.history.jetstream.reader import StreamReader
from gateway.history.jetstream.stream import (
    ServerClock,
    StreamKeeper,
    narrowed_in,
    stream_config,
)
from gateway.retention import Retention
from gateway.singleflight import CallSpacing, SingleFlight

TIPS_APART_SECONDS: Final = 0.01
"""Joins ask for the tip; a thousand of them a second shall not ask so often."""

TIPS_AT_ONCE: Final = 4
"""Questions that nobody waits for after a pause: a join has up to three."""


class JetStreamHistory:
    """The :class:`~gateway.history.base.MessageHistory` of all gateways that share a prefix.

    Args:
        widest: The most that any rule retains.
        config: How the stream is to be kept.
    """

    def __init__(
        self, bus: RemoteBus, subjects: Subjects, widest: Retention, config: HistorySettings
    ) -> None:
        self._subjects = subjects
        clock = ServerClock(time.monotonic)
        self._api = StreamApi(bus, subjects.stream)
        self._keeper = StreamKeeper(bus, self._api, stream_config(subjects, widest, config), clock)
        self._reader = StreamReader(self._api, subjects, lambda: self._keeper.replicated)
        self._appender = Appender(bus, subjects, self._keeper, clock, self._api)
        pace = CallSpacing(TIPS_APART_SECONDS, at_once=TIPS_AT_ONCE).wait
        self._tips: SingleFlight[None, Tip] = SingleFlight(pace=pace)

    @property
    def problem(self) -> HistoryProblem | None:
        return self._keeper.problem

    @property
    def epoch(self) -> str:
        return self._keeper.epoch

    async def start(self) -> asyncio.Task[None]:
        return self._keeper.start()

    async def close(self) -> None:
        await self._keeper.close()

    def listen(self, listener: Callable[[], None]) -> None:
        self._keeper.listen(listener)

    async def append(self, topic: str, body: bytes, *, id: str | None = None) -> Receipt:  # noqa: A002
        return await self._appender.append(topic, body, id)

    async def after(
        self, topic: str, offset: int, *, limit: int, upto: int | None = None
    ) -> list[Stored]:
        self._keeper.require()
        return await self._reader.after(topic, offset, limit, upto)

    async def newest(self, topic: str, count: int) -> list[Stored]:
        self._keeper.require()
        return await self._reader.newest(topic, count)

    async def tip(self) -> Tip:
        self._keeper.require()
        return await self._tips.fresh(None, self._ask_tip)

    async def time_at(self, offset: int) -> float | None:
        self._keeper.require()
        return await self._reader.time_at(offset)

    async def last_offsets(self, topics: Iterable[str]) -> dict[str, int]:
        self._keeper.require()
        return await self._reader.last_offsets(topics)

    async def erase(self, topic: str) -> int:
        self._keeper.require()
        return await self._api.purge(self._subjects.stored(topic))

    async def _ask_tip(self) -> Tip:
        info = await self._keeper.info()
        state = info.state
        # a stream that never had a message says 0
        return Tip(
            info.epoch,
            state.last_seq,
            info.now,
            max(1, state.first_seq),
            state.kept_since,
            narrowed_in(info.config),
        )
