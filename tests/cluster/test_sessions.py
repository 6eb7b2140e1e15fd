"""One user's devices on several replicas: found, limited, moved, and gone when they are gone."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.cluster.conftest import Cluster, StartCluster
from tests.conftest import StartGateway
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.roster import Roster
from tests.support.tokens import token
from tests.support.waiting import eventually

ROOM = "room:1"
DOWN_AFTER = 3.0
MOVING_SECONDS = 10.0
PRESENCE: dict[str, Any] = {
    "channels": [{"pattern": "room:*", "push": "broadcast", "presence": True}],
    "sessions": {"replica_down_after_seconds": DOWN_AFTER},
}


class Clients:
    """Clients of a test, closed after it."""

    def __init__(self) -> None:
        self.open: list[PhoenixClient] = []

    async def connect(
        self, replica: GatewayProcess, user: str, device: str = "", **claims: Any
    ) -> PhoenixClient:
        """Open a socket."""
        params = {"device_id": device} if device else {}
        client = await PhoenixClient.connect(
            replica.socket_url, token(user, **claims), params=params
        )
        self.open.append(client)
        return client

    async def join(
        self, replica: GatewayProcess, user: str, device: str = "", topic: str = ROOM
    ) -> PhoenixClient:
        """Open a socket and join a room."""
        client = await self.connect(replica, user, device)
        await client.enter(topic)
        return client


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    clients = Clients()
    yield clients
    await asyncio.gather(*(client.close() for client in clients.open))


async def sessions_of(replica: GatewayProcess, user: str) -> dict[str, Any]:
    """The list, as a replica answers it."""
    async with Backend(replica) as backend:
        status, answer = await backend.get(f"/v1/users/{user}/sessions")
    assert status == 200
    found: dict[str, Any] = answer
    return found


async def test_both_devices_are_known_everywhere_and_can_be_told_apart(
    start_cluster: StartCluster, clients: Clients
) -> None:
    a, b, c = start_cluster(3, PRESENCE).replicas
    laptop = await clients.join(a, "42", "laptop", "user:42")
    phone = await clients.join(b, "42", "phone", "user:42")
    for replica in (a, b, c):
        answer = await sessions_of(replica, "42")
        assert [item["device"]["id"] for item in answer["items"]] == ["laptop", "phone"]
        assert (answer["complete"], answer["missing_replicas"]) == (True, [])
    [on_laptop, on_phone] = (item["id"] for item in answer["items"])
    assert c.metric("subscriptions") == 0, "it holds nothing of that user"

    async with Backend(c) as backend:
        body = {"user": "42", "event": "said", "payload": {}, "exclude_sessions": [on_laptop]}
        assert (await backend.post("/v1/publish", body))[0] == 202
        await eventually(lambda: phone.events("user:42", "said") == [{}])
        path = f"/v1/users/42/sessions/{on_phone}"
        assert (await backend.delete(path))[1]["disconnected"] == 1
        assert await phone.closed() == 1001
        assert (await backend.delete(path))[1]["disconnected"] == 0
        assert (await backend.get("/v1/users/42"))[1]["sessions"] == 1
        removed = await backend.delete("/v1/topics/user%3A42/users/42")
        assert removed[1]["removed"] == 1
    await laptop.expect(lambda frame: frame[3] == "phx_close")
    assert laptop.events("user:42", "said") == []


async def test_a_user_nobody_knows_is_no_reason_to_wait(start_cluster: StartCluster) -> None:
    a, b = start_cluster(2, PRESENCE).replicas
    async with Backend(a) as backend:
        for path in ("/v1/users/nobody", "/v1/users/nobody/sessions"):
            status, answer = await backend.get(path)
            assert (status, answer["complete"], answer["missing_replicas"]) == (200, True, [])
        assert (await backend.delete("/v1/users/nobody/sessions"))[1]["disconnected"] == 0
    assert b.metric("sessions") == 0


@pytest.mark.slow
async def test_a_killed_replica_leaves_once_and_for_all(
    start_cluster: StartCluster, clients: Clients
) -> None:
    users = 300
    a, b, c = start_cluster(3, PRESENCE).replicas
    watcher = await clients.join(b, "watcher")
    roster = Roster(watcher, ROOM)
    for start in range(0, users, 50):
        await asyncio.gather(*(clients.join(a, f"u{start + n}") for n in range(50)))
    await eventually(lambda: len(roster.users()) == users + 1)
    shared = await clients.join(b, "u0", "second")

    a.kill()
    async with Backend(c) as backend:
        status, answer = await backend.get("/v1/users/u1/sessions")
        assert status == 200
        assert not answer["complete"] or answer["items"] == []

        async def gone() -> bool:
            body = {"users": [f"u{n}" for n in range(1, users)]}
            _, answer = await backend.post("/v1/users/status", body)
            return answer["complete"] and not any(u["sessions"] for u in answer["users"].values())

        await eventually(gone)
    await eventually(lambda: roster.users() == {"watcher", "u0"})
    leaves = Counter(user for what, user in roster.events() if what == "leave")
    assert leaves == Counter({f"u{n}": 1 for n in range(users)})
    assert [i["device"]["id"] for i in (await sessions_of(c, "u0"))["items"]] == ["second"]
    assert shared.close_code is None
    assert b.metric("replicas_lost_total") == 1
    await eventually(lambda: b.metric("replicas", state="live") == 2)


@pytest.mark.slow
async def test_a_stalled_replica_heals_without_a_duplicate_and_without_a_false_leave(
    start_cluster: StartCluster, clients: Clients
) -> None:
    a, b = start_cluster(2, PRESENCE).replicas
    await asyncio.gather(*(clients.join(a, f"a{n}") for n in range(20)))
    await asyncio.gather(*(clients.join(b, f"b{n}") for n in range(20)))
    on_a = Roster(await clients.join(a, "watcher-a"), ROOM)
    on_b = Roster(await clients.join(b, "watcher-b"), ROOM)
    everybody = {f"{r}{n}" for r in "ab" for n in range(20)} | {"watcher-a", "watcher-b"}
    await eventually(lambda: on_a.users() == on_b.users() == everybody)
    on_a.log.clear()
    on_b.log.clear()

    a.signal(signal.SIGSTOP)
    half = {user for user in everybody if user.startswith("b") or user == "watcher-b"}
    await eventually(lambda: on_b.users() == half)
    await asyncio.sleep(2 * DOWN_AFTER)  # a stall far longer than any silence that is allowed
    a.signal(signal.SIGCONT)

    await eventually(lambda: on_b.users() == everybody)
    await asyncio.sleep(DOWN_AFTER + 1)  # in which a false leave would come
    assert set(on_b.counts().values()) == {1}
    assert on_a.events() == [], "who was stalled itself has not seen the others leave"
    assert on_a.users() == everybody


@pytest.mark.slow
async def test_without_the_bus_nobody_leaves_and_answers_say_what_they_lack(
    start_cluster: StartCluster, clients: Clients
) -> None:
    cluster = start_cluster(2, PRESENCE)
    a, b = cluster.replicas
    await clients.join(a, "42", "laptop")
    await clients.join(b, "42", "phone")
    watcher = Roster(await clients.join(b, "watcher"), ROOM)
    await eventually(lambda: watcher.counts() == Counter({"42": 2, "watcher": 1}))
    watcher.log.clear()
    names = [line["replica"] for line in a.log_lines() if line["event"] == "serving"]

    cluster.nats.kill()
    await eventually(lambda: b.metric("bus_connected") == 0)
    answer = await sessions_of(b, "42")
    assert [item["device"]["id"] for item in answer["items"]] == ["phone"]
    assert (answer["complete"], answer["missing_replicas"]) == (False, names)
    await asyncio.sleep(2 * DOWN_AFTER)
    assert watcher.events() == []
    cluster.nats.start()
    await eventually(lambda: b.get("/readyz")[0] == 200)
    await asyncio.sleep(DOWN_AFTER + 1)  # in which a false leave would come

    assert watcher.events() == []
    assert len((await sessions_of(b, "42"))["items"]) == 2


async def follow(
    clients: Clients, client: PhoenixClient, to: GatewayProcess, n: int
) -> PhoenixClient:
    """Do what a client does when it is sent away: come back, on another replica."""
    assert await client.closed(within=60) == 1012
    return await clients.join(to, f"u{n}", f"device-{n}")


@pytest.mark.slow
async def test_a_rolling_restart_is_not_seen(start_cluster: StartCluster, clients: Clients) -> None:
    drain = {"drain": {"delay_seconds": 0, "window_seconds": 2}}
    a, b, c = start_cluster(3, PRESENCE | drain).replicas
    roster = Roster(await clients.join(b, "watcher"), ROOM)
    moving = [await clients.join(a, f"u{n}", f"device-{n}") for n in range(50)]
    stays = await clients.join(c, "u0", "other device")
    await eventually(lambda: roster.counts().total() == 52)
    roster.log.clear()
    refs = set(roster.metas)

    for leaves, takes in ((a, c), (c, a)):
        if leaves is c:
            c_stays = asyncio.create_task(stays.closed(within=60))
        following = asyncio.gather(
            *(follow(clients, client, takes, n) for n, client in enumerate(moving))
        )
        leaves.terminate()
        moving = await following
        assert await asyncio.to_thread(leaves.wait) == 0
        if leaves is c:
            assert await c_stays == 1012
            await clients.join(a, "u0", "other device")
        leaves.start()
    await asyncio.sleep(MOVING_SECONDS + 2)  # after which who did not come back would be missed

    assert roster.events() == []
    assert set(roster.metas) == refs
    async with Backend(b) as backend:
        users = [f"u{n}" for n in range(50)]
        _, answer = await backend.post("/v1/users/status", {"users": users})
    assert {state["online"] for state in answer["users"].values()} == {True}
    assert [state["sessions"] for state in answer["users"].values()] == [2] + [1] * 49


@pytest.mark.slow
async def test_who_does_not_come_back_from_a_restart_is_missed(
    start_cluster: StartCluster, clients: Clients
) -> None:
    a, b = start_cluster(2, PRESENCE).replicas
    roster = Roster(await clients.join(b, "watcher"), ROOM)
    await clients.join(a, "42")
    await eventually(lambda: roster.users() == {"watcher", "42"})
    a.terminate()
    assert await asyncio.to_thread(a.wait) == 0
    assert roster.users() == {"watcher", "42"}, "it may still come"

    await eventually(lambda: roster.users() == {"watcher"}, within=MOVING_SECONDS + 5)
    assert [event for event in roster.events() if event[0] == "leave"] == [("leave", "42")]


def gave_way(socket: PhoenixClient) -> bool:
    """Whether it was told that its session is over, and is about to be closed."""
    told = any(isinstance(frame, list) and frame[3] == "phx_close" for frame in socket.inbox)
    return told and socket.close_code is None


async def settled(cluster: Cluster, sockets: list[PhoenixClient], wanted: int) -> list[int]:
    """Indexes of the sockets that are still there, once the replicas agree and so many are left.

    Those that gave way are closed a moment after their sessions have ended.
    """

    async def agree() -> bool:
        lists = [await sessions_of(replica, "42") for replica in cluster.replicas]
        return {len(each["items"]) for each in lists} == {wanted}

    deadline = time.monotonic() + 20
    while not await agree() or any(gave_way(socket) for socket in sockets):
        assert time.monotonic() < deadline, "they do not settle"
    return [index for index, socket in enumerate(sockets) if socket.close_code is None]


@pytest.mark.parametrize("when_full", ["refuse", "close_oldest"])
async def test_fifty_devices_at_once_end_at_the_limit(
    start_cluster: StartCluster, clients: Clients, when_full: str
) -> None:
    limits = {"sessions": {"max_per_user": 5, "when_full": when_full}}
    cluster = start_cluster(3, PRESENCE | limits)
    sockets = [
        await clients.connect(cluster.replicas[n % 3], "42", f"device-{n}") for n in range(50)
    ]
    replies = await asyncio.gather(
        *(socket.join(ROOM) for socket in sockets), return_exceptions=True
    )

    open_sockets = await settled(cluster, sockets, 5)
    answer = await sessions_of(cluster.replicas[0], "42")
    listed = {item["device"]["id"] for item in answer["items"]}
    admitted = {
        index
        for index, reply in enumerate(replies)
        if not isinstance(reply, BaseException) and reply[4]["status"] == "ok"
    }
    assert len(listed) == 5
    assert {f"device-{n}" for n in open_sockets if n in admitted} == listed
    refused = [r[4]["response"] for r in replies if not isinstance(r, BaseException)]
    reasons = {each["reason"] for each in refused if "reason" in each}
    assert reasons <= {"session limit reached"}, "a join may lose while it is under way"
    for index, socket in enumerate(sockets):
        if socket.close_code is not None:
            assert socket.close_code == 4001
            if index in admitted:
                assert any(frame[3] == "phx_close" for frame in socket.inbox)


async def test_one_after_the_other_the_right_five_stay(
    start_cluster: StartCluster, clients: Clients
) -> None:
    limits = {"sessions": {"max_per_user": 5, "when_full": "close_oldest"}}
    cluster = start_cluster(3, PRESENCE | limits)
    sockets = []
    for n in range(12):
        socket = await clients.connect(cluster.replicas[n % 3], "42", f"device-{n}")
        assert (await socket.join(ROOM))[4]["status"] == "ok"
        sockets.append(socket)

    assert await settled(cluster, sockets, 5) == [7, 8, 9, 10, 11]
    extra = await clients.connect(cluster.replicas[0], "42", "big", max_sessions=7)
    assert (await extra.join(ROOM))[4]["status"] == "ok"
    assert await settled(cluster, sockets, 6) == [7, 8, 9, 10, 11]


async def test_a_device_that_comes_back_at_once_does_not_push_the_other_one_out(
    start_cluster: StartCluster, clients: Clients
) -> None:
    """Whichever replica it comes to, as often as it likes; and is let in when there is room."""
    limits = {"sessions": {"max_per_user": 1, "when_full": "close_oldest"}}
    a, b, c = start_cluster(3, PRESENCE | limits).replicas
    laptop = await clients.join(a, "42", "laptop")
    phone = await clients.join(b, "42", "phone")
    assert await laptop.closed() == 4001
    for replica in (a, b, c):
        laptop = await clients.connect(replica, "42", "laptop")
        for _ in range(3):
            reply = await laptop.join(ROOM)
            assert reply[4]["response"] == {"reason": "session limit reached"}
    assert (await phone.heartbeat())[4]["status"] == "ok"
    await phone.close()

    async def joined() -> bool:
        return (await laptop.join(ROOM))[4]["status"] == "ok"  # type: ignore[no-any-return] # JSON

    await eventually(joined)


async def test_a_device_replaces_itself_on_another_replica(
    start_cluster: StartCluster, clients: Clients
) -> None:
    a, b = start_cluster(2, PRESENCE | {"sessions": {"same_device": "replace"}}).replicas
    first = await clients.join(a, "42", "phone")
    laptop = await clients.join(a, "42", "laptop")
    await clients.join(b, "42", "phone")

    assert await first.closed() == 4001
    assert laptop.close_code is None
    devices = [item["device"]["id"] for item in (await sessions_of(a, "42"))["items"]]
    assert devices == ["laptop", "phone"]


async def test_when_a_user_was_last_seen_outlives_all_replicas(
    start_cluster: StartCluster, clients: Clients
) -> None:
    [replica] = start_cluster(1, PRESENCE).replicas
    client = await clients.join(replica, "ann/é")
    await client.close()
    path = "/v1/users/ann%2F%C3%A9"
    async with Backend(replica) as backend:
        before = (await backend.get(path))[1]["last_seen_at"]
    assert before is not None
    replica.terminate()
    assert await asyncio.to_thread(replica.wait) == 0
    replica.start()

    async with Backend(replica) as backend:
        _, answer = await backend.get(path)
        assert (answer["online"], answer["sessions"]) == (False, 0)
        assert answer["last_seen_at"][:16] == before[:16]
        assert (await backend.get("/v1/users/nobody"))[1]["last_seen_at"] is None


async def test_the_later_of_two_processes_under_one_name_stays(
    start_cluster: StartCluster, start_gateway: StartGateway
) -> None:
    twin = {"server": {"replica": "twin"}}
    cluster = start_cluster(1, twin)
    [first] = cluster.replicas
    client = await PhoenixClient.connect(first.socket_url, token())
    second = start_gateway(twin | {"bus": {"url": cluster.nats.url}})

    assert await client.closed() == 1012
    assert await asyncio.to_thread(first.wait) == 1
    assert "is the later one" in first.full_log()
    assert second.running()
