import asyncio

import pytest

from gateway.history.shared import AT_ONCE, Shared
from tests.support.waiting import eventually


class Question:
    """Asked of something that answers when the test says so.

    Attributes:
        asked: The answers to come, in order of asking.
    """

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[int]] = []

    async def ask(self) -> int:
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_who_come_together_share_one_question() -> None:
    question = Question()
    shared = Shared(question.ask, apart_seconds=0)
    tasks = [asyncio.create_task(shared.answer()) for _ in range(5)]
    await settle()
    question.asked[0].set_result(1)
    assert await asyncio.gather(*tasks) == [1] * 5
    assert len(question.asked) == 1


async def test_nobody_gets_the_answer_to_an_earlier_question() -> None:
    question = Question()
    shared = Shared(question.ask, apart_seconds=0)
    early = asyncio.create_task(shared.answer())
    await settle()
    late = [asyncio.create_task(shared.answer()) for _ in range(5)]
    await settle()
    question.asked[0].set_result(1)
    assert await early == 1
    await settle()
    assert not any(task.done() for task in late)
    question.asked[1].set_result(2)
    assert await asyncio.gather(*late) == [2] * 5
    assert len(question.asked) == 2


async def test_a_failure_is_for_those_who_share_it_and_no_other() -> None:
    question = Question()
    shared = Shared(question.ask, apart_seconds=0)
    early = [asyncio.create_task(shared.answer()) for _ in range(2)]
    await settle()
    late = asyncio.create_task(shared.answer())
    await settle()
    question.asked[0].set_exception(ConnectionError())
    for task in early:
        with pytest.raises(ConnectionError):
            await task
    await settle()
    question.asked[1].set_result(2)
    assert await late == 2


async def test_one_who_gives_up_leaves_the_others_waiting() -> None:
    question = Question()
    shared = Shared(question.ask, apart_seconds=0)
    tasks = [asyncio.create_task(shared.answer()) for _ in range(2)]
    await settle()
    tasks[0].cancel()
    await settle()
    question.asked[0].set_result(1)
    assert await tasks[1] == 1


async def test_the_next_question_can_be_asked_when_all_have_given_up() -> None:
    question = Question()
    shared = Shared(question.ask, apart_seconds=0)
    task = asyncio.create_task(shared.answer())
    await settle()
    task.cancel()
    question.asked[0].set_exception(ConnectionError())
    await settle()
    later = asyncio.create_task(shared.answer())
    await settle()
    question.asked[1].set_result(2)
    assert await later == 2


async def test_a_crowd_shares_a_question_that_is_not_asked_too_soon() -> None:
    question = Question()
    shared = Shared(question.ask, apart_seconds=0.1)
    alone = AT_ONCE + 1
    for number in range(alone):
        early = asyncio.create_task(shared.answer())
        await settle()
        question.asked[number].set_result(1)
        assert await early == 1
    late = []
    for _ in range(5):
        late.append(asyncio.create_task(shared.answer()))
        await settle()
    await eventually(lambda: len(question.asked) > alone)
    question.asked[alone].set_result(2)
    assert await asyncio.gather(*late) == [2] * 5
    assert len(question.asked) == alone + 1
