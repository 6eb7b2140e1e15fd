"""The open connections of a replica: who is let in, and what concerns all of them."""

import asyncio
import secrets
from collections.abc import Callable
from enum import StrEnum
from itertools import count
from typing import Final

from gateway.auth.claims import Claims
from gateway.channels.callbacks import Callbacks
from gateway.channels.connection import Connection
from gateway.config import LimitsSettings
from gateway.metrics import Metrics
from gateway.wheel import TimerWheel

LEFT_PER_TURN: Final = 64
"""Sockets taken off a topic in one turn of the event loop."""


class Phase(StrEnum):
    """What becomes of new clients; the value is the reason a refusal is counted under."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


class Connections:
    """All open ones.

    Args:
        callbacks: What they wait for the backend with.
        revoked: Whether the token behind some claims was revoked.
        clock: Monotonic seconds.

    Attributes:
        phase: Whether new clients are let in.
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
        clock: Callable[[], float],
    ) -> None:
        self.phase = Phase.STARTING
        self.open: set[Connection] = set()
        self.empty = asyncio.Event()
        self.empty.set()
        self._callbacks = callbacks
        self._limits = limits
        self._metrics = metrics
        self._wheel = wheel
        self._revoked = revoked
        self._clock = clock
        self._ids = count()
        self._id_prefix = secrets.token_urlsafe(9)

    def new_id(self) -> str:
        """An id no other socket of any replica has or had."""
        return f"{self._id_prefix}-{next(self._ids):x}"

    def refusal(self) -> str | None:
        """Why a new client is refused for now; None while there is room."""
        if self.phase is not Phase.SERVING:
            return self.phase.value
        if self._limits.connections and len(self.open) >= self._limits.connections:
            return "connection_limit"
        return None

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

    def close_revoked(self) -> int:
        """Close the sockets whose tokens are revoked, sessions or not; returns how many there were."""
        revoked = [c for c in self.open if c.claims is not None and self._revoked(c.claims)]
        return sum(connection.go_away() for connection in revoked)

    async def leave_topic(self, user: str, topic: str) -> int:
        """Take a user's sockets off a topic, joins under way included; returns how many there were.

        Some in each turn of the event loop: a shared account may have thousands.

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
        waiting = {c: size for c in self.open if (size := c.buffered())}
        total = sum(waiting.values())
        self._metrics.outbound_buffered.set(total)
        for connection in sorted(waiting, key=waiting.__getitem__, reverse=True):
            if total <= self._limits.outbound_total_bytes:
                break
            total -= waiting[connection]
            connection.overflowed()
