"""Three NATS servers, replicas that know them all, and one server that is gone and does not come back."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest
from websockets.exceptions import InvalidStatus

from tests.cluster.conftest import MakeReader
from tests.cluster.reader import Pouring, Reader, kept
from tests.cluster.servers import (
    REVOCATIONS,
    ask,
    have_lead,
    leader,
    on,
)
from tests.conftest import StartGateway
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsCluster
from tests.support.tokens import token
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

KEPT = {"channels": [{"pattern": "room:*", "history": {"messages": 1000, "seconds": 300}}]}
PROMISED_SECONDS = 60.0
"""Twice what every message reaches everybody within, whatever the bus lost: a machine may be busy."""

START_SECONDS = 120.0

PAUSE_SECONDS = 0.03
"""Between two messages; a page of the history shows a thousand."""

StartReplica = Callable[..., Awaitable[GatewayProcess]]


@pytest.fixture
def start_replica(nats_cluster: NatsCluster, start_gateway: StartGateway) -> StartReplica:
    """Starts a replica that knows all servers, and waits until it is ready."""

    async def start(*, copies: int = 3, history: bool = True) -> GatewayProcess:
        config = {"bus": {"url": nats_cluster.url}, "history": {"replicas": copies}}
        replica = await asyncio.to_thread(
            start_gateway, KEPT | config if history else config, ready=False
        )
        await eventually(lambda: replica.get("/readyz")[0] == 200, START_SECONDS, "ready")
        return replica

    return start


@pytest.fixture
async def replicas(start_replica: StartReplica) -> list[GatewayProcess]:
    """Three replicas, on whichever servers."""
    return [await start_replica() for _ in range(3)]


@pytest.fixture
async def readers(replicas: list[GatewayProcess], make_reader: MakeReader) -> list[Reader]:
    """Two clients on each replica."""
    made = [make_reader() for _ in range(6)]
    for number, reader in enumerate(made):
        await reader.go(replicas[number % 3])
    return made


async def leader_with_replicas(servers: NatsCluster, replicas: list[GatewayProcess]) -> int:
    """Number of a server that replicas are connected to, and that leads the history from now on."""
    number = next(n for n, server in enumerate(servers.servers) if on(replicas, server))
    await have_lead(servers, number)
    return number


async def until_left(servers: NatsCluster, replicas: list[GatewayProcess], number: int) -> None:
    """Wait until no replica is on a server any more."""
    gone = servers.servers[number]
    await eventually(lambda: not on(replicas, gone), PROMISED_SECONDS, "all have left it")


async def page_of(replica: GatewayProcess) -> list[int]:
    """All that is stored; the answer to a read may have been expected of a server that hangs."""
    pages: list[list[int]] = []

    async def read() -> bool:
        with contextlib.suppress(AssertionError):
            pages.append(await kept(replica))
        return bool(pages)

    await eventually(read, PROMISED_SECONDS, "the history is read")
    return pages[0]


@pytest.mark.parametrize("hangs", [False, True], ids=["killed", "hangs"])
async def test_the_leader_with_replicas_on_it_is_gone_for_good(
    nats_cluster: NatsCluster,
    replicas: list[GatewayProcess],
    readers: list[Reader],
    start_replica: StartReplica,
    *,
    make_reader: MakeReader,
    hangs: bool,
) -> None:
    number = await leader_with_replicas(nats_cluster, replicas)
    gone = nats_cluster.servers[number]
    traveller = make_reader()
    await traveller.go(on(replicas, gone)[0])
    async with Pouring(*replicas, pause=PAUSE_SECONDS) as pouring:
        await pouring.more(50)
        await traveller.stop()
        if hangs:
            gone.pause()
        else:
            gone.kill()
        await until_left(nats_cluster, replicas, number)
        await pouring.more(200)
        last = pouring.number
        for reader in readers:
            await eventually(
                lambda r=reader: r.numbers[-1:] >= [last], PROMISED_SECONDS, "it goes on"
            )
        later = await start_replica()
        answer = await traveller.go(later)
        assert answer["recovered"] is True
        await pouring.more(50)
        numbers = await pouring.stop()
    for reader in (*readers, traveller):
        await reader.until(numbers, PROMISED_SECONDS)
    for reader in readers:
        assert (reader.errors, reader.closes, len(reader.answers)) == (0, [], 1)
    assert set(pouring.statuses) <= {503, 504}
    for replica in (*replicas, later):
        assert await page_of(replica) == numbers
        assert replica.metric("replicas_lost_total") == 0, "nobody took another for dead"
    assert await leader(nats_cluster) != number


async def revoke(replica: GatewayProcess, user: str) -> bool:
    """Revoke the tokens of a user; whether it was kept for those who start later."""
    async with Backend(replica) as backend:
        status, answer = await backend.post("/v1/tokens/revoke", {"user": user})
        return status == 200 and answer["complete"] is True


async def refused(replica: GatewayProcess, access: str) -> bool:
    """Whether a replica refuses a token."""
    try:
        client = await PhoenixClient.connect(replica.socket_url, access)
    except InvalidStatus as answer:
        return answer.response.status_code == 403
    await client.close()
    return False


async def copies(servers: NatsCluster) -> int:
    """How many servers keep what was revoked."""
    return int((await ask(servers, "INFO", REVOCATIONS))["config"]["num_replicas"])


async def until_all_keep_it(servers: NatsCluster) -> None:
    """Wait until every server has all of what was revoked: the bucket may have begun with one copy."""

    async def kept_by_all() -> bool:
        found = await ask(servers, "INFO", REVOCATIONS)
        others = found["cluster"].get("replicas", ())
        return len(others) == 2 and all(other["current"] for other in others)

    await eventually(kept_by_all, START_SECONDS, "all servers keep it")


@pytest.mark.parametrize("hangs", [False, True], ids=["killed", "hangs"])
async def test_what_was_revoked_is_known_to_who_starts_after_its_server_is_gone_for_good(
    nats_cluster: NatsCluster, start_replica: StartReplica, hangs: bool
) -> None:
    """No rule keeps history here, and no replica is left that could tell it."""
    before, old = await start_replica(history=False), token("42")
    await eventually(lambda: revoke(before, "42"), START_SECONDS, "it is kept")
    await until_all_keep_it(nats_cluster)
    gone = nats_cluster.servers[await leader(nats_cluster, REVOCATIONS)]
    before.kill()
    if hangs:
        gone.pause()
    else:
        gone.kill()

    later = await start_replica(history=False)
    assert await refused(later, old)
    assert not await refused(later, token("43"))
    await eventually(lambda: revoke(later, "43"), START_SECONDS, "more can be revoked")
    assert await refused(later, token("43"))


async def test_what_one_server_kept_is_kept_by_all_once_a_replica_starts_that_wants_it(
    nats_cluster: NatsCluster, start_replica: StartReplica
) -> None:
    before, old = await start_replica(copies=1), token("42")
    await eventually(lambda: revoke(before, "42"), START_SECONDS, "it is kept")
    assert await copies(nats_cluster) == 1
    await start_replica(copies=3)
    await until_all_keep_it(nats_cluster)
    before.kill()
    nats_cluster.servers[await leader(nats_cluster, REVOCATIONS)].kill()

    assert await refused(await start_replica(copies=3), old)
