"""Clients that poll through a load balancer without stickiness: each request may meet any replica."""

import asyncio
import io
import json
from typing import Any

import pytest

from tests.cluster.conftest import StartCluster
from tests.cluster.reader import publish
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.longpoll import PollClient
from tests.support.tokens import token
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

ROOM = "room:1"
PLAIN = "plain"
CONFIG: dict[str, Any] = {
    "channels": [
        {"pattern": "room:*", "push": "broadcast", "history": {"messages": 500, "seconds": 300}},
        {"pattern": PLAIN, "push": "broadcast"},
    ],
    "limits": {"outbound_buffer_bytes": 8 * 1024 * 1024},
    "sessions": {"replica_down_after_seconds": 3},
}


async def all_know_each_other(replicas: list[GatewayProcess]) -> None:
    """Return once each has heard of the others."""
    for replica in replicas:
        await eventually(
            lambda r=replica: r.metric("replicas", state="live") == len(replicas),
            what="all replicas know each other",
        )


async def test_every_request_may_meet_another_replica(start_cluster: StartCluster) -> None:
    replicas = start_cluster(3, CONFIG).replicas
    await all_know_each_other(replicas)
    async with PollClient(replicas[0], token("42")) as client, Backend(replicas[2]) as backend:
        await client.join(ROOM)
        for number in range(30):
            at, elsewhere = replicas[number % 3], replicas[(number + 1) % 3]
            await client.push(ROOM, "said", {"n": number}, at)
            while len(client.heard("said")) <= number:
                assert await client.poll(elsewhere) == 200
        assert [p["n"] for p in client.heard("said")] == list(range(30))
        _, listed = await backend.get("/v1/users/42/sessions")
        assert [s["transport"] for s in listed["items"]] == ["longpoll"]

        await backend.delete("/v1/users/42/sessions")
        assert await client.post('[null,"1","phoenix","heartbeat",{}]', replicas[1]) == 410
        assert await client.poll(replicas[1]) == 500


async def test_a_poll_elsewhere_waits_and_is_answered_when_something_comes(
    start_cluster: StartCluster,
) -> None:
    limits = {"idle_timeout_seconds": 6}  # of which a poll waits for two thirds
    replicas = start_cluster(2, CONFIG | {"limits": limits}).replicas
    await all_know_each_other(replicas)
    async with PollClient(replicas[0], token("42")) as client:
        await client.join(ROOM)
        poll = asyncio.create_task(client.poll(replicas[1]))
        await publish(replicas[0], 1)
        assert await poll == 200
        assert await client.poll(replicas[1]) == 204, "nothing came"


async def test_large_batches_and_answers_pass_between_replicas(start_cluster: StartCluster) -> None:
    """More than the bus carries in one message, both ways."""
    replicas = start_cluster(2, CONFIG).replicas
    await all_know_each_other(replicas)
    witness = await PhoenixClient.connect(replicas[0].socket_url, token("43"))
    await witness.join(PLAIN)
    async with PollClient(replicas[0], token("42")) as client:
        await client.join(PLAIN)
        texts = [f"{number} " + '"' * 30_000 for number in range(26)]
        lines = [json.dumps(["1", str(n), PLAIN, "said", {"x": x}]) for n, x in enumerate(texts)]
        assert await client.post(io.BytesIO("\n".join(lines).encode()), replicas[1]) == 200
        while len(client.heard("said")) < len(texts):
            assert await client.poll(replicas[1]) == 200
        assert [p["x"] for p in client.heard("said")] == texts
    await eventually(lambda: len(witness.events(PLAIN, "said")) == len(texts))
    await witness.close()


async def test_a_message_above_the_limit_ends_the_session_elsewhere(
    start_cluster: StartCluster,
) -> None:
    """One that the bus does not carry too."""
    replicas = start_cluster(2, CONFIG).replicas
    await all_know_each_other(replicas)
    async with PollClient(replicas[0], token("42")) as client:
        await client.join(PLAIN)
        assert await client.post(io.BytesIO(b"[" * 2_000_000), replicas[1]) == 413
        assert await client.poll(replicas[1]) == 500
    assert replicas[0].metric("disconnects_total", code="1009") == 1


async def test_polls_pass_to_another_replica_when_theirs_leaves(
    start_cluster: StartCluster,
) -> None:
    """Not so the sessions, which are not there."""
    replicas = start_cluster(2, CONFIG).replicas
    await all_know_each_other(replicas)
    async with PollClient(replicas[0], token("42")) as client:
        await client.join(ROOM, {"resume": None})
        here = asyncio.create_task(client.request("GET"))
        there = asyncio.create_task(client.request("GET", replicas[1]))
        while here not in (await asyncio.wait((here, there), return_when="FIRST_COMPLETED"))[0]:
            there = asyncio.create_task(client.request("GET", replicas[1]))
        # the other one waits now, as it took the place of this one
        replicas[1].terminate()
        assert (await there)[1]["status"] == 204
        assert await asyncio.to_thread(replicas[1].wait) == 0
        await publish(replicas[0], 1)
        await client.until("n")
        assert client.statuses[1:].count(500) == 0


async def test_a_killed_replica_costs_its_clients_nothing(start_cluster: StartCluster) -> None:
    replicas = start_cluster(3, CONFIG).replicas
    await all_know_each_other(replicas)
    async with PollClient(replicas[0], token("42")) as client:
        answer = await client.join(ROOM, {"resume": None})
        await publish(replicas[1], 1, 2, 3)
        await client.until("n", gateway=replicas[1])
        replicas[0].kill()
        await publish(replicas[1], 4, 5)
        while await client.poll(replicas[2]) == 204:
            pass
        assert client.statuses[-1] == 500
        client.ticket = ""
        marks = [f[1] for f in client.inbox if isinstance(f[1], str) and f[1][:1] == "@"]
        client.gateway = replicas[1]
        answer = await client.join(ROOM, {"resume": marks[-1]})
        assert answer["response"]["recovered"] is True
        await publish(replicas[2], 6)
        while [p["n"] for p in client.heard("n")][-1:] != [6]:
            assert await client.poll(replicas[2]) == 200
        assert [p["n"] for p in client.heard("n")] == [1, 2, 3, 4, 5, 6]


async def test_a_poll_that_waits_elsewhere_hears_of_the_death_of_its_replica(
    start_cluster: StartCluster,
) -> None:
    """Long before the others take it for dead, which is set to more than a poll waits for."""
    config = CONFIG | {"sessions": {"replica_down_after_seconds": 60}}
    replicas = start_cluster(2, config).replicas
    await all_know_each_other(replicas)
    async with PollClient(replicas[0], token("42")) as client:
        await client.join(ROOM)
        # of two polls one takes the other's place: then that one waits at the owner
        polls = [asyncio.create_task(client.request("GET", replicas[1])) for _ in range(2)]
        done, [waiting] = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result()[1]["status"] for task in done] == [204]
        replicas[0].kill()
        assert (await waiting)[1]["status"] == 500


async def test_without_the_bus_a_session_waits_for_its_own_replica(
    start_cluster: StartCluster,
) -> None:
    cluster = start_cluster(2, CONFIG)
    own, other = cluster.replicas
    await all_know_each_other(cluster.replicas)
    async with PollClient(own, token("42")) as client:
        await client.join(ROOM, {"resume": None})
        cluster.nats.kill()
        await eventually(lambda: own.get("/readyz")[0] == other.get("/readyz")[0] == 503)
        assert await client.poll(other) == 204
        assert await client.post('[null,"h","phoenix","heartbeat",{}]', other) == 500
        assert await client.post('[null,"h","phoenix","heartbeat",{}]', own) == 200
        await client.until("phx_reply", "h", own)

        cluster.nats.start()
        await eventually(lambda: own.get("/readyz")[0] == other.get("/readyz")[0] == 200)
        await publish(own, 1)
        await client.until("n", gateway=other)
        assert not {410, 500} & set(client.statuses[1:])


async def test_a_ticket_of_nobody_is_good_for_nothing(start_cluster: StartCluster) -> None:
    replicas = start_cluster(2, CONFIG).replicas
    await all_know_each_other(replicas)
    async with PollClient(replicas[0], token("42")) as client:
        for home in ("x" * 11, None):
            await client.join(ROOM)
            lp, known, secret, number = client.ticket.split(".")
            forged = [lp, home or known, secret if home else "y" * len(secret), number]
            client.ticket = ".".join(forged)
            assert await client.post('[null,"1","phoenix","heartbeat",{}]', replicas[1]) == 410
            assert await client.poll(replicas[1]) == 500
            client.ticket = ""
