"""What nats-server refuses or takes away: heard by clients, backends, probes, metrics and log."""

import json
from pathlib import Path

from tests.cluster.conftest import MakeReader
from tests.cluster.reader import publish
from tests.conftest import StartGateway, StartNats
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.waiting import eventually

ROOM = "lobby:1"

CHANNELS = [
    {"pattern": "room:*", "push": "broadcast", "history": {"messages": 1000, "seconds": 300}},
    {"pattern": "lobby:*", "push": "broadcast"},
]


def permissions(*, hear: str = "", say: str = "") -> str:
    """One user, who may do everything but what is denied, each subject in quotes."""
    return f"""authorization {{ users = [{{ user: g, password: secret, permissions: {{
  publish: {{ allow: ["gateway.>", "$JS.API.>", "$KV.>"], deny: [{say}] }}
  subscribe: {{ allow: ["gateway.>", "$JS.EVENT.>"], deny: [{hear}] }} }} }}] }}"""


def config(url: str) -> dict[str, object]:
    """A replica that logs in as that user."""
    return {"bus": {"url": url.replace("://", "://g:secret@")}, "channels": CHANNELS}


def reasons(replica: GatewayProcess) -> list[str]:
    """Why a replica is not ready."""
    found: list[str] = json.loads(replica.get("/readyz")[1])["reasons"]
    return found


def words(replica: GatewayProcess) -> str:
    """What the log says of refusals."""
    lines = replica.log_lines()
    return " ".join(str(line["words"]) for line in lines if line["event"] == "bus server refused")


async def test_members_hear_again_when_a_right_that_was_taken_is_back(
    start_nats: StartNats, start_gateway: StartGateway, make_reader: MakeReader
) -> None:
    nats = start_nats(permissions())
    a, b = (start_gateway(config(nats.url)) for _ in range(2))
    member = await PhoenixClient.connect(b.socket_url, token())
    await member.join(ROOM)
    reader = make_reader("room:1")
    await reader.go(b)
    await publish(a, 1, topic="room:1")
    await reader.until([1])

    nats.reload(permissions(hear='"gateway.topic.>"'))
    await eventually(lambda: reasons(b) == ["bus_subscription_denied"])
    late = await PhoenixClient.connect(b.socket_url, token())
    for topic in (ROOM, "lobby:other", "room:1"):
        reply = (await late.join(topic))[4]
        assert reply["response"] == {"reason": "bus unavailable"}, (
            "nobody is told ok who hears nothing"
        )
    await publish(a, 2, 3, topic="room:1")
    assert "Permissions Violation for Subscription" in words(b)

    nats.reload(permissions())
    await eventually(lambda: b.get("/readyz")[0] == 200)
    await reader.until([1, 2, 3])
    assert (await late.join(ROOM))[4]["status"] == "ok"
    async with Backend(a) as backend:
        assert await backend.publish(ROOM, "again", {}) == 202
    for client in (member, late):
        await client.expect(lambda frame: frame[3] == "again")
        await client.close()
    assert b.metric("bus_refusals_total", kind="subscription_denied") >= 2
    assert b.metric("bus_reconnects_total") == 0


async def test_a_replica_that_may_not_hear_the_others_at_its_start_waits_for_the_right(
    start_nats: StartNats, start_gateway: StartGateway
) -> None:
    nats = start_nats(permissions(hear='"gateway.replicas"'))
    replica = start_gateway(config(nats.url), ready=False)
    await eventually(lambda: "bus_subscription_denied" in reasons(replica))
    nats.reload(permissions())
    await eventually(lambda: replica.get("/readyz")[0] == 200)


async def test_publishing_to_what_is_denied_is_refused_from_the_second_time_on(
    start_nats: StartNats, start_gateway: StartGateway
) -> None:
    nats = start_nats(permissions(say='"gateway.topic.lobby.1", "gateway.store.>"'))
    replica = start_gateway(config(nats.url))
    client = await PhoenixClient.connect(replica.socket_url, token())
    for topic in (ROOM, "room:1"):
        await client.join(topic)
    async with Backend(replica) as backend:
        message = {"topic": ROOM, "event": "m", "payload": {}}

        async def refused() -> bool:
            status, problem = await backend.post("/v1/publish", message)
            return status == 503 and problem["detail"].endswith(
                'Permissions Violation for Publish to "gateway.topic.lobby.1"'
            )

        await eventually(refused)
        status, problem = await backend.post("/v1/publish", message | {"topic": "room:1"})
        assert status == 503
        assert 'Violation for Publish to "gateway.store.room.1"' in problem["detail"]
        for topic in (ROOM, "room:1"):
            reply = (await client.ask(topic, "m", {}))[4]
            assert reply["response"] == {"reason": "bus unavailable"}
        assert await backend.publish("lobby:2", "m", {}) == 202
    assert "Permissions Violation for Publish" in words(replica)
    assert replica.get("/readyz")[0] == 200
    await client.close()


async def test_a_full_store_is_told_to_publishers_and_in_log_and_metrics(
    start_nats: StartNats, start_gateway: StartGateway, tmp_path: Path
) -> None:
    store = f'jetstream {{ store_dir: "{tmp_path}/full", max_file_store: 256KB }}'
    nats = start_nats(store, jetstream=False)
    replica = start_gateway({"bus": {"url": nats.url}, "channels": CHANNELS})
    full = "insufficient resources"
    message = {"topic": "room:1", "event": "n", "payload": {"x": "x" * 30_000}}
    async with Backend(replica) as backend:

        async def refused() -> bool:
            status, problem = await backend.post("/v1/publish", message)
            return status == 503 and full in problem["detail"]

        await eventually(refused)
        assert await backend.publish(ROOM, "m", {}) == 202
    assert replica.metric("bus_refusals_total", kind="store_full") >= 1
    assert full in words(replica)
