"""The sessions of this replica, by user: let in, limited, moved, ended."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

from gateway.auth.rules import PersonalTopic
from gateway.leases import Lease, Leases
from gateway.protocol.reasons import Reason
from gateway.sessions.client import Client
from gateway.sessions.limits import Limits
from gateway.tracker.entry import Entry
from gateway.tracker.keys import SESSIONS
from gateway.tracker.service import TrackerService
from gateway.tracker.view import Change, View

LINGER_SECONDS: Final = 2.0
"""How long a user is kept in mind at least after her last session, so that a reload costs nothing."""

SYNC_SECONDS: Final = 0.5
"""How long a first join waits for what other replicas know, where a limit depends on it."""

NEXT_MOMENT: Final = 1e-6

REPLACED: Final = "session replaced"
OVER_LIMIT: Final = "session limit reached"


class Topics(Protocol):
    """Subscriptions on the bus."""

    async def subscribe(self, topic: str) -> Lease:
        """Have a topic's messages come to this replica."""


class Observer(Protocol):
    """Who wants to know of sessions as they begin and end."""

    def started(self, client: Client) -> None:
        """A socket is a session now."""

    def ended(self, client: Client, *, moving: bool) -> None:
        """A session ended; ``moving`` when its client is expected on another replica."""


class User:
    """A user with sessions on this replica, now or a moment ago.

    Args:
        book: Told of each change of her sessions on any replica.

    Attributes:
        listening: On her personal topic.
        view: What all replicas say of her sessions.
        clients: Her sockets here that are sessions, by id.
        ended_at: When the last of them ended, unix seconds; 0 while there are some.
        lease: On this object, held while she has sessions here.
    """

    __slots__ = ("_book", "clients", "ended_at", "lease", "listening", "topic", "view")

    def __init__(
        self, topic: str, listening: Lease, tracker: TrackerService, book: "Sessions"
    ) -> None:
        self.topic = topic
        self.listening = listening
        self.clients: dict[str, Client] = {}
        self.ended_at = 0.0
        self.lease: Lease | None = None
        self._book = book
        self.view: View = tracker.hold(SESSIONS + topic, self.notify)

    def notify(self, _: Change) -> None:
        """Her entries changed. A method, as a closure for each user would be far larger."""
        self._book.changed(self)

    def release(self) -> None:
        """Let go of her, if she has no sessions here."""
        if not self.clients and self.lease is not None:
            self.lease.close()
            self.lease = None

    def entries(self) -> list[Entry]:
        """Sessions on all replicas that count: moving ones do not."""
        return [e for e in self.view.shown.values() if not e.moving]

    def others(self) -> list[str]:
        """Replicas where she has sessions, but for this one."""
        return [replica for replica, remote in self.view.remotes.items() if remote.entries]


class Sessions:
    """All sessions of this replica.

    Args:
        offline_after_seconds: Grace before a user without a session counts as offline.
        clock: Unix seconds; sessions of all replicas are put in order by it.
        seen: Told that a user was there, for ``last_seen_at``.

    Attributes:
        count: How many there are.
        holders: Asks the other replicas which of them have sessions of a user.
        observer: Told of this replica's sessions.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        personal: PersonalTopic,
        topics: Topics,
        tracker: TrackerService,
        offline_after_seconds: float,
        clock: Callable[[], float],
        seen: Callable[[str], None],
    ) -> None:
        self.count = 0
        self.holders: Callable[[str], Awaitable[set[str]]] = _nobody
        self.observer: Observer | None = None
        self._limits = limits
        self._personal = personal
        self._topics = topics
        self._tracker = tracker
        self._offline_after_seconds = offline_after_seconds
        self._clock = clock
        self._seen = seen
        self._users: dict[str, User] = {}
        self._leases: Leases[User] = Leases(
            self._close, linger_seconds=max(LINGER_SECONDS, offline_after_seconds)
        )
        self._awaiting: dict[User, asyncio.Event] = {}

    def find(self, user: str) -> User | None:
        """A user this replica knows about."""
        return self._users.get(user)

    def topic(self, user: str) -> str:
        """A user's personal topic."""
        return self._personal.of(user)

    def has(self, client: Client) -> bool:
        """Whether a socket is a session."""
        user = self._users.get(_name(client))
        return user is not None and client.id in user.clients

    def present(self, name: str) -> bool:
        """Whether a user has sessions here."""
        user = self._users.get(name)
        return user is not None and bool(user.clients)

    def clients(self) -> list[Client]:
        """All sockets that are sessions."""
        return [client for user in self._users.values() for client in user.clients.values()]

    def online(self, user: User) -> bool:
        """Whether she is to be called online."""
        if user.clients or user.view.shown:
            return True
        return self._clock() < user.ended_at + self._offline_after_seconds

    def users(self) -> list[str]:
        """Users with sessions here."""
        return [name for name, user in self._users.items() if user.clients]

    async def enter(self, client: Client) -> Reason | None:
        """Make a socket a session at its first join; returns why not, if so. Idempotent.

        Raises:
            BusError: The bus is down, so nobody knows of other sessions and none could be told.
        """
        name = _name(client)
        lease = await self._leases.acquire(name, partial(self._open, name, client))
        user = self._users[name]
        try:
            return self._admit(user, client)
        finally:
            if user.clients and user.lease is None:
                user.lease = lease
            else:
                lease.close()

    def leave(self, client: Client) -> None:
        """A socket is gone. Idempotent."""
        name = _name(client)
        user = self._users.get(name)
        if user is None or user.clients.pop(client.id, None) is None:
            return
        self.count -= 1
        self._tracker.remove(SESSIONS + user.topic, client.id)
        if not user.clients:
            user.ended_at = self._clock()
            self._seen(name)
        if self.observer is not None:
            self.observer.ended(client, moving=False)
        user.release()

    def move(self, client: Client) -> None:
        """A socket is about to be closed by a drain; its client is expected on another replica."""
        user = self._users.get(_name(client))
        if user is None or user.clients.pop(client.id, None) is None:
            return
        self.count -= 1
        self._tracker.move(SESSIONS + user.topic, client.id)
        if not user.clients:
            user.ended_at = self._clock()
        if self.observer is not None:
            self.observer.ended(client, moving=True)
        user.release()

    def _admit(self, user: User, client: Client) -> Reason | None:
        if client.id in user.clients:
            return None
        entries = user.entries()
        # The clocks of replicas differ; a newcomer is later than all that are known.
        latest = max((entry.connected_at for entry in entries), default=0.0)
        entry = self._entry(client, max(self._clock(), latest + NEXT_MOMENT))
        if self._limits.refuse(entry, entries):
            return Reason.SESSION_LIMIT
        user.clients[client.id] = client
        user.ended_at = 0.0
        self.count += 1
        self._tracker.put(SESSIONS + user.topic, entry)
        self._seen(entry.user)
        if self.observer is not None:
            self.observer.started(client)
        return None

    def _entry(self, client: Client, now: float) -> Entry:
        claims = client.claims
        return Entry(
            id=client.id,
            user=_name(client),
            ref=client.id,
            connected_at=now,
            online_at=now,
            device=client.origin.device,
            limit=None if claims is None else claims.max_sessions,
        )

    async def _open(self, name: str, client: Client) -> User:
        """Begin to know a user; where a limit depends on it, wait for what others know."""
        awaited: set[str] = set()
        if self._limits.concern(self._entry(client, 0.0)):
            awaited = await self.holders(name)
        topic = self.topic(name)
        listening = await self._topics.subscribe(topic)
        user = User(topic, listening, self._tracker, self)
        await self._told_by(user, awaited)
        self._users[name] = user
        return user

    def _close(self, name: str, user: User) -> None:
        """Know a user no more, who has had no sessions for a while."""
        del self._users[name]
        self._tracker.release(SESSIONS + user.topic)
        user.listening.close(linger=False)

    async def _told_by(self, user: User, replicas: set[str]) -> None:
        """Wait until these replicas have said what they know of a user, or take too long."""
        changed = self._awaiting[user] = asyncio.Event()
        try:
            async with asyncio.timeout(SYNC_SECONDS):
                while not replicas <= user.view.remotes.keys():
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            pass
        finally:
            del self._awaiting[user]

    def changed(self, user: User) -> None:
        """The sessions of a user on all replicas are others than before."""
        if user in self._awaiting:
            self._awaiting[user].set()
        # in the next turn, when whatever brought this about is done
        if user.clients and (losers := self._losers(user)):
            asyncio.get_running_loop().call_soon(self._settle, user, losers)

    def _losers(self, user: User) -> list[Entry]:
        return [e for e in self._limits.losers(user.entries()) if e.id in user.clients]

    def _settle(self, user: User, losers: list[Entry]) -> None:
        devices = [entry.device.id for entry in user.entries()]
        for entry in losers:
            client = user.clients.get(entry.id)
            if client is None:
                continue
            again = self._limits.same_device == "replace" and devices.count(entry.device.id) > 1
            client.end_session(REPLACED if again else OVER_LIMIT)


async def _nobody(_: str) -> set[str]:
    return set()


def _name(client: Client) -> str:
    return "" if client.claims is None else client.claims.user
