"""Nothing missed by who comes back, on whichever replica."""

import asyncio

import pytest

from tests.cluster.conftest import BehindLink, Cluster, MakeReader, StartCluster
from tests.cluster.reader import Pouring, SlowReader, kept, publish, publish_many, recovered
from tests.support.api import Backend
from tests.support.gateway import GatewayProcess
from tests.support.waiting import eventually

CHANNELS = [
    {"pattern": "room:*", "push": "broadcast", "history": {"messages": 1000, "seconds": 300}},
    {"pattern": "short:*", "history": {"messages": 5, "seconds": 3}},
]
CONFIG = {"channels": CHANNELS}


@pytest.fixture
def cluster(start_cluster: StartCluster) -> Cluster:
    """Two replicas."""
    return start_cluster(2, CONFIG)


async def test_three_resumes_in_a_row_each_on_another_replica(
    start_cluster: StartCluster, make_reader: MakeReader
) -> None:
    a, b, c = start_cluster(3, CONFIG).replicas
    reader, stays = make_reader(), make_reader()
    answer = await reader.go(a)
    assert (answer["recovered"], answer["reason"]) == (None, None)
    await stays.go(c)
    await publish(b, 1, 2)
    await reader.until([1, 2])
    numbers = [1, 2]
    for replica, other in ((b, c), (c, a), (a, b)):
        await reader.stop()
        last = reader.last
        numbers += await _more(other, numbers)
        assert await reader.go(replica) == recovered(last)
        await reader.until(numbers)
        numbers += await _more(replica, numbers)
        await reader.until(numbers)
    await stays.until(numbers)
    assert a.metric("resumes_total", result="recovered") == 1


async def _more(replica: GatewayProcess, numbers: list[int]) -> list[int]:
    """Publish two more."""
    more = [numbers[-1] + 1, numbers[-1] + 2]
    await publish(replica, *more)
    return more


async def test_a_position_ahead_of_what_the_new_replica_has_seen(
    start_cluster: StartCluster, behind_link: BehindLink, make_reader: MakeReader
) -> None:
    """The replica's live copies were lost, and it is resumed on the moment it is back."""
    cluster = start_cluster(1, CONFIG)
    [a] = cluster.replicas
    b, cut, heal = behind_link(cluster.nats, CONFIG)
    ahead, behind, stays = make_reader(), make_reader(), make_reader()
    await ahead.go(a)
    await behind.go(a)
    await stays.go(b)
    await publish(a, 1)
    for reader in (ahead, behind, stays):
        await reader.until([1])
    await behind.stop()
    cut()
    await publish(a, 2, 3)
    await ahead.until([1, 2, 3])
    await ahead.stop()
    last, older = ahead.last, behind.last
    await asyncio.gather(ahead.go(b, wait=False), behind.go(b, wait=False))
    heal()
    for reader in (ahead, behind, stays):
        await reader.until([1, 2, 3])
    await eventually(lambda: len(ahead.answers) > 1)
    assert ahead.answers[-1] == recovered(last)
    assert behind.answers[-1] == recovered(older)
    await publish(b, 4)
    for reader in (ahead, behind, stays):
        await reader.until([1, 2, 3, 4])
    assert set(ahead.refusals + behind.refusals) <= {"bus unavailable"}


async def test_clients_of_a_killed_replica_resume_elsewhere(
    cluster: Cluster, make_reader: MakeReader
) -> None:
    a, b = cluster.replicas
    readers = [make_reader() for _ in range(10)]
    stays = make_reader()
    await stays.go(b)
    for reader in readers:
        await reader.go(a, b)
    async with Pouring(a, b) as pouring:
        await pouring.more(100)
        a.kill()
        await pouring.more(50)
        numbers = await pouring.stop()
    for reader in (*readers, stays):
        await reader.until(numbers)
        assert [answer["recovered"] for answer in reader.answers[1:]] == [True] * (reader != stays)
    assert await kept(b) == numbers
    a.start()
    for reader in readers:
        await reader.go(a)
    await publish(a, numbers[-1] + 1)
    for reader in (*readers, stays):
        await reader.until([*numbers, numbers[-1] + 1])


async def test_a_rolling_drain_costs_nobody_a_message(
    start_cluster: StartCluster, make_reader: MakeReader
) -> None:
    drain = {"delay_seconds": 0.2, "window_seconds": 0.5}
    replicas = start_cluster(3, CONFIG | {"drain": drain}).replicas
    readers = [make_reader() for _ in range(9)]
    for number, reader in enumerate(readers):
        await reader.go(*replicas[number % 3 :], *replicas[: number % 3])
    async with Pouring(*replicas) as pouring:
        await pouring.more(50)
        for replica in replicas:
            replica.terminate()
            assert await asyncio.to_thread(replica.wait) == 0
            await asyncio.to_thread(replica.start)
            await pouring.more(20)
        numbers = await pouring.stop()
    for reader in readers:
        await reader.until(numbers)
        assert set(reader.closes) <= {1012}
        assert reader.closes
        answers = reader.answers[1:]
        assert [answer["recovered"] for answer in answers] == [True] * len(reader.closes)


async def test_on_a_quiet_topic_positions_stay_young_and_count_on_every_replica(
    cluster: Cluster, make_reader: MakeReader
) -> None:
    a, b = cluster.replicas
    reader, old = make_reader("short:1"), make_reader("short:1")
    start = (await reader.go(a))["position"]
    told: set[str] = set()

    def has_been_told() -> bool:
        told.add(reader.last)
        return len(told) >= 5  # longer than the rule's seconds: one each second at the most

    await eventually(has_been_told)
    last = reader.last
    a.kill()
    await publish(b, 1, topic="short:1")
    assert await reader.go(b) == recovered(last)
    await reader.until([1])
    old.last = start
    answer = await old.go(b)
    assert (answer["recovered"], answer["reason"]) == (False, "expired")
    await publish(b, 2, topic="short:1")
    await reader.until([1, 2])
    await old.until([2])


async def test_nats_is_restarted_while_clients_stay(
    cluster: Cluster, make_reader: MakeReader
) -> None:
    readers = [make_reader() for _ in range(4)]
    for number, reader in enumerate(readers):
        await reader.go(cluster.replicas[number % 2])
    async with Pouring(*cluster.replicas) as pouring:
        for end in (cluster.nats.kill, cluster.nats.stop):
            await pouring.more(50)
            end()
            await asyncio.to_thread(cluster.nats.start)
        await pouring.more(50)
        numbers = await pouring.stop()
    for reader in readers:
        await reader.until(numbers)
        assert (reader.closes, reader.errors, len(reader.answers)) == ([], 0, 1), "they stayed"
    assert set(pouring.statuses) <= {503, 504}
    assert await kept(cluster.replicas[0]) == numbers


async def test_live_copies_lost_while_a_replica_had_no_bus_are_repaired(
    start_cluster: StartCluster, behind_link: BehindLink, make_reader: MakeReader
) -> None:
    cluster = start_cluster(1, CONFIG)
    [a] = cluster.replicas
    b, cut, heal = behind_link(cluster.nats, CONFIG)
    here, there = make_reader(), make_reader()
    await here.go(a)
    await there.go(b)
    await publish(a, 1)
    await there.until([1])
    assert b.metric("history_repairs_total") == 0
    cut()
    await publish(a, 2, 3, 4)
    assert there.numbers == [1]
    heal()
    await there.until([1, 2, 3, 4])
    assert b.metric("history_repairs_total") == 3
    await publish(b, 5)
    for reader in (here, there):
        await reader.until([1, 2, 3, 4, 5])
        assert len(reader.answers) == 1
    assert a.metric("history_repairs_total") == 0


async def test_healthy_readers_stay_while_a_replica_catches_up_on_more_than_they_may_have_waiting(
    start_cluster: StartCluster, behind_link: BehindLink, make_reader: MakeReader
) -> None:
    """What was missed comes all at once; who reads it as fast as it can is no slow consumer."""
    config = CONFIG | {"limits": {"outbound_buffer_bytes": 256 * 1024}}
    cluster = start_cluster(1, config)
    [a] = cluster.replicas
    b, cut, heal = behind_link(cluster.nats, config)
    readers = [make_reader() for _ in range(10)]
    for reader in readers:
        await reader.go(b)
    cut()
    await publish_many(a, range(1, 801), 2000)
    heal()
    numbers = list(range(1, 801))
    await publish(a, 801)
    for reader in readers:
        await reader.until([*numbers, 801])
        assert (reader.closes, reader.errors, len(reader.answers)) == ([], 0, 1)
    assert b.metric("slow_consumers_total") == 0


async def test_who_does_not_read_is_closed_while_a_replica_catches_up_and_the_others_get_it_all(
    start_cluster: StartCluster, behind_link: BehindLink, make_reader: MakeReader
) -> None:
    config = CONFIG | {"limits": {"outbound_buffer_bytes": 256 * 1024}}
    cluster = start_cluster(1, config)
    [a] = cluster.replicas
    b, cut, heal = behind_link(cluster.nats, config)
    reader, stopped = make_reader(), await SlowReader.connect(b)
    await stopped.join(None)
    await reader.go(b)
    cut()
    await publish_many(a, range(1, 801), 2000)
    heal()
    await reader.until(list(range(1, 801)))
    await eventually(lambda: b.metric("slow_consumers_total") == 1)

    assert (reader.closes, reader.errors) == ([], 0)
    stopped.cut()


async def test_the_history_is_paged_and_erased_on_all_replicas(
    cluster: Cluster, make_reader: MakeReader
) -> None:
    a, b = cluster.replicas
    reader, late, stays = make_reader(), make_reader(), make_reader()
    await reader.go(b)
    await publish(a, *range(1, 6))
    await reader.until([1, 2, 3, 4, 5])
    async with Backend(a) as backend:
        numbers, cursor = [], ""
        while True:
            status, page = await backend.get(f"/v1/topics/room%3A1/history?limit=2{cursor}")
            assert status == 200
            numbers += [item["payload"]["n"] for item in page["items"]]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        assert numbers == [1, 2, 3, 4, 5]
        status, _ = await backend.get("/v1/topics/room%3A1/history?cursor=@nonsense")
        assert status == 422
        assert await backend.delete("/v1/topics/room%3A1/history") == (200, {"erased": 5})
    assert await kept(b) == []
    late.last, stays.last = {"last": 10}, page["position"]
    await late.go(b)
    assert (await stays.go(a))["recovered"] is True
    await publish(a, 6)
    for each in (late, stays):
        await each.until([6])
    await reader.until([1, 2, 3, 4, 5, 6])
