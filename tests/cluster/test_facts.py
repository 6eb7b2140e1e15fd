"""What a backend is told of sessions, users and replicas: each fact once, whichever replica it is about."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.cluster.conftest import Cluster, StartCluster
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.upstream import UpstreamServer, says, slowly
from tests.support.waiting import eventually

ROOM = "room:1"
DOWN_AFTER = 3.0
MOVING_SECONDS = 10.0
QUIET_SECONDS = 3.0
"""Long enough for a fact that should not be told to be told: a grace, a decision, and its repetition."""


class Recorder(UpstreamServer):
    """A backend that is told and remembers."""

    @property
    def told(self) -> list[tuple[str, dict[str, Any]]]:
        """Events and what was said of them, in order."""
        return [(call.type.removeprefix("gateway."), call.body) for call in self.calls]

    def about(self, user: str) -> list[str]:
        """The events of a user, in order."""
        return [event for event, body in self.told if body.get("user") == user]

    def counts(self, event: str) -> Counter[str]:
        """How often an event was told, by user or replica."""
        return Counter(
            body.get("user") or body["replica"] for told, body in self.told if told == event
        )


@pytest.fixture
async def backend() -> AsyncIterator[Recorder]:
    async with Recorder() as recorder:
        yield recorder


class Replicas:
    """A cluster that tells a backend everything, and the clients of a test."""

    def __init__(self, start_cluster: StartCluster, backend: Recorder) -> None:
        self._start_cluster = start_cluster
        self._backend = backend
        self.open: list[PhoenixClient] = []

    def start(self, replicas: int, *, grace: float = 1, **sections: dict[str, Any]) -> Cluster:
        """Start so many."""
        events = [
            "session.started",
            "session.ended",
            "user.online",
            "user.offline",
            "replica.lost",
        ]
        config = {
            "upstream": self._backend.section(events=events),
            "sessions": {"offline_after_seconds": grace, "replica_down_after_seconds": DOWN_AFTER},
        }
        return self._start_cluster(replicas, config | sections)

    async def join(self, replica: GatewayProcess, user: str, device: str = "") -> PhoenixClient:
        """A session begins."""
        params = {"device_id": device} if device else {}
        client = await PhoenixClient.connect(replica.socket_url, token(user), params=params)
        self.open.append(client)
        await client.enter(ROOM)
        return client


@pytest.fixture
async def replicas(start_cluster: StartCluster, backend: Recorder) -> AsyncIterator[Replicas]:
    replicas = Replicas(start_cluster, backend)
    yield replicas
    await asyncio.gather(*(client.close() for client in replicas.open))


async def test_a_user_with_devices_on_two_replicas_comes_and_goes_once(
    replicas: Replicas, backend: Recorder
) -> None:
    a, b, _ = replicas.start(3).replicas
    laptop, phone = await asyncio.gather(
        replicas.join(a, "42", "laptop"), replicas.join(b, "42", "phone")
    )
    await eventually(lambda: backend.counts("user.online")["42"] == 1)
    await laptop.close()
    await asyncio.sleep(QUIET_SECONDS)
    await phone.close()
    await eventually(lambda: backend.counts("user.offline")["42"] == 1)
    await asyncio.sleep(QUIET_SECONDS)

    assert Counter(backend.about("42")) == {
        "session.started": 2,
        "session.ended": 2,
        "user.online": 1,
        "user.offline": 1,
    }
    sessions = [body for event, body in backend.told if event == "session.started"]
    assert {body["device"]["id"] for body in sessions} == {"laptop", "phone"}
    assert len({body["session"] for body in sessions}) == 2
    assert len({body["replica"] for body in sessions}) == 2
    assert {str(body["state"]) for body in sessions} == {"None"}


@pytest.mark.slow
async def test_fifty_users_reload_their_pages_on_any_replica_and_stay_online(
    replicas: Replicas, backend: Recorder
) -> None:
    grace = 8.0  # in which fifty of them are closed and back
    cluster = replicas.start(3, grace=grace)
    users = [f"u{n}" for n in range(50)]
    for turn in range(4):
        clients = await asyncio.gather(
            *(replicas.join(cluster.replicas[(n + turn) % 3], user) for n, user in enumerate(users))
        )
        if not turn:
            await eventually(lambda: backend.counts("user.online").total() == len(users))
        if turn < 3:
            await asyncio.gather(*(client.close() for client in clients))
    await asyncio.sleep(grace + QUIET_SECONDS)
    assert backend.counts("user.offline") == {}
    assert backend.counts("user.online") == dict.fromkeys(users, 1)

    await asyncio.gather(*(client.close() for client in clients))
    await eventually(lambda: backend.counts("user.offline").total() == len(users))
    await asyncio.sleep(QUIET_SECONDS)
    assert backend.counts("user.offline") == dict.fromkeys(users, 1)
    assert backend.counts("user.online") == dict.fromkeys(users, 1)


@pytest.mark.slow
async def test_a_killed_replica_is_one_fact_and_who_is_elsewhere_too_stays_online(
    replicas: Replicas, backend: Recorder
) -> None:
    a, b, _ = replicas.start(3).replicas
    name = next(line["replica"] for line in a.log_lines() if line["event"] == "serving")
    for n in range(20):
        await replicas.join(a, f"u{n}")
    second = await replicas.join(b, "u0", "second")
    await eventually(lambda: backend.counts("user.online").total() == 20)
    await asyncio.sleep(
        DOWN_AFTER
    )  # its heartbeat says how many sessions it has, b has asked about u0
    a.kill()
    await eventually(lambda: backend.counts("replica.lost")[name] == 1)
    await asyncio.sleep(QUIET_SECONDS)

    assert [b for event, b in backend.told if event == "replica.lost"] == [
        {"type": "gateway.replica.lost", "replica": name, "sessions": 20}
    ]
    assert backend.counts("user.offline") == {}
    await second.close()
    await eventually(lambda: backend.counts("user.offline") == {"u0": 1})


@pytest.mark.slow
async def test_a_rolling_restart_changes_no_users_state(
    replicas: Replicas, backend: Recorder
) -> None:
    drain = {"delay_seconds": 0, "window_seconds": 1}
    a, b = replicas.start(2, drain=drain).replicas
    clients = [await replicas.join(a, f"u{n}") for n in range(30)]
    await eventually(lambda: backend.counts("user.online").total() == 30)

    async def follow(client: PhoenixClient, to: GatewayProcess, n: int) -> PhoenixClient:
        assert await client.closed(within=60) == 1012
        return await replicas.join(to, f"u{n}")

    for leaves, takes in ((a, b), (b, a)):
        following = asyncio.gather(*(follow(c, takes, n) for n, c in enumerate(clients)))
        leaves.terminate()
        clients = await following
        assert await asyncio.to_thread(leaves.wait) == 0
        leaves.start()
    await asyncio.sleep(MOVING_SECONDS + QUIET_SECONDS)

    assert backend.counts("user.online").total() == 30
    assert backend.counts("user.offline") == {}
    assert backend.counts("replica.lost") == {}
    assert backend.counts("session.started").total() == 90
    assert backend.counts("session.ended").total() == 60


@pytest.mark.slow
async def test_who_does_not_come_back_from_a_restart_goes_offline_once(
    replicas: Replicas, backend: Recorder
) -> None:
    a, _, _ = replicas.start(3).replicas
    for n in range(20):
        await replicas.join(a, f"u{n}")
    await eventually(lambda: backend.counts("user.online").total() == 20)
    a.terminate()
    assert await asyncio.to_thread(a.wait) == 0
    assert backend.counts("user.offline") == {}, "they may still come"

    await eventually(
        lambda: backend.counts("user.offline").total() == 20, within=MOVING_SECONDS + 10
    )
    await asyncio.sleep(QUIET_SECONDS)
    assert backend.counts("user.offline") == {f"u{n}": 1 for n in range(20)}
    assert backend.counts("user.online").total() == 20


async def test_a_replica_behind_a_slow_backend_is_still_one_that_left(
    start_cluster: StartCluster, backend: Recorder
) -> None:
    """It says its farewell before it is lost to the others."""
    never = 60.0  # longer than the test waits for the exit
    backend.answers["gateway.push"] = slowly(never, says({}))
    a, b = start_cluster(
        2,
        {
            "channels": [{"pattern": "room:*", "push": "upstream"}],
            "upstream": backend.section(events=["replica.lost"], timeout_seconds=never),
            "sessions": {"replica_down_after_seconds": 2 * DOWN_AFTER},
        },
    ).replicas
    client = await PhoenixClient.connect(a.socket_url, token("42"))
    await client.join(ROOM)
    await client.push(ROOM, "say", {})
    await eventually(lambda: "push" in dict(backend.told))
    a.terminate()
    assert await asyncio.to_thread(a.wait, 30) == 0
    await eventually(lambda: b.metric("replicas", state="live") == 1)
    await client.close()

    assert b.metric("replicas_lost_total") == 0


async def test_the_last_replica_says_who_is_offline_as_it_leaves(
    replicas: Replicas, backend: Recorder
) -> None:
    [only] = replicas.start(1).replicas
    await replicas.join(only, "42")
    await eventually(lambda: backend.counts("user.online") == {"42": 1})
    only.terminate()
    assert await asyncio.to_thread(only.wait) == 0

    assert backend.about("42") == [
        "session.started",
        "user.online",
        "session.ended",
        "user.offline",
    ]


@pytest.mark.slow
async def test_what_happens_while_the_bus_is_down_is_told_when_it_is_back(
    replicas: Replicas, backend: Recorder
) -> None:
    cluster = replicas.start(2)
    a, b = cluster.replicas
    goes = await replicas.join(a, "goes")
    await replicas.join(b, "stays")
    await eventually(lambda: backend.counts("user.online").total() == 2)
    cluster.nats.kill()
    await eventually(lambda: a.metric("bus_connected") == b.metric("bus_connected") == 0)
    await goes.close()
    await asyncio.sleep(DOWN_AFTER + QUIET_SECONDS)
    assert backend.counts("user.offline") == {}
    cluster.nats.start()

    await eventually(lambda: backend.counts("user.offline") == {"goes": 1})
    await asyncio.sleep(QUIET_SECONDS)
    assert backend.counts("user.online").total() == 2
    assert backend.counts("replica.lost") == {}


@pytest.mark.slow
async def test_a_replica_given_up_by_mistake_tells_again_who_is_there(
    replicas: Replicas, backend: Recorder
) -> None:
    a, b = replicas.start(2).replicas
    await replicas.join(a, "there")
    await replicas.join(a, "both")
    here = await replicas.join(b, "both")
    await eventually(lambda: backend.counts("user.online").total() == 2)
    await asyncio.sleep(QUIET_SECONDS)  # b has asked a about its user as well
    a.signal(signal.SIGSTOP)
    await eventually(lambda: backend.counts("replica.lost").total() == 1)
    a.signal(signal.SIGCONT)
    await eventually(lambda: backend.counts("user.online")["there"] == 2)
    await asyncio.sleep(QUIET_SECONDS)

    assert backend.counts("user.online") == {"there": 2, "both": 1}
    assert backend.counts("session.started") == {"there": 2, "both": 3}
    await here.close()
    await asyncio.sleep(QUIET_SECONDS)
    assert backend.counts("user.offline") == {}
