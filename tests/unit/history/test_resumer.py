"""Answering joins that resume, while the store and the memory move on."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.errors import HistoryUnavailable
from gateway.history.epoch import BELIEVED_SECONDS
from gateway.history.position import Position
from gateway.history.resume import After, FromNow, Newest
from gateway.history.resumer import RESUMES_PER_TURN, TRIES, Resumer
from tests.unit.history.fakes import RETENTION, Scene, scene


@pytest.fixture
async def at() -> AsyncIterator[Scene]:
    """A follower of topic ``a``, on which five messages came before and three while it was followed."""
    async with scene() as made:
        for _ in range(5):
            made.history.store("a")
        made.history.now += 10
        await made.follower.follow("a", RETENTION)
        for _ in range(3):
            made.publish()
        yield made


@pytest.fixture
def resumer(at: Scene) -> Resumer:
    """Answers."""
    return Resumer(at.history, at.follower, at.metrics)


def position(at: Scene, offset: int, age: float = 0.0) -> Position:
    """Where a client stands."""
    return Position(at.history.epoch, offset, at.history.now - age)


async def test_what_is_in_memory_is_not_read(at: Scene, resumer: Resumer) -> None:
    at.history.calls.clear()
    outcome, tail = await resumer.resume("a", After(position(at, 6)), None)

    assert outcome.recovered is True
    assert [m.offset for m in [*outcome.replay, *tail]] == [7, 8]
    outcome, tail = await resumer.resume("a", Newest(2), None)
    assert [m.offset for m in [*outcome.replay, *tail]] == [7, 8]
    outcome, tail = await resumer.resume("a", FromNow(), None)
    assert (outcome.position.offset, [*outcome.replay, *tail]) == (8, [])
    assert {name for name, _ in at.history.calls} == {"tip"}
    assert at.metrics.value("resumes_total", result="recovered") == 1
    assert at.metrics.value("resumes_total", result="fresh") == 2


async def test_a_crowd_at_one_place_is_read_for_once_and_then_from_memory(
    at: Scene, resumer: Resumer
) -> None:
    at.history.gate.clear()
    joins = [
        asyncio.create_task(resumer.resume("a", After(position(at, 2, age=5)), None))
        for _ in range(500)
    ]
    for _ in range(500 // RESUMES_PER_TURN):
        await at.settle()
    at.publish()
    at.history.gate.set()
    for outcome, tail in await asyncio.gather(*joins):
        assert outcome.recovered is True
        assert [m.offset for m in [*outcome.replay, *tail]] == [3, 4, 5, 6, 7, 8, 9]
    assert at.history.count("after") == 1

    await resumer.resume("a", After(position(at, 3, age=5)), None)
    assert at.history.count("after") == 1


async def test_what_is_delivered_while_the_store_is_read_comes_after_it(
    at: Scene, resumer: Resumer
) -> None:
    at.history.gate.clear()
    join = asyncio.create_task(resumer.resume("a", After(position(at, 1, age=5)), None))
    await at.settle()
    at.publish()
    at.publish("b")
    at.publish()
    at.history.gate.set()
    outcome, tail = await join

    offsets = [m.offset for m in [*outcome.replay, *tail]]
    assert offsets == [2, 3, 4, 5, 6, 7, 8, 9, 11]


async def test_it_begins_again_where_memory_has_moved_on_meanwhile(
    at: Scene, resumer: Resumer
) -> None:
    """So many came while the store was read that some of them have left the memory again."""
    at.history.gate.clear()
    join = asyncio.create_task(resumer.resume("a", After(position(at, 2, age=5)), None))
    await at.settle()
    for _ in range(RETENTION.messages + 5):
        at.publish()
    at.history.gate.set()
    outcome, _ = await join

    assert (outcome.recovered, outcome.reason) == (False, "too_many")
    assert at.metrics.value("resumes_total", result="too_many") == 1


async def test_a_topic_that_always_moves_on_is_given_up_on(
    at: Scene, resumer: Resumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = at.follower["a"].log
    tries = 0

    def since(offset: int, known: int = 0) -> None:
        nonlocal tries
        del offset, known
        tries += 1

    monkeypatch.setattr(type(log.ring), "since", lambda _, *a: since(*a))
    with pytest.raises(HistoryUnavailable):
        await resumer.resume("a", FromNow(), None)
    assert tries == TRIES
    assert at.metrics.value("resumes_total", result="recovered") == 0


async def test_a_store_that_does_not_answer_fails_the_join(at: Scene, resumer: Resumer) -> None:
    at.publish("b")
    for name in ("tip", "after", "time_at"):
        at.history.fail(name)
        with pytest.raises(HistoryUnavailable):
            # when another topic's message was stored has to be asked for
            await resumer.resume(
                "a", After(position(at, 9 if name == "time_at" else 2, age=5)), None
            )
    at.history.fail("newest")
    with pytest.raises(HistoryUnavailable):
        await resumer.resume("a", Newest(9), None)
    outcome, _ = await resumer.resume("a", After(position(at, 2, age=5)), None)
    assert outcome.recovered is True


async def test_a_topic_that_is_not_followed_fails_the_join(resumer: Resumer) -> None:
    with pytest.raises(HistoryUnavailable):
        await resumer.resume("b", FromNow(), None)


async def test_an_epoch_that_changes_while_the_store_is_read_is_said(
    at: Scene, resumer: Resumer
) -> None:
    at.history.gate.clear()
    join = asyncio.create_task(resumer.resume("a", After(position(at, 2, age=5)), None))
    await at.settle()
    at.history.begin_anew()
    at.history.now += 10
    for _ in range(9):
        at.publish(lose=True)
    await at.follower.tip()
    at.history.gate.set()
    await at.pass_time(1, step=0.1)
    outcome, tail = await join

    assert (outcome.recovered, outcome.reason) == (False, "epoch_changed")
    assert (outcome.position.epoch, outcome.position.offset) == ("e2", 9)
    assert [*outcome.replay, *tail] == []
    assert at.metrics.value("resumes_total", result="epoch_changed") == 1


async def test_after_offsets_began_anew_a_join_waits_until_they_are_known(
    at: Scene, resumer: Resumer
) -> None:
    """It comes first, and has a position of the new epoch, from where something was published."""
    at.history.begin_anew()
    at.history.now += 10
    for _ in range(3):
        at.publish(lose=True)
    join = asyncio.create_task(resumer.resume("a", After(position(at, 1)), None))
    newest = asyncio.create_task(resumer.resume("a", Newest(2), None))
    await at.pass_time(1, step=0.1)

    for task in (join, newest):
        outcome, tail = await task
        assert outcome.recovered is (True if task is join else None)
        assert [m.offset for m in [*outcome.replay, *tail]] == [2, 3]


async def test_a_position_of_a_store_that_was_replaced_by_an_older_copy_is_found_out(
    at: Scene, resumer: Resumer
) -> None:
    """Its offset is in use again, for a younger message."""
    old = position(at, 8)
    await at.follower.tip()
    at.history.restore(4)
    at.history.now += 10
    for _ in range(6):
        at.publish()
    await at.follower.tip()
    await at.pass_time(1, step=0.1)
    outcome, tail = await resumer.resume("a", After(old), None)

    assert (outcome.recovered, outcome.reason) == (False, "epoch_changed")
    assert [*outcome.replay, *tail] == []


async def test_a_position_beyond_the_end_is_of_another_store(at: Scene, resumer: Resumer) -> None:
    outcome, _ = await resumer.resume("a", After(position(at, 9)), None)

    assert (outcome.recovered, outcome.reason) == (False, "epoch_changed")


async def test_a_position_ahead_of_what_was_delivered_here_is_recovered(
    at: Scene, resumer: Resumer
) -> None:
    """Another replica was quicker; who becomes a member waits until this one is there."""
    at.publish(lose=True)
    ahead = position(at, 9)
    outcome, tail = await resumer.resume("a", After(ahead), None)

    assert (outcome.recovered, outcome.position) == (True, ahead)
    assert [*outcome.replay, *tail] == []
    assert not at.follower.level("a", 9)
    await at.settle()
    assert at.follower.level("a", 9)


async def test_where_a_full_store_lets_go_early_the_oldest_message_decides(at: Scene) -> None:
    resumer = Resumer(at.history, at.follower, at.metrics)
    outcome, _ = await resumer.resume("a", After(position(at, 2, age=5)), None)
    assert outcome.recovered is True
    async with scene() as other:
        for _ in range(8):
            other.history.store("a")
            other.history.now += 10
        await other.follower.follow("a", RETENTION)
        for offset in range(1, 5):
            del other.history.kept[offset]
        resumer = Resumer(other.history, other.follower, other.metrics)
        for _ in range(2):  # what the first one read must not count for the second as all there is
            outcome, _ = await resumer.resume(
                "a", After(Position("e1", 2, other.history.now - 60)), None
            )
            assert (outcome.recovered, outcome.reason) == (False, "expired")


async def test_after_what_was_lost_for_good_one_stands_where_the_memory_begins(
    at: Scene, resumer: Resumer
) -> None:
    for _ in range(3):
        at.publish("b")
    at.history.now += 60
    for offset in range(1, 10):
        at.history.kept.pop(offset, None)
    at.follower["a"].log.erased(11)
    outcome, tail = await resumer.resume("a", FromNow(), None)

    assert (outcome.position.offset, [*outcome.replay, *tail]) == (11, [])


async def test_who_was_sent_some_by_the_channel_before_gets_them_once(
    at: Scene, resumer: Resumer
) -> None:
    sent = position(at, 7)
    outcome, tail = await resumer.resume("a", After(position(at, 6)), sent)
    assert (outcome.recovered, outcome.position) == (True, sent)
    assert [m.offset for m in [*outcome.replay, *tail]] == [8]


async def test_what_was_sent_before_the_store_was_replaced_does_not_count(
    at: Scene, resumer: Resumer
) -> None:
    """It lies beyond the end; taken for true, the topic would be awaited there and lose what comes."""
    sent = position(at, 8)
    at.history.restore(4)
    at.history.now += 10
    join = asyncio.create_task(resumer.resume("a", After(sent), sent))
    await at.pass_time(BELIEVED_SECONDS + 2, step=0.1)
    outcome, tail = await join

    assert (outcome.recovered, outcome.reason) == (False, "epoch_changed")
    assert outcome.position.offset == 4
    assert [*outcome.replay, *tail] == []
