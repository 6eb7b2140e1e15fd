"""Replicas behind links, the nats-servers they share, and one address for all clients."""

import asyncio
from pathlib import Path
from typing import Any, Self

import msgspec
import nats as nats_py

from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsCluster, NatsServer
from tests.support.routes import Links
from tests.support.waiting import eventually

REPLICAS = 3
READY_SECONDS = 60.0
ASK_SECONDS = 5.0

CHANNELS = [
    {"pattern": "room:*", "history": {"messages": 2000, "seconds": 600}},
    {"pattern": "hall:*", "presence": True, "history": {"messages": 2000, "seconds": 600}},
]
DRAIN = {"delay_seconds": 0.3, "window_seconds": 1}

STORE = "jetstream { max_file_store: 64MB }\n"

_OPERATOR = "operator:operator"
_GATEWAY = "gateway:gateway"


def users(denied: str = "") -> str:
    """Configuration of the server: its users, and what the gateway's is denied, in its own words."""
    operator, gateway = (user.partition(":")[0] for user in (_OPERATOR, _GATEWAY))
    permissions = f", permissions: {{ {denied} }}" if denied else ""
    return (
        f"{STORE}authorization {{ users = ["
        f"{{ user: {operator}, password: {operator} }}, "
        f"{{ user: {gateway}, password: {gateway}{permissions} }}"
        "] }\n"
    )


class Lab:
    """Three replicas, on one nats-server or on three that keep streams together.

    Args:
        directory: For logs and stores.
        together: Whether there are three servers.
        command: What stands for ``gateway``: arguments of Python.
        config: Sections that replace or extend the lab's.

    Attributes:
        nats: The server, or the first of them.
        cluster: The three servers; None where there is one.
        ways: Of each replica to the server; with three servers nothing goes there.
        balancer: The way of clients to whichever replica is next.
    """

    def __init__(
        self,
        directory: Path,
        *,
        together: bool = False,
        command: tuple[str, ...] = ("-m", "gateway"),
        config: dict[str, Any] | None = None,
    ) -> None:
        self.cluster = NatsCluster(directory / "servers") if together else None
        self.nats = (
            self.cluster.servers[0] if self.cluster else NatsServer(directory / "nats", users())
        )
        self._directory = directory
        self._command = command
        self._config = config or {}
        self.links = Links()
        self.ways = [self.links.add(self.nats.port) for _ in range(REPLICAS)]
        self.replicas = [self.replica(f"gateway{number}", number) for number in range(REPLICAS)]
        self.balancer = self.links.add(*(replica.public_port for replica in self.replicas))

    @property
    def address(self) -> str:
        """Where WebSocket clients connect, without a query."""
        return f"ws://127.0.0.1:{self.balancer.port}/socket/websocket"

    def replica(self, directory: str, number: int) -> GatewayProcess:
        """A process for the replica of this number; each has ports of its own."""
        bus = self.cluster.url if self.cluster else _login(_GATEWAY, self.ways[number].port)
        config: dict[str, Any] = {
            "server": {"replica": f"r{number}"},
            "bus": {"url": bus},
            "channels": CHANNELS,
            "drain": DRAIN,
            "history": {"replicas": NatsCluster.SIZE if self.cluster else 1},
        }
        return GatewayProcess(
            self._directory / directory, config | self._config, command=self._command
        )

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread((self.cluster or self.nats).start)
            await asyncio.gather(*(asyncio.to_thread(r.start, ready=False) for r in self.replicas))
            await self.ready()
        except BaseException:
            self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop()

    async def ready(self) -> None:
        """Return once every replica is."""
        for replica in self.replicas:
            await eventually(
                lambda r=replica: r.get("/readyz")[0] == 200, READY_SECONDS, "a replica is ready"
            )

    async def restart(self, *numbers: int) -> None:
        """Start replicas that have ended; returns when they are alive."""
        await asyncio.gather(
            *(asyncio.to_thread(self.replicas[number].start, ready=False) for number in numbers)
        )

    async def ask(self, subject: str, query: Any = None) -> Any:
        """Have JetStream do something, as an operator: ``STREAM.PURGE.GATEWAY``, for example."""
        body = b"" if query is None else msgspec.json.encode(query)
        client = await self.operator()
        try:
            reply = await client.request(f"$JS.API.{subject}", body, timeout=ASK_SECONDS)
        finally:
            await client.close()
        return msgspec.json.decode(reply.data)

    async def operator(self) -> Any:
        """A connection to the server with all permissions."""
        url = self.cluster.url if self.cluster else _login(_OPERATOR, self.nats.port)
        return await nats_py.connect(url.split(","), connect_timeout=2, max_reconnect_attempts=2)

    def errors(self) -> list[str]:
        """What replicas logged as errors."""
        return [
            f"replica {number} logged: {line}"
            for number, replica in enumerate(self.replicas)
            for line in replica.log_lines()
            if line.get("level") in {"error", "critical"}
        ]

    def _stop(self) -> None:
        for replica in self.replicas:
            replica.kill()
        if self.cluster:
            self.cluster.stop()
        else:
            self.nats.kill()
        self.links.stop()


def _login(user: str, port: int) -> str:
    return f"nats://{user}@127.0.0.1:{port}"
