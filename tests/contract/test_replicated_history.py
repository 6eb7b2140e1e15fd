"""A history kept by three servers, of which one leads, falls out, or cannot reach another."""

import asyncio
from collections.abc import AsyncIterator

import nats
import pytest

from gateway.config.sections import HistorySettings
from gateway.errors import HistoryUnavailable, OutcomeUnknown
from gateway.retention import Retention
from tests.contract.admin import Admin
from tests.contract.histories import OpenReplica, Replica
from tests.support.nats import NatsCluster
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

WIDE = Retention(messages=10_000, seconds=300)


@pytest.fixture
async def replicas(nats_cluster: NatsCluster, open_replica: OpenReplica) -> list[Replica]:
    """A replica on each server."""
    opened = [
        await open_replica(
            url=url, retention=WIDE, settings=HistorySettings(replicas=3), wait=False
        )
        for url in (server.url for server in nats_cluster.servers)
    ]
    for replica in opened:
        await replica.until_ready()
    return opened


@pytest.fixture
async def admin(nats_cluster: NatsCluster) -> AsyncIterator[Admin]:
    """Connected to one of the servers."""
    client = await nats.connect(nats_cluster.url.split(","), max_reconnect_attempts=-1)
    yield Admin(client)
    await client.close()


async def append(replica: Replica, number: int) -> int:
    """Append a number, until it is acknowledged; returns its offset."""
    while True:
        try:
            receipt = await replica.history.append("a", b"%d" % number, id=f"{number}")
        except (HistoryUnavailable, OutcomeUnknown):
            await asyncio.sleep(0.05)
        else:
            return receipt.offset


async def kept(replica: Replica) -> dict[int, int]:
    """The numbers that are kept, by offset; the servers may still be electing a leader."""
    while True:
        try:
            upto = (await replica.history.tip()).offset
            found = await replica.history.after("a", 0, limit=WIDE.messages, upto=upto)
        except HistoryUnavailable:
            await asyncio.sleep(0.05)
        else:
            return {stored.offset: int(stored.body) for stored in found}


async def test_all_servers_have_one_order_and_each_reads_what_was_just_stored(
    replicas: list[Replica],
) -> None:
    lives = [await replica.hear("a") for replica in replicas]

    async def append_and_read(number: int, replica: Replica) -> None:
        for turn in range(60):
            offset = await append(replica, number * 1000 + turn)
            for reader in replicas:
                last = (await reader.history.after("a", offset - 1, limit=1, upto=offset))[-1]
                assert (last.offset, last.body) == (offset, b"%d" % (number * 1000 + turn))
                newest = await reader.history.newest("a", 200)
                assert offset in {stored.offset for stored in newest}

    await asyncio.gather(*(append_and_read(n, replica) for n, replica in enumerate(replicas)))
    for live in lives:
        await live.until(180)
        live.check_chain()
    assert lives[0].messages == lives[1].messages == lives[2].messages
    receipts = await asyncio.gather(
        *(replica.history.append("b", b"x", id="same") for replica in replicas for _ in range(5))
    )
    assert len({receipt.offset for receipt in receipts}) == 1
    assert [receipt.duplicate for receipt in receipts].count(False) == 1


async def test_a_leader_that_steps_down_costs_nothing_that_was_acknowledged(
    replicas: list[Replica], admin: Admin
) -> None:
    told = [replica.told for replica in replicas]
    epoch = replicas[0].history.epoch
    offsets: dict[int, int] = {}
    numbers = iter(range(1500))

    async def work(replica: Replica) -> None:
        for number in numbers:
            offsets[await append(replica, number)] = number

    working = [asyncio.create_task(work(replica)) for replica in replicas for _ in range(2)]
    for share in (200, 600, 1000):
        await eventually(lambda share=share: len(offsets) > share, 60)
        await admin.ask("STREAM.LEADER.STEPDOWN")
    await asyncio.gather(*working)
    for before, replica in zip(told, replicas, strict=True):
        await replica.until_told(before + 1)
        assert await kept(replica) == offsets
        assert replica.history.epoch == epoch
    assert sorted(offsets.values()) == list(range(1500))


async def test_a_leader_that_is_killed_costs_nothing_that_was_acknowledged(
    nats_cluster: NatsCluster, open_replica: OpenReplica, admin: Admin
) -> None:
    settings = HistorySettings(replicas=3)
    here = await open_replica(url=nats_cluster.url, retention=WIDE, settings=settings)
    there = await open_replica(url=nats_cluster.url, retention=WIDE, settings=settings)
    epoch, told = here.history.epoch, there.told
    offsets: dict[int, int] = {}
    numbers = iter(range(1000))

    async def work() -> None:
        for number in numbers:
            offsets[await append(here, number)] = number

    working = [asyncio.create_task(work()) for _ in range(5)]
    await eventually(lambda: len(offsets) > 100, 60)
    leader = nats_cluster.named(await admin.leader())
    leader.kill()
    await asyncio.gather(*working)
    await there.until_told(told + 1)
    await there.until_ready()
    assert await kept(there) == offsets
    assert sorted(offsets.values()) == list(range(1000))
    leader.start()
    await eventually(lambda: there.history.problem is None)
    assert there.history.epoch == here.history.epoch == epoch


async def test_a_cut_route_loses_copies_and_nothing_that_is_stored(
    nats_cluster: NatsCluster, replicas: list[Replica], admin: Admin
) -> None:
    leader = int((await admin.leader()).removeprefix("n"))
    far = (leader + 1) % 3
    lives = [await replica.hear("a") for replica in replicas]
    await append(replicas[leader], 0)
    for live in lives:
        await live.until(1)
    nats_cluster.cut(leader, far)
    first = await append(replicas[leader], 1)  # the third server makes the majority
    nats_cluster.heal(leader, far)

    async def caught_up() -> bool:
        """The far server's client sees what is stored after the cut, not what was during it."""
        await append(replicas[far], 2)
        return lives[far].bodies[-1:] == [b"2"]

    await eventually(caught_up, 60)
    assert b"1" not in lives[far].bodies
    assert lives[far].positions[-1].previous == first

    async def all_agree() -> bool:
        """While servers find each other again one may not answer, or from a copy that lags behind."""
        try:
            found = [(await replica.history.last_offsets(["a"])).get("a") for replica in replicas]
            stored = [list((await kept(replica)).values()) for replica in replicas]
        except HistoryUnavailable:
            return False
        return found == [lives[far].offsets[-1]] * 3 and stored == [[0, 1, 2]] * 3

    await eventually(all_agree, 60)
