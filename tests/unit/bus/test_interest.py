import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bus.base import Handler, Listener, NoResponders
from gateway.bus.interest import Interest
from gateway.bus.stream_position import StreamPosition
from gateway.bus.subjects import Subjects
from gateway.errors import BusUnavailable, SubscriptionRefused

if TYPE_CHECKING:
    from gateway.leases import Lease

LINGER = 2.0
WAIT = 5.0


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop that, when it has nothing to do, jumps to its next timer."""

    def __init__(self) -> None:
        self.jumped = 0.0
        super().__init__(JumpingSelector(self))

    def time(self) -> float:
        return super().time() + self.jumped


class JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "the test waits for what nothing will bring"
        self._loop.jumped += max(0.0, timeout)
        return super().select(0)


class FakeSubscription:
    refusal = ""

    def __init__(self, bus: "FakeBus", subject: str) -> None:
        self._bus = bus
        self._subject = subject
        self.closed = False

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True
        self._bus.standing.remove(self._subject)


class FakeBus:
    """A bus that answers when it is told to.

    Attributes:
        asked: Every subject anybody subscribed to, in order.
        standing: Subjects with a subscription now.
        gate: Awaited by each subscribe.
    """

    max_envelope_bytes = 1000
    doubt = None

    def __init__(self, *, connected: bool = True) -> None:
        self.connected = connected
        self.asked: list[str] = []
        self.standing: list[str] = []
        self.handlers: dict[str, Handler] = {}
        self.gate: Callable[[], Awaitable[object]] | None = None
        self._listeners: list[Listener] = []

    async def start(self) -> None: ...
    async def close(self) -> None: ...
    def publish(
        self, subject: str, body: bytes, *, no_responders: NoResponders | None = None
    ) -> None: ...
    async def flush(self) -> None: ...
    async def put(self, bucket: str, key: str, value: bytes, *, keep_seconds: float) -> None: ...
    async def get(self, bucket: str, key: str) -> bytes | None: ...

    async def entries(self, bucket: str) -> dict[str, bytes]:
        raise NotImplementedError(bucket)

    async def subscribe(self, subject: str, handler: Handler) -> FakeSubscription:
        self.asked.append(subject)
        if not self.connected:
            raise BusUnavailable("down")
        if self.gate is not None:
            await self.gate()
        self.standing.append(subject)
        self.handlers[subject] = handler
        self.latest = FakeSubscription(self, subject)
        return self.latest

    def subscribe_now(self, subject: str, handler: Handler) -> None: ...

    def deserted(self, _: str) -> bool:
        return False

    async def server_time(self) -> None: ...

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def turn(self, *, up: bool, tell: bool = True) -> None:
        self.connected = up
        if tell:
            for listener in self._listeners:
                listener(up)


class Heard(list[tuple[str, bytes, StreamPosition | None]]):
    def __init__(self) -> None:
        self.left: list[str] = []

    def deliver(self, topic: str, body: bytes, position: StreamPosition | None) -> None:
        self.append((topic, body, position))


def interest_in(bus: FakeBus, heard: Heard | None = None) -> Interest:
    heard = heard if heard is not None else Heard()
    return Interest(
        bus,
        Subjects("g"),
        heard.deliver,
        linger_seconds=LINGER,
        wait_seconds=WAIT,
        left=heard.left.append,
    )


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def now() -> float:
    return asyncio.get_running_loop().time()


def test_the_first_acquire_subscribes_and_messages_come_with_their_topic() -> None:
    async def main() -> None:
        bus, heard = FakeBus(), Heard()
        interest = interest_in(bus, heard)
        await interest.acquire("a:b")
        stored = StreamPosition(7, 5, 1.5, "p.store.a")
        bus.handlers["g.topic.a.b"](b"x", None)
        bus.handlers["g.topic.a.b"](b"y", stored)
        assert heard == [("a:b", b"x", None), ("a:b", b"y", stored)]
        assert interest.topics == 1

    run(main())


def test_concurrent_acquirers_share_one_subscription() -> None:
    async def main() -> None:
        bus = FakeBus()
        interest = interest_in(bus)
        answer = asyncio.Event()
        bus.gate = answer.wait
        tasks = [asyncio.create_task(interest.acquire("t")) for _ in range(5)]
        await settle()
        assert not any(task.done() for task in tasks)
        answer.set()
        leases = await asyncio.gather(*tasks)
        assert bus.asked == ["g.topic.t"]
        for lease in leases[1:]:
            lease.close(linger=False)
        assert bus.standing == ["g.topic.t"]
        leases[0].close(linger=False)
        assert bus.standing == []

    run(main())


def test_nothing_is_acquired_at_once_before_it_is_confirmed() -> None:
    async def main() -> None:
        bus = FakeBus()
        interest = interest_in(bus)
        assert not interest.try_acquire("t")
        assert bus.asked == []
        answer = asyncio.Event()
        bus.gate = answer.wait
        first = asyncio.create_task(interest.acquire("t"))
        await settle()
        assert not interest.try_acquire("t")
        answer.set()
        await first
        assert interest.try_acquire("t")
        bus.turn(up=False)
        assert not interest.try_acquire("t")

    run(main())


def test_a_topic_the_server_took_away_is_refused_until_it_is_back() -> None:
    async def main() -> None:
        bus = FakeBus()
        interest = interest_in(bus)
        await interest.acquire("t")
        bus.latest.refusal = "Permissions Violation"
        assert not interest.try_acquire("t")
        began = await now()
        with pytest.raises(SubscriptionRefused, match="Permissions Violation"):
            await interest.acquire("t")
        assert await now() - began < WAIT, "refused at once"
        await interest.acquire("other")
        assert bus.standing == ["g.topic.t", "g.topic.other"], "its members keep it"
        bus.latest.refusal = "x"
        assert not interest.try_acquire("other")
        bus.latest.refusal = ""
        assert interest.try_acquire("other")

    run(main())


def test_the_last_close_unsubscribes_after_the_linger_time() -> None:
    async def main() -> None:
        bus, heard = FakeBus(), Heard()
        interest = interest_in(bus, heard)
        first, second = await interest.acquire("t"), await interest.acquire("t")
        first.close()
        first.close()
        await asyncio.sleep(LINGER * 2)
        assert bus.standing == ["g.topic.t"]
        second.close()
        await asyncio.sleep(LINGER * 0.9)
        assert bus.standing == ["g.topic.t"]
        assert interest.topics == 1
        assert heard.left == []
        await asyncio.sleep(LINGER * 0.2)
        assert bus.standing == []
        assert interest.topics == 0
        assert heard.left == ["t"]

    run(main())


@pytest.mark.parametrize("at_once", [True, False])
def test_an_acquire_while_it_lingers_keeps_the_subscription(at_once: bool) -> None:
    async def main() -> None:
        bus = FakeBus()
        interest = interest_in(bus)
        (await interest.acquire("t")).close()
        await asyncio.sleep(LINGER / 2)
        again = interest.try_acquire("t") if at_once else await interest.acquire("t")
        await asyncio.sleep(LINGER * 2)
        assert bus.standing == bus.asked == ["g.topic.t"]
        assert again is not None
        again.close()
        await asyncio.sleep(LINGER * 1.1)
        assert bus.standing == []

    run(main())


def test_an_acquire_after_the_linger_time_subscribes_again() -> None:
    async def main() -> None:
        bus = FakeBus()
        interest = interest_in(bus)
        for _ in range(2):
            (await interest.acquire("t")).close()
            await asyncio.sleep(LINGER * 1.1)
        assert bus.asked == ["g.topic.t"] * 2
        assert bus.standing == []

    run(main())


def test_a_subscription_that_ends_while_another_waits_for_the_bus_does_not_end_for_it() -> None:
    async def main() -> None:
        bus = FakeBus()
        interest = interest_in(bus)
        (await interest.acquire("t")).close()
        bus.turn(up=False)
        waiter = asyncio.create_task(interest.acquire("t"))
        await asyncio.sleep(LINGER * 1.5)
        bus.turn(up=True)
        lease = await waiter
        assert bus.standing == ["g.topic.t"]
        lease.close()
        await asyncio.sleep(LINGER * 1.1)
        assert bus.standing == []

    run(main())


def test_a_cancelled_first_acquire_leaves_nothing_behind() -> None:
    async def main() -> None:
        bus = FakeBus()
        interest = interest_in(bus)
        answer = asyncio.Event()
        bus.gate = answer.wait
        first = asyncio.create_task(interest.acquire("t"))
        await settle()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        answer.set()
        await settle()
        assert bus.standing == ["g.topic.t"]
        await asyncio.sleep(LINGER * 1.1)
        assert bus.standing == []
        assert interest.topics == 0

    run(main())


def test_a_cancelled_acquirer_does_not_disturb_the_others() -> None:
    async def main() -> None:
        bus = FakeBus()
        interest = interest_in(bus)
        answer = asyncio.Event()
        bus.gate = answer.wait
        first = asyncio.create_task(interest.acquire("t"))
        second = asyncio.create_task(interest.acquire("t"))
        await settle()
        first.cancel()
        answer.set()
        lease = await second
        assert bus.standing == ["g.topic.t"]
        lease.close(linger=False)
        assert bus.standing == []

    run(main())


def test_a_refusal_reaches_all_who_wait_and_the_next_one_asks_again() -> None:
    async def main() -> None:
        bus = FakeBus()
        interest = interest_in(bus)

        async def refuse() -> None:
            await settle()
            raise SubscriptionRefused("t")

        bus.gate = refuse
        outcomes = await asyncio.gather(
            *(interest.acquire("t") for _ in range(3)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [SubscriptionRefused] * 3
        assert bus.asked == ["g.topic.t"]
        assert interest.topics == 0
        bus.gate = None
        await interest.acquire("t")
        assert bus.standing == ["g.topic.t"]

    run(main())


def test_a_bus_that_is_down_is_waited_for_so_long_and_no_longer() -> None:
    async def main() -> None:
        bus = FakeBus(connected=False)
        interest = interest_in(bus)
        started = await now()
        with pytest.raises(BusUnavailable):
            await interest.acquire("t")
        assert await now() - started == pytest.approx(WAIT, abs=0.5)
        assert bus.asked == []

    run(main())


def test_each_acquirer_waits_its_own_time() -> None:
    async def main() -> None:
        bus = FakeBus(connected=False)
        interest = interest_in(bus)
        early = asyncio.create_task(interest.acquire("t"))
        await asyncio.sleep(WAIT * 0.8)
        late = asyncio.create_task(interest.acquire("t"))
        await asyncio.sleep(WAIT * 0.4)
        with pytest.raises(BusUnavailable):
            await early
        bus.turn(up=True)
        await late
        assert bus.standing == ["g.topic.t"]

    run(main())


def test_a_bus_that_comes_back_is_subscribed_to() -> None:
    async def main() -> None:
        bus = FakeBus(connected=False)
        interest = interest_in(bus)
        waiters = [asyncio.create_task(interest.acquire("t")) for _ in range(3)]
        await asyncio.sleep(WAIT / 2)
        bus.turn(up=True)
        await asyncio.gather(*waiters)
        assert bus.asked == ["g.topic.t"]

    run(main())


@pytest.mark.parametrize("tell", [True, False])
def test_a_bus_lost_during_the_subscribe_is_tried_again_when_it_is_back(tell: bool) -> None:
    """``connected`` may be false a moment before the listeners hear of it."""

    async def main() -> None:
        bus = FakeBus()
        interest = interest_in(bus)

        async def break_down() -> None:
            bus.turn(up=False, tell=tell)
            raise BusUnavailable("lost")

        bus.gate = break_down
        waiters = [asyncio.create_task(interest.acquire("t")) for _ in range(3)]
        await asyncio.sleep(WAIT / 2)
        assert bus.asked == ["g.topic.t"]
        bus.gate = None
        bus.turn(up=True)
        await asyncio.gather(*waiters)
        assert bus.asked == ["g.topic.t"] * 2
        assert bus.standing == ["g.topic.t"]
        assert interest.topics == 1

    run(main())


def test_a_bus_that_refuses_while_connected_is_not_asked_in_circles() -> None:
    async def main() -> None:
        bus = FakeBus()
        interest = interest_in(bus)

        async def fail() -> None:
            raise BusUnavailable("no")

        bus.gate = fail
        with pytest.raises(BusUnavailable):
            await interest.acquire("t")
        assert bus.asked == ["g.topic.t"]

    run(main())


def test_a_subscription_stands_through_a_reconnect_and_is_waited_for() -> None:
    async def main() -> None:
        bus = FakeBus()
        interest = interest_in(bus)
        await interest.acquire("t")
        bus.turn(up=False)
        second = asyncio.create_task(interest.acquire("t"))
        await settle()
        assert not second.done()
        bus.turn(up=True)
        await second
        assert bus.asked == ["g.topic.t"]

    run(main())


def test_who_waits_for_the_bus_holds_nothing_meanwhile() -> None:
    """``connected`` may be false a moment before the listeners hear of it."""

    async def main() -> None:
        bus = FakeBus()
        interest = interest_in(bus)
        lease = await interest.acquire("t")
        bus.turn(up=False, tell=False)
        waiter = asyncio.create_task(interest.acquire("t"))
        await settle()
        assert not waiter.done()
        lease.close(linger=False)
        assert bus.standing == []
        bus.turn(up=True)
        await waiter
        assert bus.standing == ["g.topic.t"]

    run(main())


def test_topics_are_counted_apart() -> None:
    async def main() -> None:
        bus = FakeBus()
        interest = interest_in(bus)
        leases = [await interest.acquire(topic) for topic in ("a", "b", "a:b")]
        assert interest.topics == 3
        leases[1].close()
        await asyncio.sleep(LINGER * 1.1)
        assert interest.topics == 2
        assert sorted(bus.standing) == ["g.topic.a", "g.topic.a.b"]

    run(main())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["acquire", "try", "answer", "cancel", "close", "up", "down", "wait"]),
            st.integers(0, 3),
        ),
        max_size=40,
    )
)
def test_whatever_the_bus_does_who_holds_a_topic_hears_it_and_nothing_is_left(
    moves: list[tuple[str, int]],
) -> None:
    async def main() -> None:
        crowd = Crowd()
        for what, number in moves:
            crowd.move(what, number)
            if what == "wait":
                await asyncio.sleep(number * LINGER / 3)
            elif number:  # else the next one moves in the same turn of the loop
                await settle()
            crowd.look()
        await crowd.go_home()
        assert crowd.bus.standing == []
        assert crowd.interest.topics == 0

    run(main())


class Crowd:
    """Many who acquire one topic on a bus that answers late, and comes and goes."""

    def __init__(self) -> None:
        self.bus = FakeBus()
        self.interest = interest_in(self.bus)
        self.answered = asyncio.Event()
        self.waiting: list[asyncio.Task[Lease]] = []
        self.held: list[Lease] = []
        self.bus.gate = self._gate

    async def _gate(self) -> None:
        await self.answered.wait()
        if not self.bus.connected:
            raise BusUnavailable("lost")

    def move(self, what: str, number: int) -> None:
        """One of them does something, or the bus does."""
        match what:
            case "acquire":
                self.waiting.append(asyncio.create_task(self.interest.acquire("t")))
            case "try" if (lease := self.interest.try_acquire("t")) is not None:
                self.held.append(lease)
            case "answer":
                self.answered.set()
            case "cancel" if self.waiting:
                self.waiting[number % len(self.waiting)].cancel()
            case "close" if self.held:
                self.held.pop().close(linger=number > 1)
            case "up" | "down":
                self.bus.turn(up=what == "up", tell=number > 1)
                self.answered.clear()

    def look(self) -> None:
        """Who has a lease has a subscription, and there is never more than one."""
        for task in [task for task in self.waiting if task.done()]:
            self.waiting.remove(task)
            if not task.cancelled() and task.exception() is None:
                self.held.append(task.result())
        assert len(self.bus.standing) == self.interest.topics <= 1
        assert self.interest.topics or not self.held

    async def go_home(self) -> None:
        """The bus is well again; everybody gets what he waits for, and gives it back."""
        self.answered.set()
        self.bus.turn(up=True)
        await asyncio.wait([asyncio.create_task(settle()), *self.waiting])
        self.look()
        for lease in self.held:
            lease.close()
        await asyncio.sleep(LINGER * 1.1)
