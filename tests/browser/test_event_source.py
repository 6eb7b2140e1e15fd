"""A page that only listens, with nothing but ``new EventSource``, over two replicas behind nginx."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page

from tests.conftest import StartGateway, StartNats, require
from tests.deploy.proxies import Proxy, binary
from tests.support.api import Backend
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.waiting import eventually

MESSAGES = 1000
TOPICS = ("room:1", "room:2", "room:3")

PAGE = """
const names = topics => topics.map(topic => "topic=" + topic).join("&")
window.streams = {}
for (const topics of [["room:1"], ["room:1", "room:2", "room:3"]]) {
  const heard = window.streams[topics.length] = {said: [], gaps: [], drains: 0}
  const source = heard.source = new EventSource(`/socket/sse?${names(topics)}&token=TOKEN`)
  source.addEventListener("said", e => heard.said.push(JSON.parse(e.data)))
  source.addEventListener("gap", e => heard.gaps.push(e.data))
  source.addEventListener("drain", () => heard.drains += 1)
}
"""


@pytest.fixture
def nginx(replicas: list[GatewayProcess], tmp_path: Path) -> Iterator[Proxy]:
    """The proxy of ``deploy/``."""
    require("nginx", binary("nginx"))
    proxy = Proxy("nginx", tmp_path / "proxy", replicas)
    proxy.command[0] = str(binary("nginx"))
    proxy.start()
    yield proxy
    proxy.stop()


@pytest.fixture
def replicas(start_nats: StartNats, start_gateway: StartGateway) -> list[GatewayProcess]:
    """Two, that keep what is published."""
    history = {"messages": 2 * MESSAGES, "seconds": 300}
    config = {
        "bus": {"url": start_nats().url},
        "server": {"trusted_proxies": ["127.0.0.1"]},
        "channels": [{"pattern": "room:*", "history": history}],
    }
    return [start_gateway(config) for _ in range(2)]


@pytest.mark.slow
async def test_each_message_comes_once_and_in_order_whatever_becomes_of_replicas(
    page: Page, nginx: Proxy, replicas: list[GatewayProcess]
) -> None:
    await page.goto(f"{nginx.public_url}/")
    await page.evaluate(PAGE.replace("TOKEN", token("42")))
    await eventually(lambda: sum(joined(replica) for replica in replicas) == 1 + len(TOPICS))
    killed, other = sorted(replicas, key=streams, reverse=True)
    assert streams(killed)

    published = 0

    async def publish(until: int, by: GatewayProcess) -> None:
        """The topics take turns."""
        nonlocal published
        async with Backend(by) as backend:
            while published < until:
                topic = TOPICS[published % len(TOPICS)]
                assert await backend.publish(topic, "said", {"n": published}) == 202
                published += 1

    await publish(150, killed)
    killed.kill()
    await publish(300, other)
    await asyncio.gather(publish(450, other), asyncio.to_thread(killed.start))
    await eventually(lambda: sum(map(streams, replicas)) == 2)
    for replica, left in ((other, killed), (killed, other)):
        async with Backend(replica) as operator:
            await operator.post("/v1/drain", {})
            await publish(published + 150, left)
            await eventually(lambda left=left: streams(left) == 2)
            await operator.delete("/v1/drain")
        await publish(published + 50, replica)
    await publish(MESSAGES, killed)

    expected = {"1": [n for n in range(MESSAGES) if n % 3 == 0], "3": list(range(MESSAGES))}
    for number, topics in (("1", TOPICS[:1]), ("3", TOPICS)):
        wanted = len(expected[number])
        await page.wait_for_function(
            f"window.streams[{number}].said.length >= {wanted}", timeout=60_000
        )
        heard = await page.evaluate(
            f"(({{said, gaps, drains}}) => ({{said, gaps, drains}}))(window.streams[{number}])"
        )
        assert heard["gaps"] == []
        assert heard["drains"] >= 1
        said = heard["said"]
        for topic in topics:
            mine = [each["payload"]["n"] for each in said if each["topic"] == topic]
            assert mine == [n for n in expected[number] if TOPICS[n % 3] == topic]
        assert len(said) == wanted


def streams(replica: GatewayProcess) -> float:
    """How many a replica has open."""
    return replica.metric("connections", transport="sse") or 0


def joined(replica: GatewayProcess) -> float:
    """How many topics were joined on a replica."""
    return replica.metric("joins_total", result="ok") or 0
