"""The whole product: two replicas on NATS, two stateless backends, and nothing sticky between them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.demo.balancer import RoundRobin, balance
from deploy.demo.store import Store
from tests.browser.conftest import browser
from tests.cluster.conftest import StartCluster, start_cluster
from tests.support.client import PhoenixClient
from tests.support.demo import CONFIG, DemoBackend, Rest, database, start
from tests.support.gateway import GatewayProcess
from tests.support.ports import free_port

__all__ = ["browser", "start_cluster"]  # fixtures of other folders

GENERAL = "room:general"


@dataclass
class Device:
    """A logged-in device: its REST calls, which go to any backend, and its socket, on one replica."""

    rest: Rest
    socket: PhoenixClient

    async def enter(self, topic: str = GENERAL) -> None:
        """Join a room, and be let in."""
        reply = await self.socket.join(topic)
        assert reply[4]["status"] == "ok", reply

    async def hears(self, event: str, key: str, value: str, topic: str = GENERAL) -> dict[str, Any]:
        """The payload of an event with this in it, once it has come."""
        frame = await self.socket.expect(
            lambda f: f[2] == topic and f[3] == event and f[4].get(key) == value,
            what=f"{event} with {key} {value}",
        )
        payload: dict[str, Any] = frame[4]
        return payload


@dataclass
class Story:
    """What runs.

    Attributes:
        url: Of the round-robin before the backends.
        robin: Who answered what.
    """

    url: str
    robin: RoundRobin
    replicas: list[GatewayProcess]
    backends: list[DemoBackend]
    stack: AsyncExitStack

    async def login(self, user: str, kind: str = "laptop") -> Rest:
        """Log a device in that has no socket."""
        return await self.stack.enter_async_context(Rest(self.url, user, kind))

    async def device(self, user: str, kind: str, replica: int) -> Device:
        """Log a device in and connect it to a replica."""
        rest = await self.login(user, kind)
        socket = await PhoenixClient.connect(self.replicas[replica].socket_url, rest.token)
        self.stack.push_async_callback(socket.close)
        return Device(rest, socket)

    def answered(self, path: str) -> list[int]:
        """How often each backend answered on a path."""
        return [self.robin.answered[backend.url, path] for backend in self.backends]


@pytest.fixture
async def story(start_cluster: StartCluster, tmp_path: Path) -> AsyncIterator[Story]:
    """All of it, with the demo's own configuration on free ports."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    config = {name: CONFIG[name] for name in ("api", "auth", "channels")} | {
        "server": {"allowed_origins": [url]},
        "upstream": CONFIG["upstream"] | {"url": f"{url}/gateway"},
    }
    replicas = start_cluster(2, config).replicas
    Store(database(tmp_path)).create()
    backends = [
        DemoBackend(tmp_path, each.internal_url, each.socket_url.removesuffix("/websocket"))
        for each in replicas
    ]
    try:
        start(*backends)
        async with (
            balance([backend.url for backend in backends], port) as robin,
            AsyncExitStack() as stack,
        ):
            yield Story(url, robin, replicas, backends, stack)
    finally:
        for backend in backends:
            backend.kill()
