"""What every history promises, whichever it is."""

import asyncio
import random

import pytest

from gateway.errors import BusUnavailable, EnvelopeTooLarge, HistoryUnavailable
from gateway.history.position import CLOCK_SECONDS
from tests.contract.histories import RETENTION, SUBJECTS, Live, MakeReplica, Replica
from tests.support.waiting import eventually


@pytest.fixture
async def here(make_replica: MakeReplica) -> Replica:
    return await started(make_replica)


@pytest.fixture
async def there(make_replica: MakeReplica) -> Replica:
    return await started(make_replica)


async def started(make_replica: MakeReplica) -> Replica:
    replica = make_replica()
    await replica.start()
    await replica.until_ready()
    return replica


async def test_offsets_count_the_messages_of_all_topics(here: Replica, there: Replica) -> None:
    assert (await here.history.tip()).offset == 0
    offsets = [
        (await replica.history.append(topic, b"x")).offset
        for replica, topic in ((here, "a"), (there, "b"), (here, "b"), (there, "a"))
    ]
    assert offsets == [1, 2, 3, 4]
    tip = await here.history.tip()
    assert (tip.offset, tip.first) == (4, 1)


async def test_a_message_is_delivered_with_its_place(here: Replica, there: Replica) -> None:
    ours, theirs = await here.hear("a"), await there.hear("a")
    other = await here.hear("b")
    for topic, body in (("a", b"1"), ("b", b"2"), ("a", b"3")):
        await here.history.append(topic, body)
    for live in (ours, theirs):
        await live.until(2)
        assert live.bodies == [b"1", b"3"]
        assert [(place.offset, place.previous) for place in live.positions] == [(1, 0), (3, 1)]
    await other.until(1)
    assert other.offsets == [2]


async def test_what_is_delivered_is_stored_already(here: Replica, there: Replica) -> None:
    live = await there.hear("a")
    for number in range(50):
        await here.history.append("a", b"%d" % number)
        await live.until(number + 1)
        place = live.positions[-1]
        [stored] = await there.history.after("a", place.offset - 1, limit=9, upto=place.offset)
        assert (stored.offset, stored.body) == (place.offset, b"%d" % number)
        assert stored.time == place.time
        assert await here.history.time_at(place.offset) == place.time


async def test_what_is_published_past_the_history_has_no_place(here: Replica) -> None:
    live = await here.hear("a")
    here.bus.publish(SUBJECTS.topic("a"), b"x")
    await live.until(1)
    assert live.messages == [(b"x", None)]
    assert await here.bodies("a") == []


async def test_the_first_message_of_an_id_wins(here: Replica, there: Replica) -> None:
    live = await here.hear("a")
    first = await here.history.append("a", b"1", id="same")
    second = await here.history.append("a", b"2")
    repeat = await there.history.append("a", b"3", id="same")
    assert (first.duplicate, second.duplicate, repeat.duplicate) == (False, False, True)
    assert repeat.offset == first.offset
    assert repeat.time == first.time
    stored_at = await here.history.time_at(first.offset)
    assert stored_at is not None
    assert abs(stored_at - first.time) < CLOCK_SECONDS
    await there.history.append("a", b"4", id="other")
    await live.until(3)
    assert live.bodies == await here.bodies("a") == [b"1", b"2", b"4"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "i"), ("b", "i")),
        (("a:b", "i"), ("a", "i")),
        (("a", "bi"), ("ab", "i")),
        (("a", ":i"), ("a:", "i")),
        (("\udce9", "i"), ("é", "i")),
        (("a", "i"), ("a", "I")),
    ],
)
async def test_an_id_counts_within_its_topic(
    here: Replica, one: tuple[str, str], other: tuple[str, str]
) -> None:
    receipts = [
        await here.history.append(topic, b"x", id=name) for topic, name in (one, other, one)
    ]
    assert [receipt.offset for receipt in receipts] == [1, 2, 1]
    assert [receipt.duplicate for receipt in receipts] == [False, False, True]


async def test_many_with_one_id_at_a_time_are_one_message(here: Replica, there: Replica) -> None:
    live = await here.hear("a")
    receipts = await asyncio.gather(
        *(
            replica.history.append("a", b"%d" % number, id="same")
            for number in range(20)
            for replica in (here, there)
        )
    )
    assert {receipt.offset for receipt in receipts} == {1}
    assert [receipt.duplicate for receipt in receipts].count(False) == 1
    await here.history.append("a", b"last")
    await live.until(2)
    assert live.offsets == [1, 2]


async def test_messages_after_an_offset_are_read_in_order(here: Replica) -> None:
    for number in range(1, 6):
        await here.history.append("a", b"%d" % number)
        await here.history.append("b", b"-")  # so that a's offsets are 1, 3, 5, 7, 9

    async def read(offset: int, limit: int = 100, upto: int | None = None) -> list[int]:
        kept = await here.history.after("a", offset, limit=limit, upto=upto)
        assert all(stored.body == b"%d" % (stored.offset // 2 + 1) for stored in kept)
        return [stored.offset for stored in kept]

    assert await read(0) == [1, 3, 5, 7, 9]
    assert await read(3) == [5, 7, 9]
    assert await read(4) == [5, 7, 9]
    assert await read(9) == await read(50) == []
    assert await read(0, limit=2) == [1, 3]
    assert await read(0, limit=0) == []
    assert await read(0, upto=4) == await read(0, upto=3) == [1, 3]
    assert await read(3, upto=3) == await read(5, upto=3) == []
    assert await read(0, limit=2, upto=9) == [1, 3]
    assert await here.history.after("none", 0, limit=9, upto=9) == []


async def test_the_newest_messages_are_read_in_order(here: Replica) -> None:
    assert await here.history.newest("a", 3) == []
    for number in range(5):
        await here.history.append("a", b"%d" % number)
        await here.history.append("b", b"-")
    for count, expected in ((0, []), (1, [9]), (3, [5, 7, 9]), (5, [1, 3, 5, 7, 9])):
        assert [stored.offset for stored in await here.history.newest("a", count)] == expected
    assert len(await here.history.newest("a", 100)) == 5


async def test_times_grow_with_offsets_and_a_receipt_is_never_early(here: Replica) -> None:
    before = (await here.history.tip()).time
    receipts = [await here.history.append("a", b"x") for _ in range(5)]
    times = [await here.history.time_at(receipt.offset) for receipt in receipts]
    known = [time for time in times if time is not None]
    assert len(known) == 5
    assert known == sorted(known)
    for stored_at, receipt in zip(known, receipts, strict=True):
        assert before <= stored_at <= receipt.time

    async def passed() -> bool:
        return (await here.history.tip()).time > receipts[-1].time

    await eventually(passed)


async def test_where_no_message_is_there_is_no_time(here: Replica) -> None:
    await here.history.append("a", b"x")
    for offset in (-1, 0, 2, 10**15):
        assert await here.history.time_at(offset) is None


async def test_a_topic_keeps_its_limit_and_little_more(here: Replica) -> None:
    for number in range(20):
        await here.history.append("a", b"%d" % number)
    await here.history.append("b", b"x")
    kept = await here.bodies("a")
    assert RETENTION.messages <= len(kept) <= RETENTION.messages + 1
    assert kept == [b"%d" % number for number in range(20 - len(kept), 20)]
    assert await here.bodies("b") == [b"x"]
    assert (await here.history.tip()).first == 20 - len(kept) + 1


async def test_the_last_offsets_of_many_topics_are_known(here: Replica) -> None:
    topics = [f"t:{number}" for number in range(2500)]
    written = topics[::2]
    await asyncio.gather(*(here.history.append(topic, bytes(2000)) for topic in written))
    last = await here.history.append(topics[0], b"again")
    found = await here.history.last_offsets(topics)
    assert found.keys() == set(written)
    assert len(set(found.values())) == len(written)
    assert found[topics[0]] == last.offset
    assert await here.history.last_offsets(["none"]) == await here.history.last_offsets([]) == {}


async def test_an_erased_topic_is_empty_and_goes_on(here: Replica, there: Replica) -> None:
    live = await here.hear("a")
    for topic in ("a", "b", "a"):
        await here.history.append(topic, b"x")
    assert await there.history.erase("a") == 2
    assert await there.history.erase("a") == 0
    assert await here.bodies("a") == []
    assert await here.bodies("b") == [b"x"]
    assert await here.history.last_offsets(["a", "b"]) == {"b": 2}
    assert await here.history.time_at(1) is None
    assert (await here.history.append("a", b"y")).offset == 4
    await live.until(3)
    assert [(place.offset, place.previous) for place in live.positions] == [(1, 0), (3, 1), (4, 0)]


async def test_all_count_in_one_epoch(here: Replica, there: Replica) -> None:
    assert here.history.epoch
    await here.history.append("a", b"x")
    tips = [await replica.history.tip() for replica in (here, there)]
    assert {tip.epoch for tip in tips} == {here.history.epoch} == {there.history.epoch}


async def test_concurrent_appends_have_one_order_for_all(here: Replica, there: Replica) -> None:
    lives = [await replica.hear(topic) for topic in "ab" for replica in (here, there)]

    async def append(replica: Replica, name: bytes) -> None:
        for number in range(100):
            await replica.history.append(random.choice("ab"), name + b"%d" % number)

    await asyncio.gather(
        *(append(replica, name) for replica, name in ((here, b"h"), (there, b"t"), (here, b"i")))
    )
    await eventually(lambda: sum(len(live.messages) for live in lives) == 600)
    for live in lives:
        assert live.offsets == sorted(live.offsets)
        live.check_chain()
    assert lives[0].messages == lives[1].messages
    assert lives[2].messages == lives[3].messages
    for topic, live in (("a", lives[0]), ("b", lives[2])):
        kept = await here.history.after(topic, 0, limit=1000)
        assert live.bodies[-len(kept) :] == [stored.body for stored in kept]


async def test_no_tip_is_older_than_what_its_asker_knows(here: Replica, there: Replica) -> None:
    async def append_and_ask(replica: Replica, topic: str) -> None:
        for _ in range(20):
            receipt = await replica.history.append(topic, b"x")
            assert (await replica.history.tip()).offset >= receipt.offset

    replicas = (here, there, here, there, here)
    await asyncio.gather(
        *(append_and_ask(replica, f"t:{number}") for number, replica in enumerate(replicas * 4))
    )


async def test_one_who_gives_up_asking_leaves_the_others_waiting(here: Replica) -> None:
    tasks = [asyncio.create_task(here.history.tip()) for _ in range(10)]
    for turn, task in enumerate(tasks):
        if turn % 2:
            await asyncio.sleep(0)
            task.cancel()
    assert [(await task).offset for task in tasks[::2]] == [0] * 5


@pytest.mark.parametrize("topic", ["room:zoé", "a b:\r\nPUB x 0\r\n", "", "*:>", "a.b", "𝄞:%", "R"])
async def test_any_topic_can_have_a_history(here: Replica, topic: str) -> None:
    live = await here.hear(topic)
    body = bytes(range(256))
    await here.history.append("r", b"other")
    receipt = await here.history.append(topic, body, id=f"{topic}\r\nNats-Sequence: 9\r\n")
    await live.until(1)
    assert live.bodies == await here.bodies(topic) == [body]
    assert live.offsets == [receipt.offset]
    assert await here.history.last_offsets([topic]) == {topic: receipt.offset}
    assert await here.history.erase(topic) == 1


async def test_a_body_above_the_limit_is_refused_and_the_next_is_not(here: Replica) -> None:
    limit = here.bus.max_envelope_bytes
    live = await here.hear("a")
    with pytest.raises(EnvelopeTooLarge):
        await here.history.append("a", bytes(limit + 1))
    assert (await here.history.append("a", bytes(limit))).offset == 1
    await live.until(1)
    assert live.bodies == await here.bodies("a") == [bytes(limit)]
    assert here.bus.connected


async def test_nothing_is_stored_before_the_start_or_after_the_end(
    make_replica: MakeReplica, there: Replica
) -> None:
    replica = make_replica()

    async def nothing_works() -> None:
        assert replica.history.problem == "unavailable"
        for attempt in (
            replica.history.append("a", b"x"),
            replica.history.after("a", 0, limit=1),
            replica.history.newest("a", 1),
            replica.history.tip(),
            replica.history.time_at(1),
            replica.history.last_offsets(["a"]),
            replica.history.erase("a"),
        ):
            with pytest.raises(HistoryUnavailable) as caught:
                await attempt
            assert caught.value.reason == "unavailable"
            assert isinstance(caught.value, BusUnavailable)

    await nothing_works()
    await replica.start()
    await replica.until_ready()
    await replica.until_told(1)
    await replica.history.append("a", b"1")
    await replica.close()
    await replica.close()
    await nothing_works()
    assert await there.bodies("a") == [b"1"]


async def test_a_listener_that_raises_harms_nobody(make_replica: MakeReplica) -> None:
    replica = make_replica()
    later: list[bool] = []

    def broken() -> None:
        raise RuntimeError

    replica.history.listen(broken)
    replica.history.listen(lambda: later.append(True))
    await replica.start()
    await replica.until_ready()
    await eventually(lambda: later == [True])
    assert (await replica.history.append("a", b"x")).offset == 1


async def test_a_handler_may_append(here: Replica) -> None:
    live = Live()
    tasks: list[asyncio.Task[object]] = []

    def answer(body: bytes, _position: object) -> None:
        if body == b"question":
            tasks.append(asyncio.create_task(here.history.append("a", b"answer")))

    await here.bus.subscribe(SUBJECTS.topic("a"), answer)
    await here.bus.subscribe(SUBJECTS.topic("a"), live.take)
    await here.history.append("a", b"question")
    await live.until(2)
    assert live.bodies == [b"question", b"answer"]
    await asyncio.gather(*tasks)
