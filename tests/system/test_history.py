"""Nothing missed: history, resume and idempotent publish, on the memory bus and on a real nats-server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.conftest import StartGateway, StartNats
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.waiting import eventually

ROOM = "room:1"
BUSY = "busy:1"
"""Keeps so much that no stall of a machine makes what was missed too much."""
CHANNELS = [
    {
        "pattern": "room:*",
        "push": "broadcast",
        "history": {"messages": 10, "seconds": 300},
        "presence": True,
    },
    {"pattern": "busy:*", "history": {"messages": 10_000, "seconds": 300}},
    {"pattern": "short:*", "history": {"messages": 5, "seconds": 2}},
    {"pattern": "plain:*", "push": "broadcast"},
    {"pattern": "user:{sub}", "history": {"messages": 10, "seconds": 60}},
]

Connect = Callable[..., Awaitable[PhoenixClient]]


@pytest.fixture(params=["memory", "nats"])
def gateway(
    request: pytest.FixtureRequest, start_gateway: StartGateway, start_nats: StartNats
) -> GatewayProcess:
    """A gateway that keeps history, of each kind."""
    url = "memory://" if request.param == "memory" else start_nats().url
    return start_gateway({"channels": CHANNELS, "bus": {"url": url}})


@pytest.fixture
async def backend(gateway: GatewayProcess) -> AsyncIterator[Backend]:
    """A service that publishes."""
    async with Backend(gateway) as backend:
        yield backend


@pytest.fixture
async def connect(gateway: GatewayProcess) -> AsyncIterator[Connect]:
    """Opens sockets; closes them after the test."""
    clients: list[PhoenixClient] = []

    async def opened(user: str = "42", **options: Any) -> PhoenixClient:
        clients.append(await PhoenixClient.connect(gateway.socket_url, token(user), **options))
        return clients[-1]

    yield opened
    await asyncio.gather(*(client.close() for client in clients))


async def publish(backend: Backend, *numbers: int, topic: str = ROOM) -> list[str]:
    """Publish numbers; returns the positions."""
    positions = []
    for number in numbers:
        body = {"topic": topic, "event": "n", "payload": {"n": number}}
        status, answer = await backend.post("/v1/publish", body)
        assert status == 202, answer
        positions.append(answer["results"][0]["position"])
    return positions


def heard(client: PhoenixClient, topic: str = ROOM) -> list[int]:
    """Numbers that came, in order."""
    return [payload["n"] for payload in client.events(topic, "n")]


def position_of(client: PhoenixClient, number: int) -> str:
    """The position a number came with."""
    [frame] = [
        f for f in client.inbox if isinstance(f, list) and f[3] == "n" and f[4]["n"] == number
    ]
    position: str = frame[1]
    return position


async def resume(client: PhoenixClient, value: Any, topic: str = ROOM) -> dict[str, Any]:
    """Join with ``resume``; returns the response of the ok reply."""
    reply = await client.join(topic, {"resume": value})
    assert reply[4]["status"] == "ok", reply
    response: dict[str, Any] = reply[4]["response"]
    return response


async def until(client: PhoenixClient, numbers: list[int], topic: str = ROOM) -> None:
    """Wait for the last of these, then nothing else may have come before it."""
    await client.expect(lambda f: f[2] == topic and f[3] == "n" and f[4]["n"] == numbers[-1])
    assert heard(client, topic) == numbers


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
async def test_who_comes_back_gets_what_was_missed_then_what_comes(
    backend: Backend, connect: Connect, vsn: str
) -> None:
    first = await connect(vsn=vsn)
    answer = await resume(first, None)
    assert (answer["recovered"], answer["reason"]) == (None, None)
    assert answer["position"].startswith("@")
    await publish(backend, 1, 2)
    await until(first, [1, 2])
    frames = [f for f in first.inbox if isinstance(f, list) and f[3] == "n"]
    assert all(f[0] is None and f[1].startswith("@") for f in frames)
    last = position_of(first, 2)
    await first.close()
    await publish(backend, 3, 4, 5)

    second = await connect(vsn=vsn)
    answer = await resume(second, last)
    assert answer == {"recovered": True, "reason": None, "position": last}
    await until(second, [3, 4, 5])
    await publish(backend, 6)
    await until(second, [3, 4, 5, 6])
    third = await connect(vsn=vsn)
    assert (await resume(third, position_of(second, 5)))["recovered"] is True
    await until(third, [6])


async def test_who_did_not_ask_gets_the_plain_form(backend: Backend, connect: Connect) -> None:
    plain, placed = await connect(), await connect("43")
    reply = await plain.join(ROOM)
    assert reply[4]["response"] == {}
    await resume(placed, None)
    [position] = await publish(backend, 1)
    for client in (plain, placed):
        await until(client, [1])
    frames = [await c.expect(lambda f: f[3] == "n") for c in (plain, placed)]
    assert frames[0][:4] == [None, None, ROOM, "n"]
    assert frames[1][:4] == [None, frames[1][1], ROOM, "n"]
    assert frames[1][1].split(".")[:2] == position.split(".")[:2], "epoch and offset"


async def test_a_published_position_can_be_resumed_from(backend: Backend, connect: Connect) -> None:
    """Snapshot, then subscribe: the page was rendered when number 2 was published."""
    positions = await publish(backend, 1, 2, 3)
    client = await connect()
    assert await resume(client, positions[1]) == {
        "recovered": True,
        "reason": None,
        "position": positions[1],
    }
    await until(client, [3])


@pytest.mark.parametrize(
    ("count", "numbers"), [(1, [12]), (3, [10, 11, 12]), (10, list(range(3, 13)))]
)
async def test_the_newest_messages(
    backend: Backend, connect: Connect, count: int, numbers: list[int]
) -> None:
    await publish(backend, *range(1, 13))
    client = await connect()
    answer = await resume(client, {"last": count})
    assert (answer["recovered"], answer["reason"]) == (None, None)
    await until(client, numbers)
    again = await connect("43")
    assert (await resume(again, answer["position"]))["recovered"] is True
    await until(again, numbers)


async def test_too_many_too_old_and_foreign_positions_are_said(
    backend: Backend, connect: Connect
) -> None:
    [first, *_, last] = await publish(backend, *range(12))
    client = await connect()
    answer = await resume(client, first)
    assert (answer["recovered"], answer["reason"]) == (False, "too_many")
    await client.leave(ROOM)
    assert (await resume(client, last))["recovered"] is True
    await client.leave(ROOM)
    epoch, offset, time = last.split(".")
    for foreign in (f"@other.{offset}.{time}", f"{epoch}.ffffff.{time}"):
        answer = await resume(client, foreign)
        assert (answer["recovered"], answer["reason"]) == (False, "epoch_changed")
        assert answer["position"].startswith(epoch)
        await client.leave(ROOM)
    old = f"{epoch}.{offset}.{int(time, 16) - 301_000:x}"
    answer = await resume(client, old)
    assert (answer["recovered"], answer["reason"]) == (False, "expired")
    assert heard(client) == [], "nothing is replayed"


async def test_on_a_topic_without_history_it_is_said(connect: Connect, backend: Backend) -> None:
    client = await connect()
    answer = await resume(client, None, "plain:1")
    assert (answer["recovered"], answer["reason"]) == (None, "no_history")
    await client.leave("plain:1")
    answer = await resume(client, answer["position"], "plain:1")
    assert (answer["recovered"], answer["reason"]) == (False, "no_history")
    body = {"topic": "plain:1", "event": "n", "payload": {"n": 1}}
    answer = (await backend.post("/v1/publish", body))[1]
    assert answer["results"] == [{"topic": "plain:1", "position": None}]


async def test_a_malformed_resume_refuses_the_join_and_the_socket_lives(connect: Connect) -> None:
    client = await connect()
    values: tuple[Any, ...] = (
        "", "@", "x", "@a.b", "@a.1.1.1", "@a.-1.0", "@a.01.0", "@a.1.zz", "@" + "a" * 100, 7, 1.5,
        True, [], {}, {"last": 0}, {"last": -1}, {"last": 11}, {"last": 10**9}, {"last": "1"},
        {"last": 1.5}, {"last": True}, {"last": 1, "more": 1}, {"first": 1},
    )  # fmt: skip
    for bad in values:
        reply = await client.join(ROOM, {"resume": bad})
        assert reply[4] == {"status": "error", "response": {"reason": "invalid resume"}}, bad
    assert (await resume(client, None))["recovered"] is None


async def test_an_id_is_stored_and_delivered_once_for_each_topic(
    backend: Backend, connect: Connect
) -> None:
    client = await connect()
    for topic in (ROOM, "room:2"):
        await resume(client, None, topic)
    body = {"topics": [ROOM, "room:2"], "event": "n", "payload": {"n": 1}, "id": "order-1"}
    first = await backend.post("/v1/publish", body)
    again = await backend.post("/v1/publish", body | {"payload": {"n": 2}})
    await publish(backend, 3)
    await publish(backend, 3, topic="room:2")

    assert first[0] == again[0] == 202
    assert "duplicate" not in first[1]["results"][0]
    for before, after in zip(first[1]["results"], again[1]["results"], strict=True):
        assert after["duplicate"] is True
        # the time in it is an estimate of the server's
        assert after["position"].split(".")[:2] == before["position"].split(".")[:2]
    for topic in (ROOM, "room:2"):
        await until(client, [1, 3], topic)


async def test_a_clients_push_is_stored_and_a_binary_one_refused(
    backend: Backend, connect: Connect
) -> None:
    client = await connect()
    await resume(client, None)
    assert (await client.ask(ROOM, "n", {"n": 1}))[4]["status"] == "ok"
    await until(client, [1])
    topic, event = ROOM.encode(), b"blob"
    head = bytes((0, 1, 2, len(topic), len(event)))
    await client.send(head + b"1" + b"99" + topic + event + b"\x01")
    refused = await client.reply("99")
    assert refused[4] == {"status": "error", "response": {"reason": "push not allowed"}}
    late = await connect("43")
    await resume(late, {"last": 5})
    await until(late, [1])
    await backend.get("/v1/replicas")


async def test_filters_hold_on_replay(backend: Backend, connect: Connect) -> None:
    phone = await connect(params={"device_id": "phone", "device_type": "phone"})
    start = (await resume(phone, None))["position"]
    body = {"topic": ROOM, "event": "n", "payload": {"n": 1}}
    await backend.post("/v1/publish", body | {"exclude_devices": ["phone"]})
    await backend.post("/v1/publish", body | {"payload": {"n": 2}, "device_types": ["tv"]})
    await publish(backend, 3)
    await until(phone, [3])
    again = await connect(params={"device_id": "phone", "device_type": "phone"})
    assert (await resume(again, start))["recovered"] is True
    await until(again, [3])
    other = await connect(params={"device_id": "tablet", "device_type": "tv"})
    await resume(other, start)
    await until(other, [1, 2, 3])


async def test_a_duplicate_join_replays_nothing_twice(backend: Backend, connect: Connect) -> None:
    client = await connect()
    start = (await resume(client, None))["position"]
    await publish(backend, 1, 2)
    await until(client, [1, 2])
    answer = await resume(client, start)
    assert answer["recovered"] is True
    await publish(backend, 3)
    await until(client, [1, 2, 3])


async def test_resuming_while_messages_pour_in_leaves_no_gap(
    backend: Backend, connect: Connect
) -> None:
    watcher = await connect()
    position = (await resume(watcher, None, BUSY))["position"]
    body = {"topic": BUSY, "event": "n"}
    done = False

    async def pour() -> int:
        number = 0
        while not done:
            number += 1
            status, _ = await backend.post("/v1/publish", body | {"payload": {"n": number}})
            assert status == 202
        return number

    pouring = asyncio.create_task(pour())
    got: list[int] = []
    for _ in range(8):
        client = await connect("43")
        answer = await resume(client, position, BUSY)
        assert answer["recovered"] is True, answer
        await eventually(lambda c=client: len(heard(c, BUSY)) >= 3)
        await client.close()
        frames = [f for f in client.inbox if isinstance(f, list) and f[3] == "n"]
        got += [f[4]["n"] for f in frames]
        position = frames[-1][1]
    done = True
    last = await pouring
    client = await connect("43")
    assert (await resume(client, position, BUSY))["recovered"] is True
    if got[-1] < last:
        await client.expect(lambda f: f[3] == "n" and f[4]["n"] == last)
    got += heard(client, BUSY)
    assert got == list(range(1, last + 1))
    await eventually(lambda: heard(watcher, BUSY)[-1:] == [last])
    assert heard(watcher, BUSY) == list(range(1, last + 1))


async def test_a_long_replay_comes_whole_and_in_order(
    start_gateway: StartGateway, backend: Backend
) -> None:
    """More than is written at once; live messages come after it."""
    channels = [{"pattern": "room:*", "history": {"messages": 500, "seconds": 300}}]
    big = start_gateway({"channels": channels})
    del backend
    async with Backend(big) as service:
        filler = "x" * 2000
        for start in range(0, 400, 100):
            items = [
                {"topic": ROOM, "event": "n", "payload": {"n": n, "filler": filler}}
                for n in range(start, start + 100)
            ]
            status, answer = await service.post("/v1/publish/batch", {"messages": items})
            assert status == 202
            assert all(item["results"][0]["position"] for item in answer["results"])
        client = await PhoenixClient.connect(big.socket_url, token())
        await resume(client, {"last": 400})
        await publish(service, 400, 401)
        await client.expect(lambda f: f[3] == "n" and f[4]["n"] == 401)
        assert heard(client) == list(range(402))
        await client.close()


async def test_a_quiet_topic_tells_where_its_members_stand(
    backend: Backend, connect: Connect
) -> None:
    client, plain = await connect(), await connect("43")
    start = (await resume(client, None, "short:1"))["position"]
    await plain.join("short:1")
    told = await client.expect(lambda f: f[3] == "position")
    assert told[0] is None
    assert told[1] != start
    assert told[2:] == ["short:1", "position", {}]
    await asyncio.sleep(2.5)  # longer than the rule's seconds: the first position is too old by now
    await publish(backend, 1, topic="short:1")
    await until(client, [1], "short:1")
    last = [f for f in client.inbox if isinstance(f, list) and f[3] == "position"][-1][1]
    late = await connect()
    assert (await resume(late, start, "short:1"))["reason"] == "expired"
    await late.leave("short:1")
    assert (await resume(late, last, "short:1"))["recovered"] is True
    await until(late, [1], "short:1")
    assert plain.events("short:1", "position") == []


async def test_a_users_messages_wait_for_her_devices(backend: Backend, connect: Connect) -> None:
    body = {"user": "42", "event": "n", "payload": {"n": 1}}
    status, answer = await backend.post("/v1/publish", body)
    assert status == 202
    assert answer["results"][0]["position"].startswith("@")
    client = await connect()
    answer = await resume(client, {"last": 5}, "user:42")
    assert answer["session"]
    assert answer["recovered"] is None
    await until(client, [1], "user:42")
