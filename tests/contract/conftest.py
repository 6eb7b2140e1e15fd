import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.bus import open_bus
from gateway.bus.memory import MemoryBus, MemoryExchange
from gateway.config.sections import HistorySettings
from gateway.history import open_history
from gateway.history.memory import MemoryHistory, MemoryStore
from gateway.retention import Retention
from tests.contract.clients import (
    ChangingServer,
    Client,
    Counters,
    MakeClient,
    OpenClient,
    Section,
)
from tests.contract.histories import (
    PREFIX,
    RETENTION,
    SUBJECTS,
    MakeReplica,
    OpenReplica,
    Replica,
)


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[ChangingServer]:
    """A server that has not been started."""
    server = ChangingServer(tmp_path / "nats")
    yield server
    server.kill()


@pytest.fixture
async def open_nats(nats_server: ChangingServer) -> AsyncIterator[OpenClient]:
    """Opens buses on the server."""
    clients: list[Client] = []

    async def opened(*, userinfo: str = "", wait: bool = True) -> Client:
        counters = Counters()
        section = Section(nats_server.login(userinfo) if userinfo else nats_server.url)
        client = Client(open_bus(section, metrics=counters, name="test"), counters)
        clients.append(client)
        await client.bus.start()
        if wait:
            await client.until(up=True)
        return client

    yield opened
    for client in clients:
        await client.bus.close()


@pytest.fixture(params=["memory", "nats"])
async def make_client(
    request: pytest.FixtureRequest, nats_server: ChangingServer
) -> AsyncIterator[MakeClient]:
    """Makes buses of each kind."""
    clients: list[Client] = []
    exchange = MemoryExchange()

    def made() -> Client:
        counters = Counters()
        if request.param == "memory":
            client = Client(MemoryBus(metrics=counters, exchange=exchange), counters)
        else:
            bus = open_bus(Section(nats_server.url), metrics=counters, name="test")
            client = Client(bus, counters)
        clients.append(client)
        return client

    if request.param == "nats":
        nats_server.start()
    yield made
    for client in clients:
        await client.bus.close()


def on_nats(
    url: str, retention: Retention = RETENTION, settings: HistorySettings | None = None
) -> Replica:
    """A replica whose history is a stream."""
    bus = open_bus(Section(url, PREFIX), metrics=Counters(), name="test")
    history = open_history(
        bus,
        SUBJECTS,
        rules=[retention],
        retention=lambda _: retention,
        config=settings or HistorySettings(),
    )
    return Replica(bus, history)


@pytest.fixture(params=["memory", "jetstream"])
async def make_replica(
    request: pytest.FixtureRequest, nats_server: ChangingServer
) -> AsyncIterator[MakeReplica]:
    """Makes replicas with each kind of history."""
    replicas: list[Replica] = []
    exchange = MemoryExchange()
    store = MemoryStore(lambda _: RETENTION, 0, time.time)

    def made() -> Replica:
        if request.param == "memory":
            bus = MemoryBus(metrics=Counters(), exchange=exchange)
            replica = Replica(bus, MemoryHistory(bus, SUBJECTS, store))
        else:
            replica = on_nats(nats_server.url)
        replicas.append(replica)
        return replica

    if request.param == "jetstream":
        nats_server.start()
    yield made
    for replica in replicas:
        await replica.close()


@pytest.fixture
async def open_replica(nats_server: ChangingServer) -> AsyncIterator[OpenReplica]:
    """Opens replicas on a server, the one of the test or another."""
    replicas: list[Replica] = []

    async def opened(
        *,
        url: str = "",
        retention: Retention = RETENTION,
        settings: HistorySettings | None = None,
        wait: bool = True,
    ) -> Replica:
        replica = on_nats(url or nats_server.url, retention, settings)
        replicas.append(replica)
        await replica.start()
        if wait:
            await replica.until_ready()
        return replica

    yield opened
    for replica in replicas:
        await replica.close()
