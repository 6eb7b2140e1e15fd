from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.bus import open_bus
from gateway.bus.memory import Exchange, MemoryBus
from tests.contract.clients import (
    ChangingServer,
    Client,
    Counters,
    MakeClient,
    OpenClient,
    Section,
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
    exchange = Exchange()

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
