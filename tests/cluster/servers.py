"""What is asked of three servers that keep streams together, and which of them a replica is on."""

import contextlib
from typing import Any

import msgspec
import nats
import nats.errors

from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsCluster, NatsServer
from tests.support.waiting import eventually

HISTORY = "GATEWAY"
REVOCATIONS = "KV_gateway_revocations"


async def ask(
    servers: NatsCluster, operation: str, stream: str = HISTORY, query: Any = None
) -> Any:
    """Have JetStream do something with a stream, and again where that meets an election."""
    body = b"" if query is None else msgspec.json.encode(query)
    answers: list[Any] = []

    async def done() -> bool:
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            client = await nats.connect(servers.url.split(","))
            try:
                answer = await client.request(
                    f"$JS.API.STREAM.{operation}.{stream}", body, timeout=5
                )
            finally:
                await client.close()
            answers.append(msgspec.json.decode(answer.data))
        return bool(answers) and "error" not in answers[-1]

    await eventually(done, 60, f"{operation} of {stream}")
    return answers[-1]


async def leader(servers: NatsCluster, stream: str = HISTORY) -> int:
    """Number of the server that leads a stream, as soon as one does."""
    found: list[str] = []

    async def elected() -> bool:
        found.append((await ask(servers, "INFO", stream))["cluster"].get("leader", ""))
        return bool(found[-1])

    await eventually(elected, 60, f"somebody leads {stream}")
    return int(found[-1].removeprefix("n"))


async def have_lead(servers: NatsCluster, number: int, stream: str = HISTORY) -> None:
    """Make a server, by its number, the leader of a stream."""

    async def leads() -> bool:
        if await leader(servers, stream) == number:
            return True
        await ask(servers, "LEADER.STEPDOWN", stream, {"placement": {"preferred": f"n{number}"}})
        return False

    await eventually(leads, 60, f"n{number} leads {stream}")


def connected_to(replica: GatewayProcess) -> str:
    """Host and port of the server a replica connected to last."""
    lines = replica.log_lines()
    return str([line["server"] for line in lines if line["event"] == "bus connected"][-1])


def on(replicas: list[GatewayProcess], server: NatsServer) -> list[GatewayProcess]:
    """Those of the replicas that are connected to a server."""
    return [r for r in replicas if connected_to(r) == f"127.0.0.1:{server.port}"]
