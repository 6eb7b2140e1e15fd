"""Runs a long-poll client's request on the replica that holds its session, here or elsewhere."""

import asyncio
from collections.abc import Sequence
from typing import Final

from gateway.cluster import Cluster
from gateway.transport.longpoll.batch import BatchMessage
from gateway.transport.longpoll.sessions import (
    EMPTY,
    FAILED,
    GONE,
    WINDOW_SECONDS,
    Poll,
    Polled,
    PollSessions,
    Push,
)
from gateway.transport.longpoll.ticket import Ticket, home

GRACE_SECONDS: Final = 2.0
"""How much longer than the other replica's own limits this one waits for its answer."""

UNREACHABLE_SECONDS: Final = 1.0
"""How long a poll takes when the other replica cannot be reached: the next may meet that one itself."""


class PollRouter:
    """The ways to all sessions of the cluster.

    Args:
        sessions: Those of this replica.

    Attributes:
        home: What tickets of sessions of this replica name.
    """

    def __init__(self, sessions: PollSessions, cluster: Cluster) -> None:
        self.home = home(cluster.replica)
        self._sessions = sessions
        self._cluster = cluster
        self._elsewhere: dict[str, str] = {}  # homes and ids of others
        self._waiting: set[asyncio.Timeout] = set()
        self._leaving = False

    @property
    def part_bytes(self) -> int:
        """How long a part of a batch should be, at most."""
        return self._cluster.part_bytes

    def knows(self, ticket: Ticket) -> bool:
        """Whether the session of a ticket may be there, as far as this replica can tell."""
        if ticket.home == self.home:
            return ticket.secret in self._sessions
        return self._replica(ticket.home) is not None

    async def poll(self, ticket: Ticket) -> Polled:
        """What came for a client; when nothing does, wait for it."""
        command = Poll(ticket.secret, ticket.received)
        if ticket.home == self.home:
            return await self._sessions.handle(command)
        replica = self._replica(ticket.home)
        if replica is None:
            return Polled(GONE)
        nothing = Polled(EMPTY, ticket.received)
        if self._leaving:
            return nothing
        try:
            async with asyncio.timeout(None) as waiting:
                self._waiting.add(waiting)
                try:
                    polled = await self._call(replica, command)
                    if polled is not None:
                        return polled
                    await asyncio.sleep(UNREACHABLE_SECONDS)
                finally:
                    self._waiting.discard(waiting)
        except TimeoutError:
            pass  # this replica ends; what the other one answers it gives once more
        return nothing

    async def push(self, ticket: Ticket, part: Sequence[BatchMessage], seconds: float) -> Polled:
        """Have a part of a batch handled.

        Args:
            seconds: For how long that may take.
        """
        command = Push(ticket.secret, part, seconds)
        if ticket.home == self.home:
            return await self._sessions.handle(command)
        replica = self._replica(ticket.home)
        if replica is None:
            return Polled(GONE)
        return await self._call(replica, command) or Polled(FAILED)

    def leave(self) -> None:
        """This replica ends: clients whose polls wait for other replicas shall ask there themselves."""
        self._leaving = True
        for waiting in self._waiting:
            waiting.reschedule(0)

    async def _call(self, replica: str, command: Poll | Push) -> Polled | None:
        """Have another replica do it; None when it may have been done, or may not."""
        seconds = WINDOW_SECONDS + GRACE_SECONDS
        answers = await self._cluster.call(command, {replica}, seconds=seconds)
        if not answers.cover.complete:
            return None
        return answers.by_replica.get(replica, Polled(GONE))

    def _replica(self, its_home: str) -> str | None:
        """The id of the replica a ticket names, if it is alive."""
        live = self._cluster.others
        replica = self._elsewhere.get(its_home)
        if replica not in live:
            self._elsewhere = {home(each): each for each in live}
            replica = self._elsewhere.get(its_home)
        return replica
