"""The bus goes away in every way it can, and comes back."""

import asyncio
import time

import pytest

from tests.cluster.conftest import Cluster, StartCluster
from tests.conftest import StartGateway, StartNats
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.ports import free_port
from tests.support.tokens import token
from tests.support.waiting import eventually

ROOM = "room:1"

HANGS_SECONDS = 120.0
"""A machine with much else to do takes some tens of seconds for thousands of topics; more only what hangs."""


async def clients_of(cluster: Cluster) -> list[PhoenixClient]:
    """A client on each replica, both in the room."""
    clients = [await PhoenixClient.connect(r.socket_url, token()) for r in cluster.replicas]
    for client in clients:
        await client.join(ROOM)
    return clients


async def outage(cluster: Cluster, clients: list[PhoenixClient], seconds: float) -> None:
    """Live through a bus that is down for so long, once the replicas have noticed."""
    a, b = cluster.replicas
    await eventually(lambda: a.metric("bus_connected") == 0 == b.metric("bus_connected"))
    async with Backend(a) as backend:
        end = time.monotonic() + seconds
        number = 0
        took: list[float] = []
        while time.monotonic() < end:
            number += 1
            began = time.monotonic()
            status, problem = await backend.post(
                "/v1/publish", {"topic": ROOM, "event": "refused", "payload": {"n": number}}
            )
            assert (status, problem["status"]) == (503, 503)
            took.append(time.monotonic() - began)
            for client in clients:
                assert (await client.heartbeat())[4]["status"] == "ok"
            reply = await clients[0].ask(ROOM, "refused", {"n": number})
            assert reply[4]["response"] == {"reason": "bus unavailable"}
            await asyncio.sleep(0.2)
    assert min(took) < 1, "refused at once, not after a wait"
    assert a.get("/readyz")[0] == 503
    assert a.get("/livez")[0] == 200
    assert (await clients[0].join("room:other"))[4]["response"] == {"reason": "bus unavailable"}


async def recovery(cluster: Cluster, clients: list[PhoenixClient]) -> None:
    """Everything works again by itself, and nothing that was refused comes after all."""
    a, b = cluster.replicas
    for replica in (a, b):
        await eventually(lambda r=replica: r.get("/readyz")[0] == 200)
    async with Backend(a) as to_a, Backend(b) as to_b:
        assert await to_a.publish(ROOM, "after", {"n": 1}) == 202
        assert await to_b.publish(ROOM, "after", {"n": 2}) == 202
    for client in clients:
        await eventually(lambda c=client: len(c.events(ROOM, "after")) == 2)
        assert client.events(ROOM, "refused") == []
        assert client.close_code is None
    assert (await clients[0].join("room:other"))[4]["status"] == "ok"
    for client in clients:
        await client.close()


async def test_nats_is_killed_and_stays_away_for_a_while(start_cluster: StartCluster) -> None:
    cluster = start_cluster(2)
    clients = await clients_of(cluster)
    cluster.nats.kill()
    await outage(cluster, clients, seconds=6)
    cluster.nats.start()
    await recovery(cluster, clients)

    assert cluster.replicas[0].metric("bus_reconnects_total") == 1


@pytest.mark.slow
async def test_nats_hangs_until_it_is_given_up_and_longer(start_cluster: StartCluster) -> None:
    cluster = start_cluster(2)
    clients = await clients_of(cluster)
    cluster.nats.pause()
    await outage(cluster, clients, seconds=6)
    cluster.nats.resume()
    await recovery(cluster, clients)


async def test_a_message_above_the_servers_limit_is_refused_and_the_replica_stays(
    start_nats: StartNats, start_gateway: StartGateway
) -> None:
    """The server's limit is lowered after the start, so that the gateway's own does not guard it."""
    nats = start_nats()
    gateway = start_gateway({"bus": {"url": nats.url}})
    client = await PhoenixClient.connect(gateway.socket_url, token())
    await client.join(ROOM)
    nats.stop()
    nats.extra = "max_payload: 8192"
    nats.start()
    await eventually(lambda: gateway.metric("bus_reconnects_total") == 1)
    async with Backend(gateway) as backend:
        body = {"topic": ROOM, "event": "big", "payload": {"x": "x" * 8192}}
        assert (await backend.post("/v1/publish", body))[0] == 413
        # the payload alone fits, with the envelope around it it does not
        edge = {"topic": ROOM, "event": "big", "payload": {"x": "x" * (8192 - 10)}}
        assert (await backend.post("/v1/publish", edge))[0] == 413
        reply = await client.ask(ROOM, "big", {"x": "x" * 8192})
        assert reply[4]["response"] == {"reason": "payload too large"}
        assert await backend.publish(ROOM, "small", {}) == 202
    await client.expect(lambda f: f[3] == "small")

    assert client.events(ROOM, "big") == []
    assert gateway.metric("bus_reconnects_total") == 1
    await client.close()


async def test_no_nats_at_start_is_waited_for(
    start_gateway: StartGateway, start_nats: StartNats
) -> None:
    nats = start_nats()
    nats.stop()
    gateway = start_gateway({"bus": {"url": nats.url}}, ready=False)
    status, body = gateway.get("/readyz")
    assert status == 503
    assert b"starting" in body

    nats.start()

    await eventually(lambda: gateway.get("/readyz")[0] == 200)
    client = await PhoenixClient.connect(gateway.socket_url, token())
    assert (await client.join(ROOM))[4]["status"] == "ok"
    await client.close()


async def test_a_limit_the_server_cannot_carry_stops_the_start(
    start_nats: StartNats, start_gateway: StartGateway
) -> None:
    nats = start_nats("max_payload: 8192")
    gateway = start_gateway(
        {"bus": {"url": nats.url}, "limits": {"max_message_bytes": 4097}}, ready=False
    )

    assert gateway.wait() == 2
    assert "max_message_bytes" in gateway.full_log()


async def join_all(client: PhoenixClient, rooms: set[int]) -> None:
    """Join rooms at once, and again those that were refused, as the bus of a busy machine may be too slow."""
    joined: set[int] = set()
    while left := rooms - joined:
        client.inbox.clear()
        for number in left:
            await client.send_frame("1", str(number), f"room:{number}", "phx_join", {})
        await eventually(lambda n=left: len(client.inbox) == len(n), within=HANGS_SECONDS)
        replies = [frame for frame in client.inbox if isinstance(frame, list)]
        joined |= {int(frame[1]) for frame in replies if frame[4]["status"] == "ok"}


@pytest.mark.slow
async def test_fifteen_thousand_topics_are_subscribed_again(
    start_nats: StartNats, start_gateway: StartGateway
) -> None:
    topics, per_socket = 15_000, 1_000
    nats = start_nats()
    gateway = start_gateway(
        {"bus": {"url": nats.url}, "limits": {"max_channels_per_socket": per_socket}}
    )
    clients = []
    for first in range(0, topics, per_socket):
        client = await PhoenixClient.connect(gateway.socket_url, token())
        async with asyncio.timeout(HANGS_SECONDS):
            await join_all(client, set(range(first, first + per_socket)))
        clients.append(client)
    nats.kill()
    await eventually(lambda: gateway.metric("bus_connected") == 0, within=HANGS_SECONDS)
    nats.start()
    await eventually(lambda: gateway.metric("bus_connected") == 1, within=HANGS_SECONDS)
    async with Backend(gateway) as backend:
        for number in range(0, topics, 500):
            assert await backend.publish(f"room:{number}", "back", {"n": number}) == 202
    expected = topics // 500 // len(clients)
    for client in clients:
        await eventually(
            lambda c=client: (
                sum(isinstance(f, list) and f[3] == "back" for f in c.inbox) == expected
            ),
            within=HANGS_SECONDS,
        )
        await client.close()


async def test_a_bus_that_never_was_does_not_hold_up_the_end(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"bus": {"url": f"nats://127.0.0.1:{free_port()}"}}, ready=False)
    gateway.terminate()

    assert gateway.wait() == 0
