"""What all sockets of a replica share: limits, the relay, the timers, and the list of them."""

import asyncio
import random
import secrets
from collections.abc import Callable
from enum import StrEnum
from itertools import count
from typing import Protocol

from gateway.auth.admission import Admission
from gateway.auth.claims import Claims
from gateway.config import Limits
from gateway.metrics import Metrics
from gateway.protocol.reasons import CloseCode
from gateway.relay import Relay
from gateway.sessions.book import Sessions
from gateway.sessions.presence import Presences
from gateway.transport.callbacks import Callbacks
from gateway.wheel import TimerWheel

AGE_JITTER = 0.1
"""Share by which connection ages differ, so that clients who came together do not leave together."""


class Phase(StrEnum):
    """What the endpoint does with new clients; the value is the reason a refusal is counted under."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


class OpenConnection(Protocol):
    """A client connection of any transport."""

    @property
    def claims(self) -> Claims | None:
        """What its token says; None for an anonymous one."""

    def buffered(self) -> int:
        """Bytes waiting for the client in this process."""

    def overflowed(self) -> None:
        """Too much waits: close it as a slow consumer."""

    def close(self, code: CloseCode) -> None:
        """Close it from the gateway's side. Idempotent."""

    def go_away(self) -> bool:
        """Close it with 1001, it may come back; False if it is closed already."""

    def leave_topic(self, topic: str) -> bool:
        """Take it off a topic; False if it is not on it."""

    def abort(self) -> None:
        """Cut the TCP connection now."""


class Endpoint:
    """All sockets of one replica.

    Args:
        revoked: Whether the token behind some claims was revoked.
        max_age_seconds: After which a connection is moved away; 0 for never.
        leeway_seconds: How long a token is good after it expired, for a socket as for a handshake:
            a socket that was closed earlier would come back with the same token at once.
        clock: Monotonic seconds.
        wall_clock: Unix seconds.

    Attributes:
        phase: Whether new clients are let in.
        revoked: As given.
        joins_in_flight: Joins that wait for the bus or the backend now.
        connections: All open ones.
        empty: Set while there are none.
    """

    def __init__(
        self,
        *,
        admission: Admission,
        relay: Relay,
        sessions: Sessions,
        presences: Presences,
        callbacks: Callbacks,
        limits: Limits,
        metrics: Metrics,
        revoked: Callable[[Claims], bool],
        max_age_seconds: float,
        leeway_seconds: float,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self.admission = admission
        self.relay = relay
        self.sessions = sessions
        self.presences = presences
        self.callbacks = callbacks
        self.limits = limits
        self.metrics = metrics
        self.clock = clock
        self.wall_clock = wall_clock
        self.wheel = TimerWheel(clock())
        self.phase = Phase.STARTING
        self.joins_in_flight = 0
        self.connections: set[OpenConnection] = set()
        self.empty = asyncio.Event()
        self.empty.set()
        self.joined = metrics.joins.labels("ok").inc
        self.revoked = revoked
        self._max_age_seconds = max_age_seconds
        self._leeway_seconds = leeway_seconds
        self._ids = count()
        self._id_prefix = secrets.token_urlsafe(9)

    def new_id(self) -> str:
        """An id no other socket of any replica has or had."""
        return f"{self._id_prefix}-{next(self._ids):x}"

    def expiry(self, now: float) -> float:
        """When a connection that begins now is to be moved away; infinity for never."""
        if not self._max_age_seconds:
            return float("inf")
        jitter = random.uniform(1 - AGE_JITTER, 1 + AGE_JITTER)  # noqa: S311 -- spreads load, guards nothing
        return now + self._max_age_seconds * jitter

    def token_end(self, claims: Claims | None) -> float:
        """When a socket with these claims must have newer ones, monotonic seconds; infinity for never."""
        if claims is None:
            return float("inf")
        return claims.expires_at + self._leeway_seconds - self.wall_clock() + self.clock()

    @property
    def joins_full(self) -> bool:
        """Whether as many joins wait as may."""
        return self.joins_in_flight >= self.limits.joins_in_flight

    def add(self, connection: OpenConnection, transport: str) -> None:
        """A client connected; ``transport`` is a metric label."""
        self.connections.add(connection)
        self.empty.clear()
        self.metrics.connections.labels(transport).inc()
        if connection.claims is not None and self.revoked(connection.claims):
            connection.go_away()  # its token was revoked between its check and now

    def close_revoked(self) -> int:
        """Close the sockets whose tokens are revoked, sessions or not; returns how many it were."""
        revoked = [c for c in self.connections if c.claims is not None and self.revoked(c.claims)]
        return sum(connection.go_away() for connection in revoked)

    def leave_topic(self, user: str, topic: str) -> int:
        """Take a user's sockets off a topic, those too whose join is under way; returns how many it were.

        What she pushed and waits for the backend goes with them: to the backend, which had her taken off,
        she would seem to be there still.
        """
        self.pushes_dropped(self.callbacks.drop(user, topic))
        theirs = [c for c in self.connections if c.claims is not None and c.claims.user == user]
        return sum(connection.leave_topic(topic) for connection in theirs)

    def pushes_dropped(self, pushes: int) -> None:
        """So many pushes do not reach the backend, as their client may not be where it said them."""
        self.metrics.messages_dropped.labels("not_member").inc(pushes)

    def remove(self, connection: OpenConnection, transport: str) -> None:
        """A client's connection ended."""
        self.connections.discard(connection)
        if not self.connections:
            self.empty.set()
        self.metrics.connections.labels(transport).dec()

    def refusal(self) -> str | None:
        """Why a new client is refused for now; None while there is room."""
        if self.phase is not Phase.SERVING:
            return self.phase.value
        if self.limits.connections and len(self.connections) >= self.limits.connections:
            return "connection_limit"
        return None

    def join_waited(self, _: "asyncio.Task[None]") -> None:
        """A join that waited for the bus is decided, or was given up."""
        self.joins_in_flight -= 1

    def turn(self) -> None:
        """Once a second: timers, and the bound on what waits for all clients together."""
        self.wheel.turn(self.clock())
        waiting = {c: size for c in self.connections if (size := c.buffered())}
        total = sum(waiting.values())
        self.metrics.outbound_buffered.set(total)
        for connection in sorted(waiting, key=waiting.__getitem__, reverse=True):
            if total <= self.limits.outbound_total_bytes:
                break
            total -= waiting[connection]
            connection.overflowed()
