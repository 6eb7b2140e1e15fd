"""An error in a lasting task is survived and counted, or ends the replica; it is never silent."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer, nats_server_binary
from tests.support.ports import free_port
from tests.support.sabotage import FAULT
from tests.support.tokens import SECRET, token
from tests.support.waiting import eventually

ROOM, KEPT_ROOM = "room:1", "kept:1"
WITHIN_SECONDS = 30.0

DEATHS = {
    "heartbeat": "gateway.channels.connections:Connections.turn",
    "tracker": "gateway.tracker.core:Tracker.tick",
    "revocations": "gateway.sessions.revoker:Revoker._look",
    "last_seen": "gateway.sessions.last_seen:LastSeen.write",
    "facts": "gateway.sessions.reporter:Reporter.turn",
    "outbox": "gateway.upstream.outbox:Outbox._deliver",
    "keys": "gateway.auth.jwks:FetchedKeys._refresh,gateway.auth.jwks:RETRY_SECONDS=0.5",
    "follower": "gateway.history.follower:Follower._take_due",
    "history": "gateway.history.jetstream.stream:StreamKeeper._look,"
    "gateway.history.jetstream.stream:StreamKeeper._fail,"
    "gateway.history.jetstream.stream:LOOK_SECONDS=1",
    "bus": "gateway.bus.requests:Requests.expire,gateway.bus.remote:RemoteBus._give_up",
}
"""Tasks, and what has to raise for ever that they die."""

SURVIVED = {
    "heartbeat": "gateway.channels.connections:Connections.turn",
    "tracker": "gateway.tracker.core:Tracker.tick",
    "revocations": "gateway.sessions.revoker:Revoker._look",
    "last_seen": "gateway.bus.remote:RemoteBus.put",
    "facts": "gateway.sessions.reporter:Reporter.turn",
    "outbox": "gateway.upstream.client:Upstream.tell",
    "keys": "gateway.app.clients:fetch,gateway.auth.jwks:RETRY_SECONDS=0.5",
    "follower": "gateway.history.follower:Follower._check",
    "bus": "gateway.bus.requests:Requests.expire",
    "event_loop": "gateway.hub.fanout:Fanout._begin",
}
"""Tasks, and what may raise twice while they go on."""


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    require("nats-server", nats_server_binary())
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def config(nats: NatsServer) -> dict[str, Any]:
    """With all that can be had, so that all tasks run."""
    nobody = f"http://127.0.0.1:{free_port()}"
    rule = {"pattern": "room:*", "join": "authenticated", "push": "broadcast"}
    kept = rule | {"pattern": "kept:*", "history": {"messages": 10, "seconds": 60}}
    return {
        "bus": {"url": nats.url},
        "auth": {"secrets": [SECRET], "jwks_url": f"{nobody}/keys"},
        "upstream": {
            "url": nobody,
            "secrets": ["whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"],
            "events": ["session.started", "user.online"],
        },
        "sessions": {"replica_down_after_seconds": 3},
        "channels": [rule, kept],
    }


@pytest.fixture(scope="module")
def bystander(
    config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """Another replica."""
    process = GatewayProcess(tmp_path_factory.mktemp("bystander"), config)
    process.start()
    yield process
    process.kill()


Sabotaged = Callable[..., GatewayProcess]


@pytest.fixture
def sabotaged(
    config: dict[str, Any], bystander: GatewayProcess, tmp_path: Path
) -> Iterator[Sabotaged]:
    """Makes the replica in which something goes wrong; the bystander is there already."""
    made: list[GatewayProcess] = []
    assert bystander.running()

    def make(names: str, *, times: int = 0) -> GatewayProcess:
        command = ("-m", "tests.support.sabotage", names, str(times))
        made.append(GatewayProcess(tmp_path / "sabotaged", config, command=command))
        return made[-1]

    yield make
    for process in made:
        process.kill()


@pytest.fixture
async def clients() -> AsyncIterator[list[PhoenixClient]]:
    """They are closed after the test."""
    clients: list[PhoenixClient] = []
    yield clients
    await asyncio.gather(*(client.close() for client in clients))


async def joined(replica: GatewayProcess, topic: str, user: str = "42") -> PhoenixClient:
    """A client that is on a topic."""
    client = await PhoenixClient.connect(replica.socket_url, token(user))
    assert (await client.join(topic))[4]["status"] == "ok"
    return client


async def deaf(replica: GatewayProcess) -> asyncio.StreamWriter:
    """A socket that does not answer the close, so that the replica takes a while to end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", replica.public_port)
    writer.write(
        (
            f"GET /socket/websocket?vsn=2.0.0&token={token()} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    return writer


def lines(replica: GatewayProcess, event: str, task: str) -> list[dict[str, Any]]:
    """What a replica logged of a task."""
    found = [line for line in replica.log_lines() if line["event"] == event]
    return [line for line in found if line["task"] == task]


def is_logged_with_its_place(line: dict[str, Any]) -> bool:
    return "RuntimeError" in line["exception"] and "sabotage.py" in line["exception"]


@pytest.mark.slow
@pytest.mark.parametrize("task", DEATHS)
async def test_a_replica_whose_task_dies_says_so_and_ends_with_1_and_is_reported_lost(
    task: str, bystander: GatewayProcess, sabotaged: Sabotaged, clients: list[PhoenixClient]
) -> None:
    replica = sabotaged(DEATHS[task])
    await asyncio.to_thread(replica.start)
    await eventually(lambda: bystander.metric("replicas", state="live") == 2)
    before = bystander.metric("replicas_lost_total")
    client = await joined(replica, ROOM)
    clients += (client, await joined(replica, KEPT_ROOM))
    writer = await deaf(replica)
    replica.signal(signal.SIGUSR1)
    # some have nothing to do by themselves
    clients.append(await PhoenixClient.connect(replica.socket_url, token("43")))
    await clients[-1].push(ROOM, "phx_join")

    def unready() -> bool:
        status, body = replica.get("/readyz")
        return status == 503 and b"task_died" in body

    await eventually(unready, WITHIN_SECONDS, "it is unready")
    assert await client.closed() == 1012
    assert await asyncio.to_thread(replica.wait, WITHIN_SECONDS) == 1
    (line,) = lines(replica, "task died", task)
    assert line["level"] == "critical"
    assert line["problem"] == FAULT
    assert is_logged_with_its_place(line)
    await eventually(
        lambda: bystander.metric("replicas_lost_total") == before + 1, what="it is reported lost"
    )
    await eventually(lambda: bystander.metric("replicas", state="live") == 1)
    writer.close()


async def test_a_replica_that_fails_while_it_joins_the_others_ends_with_1(
    bystander: GatewayProcess, sabotaged: Sabotaged
) -> None:
    before = bystander.metric("replicas_lost_total")
    replica = sabotaged(
        "gateway.sessions.revoker:Revoker.learn,gateway.app.replica:MEETING_SECONDS=1"
    )
    await asyncio.to_thread(lambda: replica.start(ready=False))
    replica.signal(signal.SIGUSR1)

    assert await asyncio.to_thread(replica.wait, WITHIN_SECONDS) == 1
    assert is_logged_with_its_place(lines(replica, "task died", "join")[0])
    await eventually(
        lambda: bystander.metric("replicas_lost_total") == before + 1, what="it is reported lost"
    )


@pytest.mark.slow
@pytest.mark.parametrize("task", SURVIVED)
async def test_an_error_now_and_then_is_counted_and_logged_and_survived(
    task: str, bystander: GatewayProcess, sabotaged: Sabotaged, clients: list[PhoenixClient]
) -> None:
    replica = sabotaged(SURVIVED[task], times=2)
    await asyncio.to_thread(replica.start)
    clients.append(await joined(replica, KEPT_ROOM))
    replica.signal(signal.SIGUSR1)
    clients.append(await joined(replica, ROOM))
    await clients[-1].push(ROOM, "said", {"n": 1})
    await (await joined(replica, ROOM, "43")).close()  # when she was last seen is to be kept
    least = 1 if task == "bus" else 2  # one connection at a time is given up
    await eventually(
        lambda: replica.metric("background_errors_total", task=task) >= least,
        WITHIN_SECONDS,
        "it is counted",
    )

    assert is_logged_with_its_place(lines(replica, "background error", task)[0])
    await eventually(lambda: replica.get("/readyz")[0] == 200, what="it goes on")
    again = await joined(replica, ROOM)
    clients.append(again)
    await again.push(ROOM, "said", {"n": 2})
    await again.expect(lambda frame: frame[3:] == ["said", {"n": 2}], what="the message")
    assert replica.running()
    assert lines(replica, "task died", task) == []
    assert bystander.running()
    replica.terminate()
    assert await asyncio.to_thread(replica.wait) == 0


async def test_a_history_that_cannot_be_looked_after_makes_it_unready_until_it_can(
    sabotaged: Sabotaged,
) -> None:
    replica = sabotaged(
        "gateway.history.jetstream.stream:StreamKeeper._look,"
        "gateway.history.jetstream.stream:LOOK_SECONDS=1",
        times=3,
    )
    await asyncio.to_thread(replica.start)
    replica.signal(signal.SIGUSR1)
    await eventually(lambda: b"history_unavailable" in replica.get("/readyz")[1], WITHIN_SECONDS)
    await eventually(lambda: replica.get("/readyz")[0] == 200, WITHIN_SECONDS)

    assert [line["event"] for line in replica.log_lines()].count("no history") == 1


async def test_a_connection_to_the_bus_whose_reader_fails_is_given_up_at_once(
    sabotaged: Sabotaged,
) -> None:
    replica = sabotaged("gateway.bus.client:NatsClient._process_msg", times=1)
    await asyncio.to_thread(replica.start)
    before = replica.metric("bus_reconnects_total")
    replica.signal(signal.SIGUSR1)
    await eventually(lambda: replica.metric("bus_reconnects_total") == before + 1)
    await eventually(lambda: replica.get("/readyz")[0] == 200)

    events = [line["event"] for line in replica.log_lines()]
    assert "bus lost" in events
    assert "message of a library withheld" in events, "with the error's place"
