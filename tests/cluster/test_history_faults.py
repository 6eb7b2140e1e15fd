"""History where the store fails, begins anew, is replaced, or refuses."""

import asyncio
import re
import shutil
from typing import Any

import msgspec
import nats
import pytest

from gateway.history.position import CLOCK_SECONDS
from tests.cluster.conftest import BehindLink, Cluster, MakeReader, StartCluster
from tests.cluster.reader import (
    ROOM,
    Pouring,
    SlowReader,
    kept,
    lost,
    publish,
    publish_many,
    recovered,
)
from tests.conftest import StartGateway, StartNats
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.waiting import eventually

HISTORY = {"messages": 1000, "seconds": 300}
CONFIG = {"channels": [{"pattern": "room:*", "push": "broadcast", "history": HISTORY}]}
SIZE = 4000
"""Bytes of a message of which some hundred are far more than sockets hold."""


@pytest.fixture
def cluster(start_cluster: StartCluster) -> Cluster:
    """Two replicas."""
    return start_cluster(2, CONFIG)


async def jetstream(url: str, operation: str, query: dict[str, Any] | None = None) -> Any:
    """Have JetStream do something with the stream, as an operator would."""
    client = await nats.connect(url)
    body = b"" if query is None else msgspec.json.encode(query)
    answer = await client.request(f"$JS.API.STREAM.{operation}.GATEWAY", body, timeout=10)
    await client.close()
    found = msgspec.json.decode(answer.data)
    assert "error" not in found, found
    return found


async def ready(*replicas: GatewayProcess) -> None:
    """Wait until all are."""
    for replica in replicas:
        await eventually(lambda r=replica: r.get("/readyz")[0] == 200)


async def post(replica: GatewayProcess, number: int, id: str | None = None) -> tuple[int, Any]:  # noqa: A002
    """Publish a number; status and answer."""
    body = {"topic": ROOM, "event": "n", "payload": {"n": number}}
    async with Backend(replica) as backend:
        return await backend.post("/v1/publish", body | ({"id": id} if id else {}))


async def test_a_stream_that_is_deleted_is_another_epoch(
    cluster: Cluster, make_reader: MakeReader
) -> None:
    a, b = cluster.replicas
    here, there, away = make_reader(), make_reader(), make_reader()
    for reader, replica in ((here, a), (there, b), (away, b)):
        await reader.go(replica)
    await publish(a, 1, 2, 3)
    for reader in (here, there, away):
        await reader.until([1, 2, 3])
    await away.stop()
    old = here.last
    await jetstream(cluster.nats.url, "DELETE")
    for reader in (here, there):
        await eventually(
            lambda r=reader: len(r.answers) == 2, 30, "members join again by themselves"
        )
        position = reader.answers[-1]["position"]
        assert reader.answers[-1] == lost("epoch_changed", position)
        assert position.split(".")[0] != old.split(".")[0]
        assert (reader.errors, reader.closes) == (1, [])
    answer = await away.go(a)
    assert (answer["recovered"], answer["reason"]) == (False, "epoch_changed")
    await publish(b, 4)
    for reader in (here, there, away):
        await reader.until([1, 2, 3, 4])
        last = reader.last
        assert await reader.go(a if reader is there else b) == recovered(last)
    await publish(a, 5)
    for reader in (here, there, away):
        await reader.until([1, 2, 3, 4, 5])


async def test_a_store_restored_from_an_older_copy_is_found_out(
    cluster: Cluster, make_reader: MakeReader
) -> None:
    """Its epoch is that of before, and its offsets are given again."""
    a, b = cluster.replicas
    server = cluster.nats
    here, there, away = make_reader(), make_reader(), make_reader()
    for reader, replica in ((here, a), (there, b), (away, b)):
        await reader.go(replica)
    await publish(a, 1, 2)
    await here.until([1, 2])
    server.stop()
    shutil.copytree(server.store / "js", server.store / "copy")
    await asyncio.to_thread(server.start)
    await ready(a, b)
    await publish(b, 3, 4, 5)
    for reader in (here, there, away):
        await reader.until([1, 2, 3, 4, 5])
    await away.stop()
    server.stop()
    server.forget()
    # by so much times may differ; no operator is quicker
    await asyncio.sleep(CLOCK_SECONDS + 0.1)
    shutil.copytree(server.store / "copy", server.store / "js")
    await asyncio.to_thread(server.start)
    await ready(a, b)

    for reader in (here, there):
        await eventually(
            lambda r=reader: len(r.answers) == 2, 30, "members join again by themselves"
        )
        assert reader.answers[-1] == lost("epoch_changed", reader.answers[-1]["position"])
    await publish(a, 6, 7, 8)
    for reader in (here, there):
        await reader.until([1, 2, 3, 4, 5, 6, 7, 8])
    assert here.last.split(".")[1] == away.last.split(".")[1], "the same offset, of another message"
    for replica in (a, b):
        old = away.last
        answer = await away.go(replica)
        assert answer == lost("epoch_changed", answer["position"])
        away.last = old
        await away.stop()
    assert away.numbers == [1, 2, 3, 4, 5], "nothing was replayed"
    for reader in (here, there):
        last = reader.last
        assert await reader.go(b) == recovered(last)
    await publish(b, 9)
    for reader in (here, there):
        await reader.until([1, 2, 3, 4, 5, 6, 7, 8, 9])


async def test_a_client_cut_in_the_middle_of_a_replay_gets_the_rest(cluster: Cluster) -> None:
    a, b = cluster.replicas
    await publish_many(a, range(1, 601), SIZE)
    expected = await kept(a)
    assert sorted(expected) == list(range(1, 601))
    got: list[int] = []
    last: Any = {"last": 600}
    for turn, replica in enumerate((a, b, a)):
        before = replica.metric("messages_delivered_total")
        slow = await SlowReader.connect(replica)
        answer = await slow.join(last)
        assert answer["recovered"] is (True if turn else None)
        await slow.read(100)
        written = replica.metric("messages_delivered_total") - before
        assert written < 600 - len(got), "it is in the middle"
        slow.cut()
        got += slow.numbers
        last = slow.last
    slow = await SlowReader.connect(b)
    assert await slow.join(last) == recovered(last)
    await publish(a, 601)
    await slow.until(601)
    assert got + slow.numbers == [*expected, 601]
    slow.cut()


async def test_a_replica_without_bus_in_the_middle_of_a_replay_goes_on_afterwards(
    cluster: Cluster, behind_link: BehindLink
) -> None:
    a = cluster.replicas[0]
    b, cut, heal = behind_link(cluster.nats, CONFIG)
    await publish_many(a, range(1, 401), SIZE)
    expected = await kept(a)
    slow = await SlowReader.connect(b)
    await slow.join({"last": 400})
    await slow.read(50)
    cut()
    await publish(a, 401, 402)
    await slow.read(400)
    heal()
    await slow.until(402)
    await publish(a, 403)
    await slow.until(403)

    assert slow.numbers == [*expected, 401, 402, 403]
    assert slow.errors == 0
    slow.cut()


async def test_a_replay_that_needs_the_store_while_there_is_none_ends_and_is_resumed(
    cluster: Cluster, behind_link: BehindLink, make_reader: MakeReader
) -> None:
    """More came while the client read slowly than memory holds, and then the bus went."""
    a = cluster.replicas[0]
    b, cut, heal = behind_link(cluster.nats, CONFIG)
    await publish_many(a, range(1, 401), SIZE)
    slow = await SlowReader.connect(b)
    await slow.join({"last": 400})
    await slow.read(50)
    other = make_reader()
    await other.go(b)
    await publish_many(a, range(401, 801), SIZE)
    await eventually(lambda: len(other.numbers) == 400)
    await other.stop()
    cut()
    await eventually(lambda: b.metric("bus_connected") == 0)
    await slow.until_error()
    heal()
    await ready(b)
    expected = await kept(a)
    assert slow.numbers == expected[: len(slow.numbers)]
    last = slow.last
    assert await slow.join(last) == recovered(last)
    await publish(a, 801)
    await slow.until(801)

    assert slow.numbers == [*expected, 801]
    assert "crashed" not in b.full_log()
    assert "Traceback" not in b.full_log()
    slow.cut()
    await eventually(lambda: b.metric("topics") == 0)
    await eventually(lambda: b.metric("subscriptions") == 0, what="the topic is let go of")


async def test_a_replica_that_drains_in_the_middle_of_a_replay_ends_in_order(
    cluster: Cluster,
) -> None:
    a, b = cluster.replicas
    await publish_many(a, range(1, 401), SIZE)
    expected = await kept(a)
    slow = await SlowReader.connect(a)
    await slow.join({"last": 400})
    await slow.read(50)
    a.terminate()
    assert await asyncio.to_thread(a.wait, 20) == 0
    slow.cut()
    again = await SlowReader.connect(b)
    assert await again.join(slow.last) == recovered(slow.last)
    await publish(b, 401)
    await again.until(401)

    assert slow.numbers + again.numbers == [*expected, 401]
    assert "Traceback" not in a.full_log()
    again.cut()


@pytest.mark.parametrize("resume", ["start", "newest"])
async def test_a_second_join_in_the_middle_of_a_replay_goes_on_where_the_first_was(
    cluster: Cluster, resume: str
) -> None:
    a = cluster.replicas[0]
    [start] = await publish(a, 0)
    await publish_many(a, range(1, 401), SIZE)
    expected = (await kept(a))[1:]
    slow = await SlowReader.connect(a)
    await slow.join(start)
    await slow.read(50)
    answer = await slow.join(start if resume == "start" else {"last": 400})
    assert answer["recovered"] is (True if resume == "start" else None)
    await publish(a, 401)
    await slow.until(401)

    assert slow.numbers == [*expected, 401]
    slow.cut()


async def test_a_store_that_is_down_refuses_and_has_stored_nothing(
    cluster: Cluster, make_reader: MakeReader
) -> None:
    a, b = cluster.replicas
    reader = make_reader()
    await reader.go(b)
    await publish(a, 1)
    client = await PhoenixClient.connect(a.socket_url, token())
    await client.join(ROOM)
    cluster.nats.kill()
    for replica in (a, b):
        await eventually(lambda r=replica: r.metric("bus_connected") == 0)
        for number in (2, 3):
            status, problem = await post(replica, number, f"{number}")
            assert (status, problem["status"]) == (503, 503)
        assert b"history_unavailable" in replica.get("/readyz")[1]
    reply = await client.ask(ROOM, "n", {"n": 4})
    assert reply[4] == {"status": "error", "response": {"reason": "bus unavailable"}}
    await asyncio.to_thread(cluster.nats.start)
    await ready(a, b)
    assert await kept(a) == [1]
    status, answer = await post(a, 2, "2")
    assert status == 202
    assert "duplicate" not in answer["results"][0], "the first time it was not stored"
    assert (await client.ask(ROOM, "n", {"n": 5}))[4]["status"] == "ok"
    await reader.until([1, 2, 5])
    await client.close()


async def test_a_store_that_hangs_leaves_it_open_and_a_repeat_settles_it(
    cluster: Cluster, make_reader: MakeReader
) -> None:
    a, b = cluster.replicas
    reader = make_reader()
    await reader.go(b)
    await publish(a, 1)
    await reader.until([1])
    cluster.nats.pause()
    asked = [asyncio.create_task(post(a, n, f"{n}")) for n in (2, 3)]
    statuses = [(await each)[0] for each in asked]
    assert set(statuses) <= {503, 504}
    assert 504 in statuses, "it was sent, and nobody knows more"
    cluster.nats.resume()
    await ready(a, b)
    for number in (2, 3):
        for replica in (a, b):
            status, _ = await post(replica, number, f"{number}")
            assert status == 202
    await publish(a, 4)

    numbers = await kept(a)
    assert sorted(numbers) == [1, 2, 3, 4]
    await reader.until(numbers)


async def test_a_server_killed_while_messages_pour_in_loses_and_repeats_none(
    cluster: Cluster, make_reader: MakeReader
) -> None:
    """Each number is repeated with its id until it is taken, whatever was answered."""
    reader = make_reader()
    await reader.go(cluster.replicas[0])
    async with Pouring(*cluster.replicas, pause=0) as pouring:
        for _ in range(3):
            await pouring.more(30)
            cluster.nats.kill()
            await asyncio.to_thread(cluster.nats.start)
        await pouring.more(30)
        numbers = await pouring.stop()

    assert set(pouring.statuses) <= {503, 504}
    assert pouring.statuses
    assert await kept(cluster.replicas[1]) == numbers
    await reader.until(numbers)


async def test_what_is_above_the_streams_limit_is_said(
    cluster: Cluster, make_reader: MakeReader
) -> None:
    a = cluster.replicas[0]
    reader = make_reader()
    await reader.go(a)
    config = (await jetstream(cluster.nats.url, "INFO"))["config"]
    await jetstream(cluster.nats.url, "UPDATE", config | {"max_msg_size": 2000})
    body = {"topic": ROOM, "event": "n", "payload": {"n": 1, "filler": "x" * 3000}}
    async with Backend(a) as backend:
        status, problem = await backend.post("/v1/publish", body)
    assert (status, problem["status"]) == (413, 413)
    assert problem["errors"] == [{"field": "payload", "message": "is too large"}]
    client = await PhoenixClient.connect(a.socket_url, token())
    await client.join(ROOM)
    reply = await client.ask(ROOM, "n", body["payload"])
    assert reply[4] == {"status": "error", "response": {"reason": "payload too large"}}
    assert (await client.ask(ROOM, "n", {"n": 2}))[4]["status"] == "ok", "the socket lives"
    await reader.until([2])
    assert await kept(a) == [2]
    await client.close()


async def test_one_id_on_two_topics_and_two_replicas(cluster: Cluster) -> None:
    a, b = cluster.replicas
    answers = []
    for replica, topic in ((a, ROOM), (b, "room:2"), (b, ROOM), (a, "room:2")):
        body = {"topic": topic, "event": "n", "payload": {"n": 1}, "id": "order-1"}
        async with Backend(replica) as backend:
            status, answer = await backend.post("/v1/publish", body)
        assert (status, answer["id"]) == (202, "order-1")
        [result] = answer["results"]
        assert result["topic"] == topic
        answers.append(result)

    places = [answer["position"].split(".")[:2] for answer in answers]
    assert places[0] == places[2] != places[1] == places[3]
    assert [answer.get("duplicate", False) for answer in answers] == [False, False, True, True]
    assert await kept(a) == await kept(a, "room:2") == [1]


async def test_a_server_without_jetstream_is_no_place_for_history(
    start_nats: StartNats, start_gateway: StartGateway
) -> None:
    server = start_nats(jetstream=False)
    gateway = start_gateway(CONFIG | {"bus": {"url": server.url}}, ready=False)
    await eventually(lambda: b"history_no_jetstream" in gateway.get("/readyz")[1])
    await eventually(lambda: b"starting" not in gateway.get("/readyz")[1])
    status, body = gateway.get("/readyz")
    assert status == 503
    assert b"bus_down" not in body
    assert (await post(gateway, 1))[0] == 503
    client = await PhoenixClient.connect(gateway.socket_url, token())
    reply = await client.join(ROOM, {"resume": None})
    assert reply[4] == {"status": "error", "response": {"reason": "bus unavailable"}}
    await client.close()

    server.stop()
    server.jetstream = True
    await asyncio.to_thread(server.start)
    await ready(gateway)
    assert (await post(gateway, 1))[0] == 202


async def test_without_a_rule_that_keeps_history_none_is_needed(
    start_nats: StartNats, start_gateway: StartGateway
) -> None:
    server = start_nats(jetstream=False)
    gateway = start_gateway({"bus": {"url": server.url}})

    assert gateway.get("/readyz")[0] == 200


async def test_a_server_that_is_too_old_is_named(
    start_nats: StartNats, start_gateway: StartGateway
) -> None:
    """A server of today that says it is one of yesterday."""
    server = start_nats()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", server.port)
        hello = await there.readline()
        writer.write(re.sub(rb'"version":"[^"]*"', b'"version":"2.10.29"', hello))
        await asyncio.gather(_copy(reader, back), _copy(there, writer))

    listener = await asyncio.start_server(forward, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    gateway = start_gateway(CONFIG | {"bus": {"url": f"nats://127.0.0.1:{port}"}}, ready=False)

    async def reasons() -> bytes:
        return (await asyncio.to_thread(gateway.get, "/readyz"))[1]

    async def too_old() -> bool:
        found = await reasons()
        return b"history_server_too_old" in found and b"starting" not in found

    await eventually(too_old)
    assert b"bus_down" not in await reasons()
    assert (await post(gateway, 1))[0] == 503
    await asyncio.to_thread(gateway.kill)
    listener.close()
    await listener.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()
