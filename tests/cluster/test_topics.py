"""What backends ask about topics, over three replicas: right and complete, or they say that it is not."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.cluster.conftest import StartCluster
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.waiting import eventually

ROOM = "room:1"
KEPT = {"messages": 10, "seconds": 300}
CONFIG: dict[str, Any] = {
    "channels": [
        {"pattern": "room:*", "presence": True, "history": KEPT},
        {"pattern": "hall:*", "join": "anyone"},
    ],
    "auth": {"allow_anonymous": True},
    # longer than the test: a frozen replica is none that is lost
    "sessions": {"replica_down_after_seconds": 60, "offline_after_seconds": 0},
}
PERSONAL = [{"pattern": "user:{sub}", "history": KEPT}]
WHOLE = {"complete": True, "missing_replicas": []}


class Clients:
    """Clients of a test, closed after it."""

    def __init__(self) -> None:
        self.open: list[PhoenixClient] = []

    async def join(self, replica: GatewayProcess, user: str | None, *topics: str) -> PhoenixClient:
        """Open a socket, of nobody without a user, and join topics."""
        claims = None if user is None else token(user)
        client = await PhoenixClient.connect(replica.socket_url, claims)
        self.open.append(client)
        for topic in topics:
            assert (await client.join(topic))[4]["status"] == "ok"
        return client


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    clients = Clients()
    yield clients
    await asyncio.gather(*(client.close() for client in clients.open))


async def ask(replica: GatewayProcess, path: str) -> dict[str, Any]:
    """What a replica answers."""
    async with Backend(replica) as backend:
        status, answer = await backend.get(path)
    assert status == 200
    found: dict[str, Any] = answer
    return found


def name_of(replica: GatewayProcess) -> str:
    [name] = [line["replica"] for line in replica.log_lines() if line["event"] == "serving"]
    return str(name)


def users_of(answer: dict[str, Any]) -> dict[str, int]:
    return {item["user"]: len(item["metas"]) for item in answer["items"]}


async def test_topics_are_counted_and_listed_and_their_members_named_over_all_replicas(
    start_cluster: StartCluster, clients: Clients
) -> None:
    a, b, c = start_cluster(3, CONFIG).replicas
    await clients.join(a, "u1", ROOM, "hall:1")
    await clients.join(b, "u1", ROOM)
    await clients.join(b, "u2", ROOM)
    await clients.join(b, None, "hall:1")
    async with Backend(c) as backend:
        for _ in range(3):
            assert await backend.publish(ROOM, "said", {}) == 202
        body = {"users": ["u1", "nobody"], "event": "said", "payload": {}}
        _, sent = await backend.post("/v1/publish", body)
        assert [each.get("listening") for each in sent["results"]] == [None, False]
    items = (await ask(c, f"/v1/topics/{ROOM}/history"))["items"]

    for replica, here in ((a, (1, 1)), (b, (2, 2)), (c, (0, 0))):
        topics = await ask(replica, "/v1/topics?prefix=room:")
        assert topics == {"items": [{"topic": ROOM, "channels": 3}], "next": None} | WHOLE
        topic = await ask(replica, f"/v1/topics/{ROOM}")
        assert (topic["here"]["channels"], topic["here"]["users"]) == here
        assert topic["all"] == {"channels": 3, "sessions": 3, "users": 2}
        assert topic["history"] == {
            "first": items[0]["position"],
            "last": items[2]["position"],
        }
        assert topic["rule"]["pattern"] == "room:*"
        present = await ask(replica, f"/v1/topics/{ROOM}/presence")
        assert users_of(present) == {"u1": 2, "u2": 1}
        assert (present["complete"], present["missing_replicas"]) == (True, [])
    assert c.metric("subscriptions") == 0, "it holds nothing of these topics"

    hall = await ask(c, "/v1/topics/hall:1")
    assert hall["all"] == {"channels": 2, "sessions": 1, "users": 1}
    assert (hall["history"], hall["rule"]["history"]) == (None, None)
    first = await ask(a, "/v1/topics?limit=1")
    second = await ask(a, f"/v1/topics?limit=1&cursor={first['next']}")
    assert [first["items"][0]["topic"], second["items"][0]["topic"]] == ["hall:1", ROOM]
    nowhere = await ask(a, "/v1/topics/nowhere")
    assert (nowhere["all"]["channels"], nowhere["rule"]) == (0, None)

    missing = name_of(b)
    b.signal(signal.SIGSTOP)
    for replica in (a, c):
        for path in ("/v1/topics", f"/v1/topics/{ROOM}", f"/v1/topics/{ROOM}/presence"):
            answer = await ask(replica, path)
            assert (answer["complete"], answer["missing_replicas"]) == (False, [missing])
    assert users_of(await ask(a, f"/v1/topics/{ROOM}/presence")) == {"u1": 2, "u2": 1}, "as known"
    assert users_of(await ask(c, f"/v1/topics/{ROOM}/presence")) == {"u1": 1}
    b.signal(signal.SIGCONT)

    async def whole() -> bool:
        return bool((await ask(c, f"/v1/topics/{ROOM}"))["complete"])

    await eventually(whole)


async def test_a_publish_to_a_user_says_whether_anybody_listens_though_it_is_stored(
    start_cluster: StartCluster, clients: Clients
) -> None:
    a, b = start_cluster(2, CONFIG | {"channels": PERSONAL}).replicas
    here = await clients.join(a, "here", "user:here")
    there = await clients.join(b, "there", "user:there")
    async with Backend(a) as backend:

        async def published(*users: str) -> list[bool | None]:
            body = {"users": users, "event": "said", "payload": {}}
            status, answer = await backend.post("/v1/publish", body)
            assert status == 202
            assert all(result["position"] for result in answer["results"])
            return [result.get("listening") for result in answer["results"]]

        assert await published("here", "there", "nobody") == [True, None, False]
        await eventually(lambda: here.events("user:here", "said") == [{}])
        await eventually(lambda: there.events("user:there", "said") == [{}])
        await there.close()

        async def gone() -> bool:
            return await published("there") == [False]

        await eventually(gone)
        message = {"user": "nobody", "event": "said", "payload": {}}
        _, answer = await backend.post("/v1/publish/batch", {"messages": [message] * 3})
        found = [item["results"][0]["listening"] for item in answer["results"]]
        assert found == [False, False, False]
