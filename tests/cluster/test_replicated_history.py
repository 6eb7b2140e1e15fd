"""Three NATS servers that keep history together, a replica on each: one is away, or cannot reach another."""

import asyncio

import pytest

from tests.cluster.conftest import MakeReader
from tests.cluster.reader import Pouring, Reader, have_taken, kept
from tests.cluster.servers import ask, leader
from tests.conftest import StartGateway
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsCluster
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

CONFIG = {
    "channels": [{"pattern": "room:*", "history": {"messages": 1000, "seconds": 300}}],
    "history": {"replicas": 3},
}
PROMISED_SECONDS = 60.0
"""Twice what every message reaches everybody within, whatever the bus lost: a machine may be busy."""


@pytest.fixture
async def replicas(nats_cluster: NatsCluster, start_gateway: StartGateway) -> list[GatewayProcess]:
    """A replica on each server, which knows no other."""
    made = [
        start_gateway(CONFIG | {"bus": {"url": server.url}}, ready=False)
        for server in nats_cluster.servers
    ]
    for replica in made:
        await eventually(lambda r=replica: r.get("/readyz")[0] == 200, 60)
    return made


@pytest.fixture
async def readers(replicas: list[GatewayProcess], make_reader: MakeReader) -> list[Reader]:
    """Two clients on each replica."""
    made = [make_reader() for _ in range(6)]
    for number, reader in enumerate(made):
        await reader.go(replicas[number % 3])
    return made


async def test_the_leader_steps_down(
    nats_cluster: NatsCluster, replicas: list[GatewayProcess], readers: list[Reader]
) -> None:
    async with Pouring(*replicas) as pouring:
        for _ in range(3):
            await pouring.more(50)
            await ask(nats_cluster, "LEADER.STEPDOWN")
        await pouring.more(50)
        numbers = await pouring.stop()
    for reader in readers:
        await reader.until(numbers, PROMISED_SECONDS)
        assert (reader.errors, reader.closes, len(reader.answers)) == (0, [], 1)
    assert set(pouring.statuses) <= {503, 504}
    assert await kept(replicas[0]) == numbers


async def test_the_leader_is_killed(
    nats_cluster: NatsCluster, replicas: list[GatewayProcess], readers: list[Reader]
) -> None:
    """Clients of the replica that was connected to it get what they miss when it is back."""
    async with Pouring(*replicas) as pouring:
        await pouring.more(50)
        first = await leader(nats_cluster)
        nats_cluster.servers[first].kill()
        await pouring.more(50)
        on_it = readers[first::3]
        elsewhere = [reader for reader in readers if reader not in on_it]
        last = pouring.number
        for reader in elsewhere:
            await eventually(
                lambda r=reader: r.numbers[-1:] >= [last], PROMISED_SECONDS, "it goes on elsewhere"
            )
        await asyncio.to_thread(nats_cluster.servers[first].start)
        await pouring.more(50)
        numbers = await pouring.stop()
    for reader in readers:
        await reader.until(numbers, PROMISED_SECONDS)
        assert (reader.errors, reader.closes, len(reader.answers)) == (0, [], 1)
    assert set(pouring.statuses) <= {503, 504}
    for replica in replicas:
        assert await kept(replica) == numbers


@pytest.mark.parametrize("healed", [True, False], ids=["healed", "never healed"])
async def test_a_route_is_cut_while_the_last_message_is_published(
    nats_cluster: NatsCluster, replicas: list[GatewayProcess], readers: list[Reader], healed: bool
) -> None:
    """The far server is told of it by nobody, its clients neither, and nothing comes after it."""
    lead = await leader(nats_cluster)
    far = (lead + 1) % 3
    await have_taken(replicas[lead], 1)
    for reader in readers:
        await reader.until([1])
    nats_cluster.cut(lead, far)
    await have_taken(replicas[lead], 2)
    if healed:
        nats_cluster.heal(lead, far)
    await asyncio.gather(*(reader.until([1, 2], PROMISED_SECONDS) for reader in readers))

    for reader in readers:
        assert (reader.errors, reader.closes, len(reader.answers)) == (0, [], 1)
    if healed:
        await have_taken(replicas[far], 3)
        for reader in readers:
            await reader.until([1, 2, 3], PROMISED_SECONDS)
    assert replicas[far].metric("history_repairs_total") >= 1


async def test_who_resumes_on_a_far_server_has_what_was_stored_a_moment_before(
    replicas: list[GatewayProcess], readers: list[Reader], make_reader: MakeReader
) -> None:
    """Copies may lag: whatever was acknowledged is there for who comes next, on whichever server."""
    numbers: list[int] = []
    traveller = make_reader()
    await traveller.go(replicas[0])
    for turn in range(12):
        await traveller.stop()
        numbers += (2 * turn, 2 * turn + 1)
        await have_taken(replicas[turn % 3], *numbers[-2:])
        answer = await traveller.go(replicas[(turn + 1) % 3])
        assert answer["recovered"] is True
        await traveller.until(numbers)
    for reader in readers:
        await reader.until(numbers)
