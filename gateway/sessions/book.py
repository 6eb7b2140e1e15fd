"""The sessions of this replica, by user: let in, limited, moved, ended."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from gateway.auth.rules import PersonalTopic
from gateway.leases import Lease
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

    Attributes:
        view: What all replicas say of her sessions; None until they can be known.
        clients: Her sockets here that are sessions, by id.
        ended_at: When the last of them ended, unix seconds; 0 while there are some.
    """

    __slots__ = (
        "_book",
        "changed",
        "clients",
        "ended_at",
        "farewell",
        "lease",
        "opening",
        "topic",
        "view",
        "waiting",
    )

    def __init__(self, topic: str, book: "Sessions") -> None:
        self.topic = topic
        self._book = book
        self.view: View | None = None
        self.clients: dict[str, Client] = {}
        self.ended_at = 0.0
        self.lease: Lease | None = None
        self.waiting = 0
        self.opening: asyncio.Task[None] | None = None
        self.farewell: asyncio.TimerHandle | None = None
        self.changed: asyncio.Event | None = None

    def notify(self, _: Change) -> None:
        """Her entries changed. A method, as a closure for each user would be far larger."""
        self._book.changed(self)

    def entries(self) -> list[Entry]:
        """Sessions on all replicas that count: moving ones do not."""
        return [] if self.view is None else [e for e in self.view.shown.values() if not e.moving]

    def others(self) -> list[str]:
        """Replicas where she has sessions, but for this one."""
        if self.view is None:
            return []
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

    def find(self, user: str) -> User | None:
        """A user this replica knows about."""
        known = self._users.get(user)
        return known if known is not None and known.view is not None else None

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
        if user.clients or (user.view is not None and user.view.shown):
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
        user = self._users.get(name)
        if user is None:
            user = self._users[name] = User(self.topic(name), self)
        user.waiting += 1
        self._stay(user)
        try:
            if user.view is None:
                if user.opening is None:
                    user.opening = asyncio.create_task(self._open(user, client))
                    # if all who waited were cancelled, nobody else would look at what became of it
                    user.opening.add_done_callback(
                        lambda task: task.cancelled() or task.exception()
                    )
                await asyncio.shield(user.opening)  # shielded, because others wait for it too
            return self._admit(user, client)
        finally:
            user.waiting -= 1
            self._tidy(name, user)

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
        self._tidy(name, user)

    def move(self, client: Client) -> None:
        """A socket is about to be closed by a drain; its client is expected on another replica."""
        user = self._users.get(_name(client))
        if user is None or user.view is None or user.clients.pop(client.id, None) is None:
            return
        self.count -= 1
        self._tracker.move(SESSIONS + user.topic, client.id)
        if not user.clients:
            user.ended_at = self._clock()
        if self.observer is not None:
            self.observer.ended(client, moving=True)
        self._tidy(_name(client), user)

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

    async def _open(self, user: User, client: Client) -> None:
        """Begin to hold a user's key; where a limit depends on it, wait for what others know."""
        try:
            awaited = set()
            if self._limits.concern(self._entry(client, 0.0)):
                awaited = await self.holders(_name(client))
            user.lease = await self._topics.subscribe(user.topic)
            user.changed = asyncio.Event()
            view = self._tracker.hold(SESSIONS + user.topic, user.notify)
            await _told_by(view, user.changed, awaited)
            user.changed = None
            user.view = view
        finally:
            user.opening = None
            self._tidy(_name(client), user)

    def changed(self, user: User) -> None:
        """The sessions of a user on all replicas are others than before."""
        if user.changed is not None:
            user.changed.set()
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

    def _stay(self, user: User) -> None:
        if user.farewell is not None:
            user.farewell.cancel()
            user.farewell = None

    def _tidy(self, name: str, user: User) -> None:
        """Let go of a user without sessions: at once if nothing is held, else after a while."""
        if user.clients or user.waiting or user.opening is not None or user.farewell is not None:
            return
        if user.view is None:
            self._users.pop(name, None)
            return
        seconds = max(LINGER_SECONDS, self._offline_after_seconds)
        user.farewell = asyncio.get_running_loop().call_later(seconds, self._forget, name, user)

    def _forget(self, name: str, user: User) -> None:
        del self._users[name]
        self._tracker.release(SESSIONS + user.topic)
        if user.lease is not None:
            user.lease.close(linger=False)


async def _nobody(_: str) -> set[str]:
    return set()


def _name(client: Client) -> str:
    return "" if client.claims is None else client.claims.user


async def _told_by(view: View, changed: asyncio.Event, replicas: set[str]) -> None:
    """Wait until these replicas have said what they know, or take too long."""
    try:
        async with asyncio.timeout(SYNC_SECONDS):
            while not replicas <= view.remotes.keys():
                await changed.wait()
                changed.clear()
    except TimeoutError:
        return
