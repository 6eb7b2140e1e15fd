"""Readiness and liveness of a replica, its drain, and the check it makes every second."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Final

import structlog

from gateway.channels.connection import Connection
from gateway.channels.connections import Connections, Phase
from gateway.log import teardown
from gateway.metrics import Metrics
from gateway.protocol.reasons import CloseCode

BATCH_SECONDS: Final = 0.1
"""Time between two batches of a drain."""

CLOSING_SECONDS: Final = 2.0
"""How long the clients closed last have to answer before they are cut off."""

STUCK_SECONDS: Final = 10.0
"""Silence of the event loop after which the replica counts as stuck."""

_log = structlog.get_logger(__name__)


class Readiness:
    """Whether load balancers should send new clients here, and if not, why.

    Args:
        doubts: Each gives a reason of its part, or None.
    """

    def __init__(self, connections: Connections, *doubts: Callable[[], str | None]) -> None:
        self._connections = connections
        self._doubts = doubts
        self._beat = time.monotonic()

    def reasons(self) -> list[str]:
        """Why this replica is not ready; empty when it is."""
        doubts = (self._connections.refusal, *self._doubts)
        return [reason for doubt in doubts if (reason := doubt()) is not None]

    def live(self) -> bool:
        """Whether the event loop turns."""
        return time.monotonic() - self._beat < STUCK_SECONDS

    def beat(self) -> None:
        """The event loop turned."""
        self._beat = time.monotonic()


class Drain:
    """Moves all clients away in even batches, so that the other replicas are not overrun.

    Args:
        delay_seconds: Time for load balancers to notice; sockets stay.
        window_seconds: Time over which the sockets are closed with 1012.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        connections: Connections,
        metrics: Metrics,
        *,
        delay_seconds: float,
        window_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connections = connections
        self._metrics = metrics
        self._delay_seconds = delay_seconds
        self._window_seconds = window_seconds
        self._clock = clock
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """Skip what is left of delay and window."""
        self._hurry.set()

    async def run(self) -> None:
        """Go through delay and window; returns when all sockets are closed from this side."""
        self._connections.phase = Phase.DRAINING
        self._metrics.drain_state.set(1)
        _log.info("drain started", connections=len(self._connections.open))
        await self._wait(self._delay_seconds)
        # a handshake that was under way when the drain began has made a socket since
        leaving = list(self._connections.open)
        batches = max(1, math.ceil(self._window_seconds / BATCH_SECONDS))
        begun_at = self._clock()
        for number, batch in enumerate(_even_batches(leaving, batches), 1):
            ends = (partial(c.close, CloseCode.SERVICE_RESTART) for c in batch)
            teardown("drain", *ends)
            # from the beginning on: what the batches themselves take must not add up beyond the window
            await self._wait(begun_at + number * BATCH_SECONDS - self._clock())
        _log.info("drain finished")

    async def let_go(self) -> None:
        """Give the clients closed last a moment to answer, then cut."""
        await self._emptied()
        teardown("drain", *(connection.abort for connection in self._connections.open))
        await self._emptied()  # who is cut off ends in one of the next turns

    async def _emptied(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._connections.empty.wait(), CLOSING_SECONDS)

    async def _wait(self, seconds: float) -> None:
        if self._hurry.is_set():
            return
        try:
            await asyncio.wait_for(self._hurry.wait(), max(0.0, seconds))
        except TimeoutError:
            return


def _even_batches(leaving: Sequence[Connection], batches: int) -> list[Sequence[Connection]]:
    """Split into ``batches`` parts whose sizes differ by at most one; empty ones at the end go."""
    bounds = [round(index * len(leaving) / batches) for index in range(batches + 1)]
    parts = [leaving[a:b] for a, b in pairwise(bounds)]
    while parts and not parts[-1]:
        parts.pop()
    return parts


async def heartbeat(
    connections: Connections,
    readiness: Readiness,
    metrics: Metrics,
    observe: Callable[[], None],
) -> None:
    """After a second: timers, limits, gauges, and how late the event loop is.

    Args:
        observe: Sets the gauges that belong to other parts.
    """
    loop = asyncio.get_running_loop()
    before = loop.time()
    await asyncio.sleep(1)
    metrics.event_loop_lag.set(max(0.0, loop.time() - before - 1))
    readiness.beat()
    connections.turn()
    observe()
