"""What all sockets of a replica share: limits, clocks, and the parts that do their work."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from gateway.auth.admission import Admission
from gateway.auth.claims import Claims
from gateway.channels.callbacks import Callbacks
from gateway.channels.credentials import Credentials
from gateway.channels.pushes import Pushes
from gateway.channels.replay import Replays
from gateway.config import LimitsSettings
from gateway.metrics import Metrics
from gateway.relay import Relay
from gateway.sessions.book import Sessions
from gateway.sessions.presence import Presences
from gateway.wheel import TimerWheel

AGE_JITTER = 0.1
"""Share by which connection ages differ, so that clients who came together do not leave together."""


class JoinCount:
    """Counts joins: those that wait for the bus or the backend, and what became of all.

    Args:
        most: How many may wait.
    """

    def __init__(self, most: int, metrics: Metrics) -> None:
        self.waiting = 0
        self.succeeded = metrics.joins.labels("ok").inc
        self._most = most
        self._joins = metrics.joins

    @property
    def full(self) -> bool:
        """Whether as many wait as may."""
        return self.waiting >= self._most

    def began(self) -> None:
        self.waiting += 1

    def ended(self, _: asyncio.Task[None] | None = None) -> None:
        """One waits no more: it is decided, or was given up."""
        self.waiting -= 1

    def refused(self, reason: str) -> None:
        self._joins.labels(reason).inc()


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The shared parts.

    Attributes:
        max_age_seconds: After which a connection is moved away; 0 for never.
        leeway_seconds: How long a token is good after it expired, for a socket as for a handshake:
            a socket that was closed earlier would come back with the same token at once.
        clock: Monotonic seconds.
        wall_clock: Unix seconds.
    """

    admission: Admission
    relay: Relay
    sessions: Sessions
    presences: Presences
    callbacks: Callbacks
    pushes: Pushes
    credentials: Credentials
    replays: Replays
    joins: JoinCount
    limits: LimitsSettings
    metrics: Metrics
    wheel: TimerWheel
    max_age_seconds: float
    leeway_seconds: float
    clock: Callable[[], float]
    wall_clock: Callable[[], float]

    def expiry(self, now: float) -> float:
        """When a connection that begins now is to be moved away; infinity for never."""
        if not self.max_age_seconds:
            return float("inf")
        jitter = random.uniform(1 - AGE_JITTER, 1 + AGE_JITTER)  # noqa: S311 -- spreads load, guards nothing
        return now + self.max_age_seconds * jitter

    def token_end(self, claims: Claims | None) -> float:
        """When a socket with these claims must have newer ones, monotonic seconds; infinity for never."""
        if claims is None:
            return float("inf")
        return claims.expires_at + self.leeway_seconds - self.wall_clock() + self.clock()
