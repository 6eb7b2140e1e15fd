"""Has what a client asks for done where its long-poll session is, on this replica or another one."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from gateway.cluster import Cluster
from gateway.errors import BusError
from gateway.transport.longpoll.batch import Said
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
        live: Ids of the other replicas that are alive.

    Attributes:
        home: What tickets of sessions of this replica name.
    """

    def __init__(
        self, sessions: PollSessions, cluster: Cluster, *, live: Callable[[], Iterable[str]]
    ) -> None:
        self.home = home(cluster.replica)
        self._sessions = sessions
        self._cluster = cluster
        self._live = live
        self._elsewhere: dict[str, str] = {}  # homes and ids of others
        self._waiting: set[asyncio.Timeout] = set()
        self._leaving = False
        cluster.run_errand = self._errand_of_another

    @property
    def part_bytes(self) -> int:
        """How long a part of a batch should be, at most."""
        return self._cluster.errand_bytes

    def knows(self, ticket: Ticket) -> bool:
        """Whether the session of a ticket may be there, as far as this replica can tell."""
        if ticket.home == self.home:
            return ticket.secret in self._sessions
        return self._replica(ticket.home) is not None

    async def poll(self, ticket: Ticket) -> Polled:
        """What came for a client; when nothing does, wait for it."""
        errand = Poll(ticket.secret, ticket.received)
        if ticket.home == self.home:
            return await self._sessions.handle(errand)
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
                    return await self._errand(replica, errand)
                except (BusError, ValueError):
                    await asyncio.sleep(UNREACHABLE_SECONDS)
                finally:
                    self._waiting.discard(waiting)
        except TimeoutError:
            pass  # this replica ends; what the other one answers it gives once more
        return nothing

    async def push(self, ticket: Ticket, part: Sequence[Said], seconds: float) -> Polled:
        """Have a part of a batch handled.

        Args:
            seconds: For how long that may take.
        """
        errand = Push(ticket.secret, part, seconds)
        if ticket.home == self.home:
            return await self._sessions.handle(errand)
        replica = self._replica(ticket.home)
        if replica is None:
            return Polled(GONE)
        try:
            return await self._errand(replica, errand)
        except (BusError, ValueError):
            return Polled(FAILED)

    def leave(self) -> None:
        """This replica ends: clients whose polls wait for other replicas shall ask there themselves."""
        self._leaving = True
        for waiting in self._waiting:
            waiting.reschedule(0)

    async def _errand(self, replica: str, errand: Poll | Push) -> Polled:
        """Have another replica do it.

        Raises:
            BusError: It was not done, or nobody knows.
            ValueError: The answer cannot be read.
        """
        seconds = WINDOW_SECONDS + GRACE_SECONDS
        answer = await self._cluster.errand(replica, _encode(errand), seconds)
        return Polled(GONE) if answer is None else _decode_polled(answer)

    async def _errand_of_another(self, body: bytes) -> bytes:
        return _encode(await self._sessions.handle(_decode_errand(body)))

    def _replica(self, its_home: str) -> str | None:
        """The id of the replica a ticket names, if it is alive."""
        live = set(self._live())
        replica = self._elsewhere.get(its_home)
        if replica not in live:
            self._elsewhere = {home(each): each for each in live}
            replica = self._elsewhere.get(its_home)
        return replica


_encode = msgspec.msgpack.Encoder().encode
_decode_errand = msgspec.msgpack.Decoder(Poll | Push).decode
_decode_polled = msgspec.msgpack.Decoder(Polled).decode
