"""A history in a JetStream stream: stored by the server, and delivered by it in the order it stored."""

import asyncio
import time
from collections.abc import Iterable
from typing import Final

from gateway.bus.remote import RemoteBus
from gateway.bus.subjects import Subjects
from gateway.errors import HistoryProblem
from gateway.history.api import StreamApi
from gateway.history.appender import Appender
from gateway.history.base import HistoryConfig, HistoryLimits, Listener, Receipt, Stored, Tip
from gateway.history.clock import ServerClock
from gateway.history.keeper import StreamKeeper
from gateway.history.reader import StreamReader
from gateway.history.shared import Shared
from gateway.history.stream import wanted

TIPS_APART_SECONDS: Final = 0.01
"""Joins ask for the tip; a thousand of them a second shall not ask so often."""


class JetStreamHistory:
    """The history of all gateways that share a prefix.

    Args:
        limits: The highest of all rules.
        config: How the stream is to be kept.
    """

    def __init__(
        self, bus: RemoteBus, subjects: Subjects, limits: HistoryLimits, config: HistoryConfig
    ) -> None:
        self._subjects = subjects
        clock = ServerClock(time.monotonic)
        self._api = StreamApi(bus, subjects.stream)
        self._keeper = StreamKeeper(bus, self._api, wanted(subjects, limits, config), clock)
        self._reader = StreamReader(self._api, subjects, lambda: self._keeper.replicated)
        self._appender = Appender(bus, subjects, self._keeper, clock, self._reader)
        self._tip = Shared(self._ask_tip, apart_seconds=TIPS_APART_SECONDS)

    @property
    def problem(self) -> HistoryProblem | None:
        """See :attr:`gateway.history.base.History.problem`."""
        return self._keeper.problem

    @property
    def epoch(self) -> str:
        """When the stream was made."""
        return self._keeper.epoch

    async def start(self) -> asyncio.Task[None]:
        """See :meth:`gateway.history.base.History.start`."""
        return self._keeper.start()

    async def close(self) -> None:
        """See :meth:`gateway.history.base.History.close`."""
        await self._keeper.close()

    def listen(self, listener: Listener) -> None:
        """See :meth:`gateway.history.base.History.listen`."""
        self._keeper.listen(listener)

    async def append(self, topic: str, body: bytes, *, id: str | None = None) -> Receipt:  # noqa: A002
        """See :meth:`gateway.history.base.History.append`."""
        return await self._appender.append(topic, body, id)

    async def after(
        self, topic: str, offset: int, *, limit: int, upto: int | None = None
    ) -> list[Stored]:
        """See :meth:`gateway.history.base.History.after`."""
        self._keeper.require()
        return await self._reader.after(topic, offset, limit, upto)

    async def newest(self, topic: str, count: int) -> list[Stored]:
        """See :meth:`gateway.history.base.History.newest`."""
        self._keeper.require()
        return await self._reader.newest(topic, count)

    async def tip(self) -> Tip:
        """See :meth:`gateway.history.base.History.tip`."""
        self._keeper.require()
        return await self._tip.answer()

    async def time_at(self, offset: int) -> float | None:
        """See :meth:`gateway.history.base.History.time_at`."""
        self._keeper.require()
        return await self._reader.time_at(offset)

    async def last_offsets(self, topics: Iterable[str]) -> dict[str, int]:
        """See :meth:`gateway.history.base.History.last_offsets`."""
        self._keeper.require()
        return await self._reader.last_offsets(topics)

    async def erase(self, topic: str) -> int:
        """See :meth:`gateway.history.base.History.erase`."""
        self._keeper.require()
        return await self._api.purge(self._subjects.stored(topic))

    async def _ask_tip(self) -> Tip:
        info = await self._keeper.info()
        # a stream that never had a message says 0
        return Tip(info.epoch, info.state.last_seq, info.now, max(1, info.state.first_seq))
