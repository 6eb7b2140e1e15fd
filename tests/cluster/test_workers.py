"""Several workers below one supervisor: one gateway on two ports, whatever becomes of a worker."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cluster.conftest import MakeReader
from tests.cluster.reader import ROOM, Pouring
from tests.conftest import StartGateway
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.waiting import eventually

CLIENTS = 24
RULE = {
    "pattern": "room:*",
    "push": "broadcast",
    "history": {"messages": 5000, "seconds": 300},
}
HALL = {"pattern": "hall:*", "push": "broadcast"}

StartWorkers = Callable[..., GatewayProcess]


@pytest.fixture
def start_workers(start_gateway: StartGateway) -> StartWorkers:
    """Starts a supervisor with two workers, on a nats-server of its own."""

    def start(config: dict[str, Any] | None = None, *, ready: bool = True) -> GatewayProcess:
        config = {"channels": [RULE, HALL]} | (config or {})
        return start_gateway(config, arguments=("--workers", "2"), ready=ready)

    return start


def started(gateway: GatewayProcess, what: str = "worker started") -> list[int]:
    """Process ids of all that were started, the first first."""
    return [line["pid"] for line in gateway.log_lines() if line["event"] == what]


def children(gateway: GatewayProcess) -> list[int]:
    """Process ids of all workers and nats-servers there ever were."""
    return started(gateway) + started(gateway, "nats-server started")


def gone(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has asked for its exit code."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def logged(gateway: GatewayProcess, event: str) -> Callable[[], bool]:
    return lambda: any(line["event"] == event for line in gateway.log_lines())


async def worker_of(backend: Backend, user: str) -> str:
    """The replica of a user's only session."""
    status, answer = await backend.get(f"/v1/users/{user}/sessions")
    assert status == 200, answer
    [session] = answer["items"]
    replica: str = session["replica"]
    return replica


async def test_two_workers_are_one_gateway(start_workers: StartWorkers) -> None:
    gateway = start_workers()
    url = gateway.socket_url
    devices = [
        await PhoenixClient.connect(url, token("ada"), params={"device_id": f"d{number}"})
        for number in range(CLIENTS)
    ]
    for device in devices:
        assert (await device.join("hall:1"))[4]["status"] == "ok"
    async with Backend(gateway) as backend:
        _, sessions = await backend.get("/v1/users/ada/sessions")
        assert len(sessions["items"]) == CLIENTS
        assert len({each["replica"] for each in sessions["items"]}) == 2, "the kernel spreads them"
        await devices[0].ask("hall:1", "said", {"n": 1})
        assert await backend.publish("hall:1", "said", {"n": 2}) == 202
    for device in devices:
        await device.expect(lambda frame: frame[3] == "said" and frame[4] == {"n": 2})
        assert device.events("hall:1", "said") == [{"n": 1}, {"n": 2}]

    each = [await asyncio.to_thread(connections, gateway, f"?worker={n}") for n in (1, 2)]
    assert min(each) > 0
    assert sum(each) == await asyncio.to_thread(connections, gateway, "") == CLIENTS
    assert gateway.metric("workers", state="up") == 2
    await eventually(lambda: gateway.metric("replicas", state="live") == 2)
    assert gateway.metric("build_info") == 1
    assert gateway.get("/metrics?worker=3")[0] == 404

    gateway.terminate()
    assert [await device.closed() for device in devices] == [1012] * CLIENTS
    assert await asyncio.to_thread(gateway.wait) == 0
    assert all(map(gone, children(gateway)))


def connections(gateway: GatewayProcess, query: str) -> float:
    lines = gateway.get(f"/metrics{query}")[1].decode().splitlines()
    name = 'gateway_connections{transport="websocket"} '
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


async def test_the_clients_of_a_killed_worker_come_back_and_miss_nothing(
    start_workers: StartWorkers, make_reader: MakeReader
) -> None:
    gateway = start_workers()
    readers = {f"u{number}": make_reader() for number in range(CLIENTS)}
    for reader in readers.values():
        await reader.go(gateway)
    async with Backend(gateway) as backend, Pouring(gateway) as pouring:
        where = {user: await worker_of(backend, user) for user in readers}
        first, second = sorted(set(where.values()), key=lambda name: name.split("-")[-2])
        await pouring.more(20)
        [pid, _] = started(gateway)
        os.kill(pid, signal.SIGKILL)
        hit = [readers[user] for user in readers if where[user] == first]
        spared = [readers[user] for user in readers if where[user] == second]
        await eventually(lambda: all(len(r.answers) == 2 and r.joined for r in hit), 30)
        await eventually(lambda: gateway.get("/readyz")[0] == 200)
        await pouring.more(20)
        sent = await pouring.stop()
    for reader in readers.values():
        await reader.until(sent)
    assert [reader.answers[1]["recovered"] for reader in hit] == [True] * len(hit)
    assert [(r.closes, len(r.answers)) for r in spared] == [([], 1)] * len(spared)
    assert gateway.metric("restarts_total", process="worker") == 1
    late = [await PhoenixClient.connect(gateway.socket_url, token()) for _ in range(CLIENTS)]
    each = [connections(gateway, f"?worker={number}") for number in (1, 2)]
    assert sum(each) == 2 * CLIENTS
    assert min(each) > 0, "and some are on the new one"
    for client in late:
        await client.close()

    [nats] = started(gateway, "nats-server started")
    os.kill(nats, signal.SIGKILL)
    await eventually(lambda: len(started(gateway, "nats-server started")) == 2)
    await eventually(lambda: gateway.get("/readyz")[0] == 200, 30)
    async with Backend(gateway) as backend:
        assert await backend.publish(ROOM, "n", {"n": sent[-1] + 1}) == 202
    await next(iter(readers.values())).until([*sent, sent[-1] + 1])


async def test_a_new_configuration_is_taken_over_without_a_gap(
    start_workers: StartWorkers, make_reader: MakeReader
) -> None:
    gateway = start_workers()
    readers = [make_reader() for _ in range(8)]
    for reader in readers:
        await reader.go(gateway)
    gateway.configure({"channels": [RULE, HALL, {"pattern": "lobby:*"}]})
    watching, ready = asyncio.Event(), []

    async def watch() -> None:
        while not watching.is_set():
            ready.append(await asyncio.to_thread(gateway.get, "/readyz"))

    async with Pouring(gateway) as pouring:
        await pouring.more(10)
        watcher = asyncio.create_task(watch())
        gateway.signal(signal.SIGHUP)
        await eventually(logged(gateway, "all workers are renewed"), 30)
        watching.set()
        await watcher
        await pouring.more(10)
        sent = await pouring.stop()
    for reader in readers:
        await reader.until(sent)
        assert reader.closes.count(1012) == len(reader.closes) >= 1
        assert all(answer["recovered"] for answer in reader.answers[1:])
    # a busy machine may be late with other things, which is no matter of the renewal
    reasons = {reason for _, body in ready for reason in json.loads(body)["reasons"]}
    assert reasons.isdisjoint({"starting", "draining", "worker_down"})
    client = await PhoenixClient.connect(gateway.socket_url, token())
    assert (await client.join("lobby:1"))[4]["status"] == "ok"
    assert all(map(gone, started(gateway)[:2]))

    gateway.configure({"channels": [{"pattern": "room*:"}]})
    gateway.signal(signal.SIGHUP)
    await eventually(logged(gateway, "configuration is not taken over"))
    assert (await client.heartbeat())[4]["status"] == "ok"
    assert len(started(gateway)) == 4
    await client.close()


async def test_nothing_outlives_a_killed_supervisor(start_workers: StartWorkers) -> None:
    gateway = start_workers()
    client = await PhoenixClient.connect(gateway.socket_url, token())
    pids = children(gateway)
    assert len(pids) == 3
    assert not any(map(gone, pids))

    gateway.kill()
    await eventually(lambda: all(map(gone, pids)), 30)
    assert await client.closed() == 1012


async def test_workers_that_cannot_start_are_tried_less_and_less_often(
    start_workers: StartWorkers, tmp_path: Path
) -> None:
    certificate = tmp_path / "certificate.pem"
    certificate.write_text("no certificate")
    tls = {"tls_certificate": str(certificate), "tls_key": str(certificate)}
    gateway = start_workers({"server": tls}, ready=False)

    def pauses() -> list[float]:
        died = [line for line in gateway.log_lines() if line["event"] == "worker died"]
        return [line["again_seconds"] for line in died if line["worker"] == 1]

    await eventually(lambda: len(pauses()) >= 2, 30)
    assert pauses()[:2] == [0, 0.5]
    status, body = gateway.get("/readyz")
    assert status == 503
    assert set(json.loads(body)["reasons"]) <= {"starting", "worker_down"}
    assert gateway.get("/livez")[0] == 200
    assert gateway.get("/v1/replicas")[0] == 503
    assert gateway.metric("workers", state="down") == 2
    gateway.terminate()
    await asyncio.to_thread(gateway.wait)
    assert all(map(gone, children(gateway)))
