"""A replica leaves, and its clients are elsewhere."""

import asyncio
import signal
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.cluster.conftest import StartCluster
from tests.conftest import StartGateway
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.waiting import eventually

ROOM = "room:1"


async def test_two_hundred_sockets_leave_evenly_and_come_back_elsewhere(
    start_cluster: StartCluster,
) -> None:
    sockets, window = 200, 4.0
    a, b = start_cluster(2, {"drain": {"delay_seconds": 3, "window_seconds": window}}).replicas
    clients = [await PhoenixClient.connect(a.socket_url, token(str(i))) for i in range(sockets)]
    for client in clients:
        await client.join(ROOM)
    left: list[float] = []
    back: list[PhoenixClient] = []

    async def follow(client: PhoenixClient, number: int) -> None:
        assert await client.closed(within=60) == 1012
        left.append(time.monotonic())
        again = await PhoenixClient.connect(b.socket_url, token(str(number)))
        await again.enter(ROOM)
        back.append(again)

    following = asyncio.gather(*(follow(client, i) for i, client in enumerate(clients)))
    a.terminate()
    await eventually(lambda: a.get("/readyz")[0] == 503, what="unready before anybody is closed")
    assert left == []
    await following

    assert len(back) == sockets
    assert await asyncio.to_thread(a.wait) == 0
    assert b.metric("connections", transport="websocket") == sockets
    # Evenly: in no quarter of the time they took did most leave, though the machine may stall.
    left.sort()
    quarter = (left[-1] - left[0]) / 4
    per_quarter = [
        sum(left[0] + i * quarter <= t < left[0] + (i + 1) * quarter for t in left)
        for i in range(4)
    ]
    assert max(per_quarter) <= sockets / 2, per_quarter
    assert left[-1] - left[0] > window / 2
    for client in back:
        await client.close()


async def enter(
    replica: GatewayProcess, user: str, topic: str, expected: Iterable[str] = ()
) -> tuple[PhoenixClient, Any]:
    """A client of a user who joins, and the refs and times of whom it is shown, by user."""
    client = await PhoenixClient.connect(
        replica.socket_url, token(user, device={"id": f"device-of-{user}"})
    )
    await client.enter(topic)

    def shown() -> Any:
        joins = [diff["joins"] for diff in client.events(topic, "presence_diff")]
        return {
            user: {(meta["phx_ref"], meta["online_at"]) for meta in value["metas"]}
            for part in (*client.events(topic, "presence_state"), *joins)
            for user, value in part.items()
        }

    await eventually(lambda: {user, *expected} <= shown().keys(), what=f"{user} sees who is there")
    return client, shown()


async def test_nobody_sees_members_of_small_rooms_move_to_a_replica_that_knew_nobody_there(
    start_cluster: StartCluster,
) -> None:
    """One room with a watcher on a third replica, and one that all leave."""
    config = {
        "drain": {"delay_seconds": 0, "window_seconds": 1},
        "channels": [{"pattern": "room:*", "presence": True}],
    }
    a, b, c = start_cluster(3, config).replicas
    rooms = {"room:watched": ["ann"], "room:alone": ["bob", "eve"]}
    movers = [
        (user, topic, (await enter(a, user, topic))[0])
        for topic, users in rooms.items()
        for user in users
    ]
    watcher, before = await enter(c, "watcher", "room:watched", ["ann"])
    probe, alone = await enter(a, "probe", "room:alone", ["bob", "eve"])
    before |= alone
    await probe.close()

    async def follow(user: str, topic: str, client: PhoenixClient) -> tuple[str, PhoenixClient]:
        assert await client.closed(within=60) == 1012
        return topic, (await enter(b, user, topic))[0]

    following = asyncio.gather(*(follow(*mover) for mover in movers))
    a.terminate()
    watching = [*await following, ("room:watched", watcher)]
    assert await asyncio.to_thread(a.wait) == 0

    for name, replica in (("last-b", b), ("last-c", c)):
        for topic, users in rooms.items():
            last, shown = await enter(replica, name, topic, users)
            assert {user: shown[user] for user in users} == {user: before[user] for user in users}
            for told in (client for watched, client in watching if watched == topic):
                # what follows the move has been told, so whatever it led to has been as well
                diffs = partial(told.events, topic, "presence_diff")
                await eventually(lambda: any(name in diff["joins"] for diff in diffs()))  # noqa: B023 -- awaited here
            await last.close()
    for topic, client in watching:
        told_of = {
            user
            for diff in client.events(topic, "presence_diff")
            for kind in ("joins", "leaves")
            for user in diff[kind]
        }
        assert told_of.isdisjoint({user for users in rooms.values() for user in users})
    for _, client in watching:
        await client.close()


async def test_new_clients_are_refused_while_draining(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"drain": {"delay_seconds": 30, "window_seconds": 1}})
    client = await PhoenixClient.connect(gateway.socket_url, token())
    gateway.terminate()
    await eventually(lambda: gateway.get("/readyz")[0] == 503)
    try:
        await PhoenixClient.connect(gateway.socket_url, token())
    except InvalidStatus as refused:
        response = refused.response
    assert response.status_code == 503
    assert response.headers["Retry-After"].isdigit()
    assert (await client.join(ROOM))[4]["status"] == "ok", "who is there already may go on"

    gateway.terminate()  # a second time: hurry

    assert await client.closed() == 1012
    assert await asyncio.to_thread(gateway.wait, 10) == 0


async def test_an_idle_replica_ends_at_once_after_its_delay(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"drain": {"delay_seconds": 0, "window_seconds": 3600}})
    gateway.terminate()

    assert await asyncio.to_thread(gateway.wait, 20) == 0


async def test_a_client_that_does_not_answer_the_close_cannot_hold_up_the_exit(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.public_port)
    writer.write(
        (
            f"GET /socket/websocket?vsn=2.0.0&token={token()} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    gateway.terminate()

    assert await asyncio.to_thread(gateway.wait, 20) == 0
    writer.close()


async def test_an_operator_moves_clients_and_lets_them_in_again(
    start_cluster: StartCluster,
) -> None:
    a, b = start_cluster(2, {"drain": {"delay_seconds": 0, "window_seconds": 0.5}}).replicas
    client = await PhoenixClient.connect(a.socket_url, token())
    other = await PhoenixClient.connect(b.socket_url, token())
    async with Backend(a) as backend:
        status, begun = await backend.post("/v1/drain", None)
        assert (status, begun) == (200, {"state": "draining", "connections": 1, "ending": False})
        assert await client.closed() == 1012

        async def drained() -> bool:
            answer = (await backend.get("/v1/drain"))[1]
            return bool(answer == {"state": "drained", "connections": 0, "ending": False})

        await eventually(drained)
        assert a.get("/readyz")[0] == 503
        with pytest.raises(InvalidStatus):
            await PhoenixClient.connect(a.socket_url, token())
        assert b.get("/readyz")[0] == 200
        assert other.close_code is None

        serving = {"state": "serving", "connections": 0, "ending": False}
        assert await backend.delete("/v1/drain") == (200, serving)
        assert a.get("/readyz")[0] == 200
        again = await PhoenixClient.connect(a.socket_url, token())
        assert (await again.join(ROOM))[4]["status"] == "ok"

        await backend.post("/v1/drain", None)
        assert await again.closed() == 1012
        a.terminate()
        assert await asyncio.to_thread(a.wait) == 0
    await other.close()


async def test_sigterm_goes_on_with_a_drain_which_nobody_aborts_any_more(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway({"drain": {"delay_seconds": 0, "window_seconds": 30}})
    clients = [await PhoenixClient.connect(gateway.socket_url, token(str(i))) for i in range(5)]
    async with Backend(gateway) as backend:
        await backend.post("/v1/drain", None)
        gateway.terminate()

        async def ending() -> bool:
            return bool((await backend.get("/v1/drain"))[1]["ending"])

        await eventually(ending)
        status, problem = await backend.delete("/v1/drain")
        assert (status, problem["type"]) == (409, "urn:gateway:problem:ending")
        assert gateway.get("/readyz")[0] == 503
    gateway.terminate()

    assert await asyncio.gather(*(client.closed() for client in clients)) == [1012] * 5
    assert await asyncio.to_thread(gateway.wait, 20) == 0


async def test_a_terminal_that_hangs_up_ends_a_replica_as_any_signal_does(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway()
    client = await PhoenixClient.connect(gateway.socket_url, token())
    gateway.signal(signal.SIGHUP)

    assert await client.closed() == 1012
    assert await asyncio.to_thread(gateway.wait, 20) == 0
