"""Opens a session for a user's socket at its first join, enforces the limits on sessions, and ends it."""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Final, Protocol

from gateway.auth.rules import PersonalTopic
from gateway.cluster import Caller, Subscribers
from gateway.leases import Lease, Leases
from gateway.log import teardown
from gateway.protocol.reasons import Reason
from gateway.sessions.client import Client, Origin
from gateway.sessions.commands import Count, Displace
from gateway.sessions.displaced import Displaced
from gateway.sessions.limits import Limits
from gateway.sessions.registry import SessionRegistry, User, user_of
from gateway.tracker.entry import NEXT_MOMENT, SESSIONS, Entry
from gateway.tracker.service import TrackerService

LINGER_SECONDS: Final = 2.0
"""How long a user is kept in mind at least after her last session, so that a reload costs nothing."""

SYNC_SECONDS: Final = 0.5
"""How long a first join waits for what other replicas know, where a limit depends on it."""

REPLACED: Final = "session replaced"
OVER_LIMIT: Final = "session limit reached"


class Topics(Protocol):
    """Subscriptions on the bus."""

    async def subscribe(self, topic: str) -> Lease:
        """Have a topic's messages come to this replica."""

    def try_subscribe(self, topic: str) -> Lease | None:
        """The same where that waits for nobody; else None."""


class Observer(Protocol):
    """Who wants to know of sessions as they begin and end."""

    def started(self, client: Client) -> None:
        """A socket is a session now."""

    def ended(self, client: Client, *, moving: bool) -> None:
        """A session ended; ``moving`` when its client is expected on another replica."""


class Sessions:
    """Lets sockets in as sessions of their users, as far as the limits allow, and sees them end.

    Args:
        registry: Has them.
        offline_after_seconds: Grace before a user without a session counts as offline.
        clock: Unix seconds; sessions of all replicas are put in order by it.
        seen: Told of a user who has left, and since when, Unix seconds; not of one who was back soon.
        observer: Told of this replica's sessions.
        displaced: Devices that lately gave way to others, on all replicas.
        everyone: Ids of all replicas that are alive.
    """

    def __init__(
        self,
        registry: SessionRegistry,
        *,
        limits: Limits,
        personal: PersonalTopic,
        topics: Topics,
        tracker: TrackerService,
        cluster: Caller,
        offline_after_seconds: float,
        clock: Callable[[], float],
        seen: Callable[[str, float], None],
        observer: Observer,
        displaced: Displaced,
        everyone: Callable[[], AbstractSet[str]],
    ) -> None:
        self._registry = registry
        self._users = registry.users
        self._limits = limits
        self._personal = personal
        self._topics = topics
        self._tracker = tracker
        self._cluster = cluster
        self._clock = clock
        self._seen = seen
        self._observer = observer
        self._displaced = displaced
        self._everyone = everyone
        self._telling: set[asyncio.Task[None]] = set()
        self._on_change = self._changed  # bound once for all users
        self._leases: Leases[User] = Leases(
            self._close, linger_seconds=max(LINGER_SECONDS, offline_after_seconds)
        )
        self._awaiting: dict[User, asyncio.Event] = {}

    def has(self, client: Client) -> bool:
        """Whether a socket is a session."""
        return self._registry.has(client)

    def topic(self, user: str) -> str:
        """A user's personal topic."""
        return self._personal.of(user)

    async def enter(self, client: Client) -> Reason | None:
        """Make a socket a session at its first join; returns why not, if so. Idempotent.

        Raises:
            BusError: The bus is down, so nobody knows of other sessions and none could be told.
        """
        name = user_of(client)
        lease = await self._leases.acquire(name, partial(self._open, name, client))
        return self._enter(self._users[name], lease, client)

    def enter_now(self, client: Client) -> bool:
        """:meth:`enter` where that waits for nobody, and the socket may; else False."""
        name = user_of(client)
        lease = self._leases.try_acquire(name, partial(self._open_now, name, client))
        return lease is not None and self._enter(self._users[name], lease, client) is None

    def _enter(self, user: User, lease: Lease, client: Client) -> Reason | None:
        try:
            return self._admit(user, client)
        finally:
            if user.clients and user.lease is None:
                user.lease = lease
            else:
                lease.close()

    def leave(self, client: Client) -> None:
        """A socket is gone. Idempotent."""
        name = user_of(client)
        user = self._users.get(name)
        if user is None or not self._registry.remove(user, client):
            return
        teardown(
            "session",
            partial(self._tracker.remove, SESSIONS + user.topic, client.id),
            partial(self._observer.ended, client, moving=False),
            user.release,
        )

    def move(self, client: Client) -> None:
        """A socket is about to be closed by a drain; its client is expected on another replica."""
        user = self._users.get(user_of(client))
        if user is None or not self._registry.remove(user, client):
            return
        teardown(
            "session",
            partial(self._tracker.move, SESSIONS + user.topic, client.id),
            partial(self._observer.ended, client, moving=True),
            user.release,
        )

    def _admit(self, user: User, client: Client) -> Reason | None:
        if client.id in user.clients:
            return None
        entry = self._entry(client, self._clock())
        if rivals := self._rivals(user, (entry,)):
            # The clocks of replicas differ; a newcomer is later than all that are known.
            latest = max(rival.connected_at for rival in rivals)
            entry = self._entry(client, max(entry.connected_at, latest + NEXT_MOMENT))
            if self._limits.refuse(entry, rivals) or self._pushes_back(entry, rivals):
                return Reason.SESSION_LIMIT
        self._registry.add(user, client)
        self._tracker.put(SESSIONS + user.topic, entry)
        self._observer.started(client)
        return None

    def _entry(self, client: Client, now: float) -> Entry:
        claims = client.claims
        return Entry(
            id=client.id,
            user=user_of(client),
            ref=client.id,
            connected_at=now,
            online_at=now,
            device=client.origin.device,
            limit=None if claims is None else claims.max_sessions,
            machine=_machine(client.origin) if self._gives_way else "",
        )

    async def _open(self, name: str, client: Client) -> User:
        """Begin to know a user; where a limit depends on it, wait for what others know."""
        topic = self.topic(name)
        awaited: AbstractSet[str] = frozenset()
        if self._limits.concern(self._entry(client, 0.0)):
            asked = await self._cluster.call(Count((name,)), Subscribers(topic))
            awaited = {
                r for r, found in asked.by_replica.items() if name in found and found[name].sessions
            }
        user = self._known(topic, await self._topics.subscribe(topic))
        if awaited:
            await self._told_by(user, awaited)
        self._users[name] = user
        return user

    def _open_now(self, name: str, client: Client) -> User | None:
        """The same where nobody has to be waited for; else None."""
        topic = self.topic(name)
        if self._limits.concern(self._entry(client, 0.0)) and not self._cluster.nobody(
            Subscribers(topic)
        ):
            return None
        listening = self._topics.try_subscribe(topic)
        if listening is None:
            return None
        user = self._users[name] = self._known(topic, listening)
        return user

    def _known(self, topic: str, listening: Lease) -> User:
        user = User(topic, listening, self._tracker, self._on_change)
        if self._limits.same_device == "replace":
            user.view.index_devices()
        return user

    def _close(self, name: str, user: User) -> None:
        """Know a user no more, who has had no sessions for a while."""
        del self._users[name]
        if user.ended_at:  # else she was refused
            self._seen(name, user.ended_at)
        teardown(
            "session",
            partial(self._tracker.release, SESSIONS + user.topic),
            partial(user.listening.close, linger=False),
        )

    async def _told_by(self, user: User, replicas: AbstractSet[str]) -> None:
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

    def _changed(self, user: User) -> None:
        if user in self._awaiting:
            self._awaiting[user].set()
        # in the next turn, when whatever brought this about is done
        if user.clients and (losers := self._losers(user)):
            asyncio.get_running_loop().call_soon(self._settle, user, losers)

    def _limited(self, user: User) -> bool:
        """Whether a limit may apply. Only then are all her sessions gone through: she may have thousands."""
        return bool(self._limits.max_per_user or user.view.limited)

    def _rivals(self, user: User, entries: Iterable[Entry]) -> list[Entry]:
        """The user's sessions on which it depends whether some of hers may stay, or begin."""
        if self._limited(user) or any(entry.limit for entry in entries):
            return user.entries()
        devices = user.view.by_device
        return [] if devices is None else devices.of({entry.device.id for entry in entries})

    def _losers(self, user: User) -> list[Entry]:
        """Those of this replica that may not stay any more, since others came."""
        if self._limited(user):
            entries = user.entries()
        elif user.view.by_device is not None:
            entries = user.view.by_device.take_crowded()
        else:
            return []
        return [e for e in self._limits.losers(entries) if e.id in user.clients]

    @property
    def _gives_way(self) -> bool:
        return self._limits.when_full == "close_oldest"

    def _pushes_back(self, entry: Entry, others: Sequence[Entry]) -> bool:
        """Whether a device that lately gave way to another comes back to push that one out."""
        if not self._gives_way or not self._displaced.lately(entry.user, entry.known_as):
            return False
        return any(e.known_as != entry.known_as for e in self._limits.losers([*others, entry]))

    def _settle(self, user: User, losers: list[Entry]) -> None:
        entries = self._rivals(user, losers)
        devices = [entry.device.id for entry in entries]
        lost = self._limits.losers(entries)
        staying = {entry.known_as for entry in entries if entry not in lost}
        for entry in losers:
            client = user.clients.get(entry.id)
            if client is None:
                continue
            again = self._limits.same_device == "replace" and devices.count(entry.device.id) > 1
            if self._gives_way and not again and entry.known_as not in staying:
                self._displace(entry)
            client.end_session(REPLACED if again else OVER_LIMIT)

    def _displace(self, entry: Entry) -> None:
        """Have all replicas know that a device gives way, before it can come back to any of them."""
        self._displaced.add(entry.user, entry.known_as)
        telling = asyncio.create_task(self._tell(Displace(entry.user, entry.known_as)))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _tell(self, command: Displace) -> None:
        # a replica that does not hear of it lets the device in once more
        await self._cluster.call(command, self._everyone() - {self._cluster.replica})


def _machine(origin: Origin) -> str:
    """A hash of what a client without a device id is told by; empty where it has one."""
    if origin.device.id:
        return ""
    seen = f"{origin.ip}\n{origin.user_agent}".encode(errors="replace")
    return hashlib.blake2b(seen, digest_size=8).hexdigest()
