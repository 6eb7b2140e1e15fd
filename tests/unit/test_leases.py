"""Leases on what is opened once, shared, and closed after the last."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.leases import Lease, Leases
from tests.support.clock import Clock

LINGER = 2.0


class Doors:
    """What can be opened, once at a time, when it is allowed to.

    Attributes:
        opening: Openings under way, by name; their results let them go on.
        open: Those that are open.
        opened: How often anything was opened.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.leases: Leases[str] = Leases(self._close, linger_seconds=LINGER)
        self.opening: dict[str, asyncio.Future[None]] = {}
        self.open: set[str] = set()
        self.opened = 0

    def acquire(self, name: str = "a") -> asyncio.Task[Lease]:
        """Somebody who wants it open."""
        return asyncio.create_task(self.leases.acquire(name, lambda: self._open(name)))

    def open_now(self, name: str = "a") -> str:
        """Open one without waiting."""
        assert name not in self.open
        assert name not in self.opening
        self.opened += 1
        self.open.add(name)
        return name

    async def answer(self, name: str = "a", problem: Exception | None = None) -> None:
        """Let an opening end, if one is under way."""
        gate = self.opening.get(name)
        if gate is not None and not gate.done():
            gate.set_exception(problem) if problem else gate.set_result(None)
        await self.clock.run()

    async def hold(self, name: str = "a") -> Lease:
        """Have it open."""
        wanted = self.acquire(name)
        await self.clock.run()
        await self.answer(name)
        return await wanted

    async def _open(self, name: str) -> str:
        assert name not in self.opening
        assert name not in self.open
        gate = self.opening[name] = asyncio.get_running_loop().create_future()
        try:
            await gate
        finally:
            del self.opening[name]
        self.open.add(name)
        self.opened += 1
        return name

    def _close(self, name: str, value: str) -> None:
        assert name == value
        self.open.remove(name)


@pytest.fixture
async def doors() -> Doors:
    return Doors()


async def test_all_who_come_meanwhile_share_one_opening(doors: Doors) -> None:
    waiting = [doors.acquire() for _ in range(3)]
    await doors.clock.run()
    assert doors.leases.try_acquire("a", doors.open_now) is None
    await doors.answer()
    leases = [await one for one in waiting]
    assert doors.opened == len(doors.leases) == 1
    assert doors.leases.try_acquire("a", doors.open_now) is not None
    assert len({id(lease) for lease in leases}) == 3


async def test_what_can_be_opened_without_waiting_is_opened_once(doors: Doors) -> None:
    assert doors.leases.try_acquire("a", lambda: None) is None
    leases = [doors.leases.try_acquire("a", doors.open_now) for _ in range(2)]
    leases.append(await doors.acquire())
    assert (doors.opened, len(doors.leases)) == (1, 1)
    for lease in leases:
        assert lease is not None
        lease.close()
    await doors.clock.run(LINGER)
    assert doors.open == set()


async def test_the_last_lease_closes_it_after_a_while(doors: Doors) -> None:
    first, second = await doors.hold(), await doors.hold()
    for _ in range(2):
        first.close()
    await doors.clock.run(LINGER)
    assert doors.open == {"a"}
    second.close()
    await doors.clock.run(LINGER * 0.9)
    assert doors.open == {"a"}
    await doors.clock.run(LINGER * 0.1)
    assert doors.open == set()
    assert len(doors.leases) == 0


async def test_a_new_lease_begins_the_while_anew(doors: Doors) -> None:
    (await doors.hold()).close()
    await doors.clock.run(LINGER * 0.9)
    (await doors.hold()).close()
    await doors.clock.run(LINGER * 0.9)
    assert doors.open == {"a"}
    await doors.clock.run(LINGER * 0.1)
    assert doors.open == set()
    assert doors.opened == 1


async def test_it_is_closed_at_once_where_it_need_not_linger(doors: Doors) -> None:
    first, second = await doors.hold(), await doors.hold()
    first.close(linger=False)
    assert doors.open == {"a"}
    second.close(linger=False)
    assert doors.open == set()
    await doors.clock.run(LINGER * 2)


async def test_what_was_closed_is_opened_again(doors: Doors) -> None:
    for _ in range(2):
        (await doors.hold()).close(linger=False)
    assert doors.opened == 2


async def test_a_failure_reaches_all_who_wait_and_the_next_one_tries_again(doors: Doors) -> None:
    waiting = [doors.acquire() for _ in range(3)]
    await doors.clock.run()
    await doors.answer(problem=ZeroDivisionError())
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ZeroDivisionError] * 3
    assert len(doors.leases) == 0

    await doors.hold()
    assert doors.opened == 1


async def test_who_is_cancelled_does_not_disturb_the_others(doors: Doors) -> None:
    first, second = doors.acquire(), doors.acquire()
    await doors.clock.run()
    first.cancel()
    await doors.answer()
    await doors.clock.run(LINGER * 2)
    assert doors.open == {"a"}

    (await second).close()
    await doors.clock.run(LINGER)
    assert doors.open == set()


async def test_an_opening_nobody_waits_for_any_more_lingers(doors: Doors) -> None:
    gone = doors.acquire()
    await doors.clock.run()
    gone.cancel()
    await doors.clock.run(LINGER)
    await doors.answer()
    assert doors.open == {"a"}
    await doors.clock.run(LINGER)
    assert doors.open == set()


async def test_names_are_apart(doors: Doors) -> None:
    a, _ = await doors.hold("a"), await doors.hold("b")
    a.close(linger=False)
    assert doors.open == {"b"}


class Crowd:
    """Many who acquire, wait, give up and give back."""

    def __init__(self) -> None:
        self.doors = Doors()
        self.waiting: list[tuple[str, asyncio.Task[Lease]]] = []
        self.held: list[tuple[str, Lease]] = []
        self.closed: list[Lease] = []

    async def move(self, what: str, name: str, number: int) -> None:
        """One of them does something, or what they wait for happens."""
        match what:
            case "acquire":
                self.waiting.append((name, self.doors.acquire(name)))
            case "try":
                can = number % 2 == 0 and name not in self.doors.opening
                can = can or name in self.doors.open
                lease = self.doors.leases.try_acquire(
                    name, lambda: self.doors.open_now(name) if can else None
                )
                assert (lease is not None) == can
                if lease is not None:
                    self.held.append((name, lease))
            case "open" | "fail":
                await self.doors.answer(name, ZeroDivisionError() if what == "fail" else None)
            case "cancel" if self.waiting:
                self.waiting[number % len(self.waiting)][1].cancel()
            case "close" | "end" if self.held:
                lease = self.held.pop(number % len(self.held))[1]
                self.closed.append(lease)
                lease.close(linger=what == "close")
            case "again":
                for lease in self.closed:
                    lease.close(linger=False)
            case "wait":
                await self.doors.clock.run(number * LINGER / 3)

    async def settle(self) -> None:
        """Let everybody hear what became of it."""
        await self.doors.clock.run()
        for name, task in [each for each in self.waiting if each[1].done()]:
            self.waiting.remove((name, task))
            if not task.cancelled() and task.exception() is None:
                self.held.append((name, task.result()))
        assert {name for name, _ in self.held} <= self.doors.open
        assert len(self.doors.leases) == len(self.doors.open)

    async def go_home(self) -> None:
        """Everybody gets what he waits for, and gives it back."""
        for name in "ab":
            await self.settle()
            await self.doors.answer(name)
        await self.settle()
        assert self.waiting == []
        for _, lease in self.held:
            lease.close()
        await self.doors.clock.run(LINGER)


MOVES = ["acquire", "try", "open", "fail", "cancel", "close", "end", "again", "wait"]


@given(
    st.lists(
        st.tuples(st.sampled_from(MOVES), st.sampled_from("ab"), st.integers(0, 3)), max_size=40
    )
)
def test_in_any_order_it_is_open_while_it_is_held_and_nothing_is_left(
    moves: list[tuple[str, str, int]],
) -> None:
    """The doors complain of what is opened twice or closed under somebody."""

    async def main() -> None:
        crowd = Crowd()
        for what, name, number in moves:
            await crowd.move(what, name, number)
            if number:  # else the next one moves in the same turn of the loop
                await crowd.settle()
        await crowd.go_home()
        assert crowd.doors.open == set()
        assert crowd.doors.leases._resources == {}

    asyncio.run(main())
