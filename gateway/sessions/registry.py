"""Which sessions this replica has, by user."""

from collections.abc import Callable

from gateway.leases import Lease
from gateway.sessions.client import Client
from gateway.tracker.entry import SESSIONS, Entry
from gateway.tracker.service import TrackerService
from gateway.tracker.view import Change, View


class User:
    """A user with sessions on this replica, now or a moment ago.

    Args:
        on_change: Told of each change of her sessions on any replica.

    Attributes:
        listening: On her personal topic.
        view: What all replicas say of her sessions.
        clients: Her sockets here that are sessions, by id.
        ended_at: When the last of them ended, unix seconds; 0 while there are some.
        lease: On this object, held while she has sessions here.
    """

    __slots__ = ("_on_change", "clients", "ended_at", "lease", "listening", "topic", "view")

    def __init__(
        self,
        topic: str,
        listening: Lease,
        tracker: TrackerService,
        on_change: "Callable[[User], None]",
    ) -> None:
        self.topic = topic
        self.listening = listening
        self.clients: dict[str, Client] = {}
        self.ended_at = 0.0
        self.lease: Lease | None = None
        self._on_change = on_change
        self.view: View = tracker.hold(SESSIONS + topic, self.notify)

    def notify(self, _: Change) -> None:
        """Her entries changed. A method, as a closure for each user would be far larger."""
        self._on_change(self)

    def release(self) -> None:
        """Let go of her, if she has no sessions here."""
        if not self.clients and self.lease is not None:
            self.lease.close()
            self.lease = None

    def entries(self) -> list[Entry]:
        """Sessions on all replicas that count: moving ones do not."""
        return [e for e in self.view.shown.values() if not e.moving]


class SessionRegistry:
    """Which sessions this replica has, and of whom.

    Args:
        offline_after_seconds: Grace before a user without a session counts as offline.
        clock: Unix seconds.

    Attributes:
        users: All that have sessions here, or had some a moment ago, by name.
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
        return self.users.get(user)

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
        if user.clients or user.view.shown:
            return True
        return self._clock() < user.ended_at + self._offline_after_seconds

    def last_seen(self, user: User) -> float:
        """When she was here last, Unix seconds: now, while she has sessions; 0 when she never was."""
        return self._clock() if user.clients else user.ended_at

    def left(self) -> list[tuple[str, float]]:
        """Users whose last session here ended a moment ago, and when, Unix seconds."""
        return [(name, user.ended_at) for name, user in self.users.items() if user.ended_at]

    def names(self) -> list[str]:
        """Users with sessions here."""
        return [name for name, user in self.users.items() if user.clients]

    def clients(self) -> list[Client]:
        """All sockets that are sessions."""
        return [client for user in self.users.values() for client in user.clients.values()]


def user_of(client: Client) -> str:
    """The name of a socket's user; empty for an anonymous one."""
    return "" if client.claims is None else client.claims.user
