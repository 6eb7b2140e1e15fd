"""The users of the whole cluster: where they are, and what can be done to their sessions."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from gateway.cluster import Cluster, Cover
from gateway.sessions.client import Client
from gateway.sessions.commands import CloseSessions, Count, Leave, List, Presence, Session
from gateway.sessions.last_seen import LastSeen
from gateway.sessions.registry import SessionRegistry, User, user_of

CLOSED_PER_TURN: Final = 64
"""Sessions closed in one turn of the event loop: a shared account may have thousands."""


class Directory:
    """Asks all replicas about users, and answers for this one.

    All, and not those alone that this one knows to have sessions of a user: what it knows is some
    milliseconds old, and an answer that calls itself complete has to be.

    Args:
        here: The sessions of this replica.
    """

    def __init__(self, here: SessionRegistry, cluster: Cluster, last_seen: LastSeen) -> None:
        self._here = here
        self._cluster = cluster
        self._last_seen = last_seen

    async def presences(self, users: Sequence[str]) -> tuple[dict[str, Presence], Cover]:
        """How many sessions users have, and when they were last seen."""
        asked = await self._cluster.call(Count(tuple(users)), self._cluster.everyone)
        totals = {
            user: _sum([found[user] for found in asked.values if user in found]) for user in users
        }
        return totals, asked.cover

    async def last_seen(self, user: str) -> float:
        """When a user whom no live replica remembers was last seen, unix seconds; 0 for never."""
        return await self._last_seen.kept(user)

    async def sessions(self, user: str) -> tuple[list[Session], Cover]:
        """A user's sessions on all replicas, the oldest first."""
        asked = await self._cluster.call(List(user), self._cluster.everyone)
        items = [item for found in asked.values for item in found]
        return sorted(items, key=lambda item: (item.connected_at, item.id)), asked.cover

    async def close(
        self, user: str, *, only: Iterable[str] = (), keep: Iterable[str] = ()
    ) -> tuple[int, Cover]:
        """Close a user's sessions; returns how many were really closed."""
        command = CloseSessions(user, tuple(only), tuple(keep))
        asked = await self._cluster.call(command, self._cluster.everyone)
        return sum(asked.values), asked.cover

    async def leave_topic(self, user: str, topic: str) -> tuple[int, Cover]:
        """Take a user off a topic; returns how many channels ended."""
        asked = await self._cluster.call(Leave(user, topic), self._cluster.everyone)
        return sum(asked.values), asked.cover

    def count_here(self, command: Count) -> dict[str, Presence]:
        """How this replica knows users."""
        return {user: self._presence(user) for user in command.users}

    def others(self, command: Count) -> Iterable[str]:
        """Replicas that know a user too, for who could ask only those found by her topic."""
        user = self._here.find(command.users[0]) if len(command.users) == 1 else None
        return () if user is None else user.others()

    def list_here(self, command: List) -> list[Session]:
        """A user's sessions on this replica."""
        known = self._here.find(command.user)
        if known is None:
            return []
        return [self._session(known, client) for client in known.clients.values()]

    async def close_here(self, command: CloseSessions) -> int:
        """Close a user's sessions on this replica, some in each turn; returns how many were really closed."""
        known = self._here.find(command.user)
        only, keep = frozenset(command.only), frozenset(command.keep)
        chosen = [
            client
            for client in (() if known is None else known.clients.values())
            if (not only or client.id in only) and client.id not in keep
        ]
        closed = 0
        for number, client in enumerate(chosen, 1):
            closed += client.go_away()
            if number % CLOSED_PER_TURN == 0:
                await asyncio.sleep(0)
        return closed

    def _presence(self, user: str) -> Presence:
        known = self._here.find(user)
        if known is None:
            return Presence(last_seen_at=self._last_seen.known(user))
        seen = self._here.last_seen(known)
        return Presence(len(known.clients), self._here.online(known), seen)

    def _session(self, user: User, client: Client) -> Session:
        origin = client.origin
        entry = user.view.own.get(client.id)
        return Session(
            id=client.id,
            user=user_of(client),
            device=origin.device,
            replica=self._cluster.replica,
            transport=origin.transport,
            protocol=origin.protocol,
            ip=origin.ip,
            user_agent=origin.user_agent,
            connected_at=0.0 if entry is None else entry.connected_at,
            last_seen_at=client.last_seen(),
            topics=tuple(client.topics),
        )


def _sum(found: Sequence[Presence]) -> Presence:
    return Presence(
        sum(each.sessions for each in found),
        any(each.online for each in found),
        max((each.last_seen_at for each in found), default=0.0),
    )
