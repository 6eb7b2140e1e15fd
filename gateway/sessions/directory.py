"""The users of the whole cluster: where they are, and what can be done to their sessions."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import msgspec

from gateway.cluster import Answers, Cluster
from gateway.sessions import commands
from gateway.sessions.book import Sessions, User
from gateway.sessions.client import Client
from gateway.sessions.commands import (
    Close,
    Command,
    Count,
    Leave,
    List,
    ListRevoked,
    Presence,
    Report,
    Revoke,
    Session,
)
from gateway.sessions.last_seen import LastSeen

T = TypeVar("T")


class Cover(msgspec.Struct, frozen=True):
    """Who an answer is from.

    Attributes:
        missing: Replicas that should have answered and did not.
        complete: Whether everybody answered who has something to say.
    """

    missing: tuple[str, ...] = ()
    complete: bool = True


class Directory:
    """Answers for this replica, and asks the others.

    Args:
        report: Answers what is for the :class:`~gateway.sessions.reporter.Reporter`.
        live: Ids of the other replicas that are alive.

    Attributes:
        on_revoke: Carries out what concerns tokens, and answers.
        on_leave: Takes all sockets of a user off a topic, sessions or not: one whose first join is just being
            decided must not get in afterwards. Returns how many channels ended.
    """

    def __init__(
        self,
        sessions: Sessions,
        cluster: Cluster,
        last_seen: LastSeen,
        *,
        report: Callable[[Report], bytes],
        live: Callable[[], Sequence[str]],
    ) -> None:
        self._sessions = sessions
        self._report = report
        self._cluster = cluster
        self._last_seen = last_seen
        self._live = live
        self.on_revoke: Callable[[Revoke | ListRevoked], bytes] = lambda _: b""
        self.on_leave: Callable[[str, str], int] = lambda _user, _topic: 0
        cluster.respond = self._respond
        sessions.holders = self.holders

    async def holders(self, user: str) -> set[str]:
        """The other replicas where a user has sessions; this one must not know the user yet."""
        body = commands.encode(Count((user,)))
        asked = await self._cluster.ask_holders(self._sessions.topic(user), body)
        answers = Decoded(asked, commands.decode_presences)
        return {
            r for r, found in answers.by_replica.items() if user in found and found[user].sessions
        }

    async def presences(self, users: Sequence[str]) -> tuple[dict[str, Presence], Cover]:
        """How many sessions users have, and when they were last seen; all live replicas are asked."""
        here, answers = await self._ask(Count(tuple(users)), commands.decode_presences)
        everywhere = (here, *answers.values)
        totals = {user: _sum([each[user] for each in everywhere if user in each]) for user in users}
        return totals, answers.cover

    async def last_seen(self, user: str) -> float:
        """When a user whom no live replica remembers was last seen, unix seconds; 0 for never."""
        return await self._last_seen.kept(user)

    async def sessions(self, user: str) -> tuple[list[Session], Cover]:
        """A user's sessions on all replicas, the oldest first."""
        here, answers = await self._ask(List(user), commands.decode_sessions)
        items = here + [item for answer in answers.values for item in answer]
        return sorted(items, key=lambda item: (item.connected_at, item.id)), answers.cover

    async def close(
        self, user: str, *, only: Iterable[str] = (), keep: Iterable[str] = ()
    ) -> tuple[int, Cover]:
        """Close a user's sessions; returns how many were really closed."""
        command = Close(user, tuple(only), tuple(keep))
        here, answers = await self._ask(command, commands.decode_number)
        return here + sum(answers.values), answers.cover

    async def leave_topic(self, user: str, topic: str) -> tuple[int, Cover]:
        """Take a user off a topic; returns how many channels ended."""
        here, answers = await self._ask(Leave(user, topic), commands.decode_number)
        return here + sum(answers.values), answers.cover

    async def ask(
        self, replicas: Iterable[str], command: Command, decode: Callable[[bytes], T]
    ) -> "Decoded[T]":
        """Have a command carried out by other replicas."""
        asked = await self._cluster.ask_each(replicas, commands.encode(command))
        return Decoded(asked, decode)

    async def _ask(self, command: Command, decode: Callable[[bytes], T]) -> tuple[T, "Decoded[T]"]:
        """Have a command carried out by all live replicas, this one first.

        All, and not those alone that this one knows to have sessions of the user: what it knows is some
        milliseconds old, and an answer that calls itself complete has to be.
        """
        here = decode(self._carry_out(command))
        return here, await self.ask(self._live(), command, decode)

    def _respond(self, body: bytes) -> tuple[bytes, Iterable[str]] | None:
        command = commands.decode(body)
        answer = self._carry_out(command)
        if not isinstance(command, Count) or len(command.users) != 1:
            return answer, ()
        # perhaps from holders(), which asked only those it could find by the user's subject
        user = self._sessions.find(command.users[0])
        return answer, () if user is None else user.others()

    def _carry_out(self, command: Command) -> bytes:
        match command:
            case Count():
                return commands.encode({user: self._presence(user) for user in command.users})
            case List():
                return commands.encode(self._list(command.user))
            case Close():
                chosen = [
                    client
                    for client in self._clients(command.user)
                    if (not command.only or client.id in command.only)
                    and client.id not in command.keep
                ]
                return commands.encode(sum(client.go_away() for client in chosen))
            case Leave():
                return commands.encode(self.on_leave(command.user, command.topic))
            case Revoke() | ListRevoked():
                return self.on_revoke(command)
            case _:
                return self._report(command)

    def _clients(self, user: str) -> list[Client]:
        known = self._sessions.find(user)
        return [] if known is None else list(known.clients.values())

    def _presence(self, user: str) -> Presence:
        known = self._sessions.find(user)
        if known is None:
            return Presence(last_seen_at=self._last_seen.known(user))
        seen = max((c.last_seen() for c in known.clients.values()), default=known.ended_at)
        return Presence(len(known.clients), self._sessions.online(known), seen)

    def _list(self, user: str) -> list[Session]:
        known = self._sessions.find(user)
        if known is None:
            return []
        return [self._session(known, client) for client in known.clients.values()]

    def _session(self, user: User, client: Client) -> Session:
        origin = client.origin
        entry = user.view.own.get(client.id)
        return Session(
            id=client.id,
            user="" if client.claims is None else client.claims.user,
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


class Decoded(Generic[T]):
    """Answers, decoded; one that cannot be read counts as missing."""

    def __init__(self, answers: Answers, decode: Callable[[bytes], T]) -> None:
        self.by_replica: dict[str, T] = {}
        for replica, body in answers.bodies.items():
            with contextlib.suppress(ValueError):
                self.by_replica[replica] = decode(body)
        self.values = list(self.by_replica.values())
        unreadable = answers.bodies.keys() - self.by_replica.keys()
        missing = tuple(sorted({*answers.missing, *unreadable}))
        self.cover = Cover(missing, answers.complete and not unreadable)


def _sum(found: Sequence[Presence]) -> Presence:
    return Presence(
        sum(each.sessions for each in found),
        any(each.online for each in found),
        max((each.last_seen_at for each in found), default=0.0),
    )
