"""The book of sessions: who is told when one begins and when it ends."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.rules import PersonalTopic
from gateway.errors import BusUnavailable
from gateway.leases import Lease
from gateway.protocol.reasons import Reason
from gateway.sessions.book import Sessions
from gateway.sessions.client import Client
from gateway.sessions.limits import Limits
from gateway.tracker.core import Tracker
from gateway.tracker.entry import Entry
from gateway.tracker.service import TrackerService
from tests.support.clock import Clock
from tests.unit.sessions.sockets import Socket

OFFLINE_AFTER = 3.0


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
    """Subscriptions that need no bus.

    Attributes:
        held: Those that were not given back.
        gate: What each waits for.
        problem: What becomes of each.
    """

    def __init__(self) -> None:
        self.held: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.problem: Exception | None = None

    async def subscribe(self, topic: str) -> Lease:
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
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


def book(limits: Limits, topics: Topics | None = None) -> tuple[Sessions, Observer]:
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
        topics=topics or Topics(),
        tracker=tracker,
        offline_after_seconds=OFFLINE_AFTER,
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


async def test_a_user_is_kept_in_mind_a_while_after_her_last_session() -> None:
    sessions, _ = book(Limits(0, "refuse", "keep"), topics := Topics())
    clock, client = Clock(), Socket("phone", "42")
    for _ in range(2):
        await sessions.enter(client)
        await clock.run(OFFLINE_AFTER * 2)
        user = sessions.find("42")
        sessions.leave(client)
        await clock.run(OFFLINE_AFTER * 0.9)
        assert topics.held == ["user:42"]
        assert sessions.find("42") is user

    await clock.run(OFFLINE_AFTER * 0.2)
    assert topics.held == []
    assert sessions.find("42") is None


async def test_a_user_is_kept_while_she_has_any_session() -> None:
    sessions, _ = book(Limits(0, "refuse", "keep"), topics := Topics())
    clock, laptop, phone = Clock(), Socket("laptop", "42"), Socket("phone", "42")
    for client in (laptop, phone):
        await sessions.enter(client)
    sessions.move(laptop)
    await clock.run(OFFLINE_AFTER * 2)
    assert topics.held == ["user:42"]
    sessions.move(phone)
    await clock.run(OFFLINE_AFTER)
    assert topics.held == []


class Full(Limits, frozen=True):
    """No room for anybody, as other replicas have so many."""

    def refuse(self, newcomer: Entry, others: Iterable[Entry]) -> bool:  # noqa: ARG002 -- whoever it is
        return True


@pytest.mark.parametrize("limits", [Limits(1, "refuse", "keep"), Full(1, "refuse", "keep")])
async def test_one_who_is_refused_keeps_nobody_in_mind(limits: Limits) -> None:
    sessions, _ = book(limits, topics := Topics())
    clock, client = Clock(), Socket("laptop", "42")
    await sessions.enter(client)
    await sessions.enter(Socket("phone", "42"))
    sessions.leave(client)
    assert topics.held == ["user:42"]
    await clock.run(OFFLINE_AFTER)
    assert topics.held == []


async def test_what_the_bus_refuses_reaches_all_who_enter_and_leaves_nothing() -> None:
    sessions, _ = book(Limits(0, "refuse", "keep"), topics := Topics())
    topics.problem = BusUnavailable("down")
    entering = (sessions.enter(Socket(name, "42")) for name in ("laptop", "phone"))
    outcomes = await asyncio.gather(*entering, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [BusUnavailable] * 2
    assert sessions.find("42") is None

    topics.problem = None
    assert await sessions.enter(Socket("laptop", "42")) is None


MOVES = ["enter", "leave", "move", "cancel", "shut", "open", "fail", "wait"]


@given(
    st.lists(
        st.tuples(st.sampled_from(MOVES), st.integers(0, 3), st.booleans()),
        max_size=30,
    )
)
def test_a_user_is_known_exactly_while_she_has_sessions_or_had_some_just_now(
    moves: list[tuple[str, int, bool]],
) -> None:
    """And in the end nothing is held, in whichever order her sockets come and go."""

    async def main() -> None:
        sessions, observer = book(Limits(2, "refuse", "keep"), topics := Topics())
        clock = Clock()
        sockets = [Socket(str(number), "42") for number in range(4)]
        entering: list[asyncio.Task[Reason | None]] = []
        for what, number, settles in moves:
            match what:
                case "enter":
                    entering.append(asyncio.create_task(sessions.enter(sockets[number])))
                case "leave" | "move":
                    getattr(sessions, what)(sockets[number])
                case "cancel" if entering:
                    entering[number % len(entering)].cancel()
                case "shut":
                    topics.gate.clear()
                case "open" | "fail":
                    topics.problem = BusUnavailable("down") if what == "fail" else None
                    topics.gate.set()
                case "wait":
                    await clock.run(number * OFFLINE_AFTER / 3)
            if settles:  # else the next thing happens in the same turn of the loop
                await clock.run()
            assert not sessions.count or topics.held == ["user:42"]
        topics.gate.set()
        await asyncio.gather(*entering, return_exceptions=True)
        for socket in sockets:
            sessions.leave(socket)
        begun = [name for what, name, _ in observer.seen if what == "started"]
        ended = [name for what, name, _ in observer.seen if what != "started"]
        assert sorted(begun) == sorted(ended)
        await clock.run(OFFLINE_AFTER)
        assert topics.held == []
        assert sessions.count == 0
        assert sessions.find("42") is None

    asyncio.run(main())
