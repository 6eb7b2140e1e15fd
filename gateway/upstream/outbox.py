"""Queues events for the backend and sends each, in order for each user, until it is taken or too old."""

import asyncio
import random
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog

from gateway.errors import UpstreamError
from gateway.log import QUIET_SECONDS, Throttle, background_error
from gateway.metrics import Metrics
from gateway.upstream.call import Call

KEEP_SECONDS: Final = 300.0
"""How long an event is tried, from when it happened."""

FIRST_PAUSE_SECONDS: Final = 0.5
"""Pause after the first failure; twice as long after each further one, less up to half of it by chance."""

LONGEST_PAUSE_SECONDS: Final = 30.0

MOST_WAITING: Final = 10_000

_SHARE: Final = 4
"""The part of all callbacks under way that may be events: one in so many, so that joins have room."""

_log = structlog.get_logger(__name__)


Tell = Callable[[Call, str, float], Awaitable[None]]
"""Tells of an event once, given its id and its time; raises ``UpstreamError``."""


class _Event(msgspec.Struct):
    call: Call
    id: str
    occurred_at: float
    expires_at: float
    failures: int = 0


class Outbox:
    """Where events wait for the backend; to be made within a running event loop.

    Args:
        tell: See :meth:`gateway.upstream.client.Upstream.tell`.
        max_in_flight: Callbacks under way of all kinds; events take a quarter of them, at least one.
        wall_clock: Unix seconds.
        chance: A number from 0 to 1, another each time.
    """

    def __init__(
        self,
        tell: Tell,
        metrics: Metrics,
        *,
        max_in_flight: int,
        wall_clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._tell = tell
        self._metrics = metrics
        self._wall_clock = wall_clock
        self._chance = chance
        self._loop = asyncio.get_running_loop()
        # What is told of each user, the oldest first. A user is here while there is something; and in
        # _ready, in a delivery or in a pause, never in two of them: that keeps the order.
        self._queues: dict[str | None, deque[_Event]] = {}
        self._ready: asyncio.Queue[str | None] = asyncio.Queue()
        self._free = asyncio.Semaphore(max(1, max_in_flight // _SHARE))
        self._waiting = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._closing = False
        self._throttle = Throttle(QUIET_SECONDS, self._loop.time)

    def tell(self, call: Call) -> None:
        """Have the backend told; returns at once. Events of no user are in order among themselves."""
        if self._closing:
            self._drop(1, "closing")
            return
        queue = self._queues.get(call.user)
        # As for slots: nobody has more waiting than there is room for others.
        if (0 if queue is None else len(queue)) >= MOST_WAITING - self._waiting:
            self._drop(1, "full")
            return
        event = _Event(
            call, secrets.token_hex(16), self._wall_clock(), self._loop.time() + KEEP_SECONDS
        )
        self._count(1)
        if queue is None:
            self._queues[call.user] = deque((event,))
            self._ready.put_nowait(call.user)
        else:
            queue.append(event)

    async def run(self) -> None:
        """Tell the backend, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._free.acquire()
                tasks.create_task(self._deliver(await self._ready.get()))

    async def close(self, seconds: float) -> None:
        """Take no more; wait for the rest to be told, at most so long, and drop what is left then.

        :meth:`run` has to go on meanwhile, and to be cancelled afterwards.
        """
        self._closing = True
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            self._queues.clear()
            self._drop(self._waiting, "closing")
            self._count(-self._waiting)

    async def _deliver(self, user: str | None) -> None:
        """Try the first event of a user."""
        try:
            if user not in self._queues:  # dropped by close
                return
            event = self._queues[user][0]
            if self._loop.time() >= event.expires_at:
                self._drop(1, "expired")
                self._done(user)
                return
            told = await self._was_told(event)
            if user not in self._queues:
                return
            if told:
                self._done(user)
            else:
                self._try_again(user, event)
        finally:
            self._free.release()

    async def _was_told(self, event: _Event) -> bool:
        try:
            await self._tell(event.call, event.id, event.occurred_at)
        except UpstreamError:
            return False
        except Exception as problem:  # noqa: BLE001 -- a bug with one event must not keep back those of others
            background_error("outbox", problem)
            return False
        return True

    def _try_again(self, user: str | None, event: _Event) -> None:
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**event.failures)
        pause *= 1 - self._chance() / 2
        event.failures += 1
        if self._loop.time() + pause >= event.expires_at:
            self._drop(1, "expired")
            self._done(user)
        else:
            self._loop.call_later(pause, self._ready.put_nowait, user)

    def _done(self, user: str | None) -> None:
        """The user's first event is told or dropped; the next may follow, after those of others."""
        queue = self._queues[user]
        queue.popleft()
        self._count(-1)
        if queue:
            self._ready.put_nowait(user)
        else:
            del self._queues[user]

    def _count(self, more: int) -> None:
        self._waiting += more
        self._metrics.upstream_events_waiting.set(self._waiting)
        if self._waiting:
            self._empty.clear()
        else:
            self._empty.set()

    def _drop(self, events: int, reason: str) -> None:
        self._metrics.upstream_events_dropped.labels(reason).inc(events)
        if (held := self._throttle.admit(reason)) is not None:
            _log.warning("events dropped", events=events, reason=reason, held=held)
