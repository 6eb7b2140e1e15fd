"""The users of the whole cluster: where they are, and what can be done to their sessions."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from gateway.cluster import Cluster, Cover, Others, Subscribers
from gateway.sessions.client import Client
from gateway.sessions.commands import CloseSessions, Count, Leave, List, Presence, Session
from gateway.sessions.last_seen import LastSeen
from gateway.sessions.registry import SessionRegistry, User, user_of
from gateway.tracker.entry import SESSIONS
from gateway.tracker.service import TrackerService

CLOSED_PER_TURN: Final = 64
"""Sessions closed in one turn of the event loop: a shared account may have thousands."""


class Directory:
    """Asks the replicas with sessions of a user about her, and answers for this one.

    Each of them is subscribed to her personal topic, so that is where questions go: what this replica knows
    of the others is some milliseconds old, and an answer that calls itself complete has to be.

    Args:
        here: The sessions of this replica.
        topic: A user's personal topic.
    """

    def __init__(
        self,
        here: SessionRegistry,
        cluster: Cluster,
        tracker: TrackerService,
        last_seen: LastSeen,
        topic: Callable[[str], str],
    ) -> None:
        self._here = here
        self._cluster = cluster
        self._tracker = tracker
        self._last_seen = last_seen
        self._topic = topic

    async def presences(self, users: Sequence[str]) -> tuple[dict[str, Presence], Cover]:
        """How many sessions users have, and when they were last seen.

        Many are asked about in one question to everyone, few each by herself.
        """
        call = self._cluster.call
        if self._cluster.by_topic(len(users)):
            calls = [call(Count((user,)), self._holders(user)) for user in users]
        else:
            calls = [call(Count(tuple(users)), self._cluster.everyone)]
        asked = await asyncio.gather(*calls)
        known = [found for each in asked for found in each.values]
        missing = {replica for each in asked for replica in each.cover.missing}
        totals = {user: _sum([found[user] for found in known if user in found]) for user in users}
        return totals, Cover(tuple(sorted(missing)), all(each.cover.complete for each in asked))

    async def last_seen(self, user: str) -> float:
        """When a user who was found nowhere was last seen, unix seconds; 0 for never."""
        kept = await self._last_seen.kept(user)
        if kept is None:  # some replica may remember her, though it let go of her topic
            asked = await self._cluster.call(Count((user,)), self._cluster.everyone)
            kept = _sum([found[user] for found in asked.values if user in found]).last_seen_at
        return kept

    async def sessions(self, user: str) -> tuple[list[Session], Cover]:
        """A user's sessions on all replicas, the oldest first."""
        asked = await self._cluster.call(List(user), self._holders(user))
        items = [item for found in asked.values for item in found]
        return sorted(items, key=lambda item: (item.connected_at, item.id)), asked.cover

    async def close(
        self, user: str, *, only: Iterable[str] = (), keep: Iterable[str] = ()
    ) -> tuple[int, Cover]:
        """Close a user's sessions; returns how many were really closed."""
        command = CloseSessions(user, tuple(only), tuple(keep))
        asked = await self._cluster.call(command, self._holders(user))
        return sum(asked.values), asked.cover

    async def leave_topic(self, user: str, topic: str) -> tuple[int, Cover]:
        """Take a user off a topic; returns how many channels ended.

        All replicas are asked: what has to be stopped may be a join that is no session yet, or a push that
        waits for the backend though its socket is gone.
        """
        asked = await self._cluster.call(Leave(user, topic), self._cluster.everyone)
        return sum(asked.values), asked.cover

    def count_here(self, command: Count) -> dict[str, Presence]:
        """How this replica knows users."""
        return {user: self._presence(user) for user in command.users}

    def others(self, command: Count | List | CloseSessions) -> Others:
        """Replicas that have sessions of the user who is asked about, and those that may have."""
        user = command.users[0] if isinstance(command, Count) else command.user
        return self._tracker.holders(SESSIONS + self._topic(user))

    def _holders(self, user: str) -> AbstractSet[str] | Subscribers:
        return self._cluster.holders(self._topic(user))

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
