"""The open connections of a replica: who is let in, and what concerns all of them."""

import asyncio
import secrets
from collections.abc import Callable
from itertools import count
from typing import Final

import structlog

from gateway.auth.claims import Claims
from gateway.channels.callbacks import Callbacks
from gateway.channels.connection import Connection
from gateway.config import LimitsSettings
from gateway.metrics import Metrics
from gateway.pacer import Pacer
from gateway.wheel import TimerWheel

CHECKED_PER_TURN: Final = 1024
"""Sockets looked at in one turn of the event loop, whether their tokens are revoked."""

CLOSED_PER_TURN: Final = 64
"""Sockets closed in one turn, for all revocations together."""

LEFT_PER_TURN: Final = 64
"""Sockets taken off a topic in one turn."""

_log = structlog.get_logger(__name__)


class Connections:
    """All open ones.

    Args:
        callbacks: What they wait for the backend with.
        revoked: Whether the token behind some claims was revoked.
        memory_full: Whether the process has no memory for new clients; asked once a second.
        clock: Monotonic seconds.

    Attributes:
        started: Whether this replica is one of the cluster, and serves.
        draining: Whether it sends its clients elsewhere.
        open: The connections.
        empty: Set while there are none.
    """

    def __init__(
        self,
        *,
        callbacks: Callbacks,
        limits: LimitsSettings,
        metrics: Metrics,
        wheel: TimerWheel,
        revoked: Callable[[Claims], bool],
        memory_full: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self.started = False
        self.draining = False
        self.open: set[Connection] = set()
        self.empty = asyncio.Event()
        self.empty.set()
        self._callbacks = callbacks
        self._limits = limits
        self._metrics = metrics
        self._wheel = wheel
        self._revoked = revoked
        self._closings = Pacer(CLOSED_PER_TURN)
        self._is_memory_full = memory_full
        self._memory_full = False
        self._clock = clock
        self._ids = count()
        self._id_prefix = secrets.token_urlsafe(9)

    def new_id(self) -> str:
        """An id no other socket of any replica has or had."""
        return f"{self._id_prefix}-{next(self._ids):x}"

    def refusal(self) -> str | None:
        """Why a new client is refused for now, as a metric's label; None while there is room."""
        if self.draining:
            return "draining"
        if not self.started:
            return "starting"
        if self._limits.connections and len(self.open) >= self._limits.connections:
            return "connection_limit"
        return "memory_limit" if self._memory_full else None

    def add(self, connection: Connection, transport: str) -> None:
        """A client connected; ``transport`` is a metric label."""
        self.open.add(connection)
        self.empty.clear()
        self._metrics.connections.labels(transport).inc()
        if connection.claims is not None and self._revoked(connection.claims):
            connection.go_away()  # its token was revoked between its check and now

    def remove(self, connection: Connection, transport: str) -> None:
        self.open.discard(connection)
        if not self.open:
            self.empty.set()
        self._metrics.connections.labels(transport).dec()

    async def close_revoked(self) -> int:
        """Close the sockets whose tokens are revoked, sessions or not; returns how many there were.

        Some in each turn of the event loop: a shared account may have thousands.
        """
        closed = 0
        for number, connection in enumerate(list(self.open), 1):
            if connection.claims is not None and self._revoked(connection.claims):
                await self._closings.wait()
                closed += connection.go_away()
            if number % CHECKED_PER_TURN == 0:
                await asyncio.sleep(0)
        return closed

    async def leave_topic(self, user: str, topic: str) -> int:
        """Take a user's sockets off a topic, joins under way included; returns how many there were.

        Some in each turn, as there.

        Pushes that still wait for the backend are dropped: it had the user taken off, and would take her to
        be there still.
        """
        self._callbacks.drop(user, topic)
        theirs = [c for c in self.open if c.claims is not None and c.claims.user == user]
        left = 0
        for number, connection in enumerate(theirs, 1):
            left += connection.leave_topic(topic)
            if number % LEFT_PER_TURN == 0:
                await asyncio.sleep(0)
        return left

    def turn(self) -> None:
        """Once a second: timers, and the bound on what waits for all clients together."""
        self._wheel.turn(self._clock())
        full = self._is_memory_full()
        if full and not self._memory_full:
            _log.warning("no memory for new clients; they are refused until there is")
        self._memory_full = full
        waiting = {c: size for c in self.open if not c.wire.clear and (size := c.buffered())}
        total = sum(waiting.values())
        if total > self._limits.outbound_total_bytes:
            # First those that are being closed, as theirs is given up already; then those with the most.
            waiting_most = sorted(
                waiting, key=lambda c: (c.close_code is not None, waiting[c]), reverse=True
            )
            for connection in waiting_most:
                if total <= self._limits.outbound_total_bytes:
                    break
                total -= waiting[connection]
                connection.overflowed()
                connection.abort()  # its close frame would stand behind what it does not read
        self._metrics.outbound_buffered.set(total)
