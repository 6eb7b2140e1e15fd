"""An operator's tail of a replica that is restarted, and of what reaches only one of several."""

import asyncio
import json
from collections.abc import Iterator
from typing import IO

from tests.cluster.conftest import StartCluster
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.command import started
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.waiting import eventually

CHANNELS = [
    {"pattern": "room:*", "push": "broadcast", "history": {"messages": 50, "seconds": 60}},
    {"pattern": "plain:*", "push": "broadcast"},
]


async def event(stream: IO[str] | None) -> str:
    """The event of the next message that was printed."""
    assert stream is not None
    line = await asyncio.wait_for(asyncio.to_thread(stream.readline), 30)
    return str(json.loads(line)["event"])


def config_of(replica: GatewayProcess) -> Iterator[str]:
    yield from ("--config", str(replica._log_path.with_name("gateway.toml")))


async def test_a_watched_replica_is_restarted_and_nothing_is_missed(
    start_cluster: StartCluster,
) -> None:
    cluster = start_cluster(2, {"channels": CHANNELS})
    a, b = cluster.replicas
    async with Backend(b) as backend:
        with (
            started("watch", "room:1", *config_of(a)) as exact,
            started("watch", "plain:*", *config_of(a)) as pattern,
        ):
            await eventually(lambda: a.metric("tails") == 2, within=60)
            assert await backend.publish("room:1", "before", {}) == 202
            assert await event(exact.stdout) == "before"

            a.terminate()
            assert await asyncio.to_thread(a.wait) == 0
            for name in ("meanwhile", "also meanwhile"):
                assert await backend.publish("room:1", name, {}) == 202
            await asyncio.to_thread(a.start)
            await eventually(lambda: a.metric("tails") == 2, within=60)
            assert await event(exact.stdout) == "meanwhile"
            assert await event(exact.stdout) == "also meanwhile"
            assert await backend.publish("room:1", "after", {}) == 202
            assert await event(exact.stdout) == "after"

            member = await PhoenixClient.connect(a.socket_url, token())
            await member.join("plain:1")
            assert await backend.publish("plain:2", "nobody is there", {}) == 202
            assert await backend.publish("plain:1", "to a member of a", {}) == 202
            assert await event(pattern.stdout) == "to a member of a"

            cluster.nats.kill()
            await eventually(lambda: a.get("/readyz")[0] == b.get("/readyz")[0] == 503)
            cluster.nats.start()
            await eventually(lambda: a.get("/readyz")[0] == b.get("/readyz")[0] == 200)
            for topic, tail in (("plain:1", pattern), ("room:1", exact)):
                assert await backend.publish(topic, "the bus is back", {}) == 202
                assert await event(tail.stdout) == "the bus is back"
            await member.close()
            exact.kill()
            pattern.kill()
            # who is back before the replica has its bus is told of that, too
            said = [
                list(dict.fromkeys(tail.communicate()[1].splitlines())) for tail in (exact, pattern)
            ]

    away = "the bus was away, and nothing is kept of what was published meanwhile"
    drained = "warning: the replica has moved its clients away; connecting again"
    assert said == [
        [drained, "note: connected again, and nothing was missed"],
        [
            "note: a pattern shows only topics that have members on this replica",
            drained,
            "warning: connected again; nothing is kept of what came meanwhile",
            f"warning: messages may be missing here: {away}",
        ],
    ]
