"""What every bus promises, whichever it is."""

import asyncio

import pytest

from gateway.bus.subjects import Subjects
from gateway.errors import BusUnavailable, EnvelopeTooLarge, NothingKept
from tests.contract.clients import Client, MakeClient, bodies
from tests.support.waiting import eventually


@pytest.fixture
async def here(make_client: MakeClient) -> Client:
    return await started(make_client)


@pytest.fixture
async def there(make_client: MakeClient) -> Client:
    return await started(make_client)


async def started(make_client: MakeClient) -> Client:
    client = make_client()
    await client.bus.start()
    await client.until(up=True)
    return client


async def test_a_message_reaches_all_subscribers_the_publisher_among_them(
    here: Client, there: Client
) -> None:
    heard: list[tuple[str, bytes]] = []
    await here.bus.subscribe("t.a", bodies(lambda body: heard.append(("here", body))))
    await there.bus.subscribe("t.a", bodies(lambda body: heard.append(("there", body))))
    await there.bus.subscribe("t.b", bodies(lambda body: heard.append(("elsewhere", body))))
    here.bus.publish("t.a", b"x")
    await eventually(lambda: len(heard) == 2)
    here.bus.publish("t.b", b"y")
    await eventually(lambda: len(heard) == 3)
    assert sorted(heard) == [("elsewhere", b"y"), ("here", b"x"), ("there", b"x")]


async def test_a_subscription_that_waits_for_nobody_is_none_or_one_like_any_other(
    here: Client, there: Client
) -> None:
    heard: list[bytes] = []
    at_once = here.bus.subscribe_now("t", bodies(heard.append))
    subscription = at_once or await here.bus.subscribe("t", bodies(heard.append))
    there.bus.publish("t", b"1")
    await eventually(lambda: heard == [b"1"])
    assert not there.bus.deserted("t"), "it may be unknown, but is not untrue"
    assert there.bus.deserted("other") is (at_once is not None)
    subscription.close()


async def test_two_subscriptions_to_one_subject_each_get_a_message(here: Client) -> None:
    first: list[bytes] = []
    second: list[bytes] = []
    subscription = await here.bus.subscribe("t", bodies(first.append))
    await here.bus.subscribe("t", bodies(second.append))
    here.bus.publish("t", b"1")
    await eventually(lambda: first == second == [b"1"])
    subscription.close()
    here.bus.publish("t", b"2")
    await eventually(lambda: second == [b"1", b"2"])
    assert first == [b"1"]


async def test_one_publishers_messages_arrive_in_their_order(here: Client, there: Client) -> None:
    heard: list[bytes] = []
    await here.bus.subscribe("t", bodies(heard.append))

    async def publish(client: Client, name: bytes) -> None:
        for number in range(300):
            client.bus.publish("t", name + b"%d" % number)
            if number % 7 == 0:
                await asyncio.sleep(0)

    await asyncio.gather(publish(here, b"h"), publish(there, b"t"))
    await eventually(lambda: len(heard) == 600)
    for name in (b"h", b"t"):
        expected = [name + b"%d" % number for number in range(300)]
        assert [body for body in heard if body.startswith(name)] == expected


async def test_what_is_published_right_after_a_subscribe_is_never_lost(
    here: Client, there: Client
) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    for number in range(200):
        # the publisher keeps its own connection busy, so that nothing is on time by chance
        here.bus.publish("noise", bytes(50_000))
        subscription = await here.bus.subscribe(f"t.{number}", bodies(heard.put_nowait))
        there.bus.publish(f"t.{number}", b"%d" % number)
        async with asyncio.timeout(30):
            assert await heard.get() == b"%d" % number
        subscription.close()


async def test_concurrent_subscribers_are_all_confirmed(here: Client, there: Client) -> None:
    heard: list[bytes] = []

    async def subscribe_and_publish(number: int) -> None:
        await here.bus.subscribe(f"t.{number}", bodies(heard.append))
        there.bus.publish(f"t.{number}", b"%d" % number)

    await asyncio.gather(*(subscribe_and_publish(number) for number in range(200)))
    await eventually(lambda: len(heard) == 200)


async def test_nothing_is_delivered_after_a_close(here: Client, there: Client) -> None:
    closed: list[bytes] = []
    open_: list[bytes] = []
    subscription = await here.bus.subscribe("t", bodies(closed.append))
    await here.bus.subscribe("t", bodies(open_.append))
    there.bus.publish("t", b"under way")
    subscription.close()
    subscription.close()
    there.bus.publish("t", b"last")
    await eventually(lambda: open_ == [b"under way", b"last"])
    assert closed == []


async def test_a_handler_may_close_its_subscription(here: Client) -> None:
    heard: list[bytes] = []
    others: list[bytes] = []

    def once(body: bytes) -> None:
        heard.append(body)
        subscription.close()

    subscription = await here.bus.subscribe("t", bodies(once))
    await here.bus.subscribe("t", bodies(others.append))
    here.bus.publish("t", b"1")
    here.bus.publish("t", b"2")
    await eventually(lambda: len(others) == 2)
    assert heard == [b"1"]


async def test_a_subject_can_be_left_and_taken_again_back_to_back(
    here: Client, there: Client
) -> None:
    """The server may learn of both at once; the new subscription must not fall to the old end."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    for number in range(100):
        subscription = await here.bus.subscribe("t", bodies(heard.put_nowait))
        there.bus.publish("t", b"%d" % number)
        async with asyncio.timeout(30):
            assert await heard.get() == b"%d" % number
        subscription.close()
    assert heard.empty()


@pytest.mark.parametrize(
    "topic", ["room:zoé", "a b:\r\nPUB x 0\r\n", "", "*:>", "a.b", "𝄞:%", "R", "r"]
)
async def test_any_topic_has_a_subject_of_its_own(here: Client, there: Client, topic: str) -> None:
    subjects = Subjects("g")
    heard: list[bytes] = []
    others: list[bytes] = []
    await here.bus.subscribe(subjects.topic(topic), bodies(heard.append))
    await here.bus.subscribe(subjects.topic("other"), bodies(others.append))
    there.bus.publish(subjects.topic("other"), b"o")
    there.bus.publish(subjects.topic(topic), b"x")
    await eventually(lambda: heard == [b"x"])
    assert others == [b"o"]


@pytest.mark.parametrize("subject", ["", "a..b", "a.*", ">", "a b", "a\r\nPUB b 0\r\n"])
async def test_what_is_no_subject_is_a_mistake(here: Client, subject: str) -> None:
    with pytest.raises(ValueError, match="not a subject"):
        await here.bus.subscribe(subject, print)
    with pytest.raises(ValueError, match="not a subject"):
        here.bus.publish(subject, b"")


@pytest.mark.parametrize("body", [b"", b"\r\n", b"PING\r\n", bytes(range(256)) * 40])
async def test_any_bytes_arrive_as_they_are(here: Client, there: Client, body: bytes) -> None:
    heard: list[bytes] = []
    await here.bus.subscribe("t", bodies(heard.append))
    there.bus.publish("t", body)
    await eventually(lambda: heard == [body])


async def test_a_body_above_the_limit_is_refused_and_the_bus_still_works(
    here: Client, there: Client
) -> None:
    heard: list[int] = []
    await there.bus.subscribe("t", bodies(lambda body: heard.append(len(body))))
    limit = here.bus.max_envelope_bytes
    with pytest.raises(EnvelopeTooLarge) as caught:
        here.bus.publish("t", bytes(limit + 1))
    assert (caught.value.size, caught.value.limit) == (limit + 1, limit)
    here.bus.publish("t", bytes(limit))
    await eventually(lambda: heard == [limit])
    assert here.told == [True]


async def test_a_handler_that_raises_harms_nobody(here: Client) -> None:
    heard: list[bytes] = []

    def broken(body: bytes) -> None:
        raise RuntimeError(body.decode())

    await here.bus.subscribe("t", bodies(broken))
    await here.bus.subscribe("t", bodies(heard.append))
    for number in range(3):
        here.bus.publish("t", b"%d" % number)
    await eventually(lambda: len(heard) == 3)
    assert here.counters.lost == 3
    assert here.bus.connected


async def test_a_listener_that_raises_harms_nobody(make_client: MakeClient) -> None:
    client = make_client()
    told: list[bool] = []

    def broken(_up: bool) -> None:
        raise RuntimeError

    client.bus.listen(broken)
    client.bus.listen(told.append)
    await client.bus.start()
    await eventually(lambda: told == [True])


async def test_what_was_taken_is_delivered_when_the_publisher_closes(
    here: Client, there: Client
) -> None:
    heard: list[bytes] = []
    await there.bus.subscribe("t", bodies(heard.append))
    for number in range(500):
        here.bus.publish("t", b"%d" % number + bytes(1000))
    await here.bus.close()
    await eventually(lambda: len(heard) == 500)


async def test_nothing_is_taken_before_the_start(make_client: MakeClient) -> None:
    client = make_client()
    assert not client.bus.connected
    with pytest.raises(BusUnavailable):
        client.bus.publish("t", b"")
    with pytest.raises(BusUnavailable):
        await client.bus.subscribe("t", print)
    assert client.told == []


async def test_nothing_is_taken_or_delivered_after_the_end(here: Client, there: Client) -> None:
    heard: list[bytes] = []
    other: list[bytes] = []
    await here.bus.subscribe("t", bodies(heard.append))
    await there.bus.subscribe("t", bodies(other.append))
    await here.bus.close()
    await here.bus.close()
    assert not here.bus.connected
    assert not here.counters.up
    assert here.told == [True, False]
    with pytest.raises(BusUnavailable):
        here.bus.publish("t", b"")
    with pytest.raises(BusUnavailable):
        await here.bus.subscribe("t", print)
    there.bus.publish("t", b"x")
    await eventually(lambda: other == [b"x"])
    assert heard == []


async def test_a_bus_can_be_closed_without_a_start(make_client: MakeClient) -> None:
    client = make_client()
    await client.bus.close()
    await client.bus.start()
    assert not client.bus.connected


async def test_a_cancelled_subscribe_leaves_no_subscription(here: Client, there: Client) -> None:
    heard: list[bytes] = []
    kept: list[bytes] = []
    tasks = [asyncio.create_task(here.bus.subscribe("t", bodies(heard.append))) for _ in range(20)]
    keeper = asyncio.create_task(here.bus.subscribe("t", bodies(kept.append)))
    for turns, task in enumerate(tasks):
        if turns % 5 == 4:
            await asyncio.sleep(0)
        task.cancel()
    finished = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in finished:
        if not isinstance(outcome, BaseException):
            outcome.close()  # it was quicker than the cancelling
    await keeper
    there.bus.publish("t", b"x")
    await eventually(lambda: kept == [b"x"])
    assert heard == []


async def test_a_publisher_learns_that_nobody_is_subscribed(here: Client, there: Client) -> None:
    heard: list[bytes] = []
    await there.bus.subscribe("t.there", bodies(heard.append))
    await here.bus.subscribe("t.here", bodies(heard.append))
    new_future = asyncio.get_running_loop().create_future
    told = {subject: new_future() for subject in ("t.there", "t.here", "t.nowhere")}
    for subject in ("t.there", "t.here", "t.nowhere", "t.nowhere"):
        here.bus.publish(subject, b"x", no_responders=told[subject])

    await eventually(lambda: told["t.nowhere"].done() and len(heard) == 2)
    assert [subject for subject, future in told.items() if future.done()] == ["t.nowhere"]


async def test_after_a_flush_a_publisher_knows_which_messages_met_nobody(
    here: Client, there: Client
) -> None:
    await there.bus.subscribe("t.there", bodies(lambda _: None))
    new_future = asyncio.get_running_loop().create_future
    told = {f"t.{n}": new_future() for n in range(50)} | {"t.there": new_future()}
    for subject, future in told.items():
        here.bus.publish(subject, b"x", no_responders=future)
    await asyncio.gather(here.bus.flush(), here.bus.flush())

    assert [subject for subject, future in told.items() if not future.done()] == ["t.there"]
    await here.bus.close()
    with pytest.raises(BusUnavailable):
        await here.bus.flush()


async def test_a_publisher_learns_it_again_once_the_subscriber_has_left(
    here: Client, there: Client
) -> None:
    heard: list[bytes] = []
    early, late = (asyncio.get_running_loop().create_future() for _ in range(2))
    subscription = await there.bus.subscribe("t.a", bodies(heard.append))
    here.bus.publish("t.a", b"x", no_responders=early)
    await eventually(lambda: heard == [b"x"])
    subscription.close()

    async def told() -> bool:
        here.bus.publish("t.a", b"x", no_responders=late)
        return late.done()

    await eventually(told)
    assert not early.done()


async def test_values_are_kept_for_all_or_it_is_said_that_none_are(
    here: Client, there: Client
) -> None:
    try:
        await here.bus.put("kept", "a", b"1", keep_seconds=60)
    except NothingKept:
        with pytest.raises(NothingKept):
            await here.bus.get("kept", "a")
        with pytest.raises(NothingKept):
            await there.bus.entries("kept")
        return
    await here.bus.put("kept", "b", b"2", keep_seconds=60)
    await there.bus.put("kept", "a", b"3", keep_seconds=60)
    assert await there.bus.entries("kept") == {"a": b"3", "b": b"2"}
    assert await here.bus.get("kept", "a") == b"3"
    assert await here.bus.entries("never_made") == {}
    assert await here.bus.get("never_made", "a") is None
