"""History when an operator seals, purges or narrows its stream by hand."""

import asyncio
import contextlib
import time
from typing import Any

import msgspec
import nats
import pytest

from gateway.log import QUIET_SECONDS
from tests.cluster.conftest import BehindLink, Cluster, MakeReader, StartCluster
from tests.cluster.reader import Reader, publish, recovered
from tests.support.api import Backend
from tests.support.gateway import GatewayProcess
from tests.support.waiting import eventually

HISTORY = {"messages": 1000, "seconds": 300}
CONFIG = {"channels": [{"pattern": "room:*", "push": "broadcast", "history": HISTORY}]}


@pytest.fixture
def cluster(start_cluster: StartCluster) -> Cluster:
    """Two replicas."""
    return start_cluster(2, CONFIG)


async def jetstream(cluster: Cluster, operation: str, query: dict[str, Any] | None = None) -> Any:
    """Have JetStream do something with the stream, as an operator would."""
    client = await nats.connect(cluster.nats.url)
    body = b"" if query is None else msgspec.json.encode(query)
    answer = await client.request(f"$JS.API.STREAM.{operation}.GATEWAY", body, timeout=10)
    await client.close()
    found = msgspec.json.decode(answer.data)
    assert "error" not in found, found
    return found


async def config(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = (await jetstream(cluster, "INFO"))["config"]
    return found


async def leave(reader: Reader, replica: GatewayProcess) -> None:
    """Go away for so long that the replica has no memory of the topic."""
    await eventually(
        lambda: replica.metric("subscriptions") > 0, 20, "a gauge is set once a second"
    )
    await reader.stop()
    await eventually(lambda: replica.metric("subscriptions") == 0)


async def test_a_sealed_stream_is_named_by_readiness_and_left_alone(cluster: Cluster) -> None:
    await publish(cluster.replicas[0], 1)
    began_at = time.monotonic()
    await jetstream(cluster, "UPDATE", await config(cluster) | {"sealed": True})
    for replica in cluster.replicas:
        await eventually(lambda r=replica: b"history_stream_unfit" in r.get("/readyz")[1])
    watcher = await nats.connect(cluster.nats.url)
    changes = await watcher.subscribe("$JS.EVENT.ADVISORY.STREAM.*.GATEWAY")
    await watcher.flush()
    asked = await watcher.subscribe("$JS.API.STREAM.*.GATEWAY")
    await watcher.flush()
    for _ in range(20):
        # what anybody changes wakes nobody who knows that nothing can be done
        await watcher.publish("$JS.EVENT.ADVISORY.STREAM.UPDATED.GATEWAY", b"{}")
    looks = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            while looks < 100:
                await asked.next_msg(timeout=5)
                looks += 1
    assert looks <= 2 * 5
    assert changes.pending_msgs <= 20, "the replicas changed nothing"
    await watcher.close()
    for replica in cluster.replicas:
        told = [line for line in replica.log_lines() if "is sealed" in line.get("problem", "")]
        assert 1 <= len(told) <= 2 + (time.monotonic() - began_at) / QUIET_SECONDS
        async with Backend(replica) as backend:
            body = {"topic": "room:1", "event": "n", "payload": {}}
            assert (await backend.post("/v1/publish", body))[0] == 503

    await jetstream(cluster, "DELETE")
    for replica in cluster.replicas:
        await eventually(lambda r=replica: r.get("/readyz")[0] == 200, 60)
    await publish(cluster.replicas[0], 1)


@pytest.mark.parametrize(
    "taken",
    [
        ("PURGE", None),
        ("PURGE", {"keep": 2}),
        ("UPDATE", {"max_msgs": 3}),
        ("UPDATE", {"max_bytes": 400}),
        ("UPDATE", {"max_msgs_per_subject": 3}),
    ],
    ids=str,
)
async def test_who_was_away_when_messages_were_taken_away_is_told(
    cluster: Cluster, make_reader: MakeReader, taken: tuple[str, dict[str, Any] | None]
) -> None:
    """Whichever replica she comes back to, and whether it has followed the topic or not."""
    a, b = cluster.replicas
    reader = make_reader()
    await reader.go(a)
    await publish(a, 1)
    await reader.until([1])
    position = reader.last
    await leave(reader, a)
    await publish(b, *range(2, 12))
    operation, query = taken
    if operation == "UPDATE" and query is not None:
        query = await config(cluster) | query
    await jetstream(cluster, operation, query)
    for replica in (a, b):
        reader.last = position
        answer = await reader.go(replica)
        assert (answer["recovered"], answer["reason"]) == (False, "expired")
    assert reader.numbers == [1]
    # from here on all is well again
    last = reader.last
    await reader.stop()
    await publish(b, 12)
    assert await reader.go(a) == recovered(last)
    await reader.until([1, 12])


async def test_who_missed_nothing_that_was_purged_goes_on(
    cluster: Cluster, make_reader: MakeReader
) -> None:
    a, b = cluster.replicas
    reader = make_reader()
    await reader.go(a)
    await publish(a, 1, 2)
    await reader.until([1, 2])
    await leave(reader, a)
    await jetstream(cluster, "PURGE")
    await publish(b, 3, 4)
    assert await reader.go(a) == recovered(reader.answers[-1]["position"])
    await reader.until([1, 2, 3, 4])


async def test_a_member_whose_replica_had_no_bus_when_all_was_purged_is_told(
    start_cluster: StartCluster, behind_link: BehindLink, make_reader: MakeReader
) -> None:
    cluster = start_cluster(1, CONFIG)
    [a] = cluster.replicas
    b, cut, heal = behind_link(cluster.nats, CONFIG)
    reader = make_reader()
    await reader.go(b)
    await publish(a, 1)
    await reader.until([1])
    cut()
    await publish(a, 2, 3)
    await jetstream(cluster, "PURGE")
    heal()
    await eventually(lambda: len(reader.answers) == 2, 60, "it joins again by itself")

    assert (reader.answers[-1]["recovered"], reader.answers[-1]["reason"]) == (False, "expired")
    await publish(a, 4)
    await reader.until([1, 4])
    assert reader.errors == 1
