"""Keeping topics level with a store that fails, begins anew, and whose live copies get lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.bus.stream_position import StreamPosition
from gateway.errors import HistoryUnavailable
from gateway.history.epoch import BELIEVED_SECONDS
from gateway.history.follower import (
    AGAIN_SECONDS,
    CHECK_SECONDS,
    CHECKED_AT_ONCE,
    RETRY_SECONDS,
    TIP_SECONDS,
)
from gateway.history.position import Position
from gateway.retention import Retention
from tests.unit.history.fakes import RETENTION, Scene, scene

HOUR = 3600.0


@pytest.fixture
async def at() -> AsyncIterator[Scene]:
    """A follower of topic ``a``."""
    async with scene() as made:
        await made.follower.follow("a", RETENTION)
        yield made


async def test_live_copies_are_delivered_as_they_come(at: Scene) -> None:
    for _ in range(3):
        at.publish()

    assert at.offsets() == [1, 2, 3]
    assert at.history.count("after") == 0


async def test_what_was_lost_before_a_live_copy_is_fetched_first(at: Scene) -> None:
    at.publish()
    at.publish(lose=True)
    at.publish("b", lose=True)
    at.publish()
    assert at.offsets() == [1], "the fourth waits"
    await at.settle()

    assert at.offsets() == [1, 2, 4]
    assert at.metrics.value("history_repairs_total") == 1


async def test_a_lost_last_message_is_found_by_the_next_check(at: Scene) -> None:
    at.publish()
    at.publish(lose=True)
    await at.pass_time(CHECK_SECONDS + 1)

    assert at.offsets() == [1, 2]
    assert at.metrics.value("history_repairs_total") == 1
    assert at.lost == []


async def test_the_store_says_that_something_may_have_happened_and_all_are_checked(
    at: Scene,
) -> None:
    await at.follower.follow("b", RETENTION)
    await at.pass_time(5)
    at.publish(lose=True)
    at.publish("b", lose=True)
    at.history.listener()
    await at.settle()

    assert (at.offsets("a"), at.offsets("b")) == ([1], [2])


async def test_after_something_happened_all_are_checked_once_more(at: Scene) -> None:
    """The copy that answered the first time may have lagged behind."""
    await at.pass_time(5)
    at.publish(lose=True)
    late = at.history.kept.pop(1)
    at.history.listener()
    await at.settle()
    at.history.kept[1] = late
    await at.pass_time(AGAIN_SECONDS + 1)
    assert at.offsets() == [1]

    asked = at.history.count("last_offsets")
    await at.pass_time(AGAIN_SECONDS + 1)
    assert at.history.count("last_offsets") == asked


@pytest.mark.parametrize("problem", [HistoryUnavailable("unavailable", "x"), RuntimeError("bug")])
async def test_a_fetch_that_fails_is_made_again(at: Scene, problem: Exception) -> None:
    at.history.fail("after", problem)
    at.publish(lose=True)
    at.publish()
    await at.settle()
    assert at.offsets() == []
    await at.pass_time(RETRY_SECONDS)
    await at.settle()

    assert at.offsets() == [1, 2]
    at.publish()
    assert at.offsets() == [1, 2, 3]


async def test_while_a_fetch_is_under_way_no_other_is_made_for_the_topic(at: Scene) -> None:
    at.history.gate.clear()
    at.publish(lose=True)
    for _ in range(20):
        at.publish()
        await at.settle()
    assert at.history.count("after") == 1
    at.history.gate.set()
    await at.settle()

    assert at.offsets() == list(range(1, 22))


async def test_what_the_store_gave_up_before_it_was_fetched_is_said(at: Scene) -> None:
    for _ in range(RETENTION.messages + 5):
        at.publish(lose=True)
    for offset in range(1, 5):
        del at.history.kept[offset]  # it keeps no more than it must
    at.history.listener()
    await at.settle()

    assert at.offsets() == list(range(5, 16))
    assert at.lost == ["a"]


async def test_a_check_that_fails_is_made_again_a_moment_later(at: Scene) -> None:
    await at.pass_time(5)
    at.publish(lose=True)
    at.history.fail("last_offsets", *[HistoryUnavailable("unavailable", "x")] * 3)
    at.history.listener()
    await at.settle()
    assert at.offsets() == []
    await at.pass_time(3)
    await at.settle()

    assert at.offsets() == [1]


async def test_a_bug_with_one_check_does_not_end_all(at: Scene) -> None:
    at.history.fail("last_offsets", RuntimeError("bug"))
    at.history.listener()
    await at.settle()
    at.publish(lose=True)
    await at.pass_time(CHECK_SECONDS + 1)

    assert at.offsets() == [1]


async def test_topics_are_looked_at_when_their_time_has_come_and_not_all_at_once(
    at: Scene,
) -> None:
    for second in range(5):
        await at.pass_time(1)
        await at.follower.follow(f"t{second}", RETENTION)
    await at.follower.follow("short", Retention(10, 12))
    await at.pass_time(2)
    at.history.calls.clear()
    await at.pass_time(CHECK_SECONDS * 3)

    asked = [topics for name, topics in at.history.calls if name == "last_offsets"]
    looks = [topic for topics in asked if isinstance(topics, tuple) for topic in topics]
    for topic in ("a", "t0", "t1", "t2", "t3", "t4"):
        assert looks.count(topic) in (3, 4)
    assert looks.count("short") >= CHECK_SECONDS * 3 / 2 - 1, "a sixth of its seconds"
    without = [{t for t in topics if t != "short"} for topics in asked if isinstance(topics, tuple)]
    assert max(map(len, without)) == 1


async def test_no_question_names_more_topics_than_the_server_takes(at: Scene) -> None:
    for number in range(CHECKED_AT_ONCE + 1):
        await at.follower.follow(f"t{number}", RETENTION)
    at.history.calls.clear()
    at.history.listener()
    await at.settle()

    asked = [topics for name, topics in at.history.calls if name == "last_offsets"]
    assert [len(topics) for topics in asked if isinstance(topics, tuple)] == [CHECKED_AT_ONCE, 2]


async def test_a_quiet_topic_tells_positions_that_stay_young(at: Scene) -> None:
    at.follower.resuming("a", 1)
    at.publish()
    await at.pass_time(RETENTION.seconds * 2)

    assert len(at.told) >= 5, "at least every third of the rule's seconds"
    times = [position.time for _, position in at.told]
    assert {(topic, p.epoch, p.offset) for topic, p in at.told} == {("a", "e1", 1)}
    assert times == sorted(times)
    assert at.history.now - times[-1] < RETENTION.seconds / 3 + 1


async def test_nobody_is_reminded_where_nobody_resumes(at: Scene) -> None:
    await at.follower.follow("b", RETENTION)
    at.follower.resuming("b", 1)
    at.follower.resuming("a", 1)
    at.follower.resuming("a", -1)
    await at.pass_time(RETENTION.seconds)

    assert {topic for topic, _ in at.told} == {"b"}


async def test_a_topic_with_traffic_needs_no_reminders(at: Scene) -> None:
    at.follower.resuming("a", 1)
    for _ in range(20):
        at.publish()
        await at.pass_time(RETENTION.seconds / 10)

    assert at.told == []


async def test_a_topic_whose_traffic_is_for_some_alone_has_reminders_for_the_others(
    at: Scene,
) -> None:
    at.follower.resuming("a", 1)
    at.to_all = False
    for _ in range(20):
        at.publish()
        await at.pass_time(RETENTION.seconds / 10)

    assert len(at.told) >= 5
    assert at.told[-1][1].offset >= 15
    assert at.history.now - at.told[-1][1].time < RETENTION.seconds / 3 + 5


async def test_the_first_message_after_hours_is_delivered_at_once(at: Scene) -> None:
    """The one before it is long gone from the store, so its live copy names none."""
    at.follower.resuming("a", 1)
    at.publish()
    await at.pass_time(5 * HOUR, step=5)
    at.history.kept.clear()
    at.publish()
    await at.settle()
    last = at.told[-1][1]

    assert at.offsets() == [1, 2]
    assert at.lost == []
    assert last.offset == 1
    assert at.history.now - last.time < RETENTION.seconds / 3 + 5


async def test_the_first_message_after_hours_is_found_though_its_live_copy_was_lost(
    at: Scene,
) -> None:
    at.publish()
    await at.pass_time(5 * HOUR, step=5)
    at.history.kept.clear()
    at.publish("b", lose=True)
    at.publish(lose=True)
    await at.pass_time(CHECK_SECONDS + 1)

    assert at.offsets() == [1, 3]
    assert at.lost == []


async def test_another_epoch_is_said_and_its_messages_come(at: Scene) -> None:
    await at.follower.follow("b", RETENTION)
    for _ in range(5):
        at.publish()
    at.history.begin_anew()
    at.history.now += 10
    at.publish(lose=True)
    at.publish("b", lose=True)
    at.history.listener()
    await at.settle()
    at.publish()
    await at.settle()

    assert sorted(at.lost) == ["a", "b"]
    assert at.offsets("a") == [1, 2, 3, 4, 5, 1, 3]
    assert at.offsets("b") == [2]
    assert at.follower.position(3, 1.0) == Position("e2", 3, 1.0)


async def test_a_store_that_is_an_older_copy_is_noticed_though_its_epoch_is_the_same(
    at: Scene,
) -> None:
    for _ in range(5):
        at.publish()
    at.history.restore(2)
    at.history.now += 10
    at.publish(lose=True)
    at.history.listener()
    restored = at.history.now
    await at.pass_time(BELIEVED_SECONDS + 2)

    assert at.lost == ["a"]
    assert at.offsets() == [1, 2, 3, 4, 5, 3], "the new third, and not the first two again"
    assert not at.follower["a"].log.vouches(restored)


async def test_a_message_that_overtakes_the_answer_is_no_sign_of_an_older_copy(at: Scene) -> None:
    at.publish()
    at.history.answered.clear()
    asking = asyncio.create_task(at.follower.tip())
    await at.settle()
    at.publish()
    at.history.answered.set()

    assert (await asking).offset == 1
    assert at.lost == []


async def test_an_answer_about_the_epoch_before_does_not_count(at: Scene) -> None:
    """Else the topic would be taken to have come further than it has, and lose what comes next."""
    for _ in range(5):
        at.publish()
    at.publish(lose=True)
    at.history.gate.clear()
    at.history.listener()
    await at.settle()  # the question is under way
    at.history.begin_anew()
    at.history.now += 10
    await at.follower.tip()
    at.history.gate.set()
    await at.settle()
    at.publish(lose=True)
    await at.pass_time(CHECK_SECONDS + 1)

    assert at.offsets() == [1, 2, 3, 4, 5, 1]
    assert at.lost == ["a"]


async def test_a_topic_followed_while_its_offsets_begin_anew_is_ready_when_it_is_joined(
    at: Scene,
) -> None:
    at.publish()
    at.history.begin_anew()
    at.history.now += 10
    at.publish(lose=True)
    await at.follower.tip()
    assert not at.follower.ready("a")
    following = asyncio.create_task(at.follower.follow("a", RETENTION))
    await at.pass_time(1, step=0.1)
    await following

    assert at.follower.ready("a")
    assert at.offsets() == [1, 1]


async def test_a_join_does_not_wait_for_ever_for_a_topic_that_cannot_be_read(at: Scene) -> None:
    at.publish()
    at.history.begin_anew()
    at.history.now += 10
    at.publish(lose=True)
    await at.follower.tip()
    at.history.fail("after", *[HistoryUnavailable("unavailable", "x")] * 100)
    following = asyncio.create_task(at.follower.follow("a", RETENTION))
    await at.pass_time(10)

    with pytest.raises(HistoryUnavailable):
        await following


async def test_a_topic_that_is_forgotten_while_it_is_fetched_gets_nothing_more(at: Scene) -> None:
    at.history.gate.clear()
    at.publish(lose=True)
    at.publish()
    await at.settle()
    at.follower.forget("a")
    at.history.gate.set()
    await at.settle()
    assert at.delivered == []
    at.publish()

    await at.follower.follow("a", RETENTION)
    at.publish()
    assert at.offsets() == [4], "what came before is covered by the tip"


async def test_who_waits_for_a_topic_that_was_forgotten_is_told(at: Scene) -> None:
    position = at.follower.position(5, at.history.now)
    waiting = asyncio.create_task(at.follower.catch_up("a", 0, position))
    await at.settle()
    at.follower.forget("a")
    await at.pass_time(1)

    with pytest.raises(HistoryUnavailable):
        await waiting
    assert not at.follower.level("a", 0)
    assert not at.follower.goes_on("a", 0)
    with pytest.raises(HistoryUnavailable):
        at.follower["a"]
    at.follower.resuming("a", 1)
    at.follower.erased("a")
    at.follower.forget("a")


async def test_a_client_that_is_further_than_the_topic_waits_for_it(at: Scene) -> None:
    """Its replica of before was quicker."""
    at.publish()
    at.publish(lose=True)
    at.publish(lose=True)
    waiting = asyncio.create_task(
        at.follower.catch_up("a", 0, at.follower.position(2, at.history.now))
    )
    await at.pass_time(0.5, step=0.1)

    assert at.offsets() == [1, 2]
    assert await waiting == []
    assert at.follower.level("a", 2)


async def test_a_store_that_fails_is_not_asked_a_hundred_times_a_second(at: Scene) -> None:
    at.history.fail("after", *[HistoryUnavailable("unavailable", "x")] * 1000)
    at.publish(lose=True)
    waiting = asyncio.create_task(
        at.follower.catch_up("a", 0, at.follower.position(1, at.history.now))
    )
    await at.pass_time(5, step=0.01)
    waiting.cancel()

    assert at.history.count("after") <= 10


async def test_a_replay_reads_on_in_the_store_where_memory_has_moved_on(at: Scene) -> None:
    for _ in range(RETENTION.messages + 5):
        at.publish()
    position = at.follower.position(8, at.history.now)

    assert [m.offset for m in await at.follower.catch_up("a", 0, position)] == list(range(9, 16))
    assert at.history.count("after") == 0
    position = at.follower.position(15, at.history.now)
    assert await at.follower.catch_up("a", 0, position) == []
    at.follower["a"].log.erased()
    position = at.follower.position(8, at.history.now)
    assert [m.offset for m in await at.follower.catch_up("a", 0, position)] == list(range(9, 16))
    assert at.history.count("after") == 1


async def test_what_comes_while_a_replay_reads_that_there_is_nothing_is_not_passed_over(
    at: Scene,
) -> None:
    position = at.follower.position(0, at.history.now)
    for _ in range(3):
        at.publish("b")
    await at.follower.follow("c", RETENTION)  # its memory begins after all of those
    at.history.gate.clear()
    reading = asyncio.create_task(at.follower.catch_up("c", 0, position))
    await at.settle()
    at.publish("c")
    at.history.gate.set()

    assert [m.offset for m in await reading] == [4]
    assert at.history.count("after") == 1


async def test_a_client_so_slow_that_what_it_lacks_may_be_gone_joins_again(at: Scene) -> None:
    start = at.follower.position(0, at.history.now)
    for _ in range(RETENTION.messages + 5):
        at.publish()
    with pytest.raises(HistoryUnavailable):
        await at.follower.catch_up("a", 0, start)

    old = at.follower.position(14, at.history.now)
    await at.pass_time(RETENTION.seconds * 2, step=10)
    at.history.kept.clear()
    at.publish()
    with pytest.raises(HistoryUnavailable):
        await at.follower.catch_up("a", 0, old)


async def test_a_replay_ends_where_offsets_begin_anew(at: Scene) -> None:
    for _ in range(5):
        at.publish()
    generation = at.follower.generation("a")
    assert at.follower.goes_on("a", generation)
    at.history.begin_anew()
    at.history.now += 10
    await at.follower.tip()
    assert not at.follower.goes_on("a", generation)
    with pytest.raises(HistoryUnavailable):
        await at.follower.catch_up("a", generation, Position("e1", 3, 1.0))

    at.publish(lose=True)
    await at.pass_time(CHECK_SECONDS + 1)
    assert at.offsets()[-1] == 1, "what was asked of the epoch before does no harm"


async def test_a_topic_that_is_followed_no_more_leaves_no_timer_behind(at: Scene) -> None:
    def timers() -> int:
        return sum(head.after is not None for head in at.follower._wheel._slots.values())

    assert timers() == 1
    at.follower.forget("a")
    assert timers() == 0
    at.history.answered.clear()
    following = asyncio.create_task(at.follower.follow("b", RETENTION))
    await at.settle()
    at.follower.forget("b")  # before its first check was planned
    at.history.answered.set()
    await asyncio.wait((following,))
    await at.pass_time(10)

    assert timers() == 0


# What no store said


def forged(at: Scene, offset: int, *, previous: int = 0, ahead: float = 0.0) -> StreamPosition:
    return StreamPosition(offset, previous, at.history.now + ahead, "p.store.a")


@pytest.mark.parametrize(
    ("offset", "ahead"), [(10**12, 0.0), (2 + 10**7, 0.0), (2, 3600.0), (10**30, 0.0)]
)
async def test_a_copy_that_cannot_be_the_stores_is_refused_and_changes_nothing(
    at: Scene, offset: int, ahead: float
) -> None:
    await at.follower.follow("b", RETENTION)
    at.publish()
    assert at.follower.live("a", forged(at, offset, previous=1, ahead=ahead), b"forged")
    await at.pass_time(CHECK_SECONDS + 1)
    at.publish("b")
    at.publish()
    await at.settle()

    assert (at.offsets("a"), at.offsets("b")) == ([1, 3], [2])
    assert [topic for topic, _ in at.refused] == ["a"]
    assert (at.lost, at.follower.epochs) == ([], 1)


async def test_a_true_one_that_seems_impossible_is_found_in_the_store(at: Scene) -> None:
    """The store's clock was put forward."""
    at.history.now += 100
    at.publish()
    assert at.offsets() == []
    await at.pass_time(2)

    assert at.offsets() == [1]
    assert at.lost == []


async def test_many_that_cannot_be_the_stores_lead_to_no_more_than_a_check_a_second(
    at: Scene,
) -> None:
    await at.pass_time(5)
    before = at.history.count("last_offsets")
    for _ in range(10):
        for _ in range(100):
            at.follower.live("a", forged(at, 10**12), b"forged")
        await at.pass_time(1)

    assert at.history.count("last_offsets") - before <= 11
    assert len(at.refused) == 1000


@pytest.mark.parametrize("previous", [1, 0, 4], ids=["follows", "first", "after-none"])
async def test_a_number_that_the_store_never_gave_is_found_out_for_its_topic_alone(
    at: Scene, previous: int
) -> None:
    await at.follower.follow("b", RETENTION)
    at.publish()
    at.publish("b")
    at.follower.live("a", forged(at, 9, previous=previous), b"forged")
    await at.pass_time(CHECK_SECONDS + 1)
    at.publish("b")
    at.publish()
    await at.settle()

    assert [offset for offset in at.offsets("a") if offset != 9] == [1, 4]
    assert at.offsets("b") == [2, 3]
    assert set(at.lost) == {"a"}
    assert at.follower.epochs == 1


async def test_a_new_leader_that_lags_for_a_moment_disproves_nothing(at: Scene) -> None:
    """It does not know yet of what it has, and its copy does not either."""
    at.publish()
    await at.pass_time(CHECK_SECONDS + 1)
    at.publish()
    at.publish()
    kept = at.history.kept
    at.history.last, at.history.kept = 1, {1: kept[1]}
    at.history.listener()
    await at.pass_time(BELIEVED_SECONDS - 2)
    at.history.last, at.history.kept = 3, kept
    await at.pass_time(CHECK_SECONDS)

    assert (at.offsets(), at.lost, at.refused) == ([1, 2, 3], [], [])


async def test_a_leader_that_lags_for_long_is_no_harm_where_another_copy_knows_more(
    at: Scene,
) -> None:
    at.publish()
    await at.pass_time(CHECK_SECONDS + 1)
    at.publish()
    at.publish(lose=True)
    at.history.last = 1
    at.history.listener()
    await at.settle()
    assert at.offsets() == [1, 2, 3]
    await at.pass_time(3 * CHECK_SECONDS)

    assert (at.offsets(), at.lost, at.refused) == ([1, 2, 3], [], [])


async def test_an_end_that_goes_back_for_a_moment_is_a_new_leaders_that_lags(at: Scene) -> None:
    for _ in range(3):
        at.publish()
    await at.pass_time(CHECK_SECONDS + 1)
    before = at.follower.epochs
    at.history.last = 2
    asking = asyncio.create_task(at.follower.tip())
    await at.pass_time(BELIEVED_SECONDS - 2, step=0.1)
    assert not asking.done()
    at.history.last = 3
    await at.pass_time(1, step=0.1)

    assert (await asking).offset == 3
    assert (at.follower.epochs, at.lost) == (before, [])


# What the store let go of


async def test_who_is_away_from_a_store_that_is_purged_meanwhile_is_told(at: Scene) -> None:
    at.publish()
    await at.pass_time(5)
    for _ in range(3):
        at.publish(lose=True)
    at.history.kept = {}
    at.history.listener()
    await at.settle()

    assert (at.offsets(), at.lost) == ([1], ["a"])
    assert at.follower["a"].log.ring.since(1) is None, "no memory tells what came after the first"
    at.history.listener()
    await at.pass_time(CHECK_SECONDS)
    assert at.lost == ["a"], "once"


async def test_who_gets_the_rest_of_what_an_operator_took_away_is_told(at: Scene) -> None:
    at.publish()
    await at.pass_time(5)
    for _ in range(4):
        at.history.now += 1
        at.publish(lose=True)
    del at.history.kept[1], at.history.kept[2], at.history.kept[3]
    at.history.listener()
    await at.settle()

    assert (at.offsets(), at.lost) == ([1, 4, 5], ["a"])
    assert at.follower["a"].log.ring.since(1) is None


async def test_a_quiet_store_whose_messages_became_too_old_lacks_nothing(at: Scene) -> None:
    at.publish("b", lose=True)
    at.publish()
    at.publish("b", lose=True)
    await at.pass_time(5)
    at.history.kept = {}
    await at.pass_time(CHECK_SECONDS)
    at.publish("b", lose=True)
    at.history.listener()
    await at.settle()

    assert at.lost == []


async def test_what_was_missed_is_said_to_be(at: Scene) -> None:
    at.publish()
    at.publish(lose=True)
    at.publish()
    await at.settle()
    at.publish()

    assert at.offsets() == [1, 2, 3, 4]
    assert at.missed == [False, True, False]


async def test_the_end_is_asked_for_though_no_topic_is_due(at: Scene) -> None:
    at.follower.forget("a")
    before = at.history.count("tip")
    await at.pass_time(10 * TIP_SECONDS)

    assert at.history.count("tip") - before == pytest.approx(10, abs=1)
