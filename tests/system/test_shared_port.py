"""Two replicas on one port of one host: who drains is passed over by new clients."""

import asyncio

from tests.conftest import StartGateway
from tests.support.client import PhoenixClient
from tests.support.ports import free_port
from tests.support.tokens import token
from tests.support.waiting import eventually

CLIENTS = 30


async def test_a_draining_replica_gets_no_new_clients(start_gateway: StartGateway) -> None:
    port = free_port()
    config = {
        "server": {"public": f"127.0.0.1:{port}", "reuse_port": True},
        "drain": {"delay_seconds": 3, "window_seconds": 1},
    }
    leaving, staying = start_gateway(config), start_gateway(config)
    url = f"ws://127.0.0.1:{port}/socket/websocket"
    early = [await PhoenixClient.connect(url, token()) for _ in range(CLIENTS)]
    there = [gateway.metric("connections", transport="websocket") for gateway in (leaving, staying)]
    assert sum(there) == CLIENTS
    assert min(there) > 0, "the kernel spreads them"

    leaving.terminate()
    await eventually(lambda: leaving.get("/readyz")[0] == 503)
    late = [await PhoenixClient.connect(url, token()) for _ in range(CLIENTS)]
    assert staying.metric("connections", transport="websocket") == there[1] + CLIENTS
    for client in early:
        assert (await client.heartbeat())[4]["status"] == "ok", "the old ones have the delay"
    assert await asyncio.to_thread(leaving.wait) == 0
    for client in early + late:
        await client.close()
