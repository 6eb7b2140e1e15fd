"""What the backend is told: each fact by one replica, whatever the others and the bus do."""

import asyncio
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from itertools import count
from typing import Any

import pytest

from gateway.app.supervisor import Supervisor
from gateway.cluster import Answers, Command, Cover, Subscribers
from gateway.device import Device
from gateway.sessions.client import Client
from gateway.sessions.commands import Inherit, Missed, Return, Standing, Vouchers
from gateway.sessions.facts import EVENTS, Fact, ReplicaFact, SessionFact, UserFact
from gateway.sessions.reporter import FAREWELL_SECONDS, TURN_SECONDS, USERS_AT_ONCE, Reporter
from gateway.sessions.transitions import Transitions
from gateway.tracker.effects import Lost
from gateway.tracker.peers import Peers
from gateway.tracker.view import MOVING_SECONDS
from tests.support.clock import Clock
from tests.unit.sessions.sockets import Socket

GRACE = 3.0
NUMBERS = count()
LATER = 2.0
"""Enough for a decision, and for one that has to be made again."""


class Replica:
    """One replica's reporter, and what it told."""

    def __init__(self, bus: "Bus", name: str, events: Iterable[str]) -> None:
        self.bus = bus
        self.replica = name
        self.incarnation = 1
        self.sockets: dict[str, Socket] = {}
        self.told: list[Fact] = []
        self.peers = Peers(10.0)
        self.unreadable: type | None = None
        self.broken = False
        transitions = Transitions(
            self.present, offline_after_seconds=GRACE, spread=iter([0.3, 0.7] * 1000).__next__
        )
        registry: Any = self  # it has what a reporter looks at
        self.reporter = Reporter(
            self.tell,
            registry,
            self,
            transitions,
            events=events,
            peers=self.peers,
            clock=lambda: bus.clock.now,
        )
        self.handlers: dict[type, Any] = {
            Vouchers: self.reporter.standing,
            Inherit: self.reporter.inherit,
            Missed: self.reporter.knows,
            Return: self.reporter.begin_anew,
        }

    def tell(self, fact: Fact) -> None:
        self.told.append(fact)

    def clients(self) -> list[Client]:
        return list(self.sockets.values())

    def has(self, client: Client) -> bool:
        return client.id in self.sockets

    def present(self, name: str) -> bool:
        return any(s.claims is not None and s.claims.user == name for s in self.sockets.values())

    async def call(self, command: Command[Any], to: AbstractSet[str] | Subscribers) -> Answers[Any]:
        assert not isinstance(to, Subscribers)
        if self.broken:
            raise RuntimeError
        answers, missing = {}, []
        for name in to:
            other = self.bus.replicas.get(name)
            if self.bus.up and other is not None and name not in self.bus.silent:
                answers[name] = other.handlers[type(command)](command)
            if name not in answers or other is None or other.unreadable is type(command):
                missing.append(name)
        return Answers(answers, Cover(tuple(missing), complete=not missing))

    def nobody(self, _: Subscribers) -> bool:
        return False

    def start(self, user: str | None, device: str = "") -> Socket:
        """A session begins."""
        socket = Socket(f"s{next(NUMBERS)}", user, Device(device))
        self.sockets[socket.id] = socket
        self.reporter.started(socket)
        return socket

    def end(self, socket: Socket, *, moving: bool = False) -> None:
        """A session ends."""
        del self.sockets[socket.id]
        self.reporter.ended(socket, moving=moving)

    def events(self) -> list[tuple[str, str]]:
        """What was told since the last call, and of whom."""
        told, self.told = self.told, []
        return [
            (fact.event, fact.replica if isinstance(fact, ReplicaFact) else fact.user)
            for fact in told
        ]


class Bus:
    """Connects the reporters of a test; to be made inside a loop."""

    def __init__(self, names: str, events: Iterable[str] = EVENTS) -> None:
        self.clock = Clock()
        self.up = True
        self.silent: set[str] = set()
        self.events = events
        self.replicas: dict[str, Replica] = {}
        for name in names:
            self.join(name)

    def join(self, name: str) -> Replica:
        """One more replica, which all know."""
        replica = self.replicas[name] = Replica(self, name, self.events)
        for other in self.replicas.values():
            if other is not replica:
                other.peers.hear(name, replica.incarnation, 0.0)
                replica.peers.hear(other.replica, other.incarnation, 0.0)
        return replica

    def kill(self, name: str) -> Replica:
        """End a replica without a word."""
        return self.replicas.pop(name)

    def notice(self, name: str, sessions: int = 0) -> None:
        """All notice that a replica is gone."""
        for replica in self.replicas.values():
            if replica.peers.forget(name, 1):
                replica.reporter.lost(Lost(name, 1, sessions))

    async def run(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(round(seconds / TURN_SECONDS)):
            await self.clock.run(TURN_SECONDS)
            for replica in list(self.replicas.values()):
                await replica.reporter.turn()

    def told(self) -> list[tuple[str, str]]:
        """What all told since the last call, replica by replica."""
        return [event for replica in self.replicas.values() for event in replica.events()]


async def test_what_is_told_with_each_fact() -> None:
    bus = Bus("a")
    [a] = bus.replicas.values()
    socket = a.start("42", "phone")
    a.end(socket)
    a.start("42")
    await bus.run(LATER)
    a.reporter.lost(Lost("b", 1, 17))
    await bus.run(TURN_SECONDS)

    session = (socket.id, "42", Device("phone"), "a", b'{"cart":7}')
    assert a.told[:2] == [
        SessionFact("session.started", *session),
        SessionFact("session.ended", *session),
    ]
    assert a.told[3:] == [
        UserFact("user.online", "42"),
        ReplicaFact("replica.lost", "b", 17),
    ]


@pytest.mark.parametrize("event", sorted(EVENTS))
async def test_only_what_is_asked_for_is_told(event: str) -> None:
    bus = Bus("ab", {event, "connect"})
    a = bus.replicas["a"]
    a.end(a.start("left"))
    socket = a.start("42")
    await bus.run(LATER)
    a.end(socket)
    await bus.run(GRACE + LATER)
    bus.kill("b")
    bus.notice("b")
    await bus.run(LATER)

    expected = {"session.started": 2, "session.ended": 2}
    assert [name for name, _ in bus.told()] == [event] * expected.get(event, 1)


async def test_without_events_nothing_is_kept_and_nobody_is_asked() -> None:
    bus = Bus("ab", {"connect"})
    a = bus.replicas["a"]
    assert a.reporter.events == set()
    a.start("42")
    bus.silent.add("b")
    await bus.run(LATER)

    assert bus.told() == []
    assert a.reporter.standing(Vouchers(("42",))) == Standing()
    assert not a.reporter.inherit(Inherit(("42",))), "somebody else may"
    bus.silent.clear()
    await a.reporter.farewell()


async def test_anonymous_sockets_are_no_sessions() -> None:
    bus = Bus("a")
    a = bus.replicas["a"]
    a.end(a.start(None))
    await bus.run(LATER)

    assert bus.told() == []


async def test_a_user_on_two_replicas_comes_and_goes_once() -> None:
    bus = Bus("abc", {"user.online", "user.offline"})
    a, b, _ = bus.replicas.values()
    laptop = a.start("42")
    phone = b.start("42")
    await bus.run(LATER)
    assert bus.told() == [("user.online", "42")]

    a.end(laptop)
    await bus.run(GRACE + LATER)
    laptop = a.start("42")
    await bus.run(LATER)
    b.end(phone)
    await bus.run(GRACE + LATER)
    assert bus.told() == []
    a.end(laptop)
    await bus.run(GRACE + LATER)

    assert bus.told() == [("user.offline", "42")]


async def test_who_moves_stays_online_and_has_two_sessions() -> None:
    bus = Bus("ab")
    a, b = bus.replicas.values()
    socket = a.start("42")
    await bus.run(LATER)
    bus.told()
    a.end(socket, moving=True)
    await a.reporter.farewell()
    bus.kill("a")
    b.peers.forget("a", 1)
    await bus.run(GRACE + LATER)
    assert a.events() == [("session.ended", "42")]

    b.start("42")
    await bus.run(MOVING_SECONDS + LATER)
    assert b.events() == [("session.started", "42")]


async def test_who_moves_has_longer_than_a_grace_to_come_back() -> None:
    bus = Bus("ab", {"user.online", "user.offline"})
    a, b = bus.replicas.values()
    moved = a.start("42")
    other = a.start("42")
    await bus.run(LATER)
    a.end(moved, moving=True)
    a.end(other)
    await bus.run(MOVING_SECONDS - 1)
    b.start("42")
    await bus.run(MOVING_SECONDS)

    assert bus.told() == [("user.online", "42")]


async def test_who_does_not_come_back_from_a_drain_goes_offline_once() -> None:
    bus = Bus("abc", {"user.offline"})
    a = bus.replicas["a"]
    sockets = [a.start(f"u{n}") for n in range(USERS_AT_ONCE + 50)]
    await bus.run(LATER)
    for socket in sockets:
        a.end(socket, moving=True)
    await a.reporter.farewell()
    assert a.told == []
    bus.kill("a")
    for replica in bus.replicas.values():
        replica.peers.forget("a", 1)
    await bus.run(MOVING_SECONDS - LATER)
    assert bus.told() == []
    await bus.run(2 * LATER)

    told = bus.told()
    assert len(told) == len(sockets)
    assert set(told) == {("user.offline", f"u{n}") for n in range(len(sockets))}


async def test_a_user_in_her_grace_is_handed_over_too() -> None:
    bus = Bus("ab", {"user.offline"})
    a, b = bus.replicas.values()
    socket = a.start("42")
    await bus.run(LATER)
    a.end(socket)
    await a.reporter.farewell()
    bus.kill("a")
    b.peers.forget("a", 1)
    await bus.run(MOVING_SECONDS + LATER)

    assert (a.events(), b.events()) == ([], [("user.offline", "42")])


async def test_a_replica_that_is_silent_or_leaves_does_not_take_users_over() -> None:
    bus = Bus("dabc", {"user.offline"})
    d, a, b, c = bus.replicas.values()
    socket = d.start("42")
    await bus.run(LATER)
    d.end(socket, moving=True)
    bus.silent.add("a")
    await b.reporter.farewell()
    await d.reporter.farewell()
    for name in "dab":
        bus.kill(name)
        c.peers.forget(name, 1)
    await bus.run(MOVING_SECONDS + LATER)

    assert (d.events(), a.events(), b.events()) == ([], [], [])
    assert c.events() == [("user.offline", "42")]


async def test_the_last_replica_to_leave_says_who_is_offline() -> None:
    bus = Bus("ab", {"user.offline"})
    a, b = bus.replicas.values()
    sockets = [(a, a.start("42")), (b, b.start("42")), (b, b.start("43"))]
    await bus.run(LATER)
    for replica, socket in sockets:
        replica.end(socket, moving=True)
    await a.reporter.farewell()
    bus.kill("a")
    b.peers.forget("a", 1)
    await b.reporter.farewell()

    assert a.events() == []
    assert sorted(b.events()) == [("user.offline", "42"), ("user.offline", "43")]


async def test_a_farewell_on_a_broken_bus_does_not_take_long() -> None:
    bus = Bus("ab", {"user.offline"})
    a = bus.replicas["a"]
    socket = a.start("42")
    await bus.run(LATER)
    a.end(socket, moving=True)
    bus.up = False
    leaving = asyncio.create_task(a.reporter.farewell())
    await bus.clock.run()
    assert not leaving.done()
    await bus.clock.run(FAREWELL_SECONDS)

    assert leaving.done()
    assert a.told == [], "the others will call it lost"


async def test_when_all_leave_at_once_the_last_to_decide_says_who_is_offline() -> None:
    bus = Bus("ab", {"user.offline"})
    a, b = bus.replicas.values()
    sockets = [(a, a.start("42")), (b, b.start("42"))]
    await bus.run(LATER)
    for replica, socket in sockets:
        replica.end(socket, moving=True)
    for replica in (a, b):
        replica.reporter._transitions.leave()
    await a.reporter.farewell()
    await b.reporter.farewell()

    assert bus.told() == [("user.offline", "42")]


@pytest.mark.parametrize("trouble", ["bus", "silence", "nonsense"])
async def test_nothing_is_decided_before_all_have_answered(trouble: str) -> None:
    bus = Bus("ab", {"user.online", "user.offline"})
    a, b = bus.replicas.values()

    def troubled(yes: bool) -> None:
        bus.up = not (yes and trouble == "bus")
        bus.silent = {"b"} if yes and trouble == "silence" else set()
        b.unreadable = Vouchers if yes and trouble == "nonsense" else None

    troubled(True)
    socket = a.start("42")
    await bus.run(30)
    assert bus.told() == []
    troubled(False)
    await bus.run(LATER)
    assert bus.told() == [("user.online", "42")]

    troubled(True)
    a.end(socket)
    await bus.run(30)
    assert bus.told() == []
    troubled(False)
    await bus.run(LATER)
    assert bus.told() == [("user.offline", "42")]


async def test_a_lost_replica_is_told_of_once_and_its_users_not_one_by_one() -> None:
    bus = Bus("abc")
    a, b, _ = bus.replicas.values()
    b.start("only there")
    b.start("42")
    here = a.start("42")
    await bus.run(LATER)
    bus.told()
    bus.kill("b")
    await bus.run(LATER)
    bus.notice("b", sessions=2)
    await bus.run(LATER)
    assert bus.told() == [("replica.lost", "b")]

    a.end(here)
    await bus.run(GRACE + LATER)
    assert bus.told() == [("session.ended", "42"), ("user.offline", "42")]


async def test_a_session_of_a_user_whose_replica_died_waits_until_that_is_known() -> None:
    bus = Bus("ab", {"user.online", "replica.lost"})
    a, b = bus.replicas.values()
    b.start("42")
    await bus.run(LATER)
    bus.kill("b")
    a.start("42")
    await bus.run(9)
    assert bus.told() == []
    bus.notice("b")
    await bus.run(LATER)

    assert bus.told() == [("replica.lost", "b"), ("user.online", "42")]


async def test_of_two_replicas_that_die_at_once_the_third_tells() -> None:
    bus = Bus("abc", {"replica.lost"})
    for name in "ab":
        bus.kill(name)
    bus.notice("b", sessions=3)
    await bus.run(LATER)
    assert bus.told() == [], "a would come first, and may yet answer"
    bus.notice("a")
    await bus.run(LATER)

    assert sorted(bus.told()) == [("replica.lost", "a"), ("replica.lost", "b")]


async def test_a_newcomer_that_never_knew_the_lost_replica_does_not_count_as_first() -> None:
    bus = Bus("bc", {"replica.lost"})
    bus.kill("c")
    a = bus.join("a")
    a.peers.forget("c", 1)
    bus.notice("c", sessions=3)
    await bus.run(LATER)

    assert bus.told() == [("replica.lost", "c")]


async def test_a_replica_restarted_in_a_hurry_does_not_count_as_knowing_its_own_loss() -> None:
    bus = Bus("bc", {"replica.lost"})
    c = bus.replicas["c"]
    bus.kill("b")
    again = bus.join("b")
    again.incarnation = 2
    c.peers.hear("b", 2, 1.0)
    c.reporter.lost(Lost("b", 1, 3))
    await bus.run(LATER)

    assert bus.told() == [("replica.lost", "b")]
    assert not again.reporter._begins_anew


@pytest.mark.parametrize("reconciles", [True, False])
async def test_who_returns_after_it_was_given_up_tells_again_who_is_there(
    reconciles: bool,
) -> None:
    bus = Bus("ab", EVENTS if reconciles else EVENTS - {"replica.lost"})
    a, b = bus.replicas.values()
    b.start("42")
    b.start("43")
    a.start("43")
    gone = b.start("44")
    await bus.run(LATER)
    b.end(gone)
    await bus.run(GRACE + LATER)
    bus.told()
    b.peers.forget("a", 1)
    a.peers.forget("b", 1)
    a.reporter.lost(Lost("b", 1, 2))
    await bus.run(LATER)
    assert bus.told() == [("replica.lost", "b")] * reconciles

    b.peers.hear("a", 1, 0.0)
    a.peers.hear("b", 1, 0.0)
    await bus.run(LATER)
    sessions = [("session.started", "42"), ("session.started", "43")]
    assert bus.told() == sessions * reconciles + [("user.online", "42")]


async def test_a_bug_with_one_decision_does_not_end_all() -> None:
    bus = Bus("a", {"user.online"})
    a = bus.replicas["a"]
    errors: list[str] = []
    supervisor = Supervisor(errors.append, lambda: pytest.fail("it is no death"))
    supervisor.repeat("facts", a.reporter.next_turn)
    a.broken = True
    a.start("42")
    await bus.clock.run()
    for _ in range(4):
        await bus.clock.run(TURN_SECONDS)
    assert a.told == []
    a.broken = False
    for _ in range(8):
        await bus.clock.run(TURN_SECONDS)

    assert a.events() == [("user.online", "42")]
    assert set(errors) == {"facts"}
    await supervisor.stop()


async def test_a_question_of_returning_is_answered_at_once() -> None:
    bus = Bus("a")

    assert bus.replicas["a"].reporter.begin_anew(Return())
