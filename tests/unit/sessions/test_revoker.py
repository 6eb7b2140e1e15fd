"""Revoking on several replicas that share a bus, which may be down, keep values, or fail to."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.app.supervisor import Supervisor
from gateway.auth.revocations import Revocation, Revocations, decode, encode
from gateway.auth.tokens import Claims
from gateway.bus.envelope import Control, encode_control
from gateway.bus.memory import MemoryBus, MemoryExchange
from gateway.bus.subjects import Subjects
from gateway.cluster import Cluster, Cover
from gateway.errors import BusUnavailable, NothingKept
from gateway.metrics import Metrics
from gateway.sessions import revoker
from gateway.sessions.commands import ListRevoked, Revoke
from gateway.sessions.kept_revocations import CLOCKS_SECONDS, KeptRevocations
from gateway.sessions.revoker import Revoker
from tests.support.clock import Clock

NOW = 1000.0
KEEP = 110.0
BUCKET = "g_revocations"
STEP = 0.25
USER = Revocation("sub", "42", NOW)
TOKEN = Revocation("jti", "j", NOW)


class Store:
    """What all buses keep together.

    Attributes:
        failure: Raised in place of an answer.
        read_only: Whether only writing fails.
    """

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.keep_seconds: set[float] = set()
        self.failure: BusUnavailable | None = None
        self.read_only = False

    def kept(self) -> set[Revocation]:
        """All revocations in it."""
        return {each for value in self.values.values() for each in decode(value)}


class Bus(MemoryBus):
    """A bus that can be cut off and keeps values in a store."""

    def __init__(self, exchange: MemoryExchange, store: Store) -> None:
        super().__init__(metrics=Metrics(), exchange=exchange, max_envelope_bytes=2000)
        self.store = store
        self.cut = False

    @property
    def connected(self) -> bool:
        return super().connected and not self.cut

    def _require_open(self) -> None:
        super()._require_open()
        if self.cut:
            raise BusUnavailable("cut")

    async def put(self, bucket: str, key: str, value: bytes, *, keep_seconds: float) -> None:
        assert bucket == BUCKET
        self._require_open()
        if self.store.failure is not None or self.store.read_only:
            raise self.store.failure or BusUnavailable("read only")
        self.store.values[key] = value
        self.store.keep_seconds.add(keep_seconds)

    async def entries(self, bucket: str) -> dict[str, bytes]:
        assert bucket == BUCKET
        self._require_open()
        if self.store.failure is not None:
            raise self.store.failure
        return dict(self.store.values)


class Replica:
    """A replica, as far as it has to do with tokens.

    Attributes:
        sockets: Users of the open sockets.
        live: The other replicas it knows of.
    """

    def __init__(self, name: str, exchange: MemoryExchange, store: Store) -> None:
        self.name = name
        self.bus = Bus(exchange, store)
        self.live: list[str] = []
        self.sockets: list[str] = []
        self.undecodable = 0
        self.supervisor = Supervisor(count=lambda _: None, died=lambda: None)
        self.cluster = Cluster(
            name,
            self.bus,
            Subjects("g"),
            (Revoke, ListRevoked),
            peers=self.live,
            undecodable=self._lost,
        )
        self.revocations = Revocations(KEEP, lambda: NOW)
        self.revoker = Revoker(
            self.revocations,
            self.cluster,
            self.bus,
            KeptRevocations(self.bus, BUCKET, keep_seconds=KEEP, undecodable=self._lost),
            close_revoked=self._close_revoked,
        )
        self.cluster.listen(Control.REVOCATION, self.revoker.told)
        self.cluster.handle(Revoke, self.revoker.revoke_here)
        self.cluster.handle(ListRevoked, self.revoker.list_here)

    async def start(self, *live: str) -> None:
        """Join the others, as at a replica's start; without learning anything."""
        self.live += live
        await self.bus.start()
        await self.cluster.join()
        self.supervisor.repeat("revocations", self.revoker.next_look)

    def reconnect(self) -> None:
        """The bus is back."""
        self.bus.cut = False
        self.revoker.learn_again()

    def refuses(self, user: str, jti: str | None = None, issued_at: float = NOW - 1) -> bool:
        """Whether it would refuse a token."""
        return self.revocations.refuses(Claims(user, 0.0, issued_at=issued_at, jti=jti))

    async def _close_revoked(self) -> int:
        before = len(self.sockets)
        self.sockets = [user for user in self.sockets if not self.refuses(user)]
        return before - len(self.sockets)

    def _lost(self) -> None:
        self.undecodable += 1


class Replicas:
    """All replicas of a test; to be made inside a loop."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.exchange = MemoryExchange()
        self.store = Store()
        self.all: list[Replica] = []

    def make(self, name: str) -> Replica:
        """Another replica, not started."""
        replica = Replica(name, self.exchange, self.store)
        self.all.append(replica)
        return replica

    async def two(self) -> tuple[Replica, Replica]:
        """Two that know each other, and all there is to know."""
        a, b = self.make("a"), self.make("b")
        await a.start("b")
        await b.start("a")
        for replica in (a, b):
            await self.outcome(replica.revoker.learn())
        return a, b

    async def settle(self, seconds: float = 0.0) -> None:
        """Let time pass at once, and everything happen that follows."""
        await self.clock.run(seconds)
        for _ in range(10):
            await self.clock.run()

    async def run(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(round(seconds / STEP)):
            await self.settle(STEP)

    async def outcome(self, call: Any, seconds: float = 0.0) -> Any:
        """What a call returns within so many seconds."""
        task = asyncio.ensure_future(call)
        await self.settle()
        for _ in range(round(seconds / STEP)):
            if not task.done():
                await self.settle(STEP)
        assert task.done()
        return task.result()


@pytest.fixture
async def replicas() -> AsyncIterator[Replicas]:
    replicas = Replicas()
    yield replicas
    for replica in replicas.all:
        await replica.supervisor.stop()


async def test_sockets_are_closed_on_all_replicas_and_counted(replicas: Replicas) -> None:
    a, b = await replicas.two()
    a.sockets = ["42", "43"]
    b.sockets = ["42", "42", "44"]

    assert await replicas.outcome(a.revoker.revoke(USER)) == (3, Cover())
    assert (a.sockets, b.sockets) == (["43"], ["44"])
    assert a.refuses("42") and b.refuses("42")  # noqa: PT018 -- one fact
    assert not a.refuses("43")
    assert not b.refuses("42", issued_at=NOW + 1)
    assert replicas.store.kept() == {USER}
    assert replicas.store.keep_seconds == {KEEP + CLOCKS_SECONDS}


async def test_a_revocation_is_in_force_before_its_sockets_are_closed(replicas: Replicas) -> None:
    a, _ = await replicas.two()
    a.sockets = ["42"]
    closing = a.revoker.revoke_here(Revoke(USER))

    assert a.refuses("42")
    assert a.sockets == ["42"]
    a.revoker.told(encode((USER,)))  # as whoever asks does, too
    assert await closing == 1, "who asked is told of it"


async def test_a_token_is_revoked_by_its_id(replicas: Replicas) -> None:
    a, b = await replicas.two()
    await replicas.outcome(b.revoker.revoke(TOKEN))

    assert a.refuses("42", "j")
    assert not a.refuses("42", "k")
    assert not a.refuses("42")


async def test_revoking_twice_closes_nothing_twice(replicas: Replicas) -> None:
    a, b = await replicas.two()
    b.sockets = ["42"]
    assert await replicas.outcome(a.revoker.revoke(USER)) == (1, Cover())

    assert await replicas.outcome(a.revoker.revoke(USER)) == (0, Cover())
    assert len(replicas.store.values) == 1


async def test_a_replica_that_does_not_answer_is_named(replicas: Replicas) -> None:
    a, b = await replicas.two()
    b.sockets = ["42"]
    a.live.append("dead")

    cover = Cover(("dead",), complete=False)
    assert await replicas.outcome(a.revoker.revoke(USER), 1) == (1, cover)


async def test_a_replica_the_others_do_not_know_is_told_too(replicas: Replicas) -> None:
    a, _ = await replicas.two()
    stranger = replicas.make("stranger")
    await stranger.start()
    stranger.sockets = ["42"]

    assert await replicas.outcome(a.revoker.revoke(USER)) == (0, Cover())
    await replicas.settle()
    assert stranger.sockets == []


@pytest.mark.parametrize("failure", [None, NothingKept("none")])
async def test_a_replica_that_starts_later_refuses_too(
    replicas: Replicas, failure: BusUnavailable | None
) -> None:
    replicas.store.failure = failure
    a, b = await replicas.two()
    assert await replicas.outcome(a.revoker.revoke(USER)) == (0, Cover())
    late = replicas.make("late")
    await late.start("a", "b")
    assert late.revoker.doubt() == "revocations_unknown"
    await replicas.outcome(late.revoker.learn())

    assert late.refuses("42")
    assert late.revoker.doubt() is None
    assert b.refuses("42")


async def test_what_was_revoked_outlives_all_replicas_where_the_bus_keeps_it(
    replicas: Replicas,
) -> None:
    a, b = await replicas.two()
    await replicas.outcome(a.revoker.revoke(USER))
    for replica in (a, b):
        await replica.bus.close()
    late = replicas.make("late")
    await late.start()
    await replicas.outcome(late.revoker.learn())

    assert late.refuses("42")


async def test_more_than_one_message_carries_is_learnt_all_the_same(replicas: Replicas) -> None:
    replicas.store.failure = NothingKept("none")
    a, _ = await replicas.two()
    for number in range(100):
        a.revocations.add(Revocation("sub", f"{number:0100}", NOW))
    late = replicas.make("late")
    await late.start("a", "b")
    await replicas.outcome(late.revoker.learn(), 1)

    assert len(late.revocations) == 100


async def test_a_bus_that_cannot_be_read_is_asked_until_it_can(replicas: Replicas) -> None:
    await replicas.two()
    replicas.store.values["k"] = encode((USER,))
    replicas.store.failure = BusUnavailable("no leader")
    late = replicas.make("late")
    await late.start("a", "b")
    learning = asyncio.create_task(late.revoker.learn())
    await replicas.run(60)
    assert not learning.done()
    assert late.revoker.doubt() == "revocations_unknown"

    replicas.store.failure = None
    await replicas.outcome(learning, 1)
    assert late.refuses("42")
    assert late.revoker.doubt() is None


async def test_where_nothing_is_kept_others_that_never_answer_are_given_up(
    replicas: Replicas,
) -> None:
    replicas.store.failure = NothingKept("none")
    a = replicas.make("a")
    await a.start("of an earlier release")
    learning = asyncio.create_task(a.revoker.learn())
    await replicas.run(2)
    assert not learning.done(), "it may be stalled for a moment"

    await replicas.outcome(learning, 30)
    assert a.revoker.doubt() is None


async def test_what_was_revoked_during_a_cut_is_known_after_it(replicas: Replicas) -> None:
    a, b = await replicas.two()
    b.sockets = ["42"]
    b.bus.cut = True
    cover = Cover(("b",), complete=False)
    assert await replicas.outcome(a.revoker.revoke(USER), 1) == (0, cover)
    assert b.sockets == ["42"]

    b.reconnect()
    assert b.revoker.doubt() == "revocations_unknown"
    await replicas.settle()
    assert b.sockets == []
    assert b.revoker.doubt() is None


async def test_a_cut_while_learning_begins_it_anew(replicas: Replicas) -> None:
    replicas.store.failure = NothingKept("none")
    a, _ = await replicas.two()
    late = replicas.make("late")
    await late.start("a", "dead")
    await late.supervisor.stop()  # so that nobody else learns
    learning = asyncio.create_task(late.revoker.learn())
    await replicas.run(1)  # one has answered, the other is asked again
    assert not learning.done()
    late.bus.cut = True
    await replicas.outcome(a.revoker.revoke(USER))
    late.bus.cut = False
    late.revoker.learn_again()
    await replicas.outcome(learning, 10)

    assert late.refuses("42")


async def test_who_appears_later_is_asked_too(replicas: Replicas) -> None:
    """Its messages may have been lost in a cut between servers, of which no bus told."""
    a, b = await replicas.two()
    b.live.remove("a")
    a.live.remove("b")
    b.revocations.add(USER)
    await replicas.run(2)
    assert not a.refuses("42")

    a.live.append("b")
    await replicas.run(revoker.LOOK_SECONDS + STEP)
    assert a.refuses("42")


async def test_without_the_bus_it_is_in_force_here_and_the_others_learn_it_later(
    replicas: Replicas,
) -> None:
    a, b = await replicas.two()
    a.sockets = b.sockets = ["42"]
    a.bus.cut = True
    with pytest.raises(BusUnavailable):
        await replicas.outcome(a.revoker.revoke(USER))
    assert (a.sockets, b.sockets) == ([], ["42"])
    await replicas.run(10)
    assert not b.refuses("42")

    a.reconnect()
    await replicas.settle()
    assert b.sockets == []
    assert replicas.store.kept() == {USER}


async def test_the_others_are_told_even_if_the_bus_cannot_be_read(replicas: Replicas) -> None:
    a, b = await replicas.two()
    a.bus.cut = True
    with pytest.raises(BusUnavailable):
        await replicas.outcome(a.revoker.revoke(USER))
    replicas.store.failure = BusUnavailable("no leader")
    a.reconnect()
    await replicas.settle()

    assert b.refuses("42")
    assert a.revoker.doubt() == "revocations_unknown"


async def test_after_a_cut_the_others_are_asked_even_if_the_bus_cannot_be_read(
    replicas: Replicas,
) -> None:
    a, b = await replicas.two()
    b.bus.cut = True
    a.live.remove("b")
    replicas.store.failure = BusUnavailable("no leader")
    await replicas.outcome(a.revoker.revoke(USER))
    b.reconnect()
    await replicas.settle()

    assert b.refuses("42")
    assert b.revoker.doubt() == "revocations_unknown"


async def test_a_second_cut_before_the_bus_could_be_read_is_told_of_too(replicas: Replicas) -> None:
    a, b = await replicas.two()
    replicas.store.failure = BusUnavailable("no leader")
    a.reconnect()
    await replicas.run(1)
    a.bus.cut = True
    with pytest.raises(BusUnavailable):
        await replicas.outcome(a.revoker.revoke(USER))
    a.reconnect()
    await replicas.run(2)

    assert b.refuses("42")


async def test_what_the_bus_could_not_keep_is_written_later(replicas: Replicas) -> None:
    a, b = await replicas.two()
    replicas.store.read_only = True
    outcome = await replicas.outcome(a.revoker.revoke(USER))
    assert outcome == (0, Cover((), complete=False)), "a replica that starts later may not know"
    assert b.refuses("42")
    await replicas.run(2 * revoker.KEEP_AGAIN_SECONDS)
    assert replicas.store.kept() == set()

    replicas.store.read_only = False
    await replicas.run(2 * revoker.KEEP_AGAIN_SECONDS)
    assert replicas.store.kept() == {USER}


async def test_what_the_bus_lost_is_written_again(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revoker, "KEEPS_IN_A_ROW", 2)
    a, _ = await replicas.two()
    them = {Revocation("sub", str(number), NOW) for number in range(5)}
    for each in them:
        await replicas.outcome(a.revoker.revoke(each))
    replicas.store.values.clear()
    a.bus.cut = True
    a.reconnect()
    await replicas.run(4 * revoker.KEEP_AGAIN_SECONDS)

    assert replicas.store.kept() == them


async def test_an_earlier_one_that_is_written_late_undoes_nothing(replicas: Replicas) -> None:
    a, b = await replicas.two()
    earlier = Revocation("sub", "42", NOW - 50)
    await replicas.outcome(a.revoker.revoke(USER))
    await replicas.outcome(b.revoker.revoke(earlier))
    late = replicas.make("late")
    await late.start()
    await replicas.outcome(late.revoker.learn())

    assert late.refuses("42")


async def test_what_cannot_be_read_is_counted_and_harms_nothing(replicas: Replicas) -> None:
    a, b = await replicas.two()
    replicas.store.values |= {"bad": b"\xc1", "good": encode((USER,))}
    a.bus.publish("g.replicas", encode_control(Control.REVOCATION, b"\xc1"))
    b.reconnect()
    await replicas.settle()

    assert b.refuses("42")
    assert (a.undecodable, b.undecodable) == (1, 2)
