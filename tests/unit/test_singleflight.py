"""Coalescing calls, step by step on a loop whose every turn the test decides."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.singleflight import CallCancelled, CallSpacing, SingleFlight
from tests.support.clock import Clock


class Backend:
    """Answers when the test says so.

    Attributes:
        calls: Answers to come, in the order of the calls.
        began: The test's time when each began.
    """

    def __init__(self) -> None:
        self.calls: list[asyncio.Future[int]] = []
        self.began: list[int] = []
        self.time = 0

    async def call(self) -> int:
        self.calls.append(asyncio.get_running_loop().create_future())
        self.began.append(self.time)
        return await self.calls[-1]


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


def record_unheard() -> list[dict[str, Any]]:
    """What the loop complains of, such as exceptions that were never retrieved."""
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    return unheard


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def flight() -> SingleFlight[str, int]:
    return SingleFlight()


Ask = Callable[[SingleFlight[str, int], str, Any], Any]

EITHER = pytest.mark.parametrize("ask", [SingleFlight.share, SingleFlight.fresh])


@EITHER
async def test_those_who_come_together_share_one_call(
    flight: SingleFlight[str, int], backend: Backend, ask: Ask
) -> None:
    tasks = [asyncio.create_task(ask(flight, "k", backend.call)) for _ in range(5)]
    await settle()
    backend.calls[0].set_result(1)

    assert await asyncio.gather(*tasks) == [1] * 5
    assert len(backend.calls) == 1


async def test_who_comes_during_a_call_shares_it(
    flight: SingleFlight[str, int], backend: Backend
) -> None:
    early = asyncio.create_task(flight.share("k", backend.call))
    await settle()
    late = asyncio.create_task(flight.share("k", backend.call))
    await settle()
    backend.calls[0].set_result(1)

    assert [await early, await late] == [1, 1]
    assert len(backend.calls) == 1


async def test_a_fresh_answer_is_never_that_of_a_call_that_began_before(
    flight: SingleFlight[str, int], backend: Backend
) -> None:
    early = asyncio.create_task(flight.fresh("k", backend.call))
    await settle()
    late = [asyncio.create_task(flight.fresh("k", backend.call)) for _ in range(5)]
    await settle()
    assert len(backend.calls) == 1  # one at a time
    backend.calls[0].set_result(1)
    assert await early == 1
    await settle()
    assert not any(task.done() for task in late)
    backend.calls[1].set_result(2)

    assert await asyncio.gather(*late) == [2] * 5
    assert len(backend.calls) == 2


async def test_both_kinds_go_together(flight: SingleFlight[str, int], backend: Backend) -> None:
    first = asyncio.create_task(flight.share("k", backend.call))
    await settle()
    fresh = asyncio.create_task(flight.fresh("k", backend.call))
    second = asyncio.create_task(flight.share("k", backend.call))
    await settle()
    backend.calls[0].set_result(1)
    assert [await first, await second] == [1, 1]
    third = asyncio.create_task(flight.share("k", backend.call))
    await settle()
    backend.calls[1].set_result(2)

    assert [await fresh, await third] == [2, 2]


async def test_keys_are_called_apart(flight: SingleFlight[str, int], backend: Backend) -> None:
    one = asyncio.create_task(flight.share("a", backend.call))
    two = asyncio.create_task(flight.share("b", backend.call))
    await settle()
    assert "a" in flight
    assert "b" in flight
    backend.calls[1].set_result(2)
    assert await two == 2
    assert "b" not in flight
    backend.calls[0].set_result(1)
    assert await one == 1


@EITHER
async def test_a_failure_goes_to_all_who_share_it_and_to_no_other(
    flight: SingleFlight[str, int], backend: Backend, ask: Ask
) -> None:
    early = [asyncio.create_task(ask(flight, "k", backend.call)) for _ in range(3)]
    await settle()
    backend.calls[0].set_exception(ConnectionError())

    outcomes = await asyncio.gather(*early, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConnectionError] * 3
    assert "k" not in flight
    late = asyncio.create_task(ask(flight, "k", backend.call))
    await settle()
    backend.calls[1].set_result(2)
    assert await late == 2


async def test_the_failure_of_a_call_does_not_reach_those_who_wait_for_the_next(
    flight: SingleFlight[str, int], backend: Backend
) -> None:
    early = asyncio.create_task(flight.fresh("k", backend.call))
    await settle()
    late = asyncio.create_task(flight.fresh("k", backend.call))
    await settle()
    backend.calls[0].set_exception(ConnectionError())
    with pytest.raises(ConnectionError):
        await early
    await settle()
    backend.calls[1].set_result(2)
    assert await late == 2


@EITHER
async def test_one_who_is_cancelled_takes_nothing_from_the_others(
    flight: SingleFlight[str, int], backend: Backend, ask: Ask
) -> None:
    first, second = (asyncio.create_task(ask(flight, "k", backend.call)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    assert first.cancelled()
    backend.calls[0].set_result(1)
    assert await second == 1


@EITHER
async def test_a_failure_nobody_waits_for_any_more_is_no_trouble(
    flight: SingleFlight[str, int], backend: Backend, ask: Ask
) -> None:
    unheard = record_unheard()
    task = asyncio.create_task(ask(flight, "k", backend.call))
    await settle()
    task.cancel()
    backend.calls.pop().set_exception(ConnectionError())
    del task
    await settle()
    gc.collect()
    assert not unheard
    late = asyncio.create_task(ask(flight, "k", backend.call))
    await settle()
    backend.calls[0].set_result(2)
    assert await late == 2


async def test_whoever_comes_before_the_pace_allows_the_call_shares_it(backend: Backend) -> None:
    gates: list[asyncio.Future[None]] = []

    async def pace() -> None:
        gates.append(asyncio.get_running_loop().create_future())
        await gates[-1]

    flight: SingleFlight[str, int] = SingleFlight(pace=pace)
    tasks = []
    for _ in range(3):
        tasks.append(asyncio.create_task(flight.fresh("k", backend.call)))
        await settle()
    assert not backend.calls
    gates[0].set_result(None)
    await settle()
    tasks.append(asyncio.create_task(flight.share("k", backend.call)))
    await settle()
    backend.calls[0].set_result(1)

    assert await asyncio.gather(*tasks) == [1] * 4
    assert len(backend.calls) == len(gates) == 1


async def test_whoever_waits_for_a_call_that_is_cancelled_is_not_cancelled_itself(
    flight: SingleFlight[str, int], backend: Backend
) -> None:
    waiters = [asyncio.create_task(flight.fresh("k", backend.call)) for _ in range(2)]
    await settle()
    waiters.append(asyncio.create_task(flight.fresh("k", backend.call)))
    await settle()
    flight.cancel()
    await asyncio.wait(waiters)

    assert [type(waiter.exception()) for waiter in waiters] == [CallCancelled] * 3
    assert "k" not in flight


async def test_a_few_calls_follow_each_other_and_a_crowd_keeps_a_distance() -> None:
    clock = Clock()
    spacing = CallSpacing(0.5, at_once=2)
    times: list[float] = []

    async def crowd() -> None:
        for _ in range(6):
            await spacing.wait()
            times.append(clock.now)

    began = clock.now
    task = asyncio.create_task(crowd())
    await clock.run()
    for _ in range(20):
        await clock.run(0.125)

    assert [time - began for time in times] == pytest.approx([0, 0, 0, 0.5, 1.0, 1.5])
    assert task.done()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("share"), st.sampled_from("ab")),
        st.tuples(st.just("fresh"), st.sampled_from("ab")),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.sampled_from(["answer", "fail"]), st.just(0)),
        st.tuples(st.just("turn"), st.integers(1, 3)),
    ),
    max_size=40,
)


class Trial:
    """Random askers, and what must hold for each of them."""

    def __init__(self) -> None:
        self.flight: SingleFlight[str, int] = SingleFlight()
        self.backends = {key: Backend() for key in "ab"}
        self.askers: list[asyncio.Task[None]] = []
        self.now = 0

    async def ask(self, what: str, key: str) -> None:
        backend = self.backends[key]
        begun, asked = len(backend.calls), self.now
        ask = self.flight.share if what == "share" else self.flight.fresh
        try:
            number = await ask(key, backend.call)
        except ConnectionError as problem:
            number = problem.args[0]
        # of the calls that had begun, the last may be shared; or it is the next to begin
        assert begun - 1 <= number <= begun
        if what == "fresh":
            assert number == begun
            assert backend.began[number] >= asked

    def do(self, what: str, which: Any) -> None:
        self.now += 1
        for backend in self.backends.values():
            backend.time = self.now
            assert sum(not call.done() for call in backend.calls) <= 1, "one call at a time"
        match what:
            case "share" | "fresh":
                self.askers.append(asyncio.create_task(self.ask(what, which)))
            case "cancel" if self.askers:
                self.askers[which % len(self.askers)].cancel()
            case "answer" | "fail":
                for backend in self.backends.values():
                    for number, call in enumerate(backend.calls):
                        if not call.done():
                            self.settle(call, number, failing=what == "fail")

    @staticmethod
    def settle(call: "asyncio.Future[int]", number: int, *, failing: bool) -> None:
        if failing:
            call.set_exception(ConnectionError(number))
        else:
            call.set_result(number)

    async def end(self) -> None:
        for _ in range(4):  # a call under way, one that waits, and what they set off
            await settle()
            self.do("answer", 0)
        await settle()
        for task in self.askers:
            assert task.done(), "nobody waits for ever"
            assert task.cancelled() or task.exception() is None
        assert "a" not in self.flight
        assert "b" not in self.flight


@given(STEPS)
def test_whatever_comes_in_whatever_order_everybody_gets_an_answer_that_is_new_enough(
    steps: list[tuple[str, Any]],
) -> None:
    async def run() -> None:
        unheard = record_unheard()
        trial = Trial()
        for what, which in steps:
            if what == "turn":
                for _ in range(which):
                    await asyncio.sleep(0)
            else:
                trial.do(what, which)
        await trial.end()
        assert not unheard

    asyncio.run(run())
