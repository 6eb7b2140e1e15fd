"""The book of sessions: who is told when one begins and when it ends."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.rules import PersonalTopic
from gateway.cluster import Answers, Command, Cover, Subscribers
from gateway.device import Device
from gateway.errors import BusUnavailable
from gateway.leases import Lease
from gateway.protocol.reasons import Reason
from gateway.sessions.book import OVER_LIMIT, REPLACED, Sessions
from gateway.sessions.client import Client
from gateway.sessions.commands import Count, Displace
from gateway.sessions.displaced import FIRST_SECONDS, Displaced
from gateway.sessions.limits import Limits
from gateway.sessions.registry import SessionRegistry, User
from gateway.tracker.core import Tracker
from gateway.tracker.entry import Entry
from gateway.tracker.service import TrackerService
from tests.support.clock import Clock
from tests.unit.sessions.sockets import Socket

OFFLINE_AFTER = 3.0


class Carrier:
    """Nobody else is there."""

    def to_topic(self, topic: str, message: bytes) -> None:
        raise NotImplementedError

    def to_replica(self, replica: str, message: bytes) -> None:
        raise NotImplementedError

    def to_all(self, message: bytes) -> None:
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
        at_once: Whether one can be had without waiting.
    """

    def __init__(self) -> None:
        self.held: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.problem: Exception | None = None
        self.at_once = False

    async def subscribe(self, topic: str) -> Lease:
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        self.held.append(topic)
        return Lease(Held(self.held, topic))

    def try_subscribe(self, topic: str) -> Lease | None:
        if not self.at_once:
            return None
        self.held.append(topic)
        return Lease(Held(self.held, topic))


class Observer:
    """Writes down what it is told, and who was present then."""

    def __init__(self, registry: SessionRegistry) -> None:
        self.registry = registry
        self.seen: list[tuple[str, str, bool]] = []

    def _see(self, what: str, client: Client) -> None:
        assert client.claims is not None
        self.seen.append((what, client.id, self.registry.present(client.claims.user)))

    def started(self, client: Client) -> None:
        self._see("started", client)

    def ended(self, client: Client, *, moving: bool) -> None:
        self._see("moved" if moving else "ended", client)


class Cluster:
    """The other replicas."""

    replica = "a"

    def __init__(self) -> None:
        self.asked: list[tuple[object, object]] = []
        self.empty = False

    async def call(self, command: Command[Any], to: object) -> Answers[Any]:
        self.asked.append((command, to))
        return Answers({}, Cover())

    def nobody(self, _: object) -> bool:
        return self.empty


class Book:
    """Sessions of a lonely replica, observed; to be made inside a loop."""

    def __init__(self, limits: Limits, topics: Topics | None = None) -> None:
        self.clock = clock = Clock()
        self.cluster = Cluster()
        self.topics = topics or Topics()
        tracker = TrackerService(
            Tracker("a", 1, down_after_seconds=10.0, spread=lambda: 0.5),
            Carrier(),
            clock=lambda: clock.now,
            wall_clock=lambda: 0.0,
            lost=lambda _: None,
            superseded=lambda: None,
        )
        self.registry = SessionRegistry(
            offline_after_seconds=OFFLINE_AFTER, clock=lambda: clock.now
        )
        self.observer = Observer(self.registry)
        self.displaced = Displaced(lambda: clock.now)
        self.left: list[tuple[str, float]] = []
        self.sessions = Sessions(
            self.registry,
            limits=limits,
            personal=PersonalTopic("user:{sub}"),
            topics=self.topics,
            tracker=tracker,
            cluster=self.cluster,
            offline_after_seconds=OFFLINE_AFTER,
            clock=lambda: clock.now,
            seen=lambda *each: self.left.append(each),
            observer=self.observer,
            displaced=self.displaced,
            everyone=lambda: {"a", "b"},
        )


async def test_each_session_begins_once_and_ends_once() -> None:
    book = Book(Limits(0, "refuse", "keep"))
    laptop, phone = Socket("laptop", "42"), Socket("phone", "42")
    for client in (laptop, phone, laptop):  # the last is a second join of the same socket
        assert await book.sessions.enter(client) is None
    assert book.registry.clients() == [laptop, phone]
    for client in (laptop, phone, phone):
        book.sessions.leave(client)

    assert book.observer.seen == [
        ("started", "laptop", True),
        ("started", "phone", True),
        ("ended", "laptop", True),
        ("ended", "phone", False),
    ]
    assert book.registry.clients() == []


async def test_a_session_begins_at_once_where_nobody_has_to_be_waited_for() -> None:
    book = Book(Limits(1, "refuse", "keep"))
    first, second = Socket("laptop", "42"), Socket("phone", "42")
    assert not book.sessions.enter_now(first), "the bus has to confirm"
    book.topics.at_once = True
    assert not book.sessions.enter_now(first), "others have to be asked"
    assert (book.topics.held, book.registry.users) == ([], {})
    book.cluster.empty = True
    assert book.sessions.enter_now(first)
    assert book.sessions.enter_now(first)
    assert not book.sessions.enter_now(second), "it is over the limit"
    assert book.registry.clients() == [first]
    book.sessions.leave(first)
    assert book.sessions.enter_now(second)
    assert book.observer.seen == [
        ("started", "laptop", True),
        ("ended", "laptop", False),
        ("started", "phone", True),
    ]
    assert (book.topics.held, book.cluster.asked) == (["user:42"], [])


async def test_a_session_that_moves_ends_by_moving_alone() -> None:
    book = Book(Limits(0, "refuse", "keep"))
    client = Socket("phone", "42")
    await book.sessions.enter(client)
    book.sessions.move(client)
    book.sessions.leave(client)  # its connection is released after that

    assert book.observer.seen[1:] == [("moved", "phone", False)]


@pytest.mark.parametrize("end", ["leave", "move"])
async def test_of_a_user_who_is_not_back_soon_it_is_kept_when_she_left(end: str) -> None:
    book = Book(Limits(1, "refuse", "keep"))
    first, second = Socket("laptop", "42"), Socket("phone", "42")
    await book.sessions.enter(first)
    user = book.registry.users["42"]
    assert book.registry.last_seen(user) == book.clock.now
    assert await book.sessions.enter(Socket("tablet", "42")) is Reason.SESSION_LIMIT
    getattr(book.sessions, end)(first)
    await book.clock.run(OFFLINE_AFTER / 2)
    await book.sessions.enter(second)
    await book.clock.run(OFFLINE_AFTER * 2)
    assert (book.left, book.registry.left()) == ([], [])

    getattr(book.sessions, end)(second)
    when = book.clock.now
    await book.clock.run(OFFLINE_AFTER / 2)
    assert book.registry.left() == [("42", when)]
    assert book.registry.last_seen(user) == when
    await book.clock.run(OFFLINE_AFTER * 2)
    assert book.left == [("42", when)]


async def test_a_session_that_is_refused_never_began() -> None:
    book = Book(Limits(1, "refuse", "keep"))
    await book.sessions.enter(Socket("laptop", "42"))
    refused = Socket("phone", "42")
    assert await book.sessions.enter(refused) is Reason.SESSION_LIMIT
    book.sessions.leave(refused)

    assert book.observer.seen == [("started", "laptop", True)]


async def test_without_a_limit_nobody_goes_through_all_sessions_of_a_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[User] = []
    entries = User.entries

    def look(user: User) -> list[Entry]:
        looks.append(user)
        return entries(user)

    monkeypatch.setattr(User, "entries", look)
    book = Book(Limits(0, "refuse", "keep"))
    sockets = [Socket(str(number), "42") for number in range(5)]
    for client in sockets:
        assert await book.sessions.enter(client) is None
    for client in sockets[:3]:
        book.sessions.leave(client)
    assert looks == []

    assert await book.sessions.enter(Socket("3rd", "42", max_sessions=3)) is None
    assert await book.sessions.enter(Socket("4th", "42", max_sessions=3)) is Reason.SESSION_LIMIT
    assert looks != []


async def test_a_device_is_replaced_without_going_through_all_sessions_of_a_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at: list[int] = []
    losers = Limits.losers

    def look(limits: Limits, entries: Iterable[Entry]) -> list[Entry]:
        entries = list(entries)
        looked_at.append(len(entries))
        return losers(limits, entries)

    monkeypatch.setattr(Limits, "losers", look)
    monkeypatch.setattr(User, "entries", None)
    book = Book(Limits(0, "refuse", "replace"))
    devices = [Device(f"d{number}") for number in range(5)] + [Device()] * 5
    sockets = [Stubborn(book, f"s{n}", device) for n, device in enumerate(devices * 2)]
    for socket in sockets:
        assert await socket.join() is None

    assert [socket.closed for socket in sockets] == [1] * 5 + [0] * 15
    assert max(looked_at) == 2
    book.sessions.leave(sockets[10])
    again = Stubborn(book, "again", Device("d0"))
    assert await again.join() is None
    assert again.closed == 0


@pytest.mark.parametrize("user", ["42", "43"])
async def test_a_user_is_present_while_she_has_a_session(user: str) -> None:
    book = Book(Limits(0, "refuse", "keep"))
    assert not book.registry.present(user)
    client = Socket("phone", "42")
    await book.sessions.enter(client)

    assert book.registry.present(user) is (user == "42")
    book.sessions.leave(client)
    assert not book.registry.present(user)


async def test_a_user_is_kept_in_mind_a_while_after_her_last_session() -> None:
    book = Book(Limits(0, "refuse", "keep"), topics := Topics())
    clock, client = Clock(), Socket("phone", "42")
    for _ in range(2):
        await book.sessions.enter(client)
        await clock.run(OFFLINE_AFTER * 2)
        user = book.registry.find("42")
        book.sessions.leave(client)
        await clock.run(OFFLINE_AFTER * 0.9)
        assert topics.held == ["user:42"]
        assert book.registry.find("42") is user

    await clock.run(OFFLINE_AFTER * 0.2)
    assert topics.held == []
    assert book.registry.find("42") is None


async def test_a_user_is_kept_while_she_has_any_session() -> None:
    book = Book(Limits(0, "refuse", "keep"), topics := Topics())
    clock, laptop, phone = Clock(), Socket("laptop", "42"), Socket("phone", "42")
    for client in (laptop, phone):
        await book.sessions.enter(client)
    book.sessions.move(laptop)
    await clock.run(OFFLINE_AFTER * 2)
    assert topics.held == ["user:42"]
    book.sessions.move(phone)
    await clock.run(OFFLINE_AFTER)
    assert topics.held == []


class Full(Limits, frozen=True):
    """No room for anybody, as other replicas have so many."""

    def refuse(self, newcomer: Entry, others: Iterable[Entry]) -> bool:  # noqa: ARG002 -- whoever it is
        return True


@pytest.mark.parametrize("limits", [Limits(1, "refuse", "keep"), Full(1, "refuse", "keep")])
async def test_one_who_is_refused_keeps_nobody_in_mind(limits: Limits) -> None:
    book = Book(limits, topics := Topics())
    clock, client = Clock(), Socket("laptop", "42")
    await book.sessions.enter(client)
    await book.sessions.enter(Socket("phone", "42"))
    book.sessions.leave(client)
    assert topics.held == ["user:42"]
    await clock.run(OFFLINE_AFTER)
    assert topics.held == []


async def test_what_the_bus_refuses_reaches_all_who_enter_and_leaves_nothing() -> None:
    book = Book(Limits(0, "refuse", "keep"), topics := Topics())
    topics.problem = BusUnavailable("down")
    entering = (book.sessions.enter(Socket(name, "42")) for name in ("laptop", "phone"))
    outcomes = await asyncio.gather(*entering, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [BusUnavailable] * 2
    assert book.registry.find("42") is None

    topics.problem = None
    assert await book.sessions.enter(Socket("laptop", "42")) is None


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
        book = Book(Limits(2, "refuse", "keep"), topics := Topics())
        clock = Clock()
        sockets = [Socket(str(number), "42") for number in range(4)]
        entering: list[asyncio.Task[Reason | None]] = []
        for what, number, settles in moves:
            match what:
                case "enter":
                    entering.append(asyncio.create_task(book.sessions.enter(sockets[number])))
                case "leave" | "move":
                    getattr(book.sessions, what)(sockets[number])
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
            assert not book.registry.count or topics.held == ["user:42"]
        topics.gate.set()
        await asyncio.gather(*entering, return_exceptions=True)
        for socket in sockets:
            book.sessions.leave(socket)
        begun = [name for what, name, _ in book.observer.seen if what == "started"]
        ended = [name for what, name, _ in book.observer.seen if what != "started"]
        assert sorted(begun) == sorted(ended)
        await clock.run(OFFLINE_AFTER)
        assert topics.held == []
        assert book.registry.count == 0
        assert book.registry.find("42") is None

    asyncio.run(main())


async def test_where_a_limit_depends_on_it_the_others_are_asked_before_the_first_session() -> None:
    book = Book(Limits(1, "refuse", "keep"))
    await book.sessions.enter(Socket("laptop", "42"))
    await book.sessions.enter(Socket("phone", "42"))
    assert book.cluster.asked == [(Count(("42",)), Subscribers("user:42"))]

    free = Book(Limits(0, "refuse", "keep"))
    await free.sessions.enter(Socket("laptop", "42"))
    assert free.cluster.asked == []


class Stubborn(Socket):
    """A socket whose client comes back as often as it is closed."""

    def __init__(self, book: Book, name: str, device: Device | None = None) -> None:
        super().__init__(name, "42", device)
        self.book = book
        self.closed = 0

    def end_session(self, reason: str) -> None:
        assert reason in {OVER_LIMIT, REPLACED}
        self.closed += 1
        self.book.sessions.leave(self)

    async def join(self) -> Reason | None:
        answer = await self.book.sessions.enter(self)
        await self.book.clock.run()
        return answer


async def test_a_device_that_gave_way_does_not_push_the_other_one_out_at_once() -> None:
    book = Book(Limits(1, "close_oldest", "keep"))
    old, new = Stubborn(book, "laptop"), Stubborn(book, "phone")
    assert (await old.join(), await new.join()) == (None, None)
    assert (old.closed, new.closed) == (1, 0)
    told = [(command, to) for command, to in book.cluster.asked if isinstance(command, Displace)]
    assert told == [(Displace("42", "laptop"), {"b"})]

    assert await old.join() is Reason.SESSION_LIMIT
    other = Stubborn(book, "tablet")
    assert await other.join() is None, "one that did not give way"
    assert (new.closed, other.closed) == (1, 0)
    book.sessions.leave(other)
    assert await old.join() is None, "there is nobody to push out"


async def test_a_device_that_gave_way_elsewhere_is_known_here() -> None:
    book = Book(Limits(1, "close_oldest", "keep"))
    old, new = Stubborn(book, "laptop"), Stubborn(book, "phone")
    await new.join()
    book.displaced.add("42", "laptop")

    assert await old.join() is Reason.SESSION_LIMIT
    await book.clock.run(FIRST_SECONDS)
    assert await old.join() is None


async def test_two_devices_that_come_back_every_second_change_places_ever_more_seldom() -> None:
    book = Book(Limits(1, "close_oldest", "keep"))
    devices = Stubborn(book, "laptop"), Stubborn(book, "phone")
    changes: list[int] = []
    for second in range(600):
        for device in devices:
            if not book.sessions.has(device):
                await device.join()
        if sum(device.closed for device in devices) > len(changes):
            changes.append(second)
        await book.clock.run(1.0)

    gaps = [after - before for before, after in pairwise(changes)]
    assert gaps == sorted(gaps)
    assert (len(gaps) < 10, gaps[0] >= FIRST_SECONDS - 1, gaps[-1] > 8 * gaps[0]) == (True,) * 3


@pytest.mark.parametrize("device", [Device("laptop"), Device()], ids=["with an id", "without one"])
async def test_a_device_may_always_push_its_own_earlier_session_out(device: Device) -> None:
    """As when its network fails again and again, and nobody noticed yet that its sockets are dead."""
    book = Book(Limits(1, "close_oldest", "keep"))
    sockets = [Stubborn(book, f"s{number}", device) for number in range(4)]
    for socket in sockets:
        assert await socket.join() is None
    assert [socket.closed for socket in sockets] == [1, 1, 1, 0]


async def test_a_user_stays_online_for_a_grace_after_her_last_session() -> None:
    book = Book(Limits(0, "refuse", "keep"))
    client = Socket("phone", "42")
    await book.sessions.enter(client)
    book.sessions.leave(client)
    known = book.registry.find("42")
    assert known is not None
    assert book.registry.names() == []
    assert book.registry.online(known)
    await book.clock.run(OFFLINE_AFTER - 0.1)
    assert book.registry.online(known)
    await book.clock.run(0.2)
    assert not book.registry.online(known)
