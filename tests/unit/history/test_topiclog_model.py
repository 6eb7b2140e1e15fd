"""The log of a topic against a store, over a bus that loses, repeats and delays."""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.history.ring import OVERHEAD_BYTES
from gateway.history.topiclog import FetchRange, Step, TopicLog
from tests.support.examples import examples
from tests.unit.history.model import OTHER, RETENTION, Copy, Store

INDEX = st.integers(0, 1000)


class LogMachine(RuleBasedStateMachine):
    """One log; the test is the carrier, the clock, and whoever reads the store."""

    @initialize(
        before=st.integers(0, 3),
        early=st.lists(st.booleans(), max_size=2),
        held=st.integers(1, 6),
        keeps=st.sampled_from([6, 100]),
    )
    def subscribe(self, before: int, early: list[bool], held: int, keeps: int) -> None:
        self.store = Store(keeps=keeps)
        for _ in range(before):
            self.store.publish()
        self.log = TopicLog(RETENTION, max_bytes=held * (OVERHEAD_BYTES + 8))
        self.air: list[Copy] = []
        self.answers: list[tuple[int, float]] = []
        self.fetches: list[FetchRange] = []
        self.published: set[int] = set()
        self.delivered: list[int] = []
        self.begun: int | None = None
        for arrives in early:
            self.publish([False], elsewhere=True)
            if arrives:
                self.arrive_in_order()
        assert self.delivered == []

    def perform(self, step: Step) -> None:
        # A copy that comes so late that the store has given its message up before it could be fetched looks
        # like another message under an old offset. It does no harm.
        assert self.store.gone or not step.restarted
        for message in step.deliver:
            assert message.body == f"e1/{message.offset}".encode()
            self.delivered.append(message.offset)
        if step.fetch is not None:
            assert step.fetch.after < step.fetch.upto
            self.fetches.append(step.fetch)

    @rule(fates=st.lists(st.booleans(), min_size=1, max_size=4), elsewhere=st.booleans())
    def publish(self, fates: list[bool], *, elsewhere: bool) -> None:
        """Some messages in a row; a fate is whether the copy is lost."""
        for lost in fates:
            if elsewhere:
                self.store.publish(OTHER)
            copy = self.store.publish()
            self.published.add(copy.offset)
            self.answers.append((copy.offset, copy.time))
            if not lost:
                self.air.append(copy)

    @precondition(lambda self: self.begun is None)
    @rule()
    def baseline(self) -> None:
        self.begun = self.store.last
        self.perform(self.log.baseline(self.store.last, self.store.now))

    @precondition(lambda self: self.air)
    @rule(index=INDEX, again=st.booleans())
    def arrive(self, index: int, again: bool) -> None:
        copy = self.air[index % len(self.air)]
        if not again:
            self.air.remove(copy)
        self.perform(self.log.live(copy.offset, copy.previous, copy.time, copy.body))

    @precondition(lambda self: self.air)
    @rule()
    def arrive_in_order(self) -> None:
        copy = self.air.pop(0)
        self.perform(self.log.live(copy.offset, copy.previous, copy.time, copy.body))

    @precondition(lambda self: self.begun is not None)
    @rule(age=st.integers(0, 4))
    def check(self, age: int) -> None:
        """The answer may be that of a server that lags, or come late."""
        self.answers.append((self.store.last_of(), self.store.now))
        self.perform(self.log.check(*self.answers[-1 - min(age, len(self.answers) - 1)]))

    @precondition(lambda self: self.fetches)
    @rule(limit=st.sampled_from([6, 8, 100]))
    def read(self, limit: int) -> None:
        """The last fetch gets all, or only its beginning."""
        fetch = self.fetches.pop()
        found = self.store.of(above=fetch.after, upto=fetch.upto)[:limit]
        upto = found[-1].offset if len(found) == limit else fetch.upto
        self.perform(self.log.fetched(fetch, found, upto=upto, time=self.store.now))

    @precondition(lambda self: self.fetches)
    @rule(forgotten=st.booleans())
    def fail(self, forgotten: bool) -> None:
        """The last fetch fails; perhaps its result comes all the same, later."""
        fetch = self.fetches[-1] if forgotten else self.fetches.pop()
        self.log.failed(fetch)

    @precondition(lambda self: len(self.fetches) > 1)
    @rule()
    def read_late(self) -> None:
        """The result of a fetch that had failed: nobody asked for it any more."""
        fetch = self.fetches.pop(0)
        step = self.log.fetched(fetch, [], upto=fetch.upto, time=self.store.now)
        assert step == Step()

    @rule()
    def retry(self) -> None:
        self.perform(self.log.retry())

    @rule(trouble=st.sampled_from(["none", "none", "pause", "erased", "erased, and said", "old"]))
    def trouble(self, trouble: str) -> None:
        match trouble:
            case "erased" | "erased, and said":
                self.store.purge()
                if trouble != "erased":
                    self.log.erased()
            case "pause":
                self.store.now += 2.0
            case "old":
                self.store.now += 90.0

    @invariant()
    def the_order_is_the_stores(self) -> None:
        begun = self.begun or 0
        assert all(a < b for a, b in zip([begun, *self.delivered], self.delivered, strict=False))

    @invariant()
    def the_ring_is_what_was_delivered(self) -> None:
        ring = self.log.ring
        if not self.log.ready:
            return
        delivered = self.delivered
        for offset in range(ring.start, self.store.last + 2):
            since = ring.since(offset)
            assert since is not None
            present = {message.offset for message in since}
            absent = {o for o in delivered if o > offset} - present
            assert absent <= self.store.gone
            assert [m.offset for m in since] == [o for o in delivered if o in present]
        if ring.start:
            assert ring.since(ring.start - 1) is None
            assert ring.since(ring.start - 1, known=ring.start) is not None
        assert len(ring) <= RETENTION.messages + 1

    @invariant()
    def who_stands_here_lacks_nothing_below(self) -> None:
        if not self.log.ready:
            return
        offset, time = self.log.standing(self.store.now)
        assert offset == (self.delivered[-1] if self.delivered else self.begun)
        stored = self.store.time_at(offset)
        assert stored is None or stored <= time <= self.store.now

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        if self.begun is None:
            self.baseline()
        assert self.begun is not None
        while self.fetches:
            self.fail(forgotten=False)
        self.perform(self.log.check(self.store.last_of(), self.store.now))
        while self.fetches:
            self.read(limit=100)
            self.the_ring_is_what_was_delivered()
        self.the_order_is_the_stores()
        wanted = {offset for offset in self.published if offset > self.begun}
        lost = wanted - set(self.delivered)
        assert lost <= self.store.gone
        assert set(self.delivered) <= wanted
        assert self.log.retry() == Step([])
        self.perform(self.log.check(self.store.last_of(), self.store.now))
        offset, time = self.log.standing(self.store.now)
        assert (offset, time) == (
            self.delivered[-1] if self.delivered else self.begun,
            self.store.now,
        )


TestLog = LogMachine.TestCase
TestLog.settings = settings(max_examples=examples(2), stateful_step_count=40)
