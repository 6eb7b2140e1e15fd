"""One reading for many."""

import asyncio

import pytest

from gateway.history.once import Once


class Reading:
    """Counts how often it is read; ends when the gate is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.times = 0
        self.problem: Exception | None = None

    async def read(self) -> int:
        self.times += 1
        mine = self.times
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        return mine


async def test_who_comes_while_it_is_read_shares_it_and_who_comes_later_does_not() -> None:
    once: Once[str, int] = Once()
    reading = Reading()
    tasks = [asyncio.create_task(once.get("k", reading.read)) for _ in range(5)]
    await asyncio.sleep(0)
    reading.gate.set()

    assert await asyncio.gather(*tasks) == [1] * 5
    assert await once.get("k", reading.read) == 2


async def test_different_keys_are_read_apart() -> None:
    once: Once[str, int] = Once()
    reading = Reading()
    reading.gate.set()
    await asyncio.gather(once.get("a", reading.read), once.get("b", reading.read))

    assert reading.times == 2


async def test_all_hear_of_a_failure_and_the_next_reads_again() -> None:
    once: Once[str, int] = Once()
    reading = Reading()
    reading.problem = RuntimeError("it fails")
    tasks = [asyncio.create_task(once.get("k", reading.read)) for _ in range(3)]
    await asyncio.sleep(0)
    reading.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    reading.problem = None

    assert [type(outcome) for outcome in outcomes] == [RuntimeError] * 3
    assert await once.get("k", reading.read) == 2


async def test_one_who_is_cancelled_takes_nothing_from_the_others() -> None:
    once: Once[str, int] = Once()
    reading = Reading()
    first, second = (asyncio.create_task(once.get("k", reading.read)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    reading.gate.set()

    assert await second == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_failure_nobody_waits_for_any_more_is_no_trouble() -> None:
    """Warnings are errors: one that nobody looked at would fail this test."""
    once: Once[str, int] = Once()
    reading = Reading()
    reading.problem = RuntimeError("it fails")
    task = asyncio.create_task(once.get("k", reading.read))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    reading.gate.set()
    for _ in range(3):
        await asyncio.sleep(0)
    reading.problem = None

    assert await once.get("k", reading.read) == 2
