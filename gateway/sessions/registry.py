"""Which sessions this replica has, by user."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.sessions.client import Client
from gateway.tracker.entry import Entry
from gateway.tracker.view import Change, View

if TYPE_CHECKING:
    import asyncio

    from gateway.leases import Lease


class User:
    """A user with sessions on this replica, now or a moment ago.

    Args:
        on_change: Told that the sessions of a user on all replicas are others than before.

    Attributes:
        view: What all replicas say of her sessions; None until they can be known.
        clients: Her sockets here that are sessions, by id.
        ended_at: When the last of them ended, unix seconds; 0 while there are some.
    """

    __slots__ = (
        "_on_change",
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

    def __init__(self, topic: str, on_change: "Callable[[User], None]") -> None:
        self.topic = topic
        self._on_change = on_change
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
        self._on_change(self)

    def entries(self) -> list[Entry]:
        """Sessions on all replicas that count: moving ones do not."""
        return [] if self.view is None else [e for e in self.view.shown.values() if not e.moving]

    def others(self) -> list[str]:
        """Replicas where she has sessions, but for this one."""
        if self.view is None:
            return []
        return [replica for replica, remote in self.view.remotes.items() if remote.entries]


class SessionRegistry:
    """Which sessions this replica has, and of whom.

    Args:
        offline_after_seconds: Grace before a user without a session counts as offline.
        clock: Unix seconds.

    Attributes:
        users: All that have sessions here, had some a moment ago, or are about to, by name.
        count: How many sessions there are.
    """

    def __init__(self, *, offline_after_seconds: float, clock: Callable[[], float]) -> None:
        self.users: dict[str, User] = {}
        self.count = 0
        self._offline_after_seconds = offline_after_seconds
        self._clock = clock

    def add(self, user: User, client: Client) -> None:
        """A socket is a session from now on."""
        user.clients[client.id] = client
        user.ended_at = 0.0
        self.count += 1

    def remove(self, user: User, client: Client) -> bool:
        """A session ends; False if the socket is none."""
        if user.clients.pop(client.id, None) is None:
            return False
        self.count -= 1
        if not user.clients:
            user.ended_at = self._clock()
        return True

    def find(self, user: str) -> User | None:
        """A user this replica knows about."""
        known = self.users.get(user)
        return known if known is not None and known.view is not None else None

    def has(self, client: Client) -> bool:
        """Whether a socket is a session."""
        user = self.users.get(user_of(client))
        return user is not None and client.id in user.clients

    def present(self, name: str) -> bool:
        """Whether a user has sessions here."""
        user = self.users.get(name)
        return user is not None and bool(user.clients)

    def online(self, user: User) -> bool:
        """Whether she is to be called online."""
        if user.clients or (user.view is not None and user.view.shown):
            return True
        return self._clock() < user.ended_at + self._offline_after_seconds

    def names(self) -> list[str]:
        """Users with sessions here."""
        return [name for name, user in self.users.items() if user.clients]

    def clients(self) -> list[Client]:
        """All sockets that are sessions."""
        return [client for user in self.users.values() for client in user.clients.values()]


def user_of(client: Client) -> str:
    """The name of a socket's user; empty for an anonymous one."""
    return "" if client.claims is None else client.claims.user
