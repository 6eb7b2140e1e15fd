"""Nothing missed, on several replicas and through faults of the store."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest

from tests.cluster.conftest import StartCluster
from tests.conftest import StartGateway, StartNats, require
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsCluster, nats_server_binary
from tests.support.tokens import token
from tests.support.waiting import eventually

ROOM = "room:1"
CHANNELS = [
    {"pattern": "room:*", "push": "broadcast", "history": {"messages": 500, "seconds": 300}}
]
CONFIG: dict[str, Any] = {"channels": CHANNELS}
REPAIRED_WITHIN = 45.0
"""The promise is 30 seconds; no test asserts a time, and the machine may be busy."""

Connect = Callable[..., Awaitable[PhoenixClient]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens sockets; closes them after the test."""
    clients: list[PhoenixClient] = []

    async def opened(replica: GatewayProcess, user: str = "42", **options: Any) -> PhoenixClient:
        clients.append(await PhoenixClient.connect(replica.socket_url, token(user), **options))
        return clients[-1]

    yield opened
    await asyncio.gather(*(client.close() for client in clients))


async def resume(client: PhoenixClient, value: Any, topic: str = ROOM) -> dict[str, Any]:
    """Join with ``resume``; the response of the ok reply."""
    reply = await client.join(topic, {"resume": value})
    assert reply[4]["status"] == "ok", reply
    response: dict[str, Any] = reply[4]["response"]
    return response


async def publish(replica: GatewayProcess, *numbers: int, topic: str = ROOM) -> list[str]:
    """Publish numbers, each until it is stored; returns the positions."""
    positions: list[str] = []
    async with Backend(replica) as backend:
        for number in numbers:
            body = {"topic": topic, "event": "n", "payload": {"n": number}, "id": f"n{number}"}

            async def stored(body: dict[str, Any] = body) -> bool:
                status, answer = await backend.post("/v1/publish", body)
                assert status in (202, 503, 504), answer
                if status == 202:
                    positions.append(answer["results"][0]["position"])
                return status == 202

            await eventually(stored, 60)
    return positions


def heard(client: PhoenixClient, topic: str = ROOM) -> list[int]:
    """Numbers that came, in order."""
    return [payload["n"] for payload in client.events(topic, "n")]


def last_position(client: PhoenixClient) -> str:
    """Where a client stands."""
    frames = [f for f in client.inbox if isinstance(f, list) and str(f[1]).startswith("@")]
    position: str = frames[-1][1]
    return position


async def until(client: PhoenixClient, numbers: list[int], within: float = 20.0) -> None:
    """Wait for the last of these; then all of them came, in order and once."""
    await eventually(lambda: heard(client)[-1:] == numbers[-1:], within)
    assert heard(client) == numbers


async def test_each_resume_may_be_on_another_replica(
    start_cluster: StartCluster, connect: Connect
) -> None:
    a, b, c = start_cluster(3, CONFIG).replicas
    client = await connect(a)
    await resume(client, None)
    await publish(b, 1, 2)
    await until(client, [1, 2])
    expected = 2
    for replica, publisher in ((b, c), (c, a), (a, b)):
        position = last_position(client)
        await client.close()
        await publish(publisher, expected + 1, expected + 2)
        client = await connect(replica)
        answer = await resume(client, position)
        assert answer == {"recovered": True, "reason": None, "position": position}
        await until(client, [expected + 1, expected + 2])
        expected += 2
        await publish(publisher, expected + 1)
        await until(client, [expected - 1, expected, expected + 1])
        expected += 1


async def test_a_killed_replicas_clients_resume_elsewhere(
    start_cluster: StartCluster, connect: Connect
) -> None:
    a, b = start_cluster(2, CONFIG).replicas
    client = await connect(a)
    await resume(client, None)
    await publish(b, 1)
    await until(client, [1])
    a.signal(signal.SIGKILL)
    await publish(b, 2, 3)
    again = await connect(b)
    assert (await resume(again, last_position(client)))["recovered"] is True
    await until(again, [2, 3])


async def test_a_restart_of_nats_loses_and_repeats_nothing(
    start_cluster: StartCluster, connect: Connect
) -> None:
    cluster = start_cluster(2, CONFIG)
    a, b = cluster.replicas
    clients = [await connect(a), await connect(b, "43")]
    for client in clients:
        await resume(client, None)
    publishing = asyncio.create_task(publish(a, *range(1, 61)))
    await eventually(lambda: len(heard(clients[0])) >= 10)
    cluster.nats.kill()
    await asyncio.to_thread(cluster.nats.start)
    await publishing
    for client in clients:
        await until(client, list(range(1, 61)), REPAIRED_WITHIN)


async def test_a_client_cut_in_the_middle_of_a_replay_goes_on_from_there(
    start_cluster: StartCluster, connect: Connect
) -> None:
    [a] = start_cluster(1, CONFIG).replicas
    async with Backend(a) as backend:
        for start in range(0, 400, 100):
            items = [
                {"topic": ROOM, "event": "n", "payload": {"n": n, "filler": "x" * 4000}}
                for n in range(start, start + 100)
            ]
            assert (await backend.post("/v1/publish/batch", {"messages": items}))[0] == 202
    client = await connect(a)
    await resume(client, {"last": 400})
    await eventually(lambda: len(heard(client)) >= 20)
    client.connection.transport.abort()
    await client.closed()
    first = heard(client)
    assert first == list(range(len(first)))
    again = await connect(a)
    assert (await resume(again, last_position(client)))["recovered"] is True
    await publish(a, 400)
    await until(again, list(range(len(first), 401)))


async def test_a_deleted_stream_is_another_epoch_and_members_are_told(
    start_cluster: StartCluster, connect: Connect
) -> None:
    cluster = start_cluster(1, CONFIG)
    [a] = cluster.replicas
    client = await connect(a)
    await resume(client, None)
    await publish(a, 1)
    await until(client, [1])
    before = last_position(client)
    admin = await nats.connect(cluster.nats.url)
    await admin.request("$JS.API.STREAM.DELETE.GATEWAY", b"", timeout=5)
    await admin.close()
    await publish(a, 2)
    # who is on the topic has to ask again, since it cannot know what it missed
    await client.expect(lambda f: f[3] == "phx_error", 30)
    answer = await resume(client, before)
    assert (answer["recovered"], answer["reason"]) == (False, "epoch_changed")
    assert answer["position"].split(".")[0] != before.split(".")[0]
    await publish(a, 3)
    await eventually(lambda: heard(client)[-1:] == [3])


async def test_a_store_restored_from_an_older_copy_replays_nothing_wrong(
    start_cluster: StartCluster, connect: Connect, tmp_path: Path
) -> None:
    cluster = start_cluster(1, CONFIG)
    [a] = cluster.replicas
    store = cluster.nats.store / "js"
    await publish(a, 1, 2)
    cluster.nats.stop()
    shutil.copytree(store, tmp_path / "copy")
    await asyncio.to_thread(cluster.nats.start)
    # offsets 3 to 5 are given twice: now, and after the restore
    client = await connect(a)
    await eventually(lambda: a.get("/readyz")[0] == 200)
    await resume(client, None)
    await publish(a, 3, 4, 5)
    await until(client, [3, 4, 5])
    position = last_position(client)
    await client.close()
    cluster.nats.stop()
    shutil.rmtree(store)
    shutil.copytree(tmp_path / "copy", store)
    await asyncio.sleep(1.5)  # positions are as exact as clocks are: a second
    await asyncio.to_thread(cluster.nats.start)
    await publish(a, 13, 14, 15, 16)
    again = await connect(a)
    answer = await resume(again, position)
    assert (answer["recovered"], answer["reason"]) == (False, "epoch_changed")
    await publish(a, 17)
    await until(again, [17])


async def test_without_jetstream_a_replica_that_keeps_history_is_not_ready(
    start_nats: StartNats, start_gateway: StartGateway
) -> None:
    server = start_nats(jetstream=False)
    gateway = start_gateway(CONFIG | {"bus": {"url": server.url}}, ready=False)

    await eventually(lambda: b"history_no_jetstream" in gateway.get("/readyz")[1])
    async with Backend(gateway) as backend:
        assert await backend.publish(ROOM, "n", {"n": 1}) == 503


async def test_stored_is_certain_and_unstored_too(
    start_cluster: StartCluster, connect: Connect
) -> None:
    """503 while the server is away: nothing of it turns up later. While it hangs, a repeat settles it."""
    cluster = start_cluster(1, CONFIG)
    [a] = cluster.replicas
    client = await connect(a)
    await resume(client, None)
    await publish(a, 1)
    body = {"topic": ROOM, "event": "n"}
    async with Backend(a) as backend:
        cluster.nats.pause()
        status, answer = await backend.post("/v1/publish", body | {"payload": {"n": 2}, "id": "n2"})
        assert status in (503, 504), answer
        cluster.nats.resume()
        await publish(a, 2)
        cluster.nats.stop()
        await eventually(lambda: a.get("/readyz")[0] == 503)
        status, _ = await backend.post("/v1/publish", body | {"payload": {"n": 3}, "id": "n3"})
        assert status == 503
        await asyncio.to_thread(cluster.nats.start)
        await publish(a, 4)
        status, page = await backend.get("/v1/topics/room%3A1/history")
    assert [item["payload"]["n"] for item in page["items"]] == [1, 2, 4]
    await until(client, [1, 2, 4], REPAIRED_WITHIN)


async def test_the_history_is_paged_and_erased_on_all_replicas(
    start_cluster: StartCluster, connect: Connect
) -> None:
    a, b = start_cluster(2, CONFIG).replicas
    client = await connect(b)
    await resume(client, None)
    await publish(a, *range(1, 6))
    await until(client, [1, 2, 3, 4, 5])
    async with Backend(a) as backend:
        numbers, cursor = [], ""
        while True:
            status, page = await backend.get(f"/v1/topics/room%3A1/history?limit=2{cursor}")
            assert status == 200
            numbers += [item["payload"]["n"] for item in page["items"]]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        assert numbers == [1, 2, 3, 4, 5]
        status, _ = await backend.get("/v1/topics/room%3A1/history?cursor=@nonsense")
        assert status == 422
        assert await backend.delete("/v1/topics/room%3A1/history") == (200, {"erased": 5})
        assert (await backend.get("/v1/topics/room%3A1/history"))[1]["items"] == []
    late = await connect(b, "43")
    await resume(late, {"last": 10})
    stays = await connect(a, "44")
    assert (await resume(stays, page["position"]))["recovered"] is True
    await publish(a, 6)
    for each in (late, stays):
        await until(each, [6])
    await until(client, [1, 2, 3, 4, 5, 6])


@pytest.fixture
def three_servers(tmp_path: Path) -> Iterator[NatsCluster]:
    """Three nats-servers that keep a stream together."""
    require("nats-server", nats_server_binary())
    cluster = NatsCluster(tmp_path / "cluster")
    cluster.start()
    yield cluster
    cluster.stop()


async def leader_of(servers: NatsCluster) -> int:
    """Number of the server that leads the stream; others must be there to ask."""
    for server in servers.servers:
        try:
            client = await nats.connect(server.url, connect_timeout=2, allow_reconnect=False)
            answer = await client.request("$JS.API.STREAM.INFO.GATEWAY", b"", timeout=5)
            await client.close()
        except Exception:  # noqa: BLE001, S112 -- the one that was killed
            continue
        name = answer.data.decode().partition('"leader":"')[2].partition('"')[0]
        if name:
            return int(name.removeprefix("n"))
    return 0


@pytest.mark.slow
async def test_three_servers_lose_their_leader_and_a_route_and_no_message(
    three_servers: NatsCluster, start_gateway: StartGateway, connect: Connect
) -> None:
    """The leader steps down, then is killed; then only a route is cut while the last message is published."""
    config = CONFIG | {"history": {"replicas": 3}}
    replicas = [
        start_gateway(config | {"bus": {"url": server.url}}) for server in three_servers.servers
    ]
    clients = [await connect(replica, f"u{n}") for n, replica in enumerate(replicas)]
    for client in clients:
        await resume(client, None)
    await publish(replicas[0], *range(1, 6))
    for client in clients:
        await until(client, [1, 2, 3, 4, 5], REPAIRED_WITHIN)

    admin = await nats.connect(three_servers.servers[0].url)
    await admin.request("$JS.API.STREAM.LEADER.STEPDOWN.GATEWAY", b"", timeout=5)
    await admin.close()
    await publish(replicas[1], *range(6, 11))
    for client in clients:
        await until(client, list(range(1, 11)), REPAIRED_WITHIN)

    leader = await leader_of(three_servers)
    far, third = (leader + 1) % 3, (leader + 2) % 3
    three_servers.cut(leader, far)
    await publish(replicas[leader], 11)  # and nothing after it: no later copy tells of it
    await until(clients[leader], list(range(1, 12)), REPAIRED_WITHIN)
    await until(clients[third], list(range(1, 12)), REPAIRED_WITHIN)
    three_servers.heal(leader, far)
    await until(clients[far], list(range(1, 12)), REPAIRED_WITHIN)

    leader = await leader_of(three_servers)
    three_servers.servers[leader].kill()
    others = [n for n in range(3) if n != leader]
    await publish(replicas[others[0]], 12, 13)
    three_servers.servers[leader].start()
    for client in clients:
        await until(client, list(range(1, 14)), REPAIRED_WITHIN)
