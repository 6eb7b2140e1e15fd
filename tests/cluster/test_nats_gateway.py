"""Two clusters of nats-servers, joined by a NATS gateway, with a replica on each: what works across them."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import require
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer, nats_server_binary
from tests.support.ports import free_port
from tests.support.tokens import token
from tests.support.waiting import eventually

WITHIN_SECONDS = 60.0
CONFIG: dict[str, Any] = {
    "channels": [
        {"pattern": "room:*", "presence": True, "push": "broadcast"},
        {"pattern": "kept:*", "history": {"messages": 10, "seconds": 300}},
    ],
}
NAMES = ("east", "west")


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GatewayProcess, ...]]:
    """A replica on each cluster; a cluster is one server, with a route to itself."""
    require("nats-server", nats_server_binary())
    gateways = {name: free_port() for name in NAMES}
    remotes = ", ".join(
        f'{{ name: {name}, url: "nats://127.0.0.1:{port}" }}' for name, port in gateways.items()
    )
    directory = tmp_path_factory.mktemp("sides")
    servers = []
    for name, port in gateways.items():
        route = free_port()
        extra = f"""
server_name: {name}
cluster {{ name: {name}, listen: "127.0.0.1:{route}", routes: ["nats://127.0.0.1:{route}"] }}
gateway {{ name: {name}, listen: "127.0.0.1:{port}", gateways: [{remotes}] }}
"""
        servers.append(NatsServer(directory / f"nats-{name}", extra))
    replicas = []
    for name, server in zip(NAMES, servers, strict=True):
        server.start()
        bus = {"bus": {"url": server.url}, "server": {"replica": name}}
        replicas.append(GatewayProcess(directory / name, CONFIG | bus))
    try:
        for replica in replicas:
            replica.start()
        yield tuple(replicas)
    finally:
        for replica in replicas:
            replica.kill()
        for server in servers:
            server.kill()


async def joined(replica: GatewayProcess, user: str, topic: str, **params: Any) -> PhoenixClient:
    client = await PhoenixClient.connect(replica.socket_url, token(user))
    assert (await client.join(topic, **params))[4]["status"] == "ok"
    return client


async def test_all_of_it_works_across_a_nats_gateway(sides: tuple[GatewayProcess, ...]) -> None:
    east, west = sides
    for side in sides:
        await eventually(
            lambda r=side: r.metric("replicas", state="live") == 2, WITHIN_SECONDS, "they meet"
        )
    phone, laptop = await joined(east, "42", "room:1"), await joined(west, "42", "room:1")
    async with Backend(east) as to_east, Backend(west) as to_west:

        async def across(path: str) -> bool:
            answers = [(await to.get(path))[1] for to in (to_east, to_west)]
            return all(a["complete"] and len(a["items"]) == 2 for a in answers)

        # sessions, presence, and a question about nobody, which nobody has to wait for
        await eventually(lambda: across("/v1/users/42/sessions"), what="both sessions")
        _, present = await to_east.get("/v1/topics/room:1/presence")
        assert [len(item["metas"]) for item in present["items"]] == [2]
        _, nobody = await to_west.get("/v1/users/nobody")
        assert (nobody["online"], nobody["complete"]) == (False, True)

        # broadcasts, from both sides
        assert await to_east.publish("room:1", "said", {"by": "east"}) == 202
        assert await to_west.publish("room:1", "said", {"by": "west"}) == 202
        for client in (phone, laptop):
            await eventually(lambda c=client: len(c.events("room:1", "said")) == 2)

        # history: stored on one side, and read on both
        assert await to_west.publish("kept:1", "said", {"n": 1}) == 202
        kept = [
            (await to.get("/v1/topics/kept:1/history"))[1]["items"] for to in (to_east, to_west)
        ]
        assert [item["payload"] for item in kept[0]] == [{"n": 1}]
        assert kept[0] == kept[1]

        # what is done to a user, and her tokens
        status, closed = await to_east.delete("/v1/users/42/sessions")
        assert (status, closed["disconnected"], closed["complete"]) == (200, 2, True)
        again = await joined(west, "43", "room:1")
        assert (await to_east.post("/v1/tokens/revoke", {"user": "43"}))[0] in {200, 202, 204}
        assert await again.closed() == 1001
    for client in (phone, laptop, again):
        await client.close()
