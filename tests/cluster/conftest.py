"""Several replicas on one real nats-server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tests.cluster.reader import ROOM, Reader
from tests.conftest import StartGateway, StartNats
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer
from tests.support.routes import Links


class Cluster:
    """Two or more replicas and their bus."""

    def __init__(self, nats: NatsServer, replicas: list[GatewayProcess]) -> None:
        self.nats = nats
        self.replicas = replicas


StartCluster = Callable[..., Cluster]


@pytest.fixture
def start_cluster(start_nats: StartNats, start_gateway: StartGateway) -> StartCluster:
    """Starts a nats-server and so many replicas."""

    def start(
        replicas: int = 2,
        config: dict[str, Any] | None = None,
        nats_config: str = "",
        *,
        jetstream: bool = True,
    ) -> Cluster:
        nats = start_nats(nats_config, jetstream=jetstream)
        bus = {"bus": {"url": nats.url}}
        return Cluster(nats, [start_gateway(bus | (config or {})) for _ in range(replicas)])

    return start


MakeReader = Callable[..., Reader]


@pytest.fixture
async def make_reader() -> AsyncIterator[MakeReader]:
    """Makes clients that come back; disconnects them after the test."""
    readers: list[Reader] = []

    def made(topic: str = ROOM) -> Reader:
        readers.append(Reader(f"u{len(readers)}", topic))
        return readers[-1]

    yield made
    await asyncio.gather(*(reader.stop() for reader in readers))


BehindLink = Callable[..., tuple[GatewayProcess, Callable[[], None], Callable[[], None]]]


@pytest.fixture
def behind_link(start_gateway: StartGateway) -> Iterator[BehindLink]:
    """Starts a replica whose way to the bus can be cut; returns it, what cuts the way and what heals it."""
    links = Links()

    def start(
        nats: NatsServer, config: dict[str, Any]
    ) -> tuple[GatewayProcess, Callable[[], None], Callable[[], None]]:
        link = links.add(nats.port)
        bus = {"bus": {"url": f"nats://127.0.0.1:{link.port}"}}
        return start_gateway(bus | config), lambda: links.cut(link), lambda: links.heal(link)

    yield start
    links.stop()
