import asyncio
from functools import partial
from itertools import pairwise

from gateway.pacer import Pacer


async def pass_through(pacer: Pacer, passed: list[int], number: int) -> None:
    await pacer.wait()
    passed.append(number)


async def test_one_who_comes_alone_does_not_wait() -> None:
    pacer = Pacer(2)
    for _ in range(3):
        coroutine = pacer.wait()
        try:
            coroutine.send(None)
        except StopIteration:
            pass
        else:
            raise AssertionError("it waits")
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_a_crowd_passes_in_order_a_few_in_each_turn() -> None:
    pacer, passed = Pacer(2), list[int]()
    tasks = [asyncio.create_task(pass_through(pacer, passed, n)) for n in range(9)]
    sizes = [0]
    while len(passed) < len(tasks):
        await asyncio.sleep(0)
        sizes.append(len(passed))
    assert passed == list(range(9))
    assert max(b - a for a, b in pairwise(sizes)) <= 2


async def test_one_who_gives_up_takes_nobodys_place() -> None:
    pacer, passed = Pacer(1), list[int]()
    tasks = [asyncio.create_task(pass_through(pacer, passed, n)) for n in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.wait(tasks)
    assert passed == [0, 2, 3]


async def test_one_who_does_not_wait_is_called_when_it_is_its_turn() -> None:
    pacer, passed = Pacer(2), list[int]()
    for number in range(5):
        pacer.call(partial(passed.append, number))
    assert passed == [0, 1]
    sizes = [2]
    for _ in range(6):
        await asyncio.sleep(0)
        sizes.append(len(passed))
    assert passed == list(range(5))
    assert max(b - a for a, b in pairwise(sizes)) <= 2
