"""The drain of a replica, which closes its sockets at an even pace; and its readiness and liveness."""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Final, Literal

import structlog

from gateway.channels.connection import Connection
from gateway.channels.connections import Connections
from gateway.errors import BusError
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

    It is begun by an operator, who may abort it, or by the end of the process, which nobody can. What is
    closed stays closed.

    Args:
        delay_seconds: Time for load balancers to notice; sockets stay.
        window_seconds: Time over which the sockets are closed with 1012.
        announced: Returns once the bus has what was published before.
        then: Called when all are closed from this side.
        clock: Monotonic seconds.

    Attributes:
        drained: Set while all sockets are closed from this side.
        ending: Whether the process ends after it.
    """

    def __init__(
        self,
        connections: Connections,
        metrics: Metrics,
        *,
        delay_seconds: float,
        window_seconds: float,
        announced: Callable[[], Awaitable[None]],
        then: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connections = connections
        self._metrics = metrics
        self._delay_seconds = delay_seconds
        self._window_seconds = window_seconds
        self._announced = announced
        self._then = then
        self._clock = clock
        self.drained = asyncio.Event()
        self.ending = False
        self._wanted = asyncio.Event()
        self._number = (
            0  # of the drain: who aborts one and starts another does not go on with the first
        )
        self._hurries = False
        self._wake = asyncio.Event()

    @property
    def state(self) -> Literal["serving", "draining", "drained"]:
        """How far it is."""
        if not self._connections.draining:
            return "serving"
        return "drained" if self.drained.is_set() else "draining"

    @property
    def connections(self) -> int:
        """How many clients are still connected."""
        return len(self._connections.open)

    def start(self) -> None:
        """Send new clients elsewhere from now on, and those there are after the delay. Idempotent."""
        if self._connections.draining:
            return
        self._connections.draining = True
        self._number += 1
        self._metrics.drain_state.set(1)
        _log.info("drain started", connections=len(self._connections.open))
        self._wanted.set()

    def abort(self) -> bool:
        """Let clients in again; False when the process is ending. Idempotent."""
        if self.ending:
            return False
        if self._connections.draining:
            self._connections.draining = False
            self._wanted.clear()
            self.drained.clear()
            self._metrics.drain_state.set(0)
            _log.info("drain aborted", connections=len(self._connections.open))
            self._wake.set()
        return True

    async def end(self) -> None:
        """The process ends: return when all sockets are closed from this side."""
        self.ending = True
        self.start()
        await self.drained.wait()

    def hurry(self) -> None:
        """Skip what is left of delay and window."""
        self._hurries = True
        self._wake.set()

    async def next_run(self) -> None:
        """Wait until a drain is wanted, and go through it until it is done or aborted."""
        await self._wanted.wait()
        number = self._number
        if not await self._wait(self._delay_seconds, number):
            return
        # a handshake that was under way when the drain began has made a socket since
        leaving = list(self._connections.open)
        batches = max(1, math.ceil(self._window_seconds / BATCH_SECONDS))
        begun_at = self._clock()
        for step, batch in enumerate(_even_batches(leaving, batches), 1):
            await self._announce(batch)
            ends = (partial(c.close, CloseCode.SERVICE_RESTART) for c in batch)
            teardown("drain", *ends)
            # from the beginning on: what the batches themselves take must not add up beyond the window
            if not await self._wait(begun_at + step * BATCH_SECONDS - self._clock(), number):
                return
        self._wanted.clear()
        self._then()
        self.drained.set()
        self._metrics.drain_state.set(2)
        _log.info("drain finished")

    async def let_go(self) -> None:
        """Give the clients closed last a moment to answer, then cut."""
        await self._emptied()
        teardown("drain", *(connection.abort for connection in self._connections.open))
        await self._emptied()  # who is cut off ends in one of the next turns

    async def _announce(self, batch: Sequence[Connection]) -> None:
        """Tell the others who will come: a client is there sooner than what was said as it was closed."""
        teardown("drain", *(connection.move for connection in batch))
        if not self._hurries:
            with contextlib.suppress(BusError):
                await self._announced()

    async def _emptied(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._connections.empty.wait(), CLOSING_SECONDS)

    async def _wait(self, seconds: float, number: int) -> bool:
        """Let time pass, unless there is a hurry; False when the drain was aborted."""
        if self._is_on(number) and not self._hurries:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(0.0, seconds))
        return self._is_on(number)

    def _is_on(self, number: int) -> bool:
        return self._connections.draining and number == self._number


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
