"""Questions about a user: who is asked, what it costs, and that an answer is as complete as it says."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.bus.base import Subscription
from gateway.bus.envelope import Control, control_in
from gateway.bus.memory import MemoryBus
from gateway.bus.subjects import Subjects
from gateway.cluster import Cluster, Cover
from gateway.metrics import Metrics
from gateway.sessions.commands import CloseSessions, Count, List
from gateway.sessions.directory import Directory
from gateway.sessions.registry import SessionRegistry, User
from gateway.tracker.core import Tracker
from gateway.tracker.entry import SESSIONS, Entry
from gateway.tracker.messages import Beat, Farewell
from gateway.tracker.service import TICK_SECONDS, TrackerService
from tests.support.clock import Clock
from tests.unit.sessions.sockets import Socket

SUBJECTS = Subjects("test")
ANN = "ann"
TOPIC = "user:ann"
DOWN_AFTER = 10.0
BEAT = DOWN_AFTER / 5
SURE = 2 * BEAT + 1
"""Seconds after which replicas that hold a key doubt nobody any more."""


class Live(Socket):
    """A session that can be asked about."""

    closed = False

    def last_seen(self) -> float:
        return 1.0

    def go_away(self) -> bool:
        before, self.closed = self.closed, True
        return not before


class Replica:
    """One of several on a memory bus, with the sessions of user ``ann``.

    Attributes:
        got: What it was sent, but for what trackers say.
        unread: What came while it was frozen; None while it is not.
    """

    def __init__(self, name: str, bus: MemoryBus, clock: Clock) -> None:
        self.name = name
        self.bus = bus
        self.clock = clock
        self.got: list[Control] = []
        self.unread: list[Callable[[], None]] | None = None
        self.remembered = 0.0
        self.stored: float | None = None
        self.user: User | None = None
        self.subscription: Subscription | None = None
        self.registry = SessionRegistry(offline_after_seconds=3.0, clock=lambda: clock.now)
        self.core = Tracker(name, 1, down_after_seconds=DOWN_AFTER, spread=lambda: 0.5)
        self.cluster = Cluster(
            name,
            bus,
            SUBJECTS,
            (Count, List, CloseSessions),
            peers=self.core.peers,
            undecodable=pytest.fail,
            quiet=self.core.peers.quiet,
        )
        self.tracker = TrackerService(
            self.core,
            self.cluster,
            clock=lambda: clock.now,
            wall_clock=lambda: clock.now,
            lost=lambda _: None,
            superseded=lambda: None,
        )
        seen: Any = self
        self.directory = Directory(
            self.registry, self.cluster, self.tracker, seen, lambda user: f"user:{user}"
        )
        directory = self.directory
        self.cluster.handle(Count, directory.count_here, others=directory.others)
        self.cluster.handle(List, directory.list_here, others=directory.others)
        self.cluster.handle(CloseSessions, directory.close_here, others=directory.others)
        self.cluster.listen(Control.TRACKER, self.tracker.receive)
        self._receive = self.cluster._receive
        self.cluster._receive = self._got  # type: ignore[method-assign]

    def known(self, _: str) -> float:
        """When a user was last seen, as this replica remembers."""
        return self.remembered

    async def kept(self, _: str) -> float | None:
        """The same, as the store says; None where it does not."""
        return self.stored

    def _got(self, kind: Control, message: bytes, *, by_topic: bool) -> None:
        def read() -> None:
            if kind is not Control.TRACKER:
                self.got.append(kind)
            self._receive(kind, message, by_topic=by_topic)

        if self.unread is None:
            read()
        else:
            self.unread.append(read)

    async def listen(self) -> None:
        """Be subscribed to the user's topic."""

        def heard(data: bytes, _: object) -> None:
            message = control_in(data)
            assert message is not None
            self.cluster.receive(*message)

        self.subscription = await self.bus.subscribe(SUBJECTS.topic(TOPIC), heard)

    async def enter(self, session: str) -> Live:
        """A session begins."""
        if self.user is None:
            await self.listen()
            lease: Any = None
            self.user = User(TOPIC, lease, self.tracker, lambda _: None)
            self.registry.users[ANN] = self.user
        client = Live(session, ANN)
        self.registry.add(self.user, client)
        now = self.clock.now
        self.tracker.put(SESSIONS + TOPIC, Entry(session, ANN, session, now, now))
        return client

    def leave(self) -> None:
        """All sessions end, and the user is forgotten."""
        if self.user is None or self.subscription is None:
            return
        for client in list(self.user.clients.values()):
            self.registry.remove(self.user, client)
            self.tracker.remove(SESSIONS + TOPIC, client.id)
        self.tracker.release(SESSIONS + TOPIC)
        self.subscription.close()
        self.user = self.subscription = None
        del self.registry.users[ANN]

    def tick(self) -> None:
        self.tracker._perform(self.core.tick(self.clock.now))

    def freeze(self) -> None:
        """Read nothing, and do nothing."""
        if self.unread is None:
            self.unread = []

    def thaw(self) -> None:
        """Go on: first what the time brings, then what came meanwhile."""
        if self.unread is not None:
            unread, self.unread = self.unread, None
            self.tick()
            for read in unread:
                read()


class Replicas:
    """All of them, that know each other and have for a while."""

    def __init__(self, number: int) -> None:
        self.clock = Clock()
        self.bus = MemoryBus(metrics=Metrics())
        self.all = [Replica(f"r{n}", self.bus, self.clock) for n in range(number)]

    async def start(self) -> None:
        await self.bus.start()
        for replica in self.all:
            await replica.cluster.join()
            replica.tracker.announce()
        await self.run(SURE)

    async def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.clock.now + seconds
        while self.clock.now < until:
            await self.clock.run(min(TICK_SECONDS, until - self.clock.now))
            for replica in self.all:
                if replica.unread is None:
                    replica.tick()
        await self.clock.run()

    async def asked(self, replica: Replica) -> tuple[list[str], Cover]:
        """The ids of all sessions, as a replica answers, and how complete that is."""
        asking = asyncio.ensure_future(replica.directory.sessions(ANN))
        while not asking.done():
            await self.clock.run(0.02)
        sessions, cover = asking.result()
        return [session.id for session in sessions], cover

    async def cost(self, replica: Replica) -> tuple[int, list[str]]:
        """How many messages a question is, published and delivered, and who got some, but for who asks."""
        published, send = [], self.bus.exchange.send

        def counted(subject: str, body: bytes, **options: Any) -> None:
            message = control_in(body)
            if message is not None and message[0] is not Control.TRACKER:
                published.append(subject)
            send(subject, body, **options)

        self.bus.exchange.send = counted  # type: ignore[method-assign]
        for each in self.all:
            each.got.clear()
        await self.asked(replica)
        del self.bus.exchange.send
        delivered = sum(len(each.got) for each in self.all)
        others = [each.name for each in self.all if each.got and each is not replica]
        return len(published) + delivered, others


async def started(number: int) -> Replicas:
    """So many."""
    replicas = Replicas(number)
    await replicas.start()
    return replicas


WHOLE = Cover()


@pytest.mark.parametrize("number", [3, 8, 30])
async def test_what_a_question_costs_does_not_depend_on_the_cluster(number: int) -> None:
    replicas = await started(number)
    a, b, c, *_ = replicas.all
    # NATS's word that nobody is there makes two of it
    assert await replicas.cost(a) == (1, [])

    await a.enter("s1")
    await b.enter("s2")
    await replicas.run(SURE)
    for asker, others in ((c, ["r0", "r1"]), (a, ["r1"])):
        messages, asked = await replicas.cost(asker)
        assert messages <= 8
        assert asked == others
        assert await replicas.asked(asker) == (["s1", "s2"], WHOLE)


async def test_two_replicas_ask_each_other() -> None:
    replicas = await started(2)
    a, b = replicas.all
    await b.enter("s1")
    assert await replicas.cost(a) == (4, ["r1"])


async def test_sessions_of_a_moment_ago_are_found() -> None:
    replicas = await started(4)
    a, b, c, d = replicas.all
    for number, replica in enumerate((a, b, c)):
        await replica.enter(f"s{number}")
        for asker in replicas.all:
            assert await replicas.asked(asker) == ([f"s{n}" for n in range(number + 1)], WHOLE)
    a.leave()
    assert await replicas.asked(d) == (["s1", "s2"], WHOLE)


async def test_silence_of_the_only_one_is_not_taken_for_an_answer() -> None:
    replicas = await started(4)
    a, b, *_ = replicas.all
    await b.enter("s1")
    await replicas.run(SURE)
    b.freeze()
    before = replicas.clock.now
    assert await replicas.asked(a) == ([], Cover(("r1",), complete=False))
    assert 0.4 < replicas.clock.now - before < 0.6
    b.thaw()
    assert await replicas.asked(a) == (["s1"], WHOLE)


@pytest.mark.parametrize("asker", [0, 2])
async def test_who_took_a_key_while_another_was_frozen_doubts_it(asker: int) -> None:
    """Neither does the one beat do with which a replica that was frozen begins again."""
    replicas = await started(4)
    a, b, *_ = replicas.all
    await b.enter("s1")
    await replicas.run(SURE)
    b.freeze()
    await a.enter("s2")
    for _ in range(2):
        await replicas.run(BEAT + 0.5)
        answer = await replicas.asked(replicas.all[asker])
        assert answer == (["s2"], Cover(("r1",), complete=False))
        b.tick()
    b.thaw()
    assert await replicas.asked(replicas.all[asker]) == (["s1", "s2"], WHOLE)


async def test_who_is_cut_off_is_missing_once_a_beat_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """NATS has forgotten its subscriptions; it is not known to be dead."""
    replicas = await started(4)
    a, b, *_ = replicas.all
    b.freeze()
    monkeypatch.setattr(b, "unread", [])
    await replicas.run(0.8 * DOWN_AFTER)
    assert await replicas.asked(a) == ([], Cover(("r1",), complete=False))
    await replicas.run(0.4 * DOWN_AFTER)
    assert await replicas.asked(a) == ([], WHOLE), "it is lost by now"


async def test_after_a_cut_the_others_are_asked_until_they_are_heard() -> None:
    replicas = await started(4)
    a, b, *_ = replicas.all
    await a.enter("s1")
    await replicas.run(SURE)
    for connected in (False, True):
        a.tracker.bus_changed(connected)
    b.freeze()
    await replicas.run(1.0)
    assert await replicas.asked(a) == (["s1"], Cover(("r1",), complete=False))
    b.thaw()
    await replicas.run(SURE)
    assert (await replicas.cost(a))[1] == []


def test_others_are_doubted_until_they_have_beaten_twice_since_they_were_asked() -> None:
    core = Tracker("a", 1, down_after_seconds=DOWN_AFTER, spread=lambda: 0.5)

    def beat(*times: float) -> None:
        for now in times:
            core.receive(Beat("b", 1), now)

    beat(0.0, 2.0)
    core.hold(SESSIONS + TOPIC, 3.0)
    beat(4.0)
    assert core.doubted(SESSIONS + TOPIC) == ["b"]
    beat(6.0)
    assert core.doubted(SESSIONS + TOPIC) == []
    assert core.doubted("s:another") == ["b"], "it was never asked"
    core.receive(Beat("c", 1), 6.0)
    assert core.doubted(SESSIONS + TOPIC) == ["c"]
    core.receive(Farewell("c", 1), 6.0)
    assert core.doubted(SESSIONS + TOPIC) == []

    for connected in (False, True):
        core.bus_changed(connected, 7.0)
    beat(8.0, 10.0)
    assert core.doubted(SESSIONS + TOPIC) == ["b"], "this replica has yet to ask anew"
    assert core.greet_again(SESSIONS + TOPIC, 10.0)
    assert not core.greet_again(SESSIONS + TOPIC, 10.0)
    beat(10.1, 12.0)
    assert core.doubted(SESSIONS + TOPIC) == ["b"], (
        "it may have said that before it read the question"
    )
    beat(14.0)
    assert core.doubted(SESSIONS + TOPIC) == []


def test_what_is_compared_after_a_cut_need_not_be_asked_anew() -> None:
    core = Tracker("a", 1, down_after_seconds=DOWN_AFTER, spread=lambda: 0.5)
    core.hold(SESSIONS + TOPIC, 3.0)
    for connected in (False, True):
        core.bus_changed(connected, 7.0)
    core.receive(Beat("b", 1), 8.0)
    core.tick(8.0)
    assert not core.greet_again(SESSIONS + TOPIC, 8.0)


async def test_a_listener_that_does_not_answer_makes_it_slow_and_not_wrong() -> None:
    replicas = await started(4)
    await replicas.bus.subscribe(SUBJECTS.topic(TOPIC), lambda *_: None)
    assert await replicas.asked(replicas.all[0]) == ([], WHOLE)


async def test_who_is_subscribed_and_knows_nothing_of_the_user_doubts_everybody() -> None:
    replicas = await started(4)
    a, b, c, _ = replicas.all
    await b.enter("s1")
    await replicas.run(SURE)
    await a.listen()
    await c.listen()
    b.freeze()
    for asker in replicas.all:
        if asker is not b:
            assert await replicas.asked(asker) == ([], Cover(("r1",), complete=False))


async def test_sessions_are_closed_once_and_counted_once() -> None:
    """Also where a replica is asked in two ways, as it was quiet."""
    replicas = await started(4)
    a, b, c, d = replicas.all
    sessions = [await b.enter(f"s{n}") for n in range(200)] + [await c.enter("s200")]
    d.core.peers.quiet |= {"r1", "r2"}
    closing = asyncio.ensure_future(d.directory.close(ANN))
    while not closing.done():
        await replicas.clock.run()
    assert closing.result() == (201, WHOLE)
    assert all(session.closed for session in sessions)
    assert Control.REQUEST in a.got, "so it was uncertain"


async def test_few_users_are_asked_about_one_by_one_and_many_in_one_question() -> None:
    replicas = await started(4)
    a, b, *_ = replicas.all
    await b.enter("s1")
    await replicas.run(SURE)
    for names, asked in (
        (["nobody", ANN], ["r1"]),
        (["nobody", ANN, "else"], ["r1", "r2", "r3"]),
    ):
        for each in replicas.all:
            each.got.clear()
        asking = asyncio.ensure_future(a.directory.presences(names))
        await replicas.clock.run(0.01)
        found, cover = await asking
        assert [(found[name].sessions, found[name].online) for name in names] == [
            (1, True) if name == ANN else (0, False) for name in names
        ]
        assert cover == WHOLE
        assert [each.name for each in replicas.all[1:] if each.got] == asked


async def test_who_remembers_a_user_that_has_gone_is_asked_where_no_store_does() -> None:
    replicas = await started(4)
    a, b, *_ = replicas.all
    b.remembered = 5.0
    assert await a.directory.last_seen(ANN) == 5.0
    for stored in (7.0, 0.0):
        a.stored = stored
        assert await a.directory.last_seen(ANN) == stored


numbers = st.integers(0, 3)
steps = st.one_of(
    st.tuples(st.sampled_from(["enter", "leave", "freeze", "thaw", "stir", "ask"]), numbers),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, BEAT + 0.5, SURE])),
)


@settings(max_examples=60)
@given(st.lists(steps, max_size=25))
async def test_what_calls_itself_complete_is(plan: list[tuple[str, Any]]) -> None:
    """Whoever is asked, whatever is frozen meanwhile, unless it is for so long that it counts as dead."""
    replicas = await started(4)
    sessions: dict[str, set[str]] = {replica.name: set() for replica in replicas.all}
    frozen: dict[str, float] = {}
    stirred: set[str] = set()
    for number, (step, value) in enumerate([*plan, *(("ask", n) for n in range(4))]):
        for replica in replicas.all:
            since = frozen.get(replica.name)
            ends = value if step == "wait" else 1.0
            if since is not None and replicas.clock.now - since + ends > DOWN_AFTER - 1:
                replica.thaw()
                del frozen[replica.name]
        if step == "wait":
            await replicas.run(value)
            continue
        replica = replicas.all[value]
        runs = replica.name not in frozen
        if step == "enter" and runs:
            await replica.enter(f"s{number}")
            sessions[replica.name].add(f"s{number}")
            await replicas.clock.run()
        elif step == "leave" and runs:
            replica.leave()
            sessions[replica.name].clear()
            await replicas.clock.run()
        elif step == "freeze" and runs:
            replica.freeze()
            frozen[replica.name] = replicas.clock.now
            stirred.discard(replica.name)
        elif step == "thaw" and not runs:
            replica.thaw()
            del frozen[replica.name]
        elif step == "stir" and not runs and replica.name not in stirred:
            stirred.add(replica.name)
            replica.tick()  # before it reads anything
            await replicas.clock.run()
        elif step == "ask" and runs:
            found, cover = await replicas.asked(replica)
            everywhere = set().union(*sessions.values())
            assert set(found) <= everywhere
            assert not cover.complete or set(found) == everywhere
            assert cover.complete or set(cover.missing) <= frozen.keys()
            assert frozen or cover.complete
