"""Revoked tokens are refused by every replica, whatever happens to it and the bus; others are unmoved."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.cluster.conftest import BehindLink, StartCluster
from tests.conftest import StartGateway, StartNats
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.ports import free_port
from tests.support.tokens import token
from tests.support.waiting import eventually

ROOM = "room:1"
REVOKE = "/v1/tokens/revoke"
WHOLE = {"complete": True, "missing_replicas": []}
AHEAD_SECONDS = 5
"""Less than the leeway: a token of the future is a token made after the revocation."""

BEHIND_SECONDS = 30
BEHIND = (
    f"import time; right = time.time; time.time = lambda: right() - {BEHIND_SECONDS};"
    "from gateway.cli import main; main()"
)
"""A gateway whose clock is behind."""

ONLY_GATEWAYS = (
    'authorization { users: [{ user: gateway, password: "p", '
    'permissions: { publish: ["gateway.>"], subscribe: ["gateway.>"] } }] }'
)
"""Permissions without JetStream, and without the server's clock."""


class Clients:
    """Clients of a test, closed after it."""

    def __init__(self) -> None:
        self.open: list[PhoenixClient] = []

    async def connect(self, replica: GatewayProcess, access: str, topic: str = "") -> PhoenixClient:
        """Open a socket, and join a topic if one is given."""
        client = await PhoenixClient.connect(replica.socket_url, access)
        self.open.append(client)
        if topic:
            assert (await client.join(topic))[4]["status"] == "ok"
        return client

    async def join(self, replica: GatewayProcess, access: str) -> PhoenixClient:
        """Open a socket and join the room."""
        return await self.connect(replica, access, ROOM)


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    clients = Clients()
    yield clients
    await asyncio.gather(*(client.close() for client in clients.open))


def newer(user: str = "42") -> str:
    """A token that is made in a moment."""
    return token(user, iat=int(time.time()) + AHEAD_SECONDS)


async def revoke(replica: GatewayProcess, **asked: str) -> tuple[int, Any]:
    """Status and answer."""
    async with Backend(replica) as backend:
        return await backend.post(REVOKE, asked)


async def refused(replica: GatewayProcess, access: str) -> bool:
    """Whether a replica refuses a token for being revoked."""
    before = replica.metric("connects_total", result="refused", reason="token_revoked")
    try:
        client = await PhoenixClient.connect(replica.socket_url, access)
    except InvalidStatus as answer:
        counted = replica.metric("connects_total", result="refused", reason="token_revoked")
        return answer.response.status_code == 403 and counted == before + 1
    await client.close()
    return False


async def test_tokens_of_a_user_are_refused_everywhere_and_their_sockets_closed(
    start_cluster: StartCluster, clients: Clients
) -> None:
    replicas = a, b, c = start_cluster(3).replicas
    old = token("42", iat=int(time.time()) - 60)
    on_a, on_b = await clients.join(a, old), await clients.join(b, token("42"))
    unjoined = await clients.connect(c, old)
    others = [await clients.join(replica, token("43")) for replica in replicas]
    after = await clients.join(c, newer())

    status, answer = await revoke(a, user="42")
    assert (status, answer) == (200, {"disconnected": 3} | WHOLE)
    for socket in (on_a, on_b, unjoined):
        assert await socket.closed() == 1001
    for replica in replicas:
        assert await refused(replica, old)
        await clients.join(replica, newer())
    assert await revoke(b, user="42") == (200, {"disconnected": 0} | WHOLE)
    for socket in (*others, after):
        assert (await socket.heartbeat())[4]["status"] == "ok"
    assert old not in "".join(replica.full_log() for replica in replicas)


@pytest.mark.parametrize("alone", [True, False], ids=["the server's", "another replica's"])
async def test_a_replica_whose_clock_is_behind_revokes_by_one_that_is_not(
    start_nats: StartNats,
    start_gateway: StartGateway,
    clients: Clients,
    tmp_path: Path,
    *,
    alone: bool,
) -> None:
    nats = start_nats("" if alone else ONLY_GATEWAYS)
    bus = {"bus": {"url": nats.url.replace("://", "://gateway:p@")}}
    behind = GatewayProcess(tmp_path / "behind", bus, command=("-c", BEHIND))
    try:
        behind.start()
        if alone:
            await eventually(lambda: behind.metric("clock_skew_seconds") > BEHIND_SECONDS / 2)
        ahead = start_gateway(bus)
        await eventually(lambda: behind.metric("clock_skew_seconds") > BEHIND_SECONDS / 2)
        access = token("42", iat=int(time.time()) - 1)
        socket = await clients.join(ahead, access)
        assert await revoke(behind, user="42") == (200, {"disconnected": 1} | WHOLE)

        assert await socket.closed() == 1001
        assert await refused(ahead, access)
        [warning] = [line for line in behind.log_lines() if "clocks differ" in line["event"]]
        assert (warning["level"], warning["other"] == "nats-server") == ("warning", alone)
        assert round(warning["seconds_ahead"]) == BEHIND_SECONDS
    finally:
        behind.kill()


async def test_one_token_is_revoked_by_its_id(
    start_cluster: StartCluster, clients: Clients
) -> None:
    a, b = start_cluster(2).replicas
    stolen, other = token("42", jti="stolen"), token("42", jti="other")
    on_b = await clients.join(b, stolen)
    stays = await clients.join(b, other)
    await clients.join(a, token("43"))

    assert await revoke(a, jti="stolen") == (200, {"disconnected": 1} | WHOLE)
    assert await on_b.closed() == 1001
    for replica in (a, b):
        assert await refused(replica, stolen)
        assert not await refused(replica, other)
    assert (await stays.heartbeat())[4]["status"] == "ok"


async def test_only_tokens_issued_before_a_stated_time_are_meant(
    start_cluster: StartCluster, clients: Clients
) -> None:
    a, b = start_cluster(2).replicas
    now = int(time.time())
    before = await clients.join(b, token("42", iat=now - 100))
    after = await clients.join(b, token("42", iat=now - 50))
    stated = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 75))

    status, answer = await revoke(a, user="42", issued_before=stated)
    assert (status, answer) == (200, {"disconnected": 1} | WHOLE)
    assert await before.closed() == 1001
    assert await refused(b, token("42", iat=now - 76))
    assert not await refused(b, token("42", iat=now - 75))
    assert (await after.heartbeat())[4]["status"] == "ok"


@pytest.mark.parametrize("jetstream", [True, False])
async def test_a_replica_that_starts_later_refuses_too(
    start_cluster: StartCluster, start_gateway: StartGateway, jetstream: bool
) -> None:
    cluster = start_cluster(2, jetstream=jetstream)
    stolen, of_41 = token("42", jti="stolen"), token("41")
    assert (await revoke(cluster.replicas[0], user="41"))[1] == {"disconnected": 0} | WHOLE
    assert (await revoke(cluster.replicas[0], jti="stolen"))[1] == {"disconnected": 0} | WHOLE

    late = start_gateway({"bus": {"url": cluster.nats.url}})
    assert await refused(late, stolen)
    assert await refused(late, of_41)
    assert not await refused(late, token("42"))


async def test_with_jetstream_it_outlives_all_replicas_and_the_server(
    start_cluster: StartCluster,
) -> None:
    cluster = start_cluster(2)
    a, b = cluster.replicas
    old = token("42")
    assert (await revoke(a, user="42"))[0] == 200
    for replica in (a, b):
        replica.kill()
    cluster.nats.kill()
    cluster.nats.start()

    b.start()
    assert await refused(b, old)
    assert not await refused(b, token("43"))


@pytest.mark.parametrize("jetstream", [True, False])
async def test_a_restart_of_the_bus_makes_no_difference(
    start_cluster: StartCluster, start_gateway: StartGateway, clients: Clients, jetstream: bool
) -> None:
    cluster = start_cluster(2, jetstream=jetstream)
    old = token("42")
    assert (await revoke(cluster.replicas[0], user="42"))[0] == 200
    stays = await clients.join(cluster.replicas[1], newer())
    cluster.nats.kill()
    for replica in cluster.replicas:
        await eventually(lambda r=replica: r.metric("bus_connected") == 0)
    cluster.nats.start()

    late = start_gateway({"bus": {"url": cluster.nats.url}})
    for replica in cluster.replicas:
        await eventually(lambda r=replica: r.get("/readyz")[0] == 200)
        assert await refused(replica, old)
    if jetstream:
        assert await refused(late, old)
    else:  # it may have been the first on the bus, with nobody there to ask
        await eventually(lambda: refused(late, old))
    assert (await stays.heartbeat())[4]["status"] == "ok"


async def test_a_stalled_replica_is_named_and_learns_it_when_it_goes_on(
    start_cluster: StartCluster, clients: Clients
) -> None:
    a, b = start_cluster(2, {"sessions": {"replica_down_after_seconds": 30}}).replicas
    [name] = [line["replica"] for line in b.log_lines() if line["event"] == "serving"]
    old = token("42")
    on_b = await clients.join(b, old)
    b.signal(signal.SIGSTOP)
    status, answer = await revoke(a, user="42")
    assert status == 200
    assert answer == {"disconnected": 0, "complete": False, "missing_replicas": [name]}

    b.signal(signal.SIGCONT)
    assert await on_b.closed() == 1001
    assert await refused(b, old)
    assert (await revoke(a, user="42"))[1] == {"disconnected": 0} | WHOLE


@pytest.mark.parametrize("jetstream", [True, False])
async def test_a_replica_that_was_cut_off_learns_it_when_the_bus_is_back(
    start_nats: StartNats,
    start_gateway: StartGateway,
    behind_link: BehindLink,
    clients: Clients,
    jetstream: bool,
) -> None:
    nats = start_nats(jetstream=jetstream)
    old = token("42")
    a = start_gateway({"bus": {"url": nats.url}})
    b, cut, heal = behind_link(nats, {})
    on_b, other = await clients.join(b, old), await clients.join(b, token("43"))
    cut()
    await eventually(lambda: b.metric("bus_connected") == 0)
    status, answer = await revoke(a, user="42")
    assert (status, answer["complete"], len(answer["missing_replicas"])) == (200, False, 1)
    assert (await on_b.heartbeat())[4]["status"] == "ok"

    heal()
    assert await on_b.closed() == 1001
    assert await refused(b, old)
    assert (await other.heartbeat())[4]["status"] == "ok"


@pytest.mark.parametrize("jetstream", [True, False])
async def test_without_the_bus_it_is_in_force_here_and_elsewhere_when_it_is_back(
    start_cluster: StartCluster, clients: Clients, jetstream: bool
) -> None:
    cluster = start_cluster(2, jetstream=jetstream)
    a, b = cluster.replicas
    old = token("42")
    on_a, on_b = await clients.join(a, old), await clients.join(b, old)
    other = await clients.join(b, token("43"))
    cluster.nats.kill()
    for replica in (a, b):
        await eventually(lambda r=replica: r.metric("bus_connected") == 0)

    status, problem = await revoke(a, user="42")
    assert status == 503
    assert "This replica refuses the tokens already" in problem["detail"]
    assert await on_a.closed() == 1001
    assert await refused(a, old)
    assert (await on_b.heartbeat())[4]["status"] == "ok", "nobody could tell it"

    cluster.nats.start()
    assert await on_b.closed() == 1001
    assert await refused(b, old)
    assert (await other.heartbeat())[4]["status"] == "ok"


async def test_a_replica_that_cannot_read_what_was_revoked_serves_nobody_until_it_can(
    start_nats: StartNats, start_gateway: StartGateway
) -> None:
    """JetStream in a cluster does not answer before a majority of its servers is there."""
    ports = free_port(), free_port()
    configs = [
        f"server_name: s{mine}\n"
        f'cluster {{ name: c, listen: "127.0.0.1:{mine}", routes: ["nats://127.0.0.1:{peer}"] }}'
        for mine, peer in (ports, ports[::-1])
    ]
    nats = start_nats(configs[0])
    gateway = start_gateway({"bus": {"url": nats.url}}, ready=False)
    await eventually(lambda: gateway.metric("bus_connected") == 1)
    await eventually(lambda: any("cannot read" in line["event"] for line in gateway.log_lines()))
    status, report = gateway.get("/readyz")
    assert (status, json.loads(report)["reasons"]) == (503, ["starting", "revocations_unknown"])
    with pytest.raises(InvalidStatus) as answer:
        await PhoenixClient.connect(gateway.socket_url, token())
    assert answer.value.response.status_code == 503
    assert gateway.get("/livez")[0] == 200

    start_nats(configs[1])
    await eventually(lambda: gateway.get("/readyz")[0] == 200, within=60)
    client = await PhoenixClient.connect(gateway.socket_url, token())
    await client.close()


async def test_a_user_of_nats_without_permission_for_jetstream_is_enough(
    start_nats: StartNats, start_gateway: StartGateway
) -> None:
    nats = start_nats(ONLY_GATEWAYS)
    bus = {"bus": {"url": nats.url.replace("://", "://gateway:p@")}}
    a, old = start_gateway(bus), token("42")
    assert await revoke(a, user="42") == (200, {"disconnected": 0} | WHOLE)

    assert await refused(start_gateway(bus), old)


async def test_on_the_memory_bus_one_replica_is_all_there_is(
    start_gateway: StartGateway, clients: Clients
) -> None:
    gateway = start_gateway()
    access = token("42")
    client = await clients.join(gateway, access)

    assert await revoke(gateway, user="42") == (200, {"disconnected": 1} | WHOLE)
    assert await client.closed() == 1001
    assert await refused(gateway, access)
    await clients.join(gateway, newer())
