"""The book of sessions: who is told when one begins and when it ends."""

from dataclasses import dataclass

import pytest

from gateway.auth.rules import PersonalTopic
from gateway.leases import Lease
from gateway.protocol.reasons import Reason
from gateway.sessions.book import Sessions
from gateway.sessions.client import Client
from gateway.sessions.limits import Limits
from gateway.tracker.core import Tracker
from gateway.tracker.service import TrackerService
from tests.support.clock import Clock
from tests.unit.sessions.sockets import Socket


class Carrier:
    """Nobody else is there."""

    async def to_topic(self, topic: str, message: bytes) -> None:
        raise NotImplementedError

    async def to_replica(self, replica: str, message: bytes) -> None:
        raise NotImplementedError

    async def to_all(self, message: bytes) -> None:
        raise NotImplementedError


@dataclass
class Held:
    """A topic among those that are held."""

    held: list[str]
    topic: str

    def released(self, *, linger: bool) -> None:
        assert not linger
        self.held.remove(self.topic)


class Topics:
    """Subscriptions that need no bus."""

    def __init__(self) -> None:
        self.held: list[str] = []

    async def subscribe(self, topic: str) -> Lease:
        self.held.append(topic)
        return Lease(Held(self.held, topic))


class Observer:
    """Writes down what it is told, and who was present then."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.seen: list[tuple[str, str, bool]] = []

    def _see(self, what: str, client: Client) -> None:
        assert client.claims is not None
        self.seen.append((what, client.id, self.sessions.present(client.claims.user)))

    def started(self, client: Client) -> None:
        self._see("started", client)

    def ended(self, client: Client, *, moving: bool) -> None:
        self._see("moved" if moving else "ended", client)


def book(limits: Limits) -> tuple[Sessions, Observer]:
    """Sessions of a lonely replica, observed; to be made inside a loop."""
    clock = Clock()
    tracker = TrackerService(
        Tracker("a", 1, down_after_seconds=10.0, spread=lambda: 0.5),
        Carrier(),
        clock=lambda: clock.now,
        counts=lambda: (0, 0),
        lost=lambda _: None,
        superseded=lambda: None,
    )
    sessions = Sessions(
        limits=limits,
        personal=PersonalTopic("user:{sub}"),
        topics=Topics(),
        tracker=tracker,
        offline_after_seconds=3.0,
        clock=lambda: clock.now,
        seen=lambda _: None,
    )
    observer = sessions.observer = Observer(sessions)
    return sessions, observer


async def test_each_session_begins_once_and_ends_once() -> None:
    sessions, observer = book(Limits(0, "refuse", "keep"))
    laptop, phone = Socket("laptop", "42"), Socket("phone", "42")
    for client in (laptop, phone, laptop):  # the last is a second join of the same socket
        assert await sessions.enter(client) is None
    assert sessions.clients() == [laptop, phone]
    for client in (laptop, phone, phone):
        sessions.leave(client)

    assert observer.seen == [
        ("started", "laptop", True),
        ("started", "phone", True),
        ("ended", "laptop", True),
        ("ended", "phone", False),
    ]
    assert sessions.clients() == []


async def test_a_session_that_moves_ends_by_moving_alone() -> None:
    sessions, observer = book(Limits(0, "refuse", "keep"))
    client = Socket("phone", "42")
    await sessions.enter(client)
    sessions.move(client)
    sessions.leave(client)  # its connection is released after that

    assert observer.seen[1:] == [("moved", "phone", False)]


async def test_a_session_that_is_refused_never_began() -> None:
    sessions, observer = book(Limits(1, "refuse", "keep"))
    await sessions.enter(Socket("laptop", "42"))
    refused = Socket("phone", "42")
    assert await sessions.enter(refused) is Reason.SESSION_LIMIT
    sessions.leave(refused)

    assert observer.seen == [("started", "laptop", True)]


@pytest.mark.parametrize("user", ["42", "43"])
async def test_a_user_is_present_while_she_has_a_session(user: str) -> None:
    sessions, _ = book(Limits(0, "refuse", "keep"))
    assert not sessions.present(user)
    client = Socket("phone", "42")
    await sessions.enter(client)

    assert sessions.present(user) is (user == "42")
    sessions.leave(client)
    assert not sessions.present(user)
