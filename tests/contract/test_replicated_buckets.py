"""Buckets on three servers: as many copies as are wanted, as soon as there are servers for them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
import structlog
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig
from nats.js.errors import NotFoundError

from gateway.bus import buckets, open_bus
from gateway.bus.base import Bus
from gateway.bus.remote import RemoteBus
from gateway.errors import BusUnavailable
from tests.contract.clients import ChangingServer, Client, Counters, Section
from tests.support.nats import NatsCluster
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

BUCKET = "g_kept"
STREAM = f"KV_{BUCKET}"
BEGIN_SECONDS = 60.0
"""Within which servers find each other and elect who leads."""

MAY_NOT_UPDATE = """
authorization { users: [{user: me, password: secret, permissions: {
  publish: { allow: ["$JS.>", "$KV.>", "t.>"], deny: ["$JS.API.STREAM.UPDATE.>"] } }}] }
"""

OpenBus = Callable[[int, str], Awaitable[Bus]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(buckets, "TRY_AGAIN_SECONDS", 0)
    monkeypatch.setattr(buckets, "WIDEN_AGAIN_SECONDS", 0.1)


@pytest.fixture
def growing_cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    """Three servers of which the third was not started yet."""
    cluster = NatsCluster(tmp_path / "growing")
    try:
        for server in cluster.servers[:2]:
            server.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
async def open_copied() -> AsyncIterator[OpenBus]:
    """Opens buses whose buckets shall have so many copies, on one of these servers."""
    clients: list[Client] = []

    async def opened(copies: int, url: str) -> Bus:
        counters = Counters()
        bus = open_bus(Section(url), metrics=counters, name="test", copies=copies)
        clients.append(Client(bus, counters))
        await bus.start()
        await clients[-1].until(up=True)
        return bus

    yield opened
    for client in clients:
        await client.bus.close()


@asynccontextmanager
async def operating(cluster: NatsCluster) -> AsyncIterator[JetStreamContext]:
    """What an operator can do on the servers."""
    client = await nats.connect(cluster.url.split(","), max_reconnect_attempts=-1)
    yield client.jetstream()
    await client.close()


@pytest.fixture
async def operator(nats_cluster: NatsCluster) -> AsyncIterator[JetStreamContext]:
    """Of the three servers."""
    async with operating(nats_cluster) as context:
        yield context


async def put(bus: Bus, key: str, value: bytes = b"1") -> None:
    """Keep a value, as soon as the servers take it."""

    async def taken() -> bool:
        try:
            await bus.put(BUCKET, key, value, keep_seconds=3600)
        except BusUnavailable:
            return False
        return True

    await eventually(taken, BEGIN_SECONDS, "the value is kept")


async def entries(bus: Bus) -> dict[str, bytes]:
    """All values, as soon as the servers say."""
    found: list[dict[str, bytes]] = []

    async def read() -> bool:
        try:
            found.append(await bus.entries(BUCKET))
        except BusUnavailable:
            return False
        return True

    await eventually(read, BEGIN_SECONDS, "the values are read")
    return found[-1]


async def copies(operator: JetStreamContext) -> int | None:
    """How many copies the bucket has; None where there is no bucket."""
    try:
        return (await operator.stream_info(STREAM)).config.num_replicas
    except NotFoundError:
        return None


async def until_copies(operator: JetStreamContext, number: int) -> None:
    """Wait until the bucket has so many copies."""

    async def there() -> bool:
        return await copies(operator) == number

    await eventually(there, BEGIN_SECONDS, f"{number} copies")


async def test_a_bucket_is_made_with_the_copies_that_are_wanted(
    nats_cluster: NatsCluster, open_copied: OpenBus, operator: JetStreamContext
) -> None:
    await put(await open_copied(3, nats_cluster.url), "a")
    assert await copies(operator) == 3
    await put(await open_copied(1, nats_cluster.url), "b")
    assert await copies(operator) == 3, "it is never narrowed"


@pytest.mark.parametrize("use", ["read", "written"])
async def test_a_bucket_with_too_few_copies_is_given_more_when_it_is_used(
    nats_cluster: NatsCluster, open_copied: OpenBus, operator: JetStreamContext, use: str
) -> None:
    await put(await open_copied(1, nats_cluster.url), "a")
    assert await copies(operator) == 1

    widening = await open_copied(3, nats_cluster.url)
    if use == "read":
        assert await entries(widening) == {"a": b"1"}
    else:
        await put(widening, "a")
    await until_copies(operator, 3)
    assert await entries(widening) == {"a": b"1"}


async def test_a_bucket_of_the_operators_keeps_its_copies_and_the_log_says_so(
    nats_cluster: NatsCluster, open_copied: OpenBus, operator: JetStreamContext
) -> None:
    bus = await open_copied(3, nats_cluster.url)
    await entries(bus)  # JetStream is there
    await operator.create_key_value(config=KeyValueConfig(bucket=BUCKET))
    with structlog.testing.capture_logs() as logs:
        await put(bus, "a")
    assert [line["bucket"] for line in logs if "too few copies" in line["event"]] == [BUCKET]
    assert await copies(operator) == 1


async def test_where_servers_are_missing_one_copy_is_kept_and_more_as_soon_as_they_come(
    growing_cluster: NatsCluster, open_copied: OpenBus
) -> None:
    bus = await open_copied(3, growing_cluster.url)
    with structlog.testing.capture_logs() as logs:
        await put(bus, "a")
        await eventually(lambda: any("cannot have more copies" in line["event"] for line in logs))
    async with operating(growing_cluster) as operator:
        assert await copies(operator) == 1
        assert await entries(bus) == {"a": b"1"}

        growing_cluster.servers[2].start()
        await until_copies(operator, 3)
    assert await entries(bus) == {"a": b"1"}


async def test_a_lone_server_keeps_the_one_copy_it_can(
    nats_server: ChangingServer, open_copied: OpenBus
) -> None:
    nats_server.start()
    bus = await open_copied(3, nats_server.url)
    await bus.put(BUCKET, "a", b"1", keep_seconds=3600)
    assert await bus.entries(BUCKET) == {"a": b"1"}


async def test_who_may_not_change_a_bucket_can_use_it_all_the_same(
    nats_server: ChangingServer, open_copied: OpenBus
) -> None:
    nats_server.extra = MAY_NOT_UPDATE
    nats_server.start()
    bus = await open_copied(3, nats_server.login("me:secret"))
    await bus.put(BUCKET, "a", b"1", keep_seconds=3600)
    with structlog.testing.capture_logs() as logs:
        assert await bus.entries(BUCKET) == {"a": b"1"}
        await eventually(lambda: any("cannot have more copies" in line["event"] for line in logs))
    assert await bus.entries(BUCKET) == {"a": b"1"}
    assert isinstance(bus, RemoteBus)
    assert bus._link is not None
    widening = bus._link.buckets._widening
    assert widening is not None
    await eventually(widening.done, what="nobody tries what is denied for ever")


async def test_who_may_not_change_a_bucket_keeps_values_for_the_time_it_has(
    nats_server: ChangingServer, open_copied: OpenBus
) -> None:
    nats_server.start()
    await (await open_copied(1, nats_server.url)).put(BUCKET, "a", b"1", keep_seconds=100)
    nats_server.kill()
    nats_server.extra = MAY_NOT_UPDATE
    nats_server.start()

    bus = await open_copied(1, nats_server.login("me:secret"))
    with structlog.testing.capture_logs() as logs:
        await bus.put(BUCKET, "b", b"2", keep_seconds=200)
    short = [line for line in logs if "too short a time" in line["event"]]
    assert [(line["seconds"], line["needed"]) for line in short] == [(100, 200)]
    assert await bus.entries(BUCKET) == {"a": b"1", "b": b"2"}


async def test_what_was_kept_last_is_read_though_a_copy_may_lag(
    nats_cluster: NatsCluster, open_copied: OpenBus
) -> None:
    """Each value takes the place of another, so the number of values says nothing."""
    bus, other = await open_copied(3, nats_cluster.url), await open_copied(3, nats_cluster.url)
    await put(bus, "a", b"0")
    for number in range(1, 60):
        await put(bus, "a", b"%d" % number)
        assert await entries(other) == {"a": b"%d" % number}


async def test_a_bucket_outlives_the_server_that_led_it(
    nats_cluster: NatsCluster, open_copied: OpenBus, operator: JetStreamContext
) -> None:
    bus = await open_copied(3, nats_cluster.url)

    async def kept_by_all() -> bool:
        """It may begin with one copy, and gets more when it is used."""
        await put(bus, "a")
        cluster = (await operator.stream_info(STREAM)).cluster
        others = (cluster and cluster.replicas) or []
        return len(others) == 2 and all(other.current for other in others)

    await eventually(kept_by_all, BEGIN_SECONDS, "all servers keep it")
    cluster = (await operator.stream_info(STREAM)).cluster
    assert cluster is not None
    nats_cluster.named(cluster.leader or "").kill()

    assert await entries(bus) == {"a": b"1"}
    await put(bus, "b")
    assert await entries(bus) == {"a": b"1", "b": b"1"}
