"""What is answered for all workers: the worst readiness, the sum of figures, the drain that is least far."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from gateway.metrics import Metrics, SupervisorMetrics
from gateway.workers.front import Front
from gateway.workers.process import WorkerAnswer, WorkerProcess


class FakeWorker:
    """A worker that answers what it is told to."""

    def __init__(self, name: str) -> None:
        self.number = 1
        self.name = name
        self.up = True
        self.ended = asyncio.Event()
        self.doubts: list[str] = []
        self.metrics = Metrics()
        self.drain: dict[str, Any] = {"state": "serving", "connections": 3, "ending": False}
        self.status = 200
        self.silent = False
        self.asked: list[tuple[str, str, str | None]] = []

    async def reasons(self) -> list[str]:
        return self.doubts

    async def ask(
        self, path: str, *, method: str = "GET", key: str | None = None, **_: float
    ) -> WorkerAnswer | None:
        self.asked.append((method, path, key))
        if self.silent:
            raise TimeoutError
        if path == "/metrics":
            text, content_type = self.metrics.exposition()
            return WorkerAnswer(200, text, content_type)
        return WorkerAnswer(self.status, json.dumps(self.drain).encode(), "application/json")


class Asker:
    """A front of two workers, and who asks it."""

    def __init__(self, front: Front, workers: list[FakeWorker | None], path: Path) -> None:
        self.front = front
        self.workers = workers
        self.leaving: list[FakeWorker] = []
        self._path = path

    async def ask(self, path: str, method: str = "GET") -> tuple[int, str]:
        connector = aiohttp.UnixConnector(str(self._path))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"http://x{path}", headers={"Authorization": "k"}) as answer,
        ):
            return answer.status, await answer.text()

    async def value(self, name: str) -> float:
        lines = (await self.ask("/metrics"))[1].splitlines()
        return next(
            float(line.split()[-1]) for line in lines if line.startswith(f"gateway_{name} ")
        )


@pytest.fixture
async def asker(tmp_path: Path) -> AsyncIterator[Asker]:
    workers: list[FakeWorker | None] = [FakeWorker("a"), FakeWorker("b")]
    leaving: list[FakeWorker] = []
    front = Front(
        cast("Callable[[], list[WorkerProcess | None]]", lambda: workers),
        cast("Callable[[], list[WorkerProcess]]", lambda: leaving),
        SupervisorMetrics(),
    )
    path = tmp_path / "front"
    await front.start(path)
    asker = Asker(front, workers, path)
    asker.leaving = leaving
    yield asker
    await front.close()


@pytest.mark.parametrize(
    ("doubts", "shown"),
    [
        (([], []), []),
        ((["bus_down"], []), ["bus_down"]),
        ((["starting"], ["bus_down", "starting"]), ["starting", "bus_down"]),
        ((None, []), ["worker_down"]),
    ],
)
async def test_readiness_is_the_worst(
    asker: Asker, doubts: tuple[list[str] | None, list[str]], shown: list[str]
) -> None:
    for index, each in enumerate(doubts):
        worker = asker.workers[index]
        assert worker is not None
        if each is None:
            asker.workers[index] = None
        else:
            worker.doubts = each
    status, text = await asker.ask("/readyz")

    assert (status, json.loads(text)["reasons"]) == (503 if shown else 200, shown)
    assert (await asker.ask("/livez"))[0] == 200, "which is the supervisor's"


async def test_figures_are_added_and_stay_when_a_worker_is_silent_or_gone(asker: Asker) -> None:
    first, second = asker.workers
    assert first is not None
    assert second is not None
    first.metrics.messages_received.inc(2)
    second.metrics.messages_received.inc(3)
    assert await asker.value("messages_received_total") == 5
    second.silent = True
    first.metrics.messages_received.inc(1)
    assert await asker.value("messages_received_total") == 6
    second.ended.set()
    asker.workers[1] = None
    asker.front.forget(cast("WorkerProcess", second))
    assert await asker.value("messages_received_total") == 6
    successor = asker.workers[1] = FakeWorker("c")
    successor.metrics.messages_received.inc(10)
    assert await asker.value("messages_received_total") == 16


async def test_one_that_leaves_is_counted_and_makes_nobody_unready(asker: Asker) -> None:
    leaving = FakeWorker("before")
    leaving.doubts = ["draining"]
    leaving.metrics.messages_received.inc(7)
    asker.leaving.append(leaving)

    assert await asker.value("messages_received_total") == 7
    assert (await asker.ask("/readyz"))[0] == 200


async def test_one_workers_own_figures(asker: Asker) -> None:
    second = asker.workers[1]
    assert second is not None
    second.metrics.messages_received.inc(3)

    assert "\ngateway_messages_received_total 3.0\n" in (await asker.ask("/metrics?worker=2"))[1]
    assert "\ngateway_messages_received_total 0.0\n" in (await asker.ask("/metrics?worker=1"))[1]
    for unknown in ("0", "3", "x", "-1", ""):
        assert (await asker.ask(f"/metrics?worker={unknown}"))[0] == 404
    second.silent = True
    assert (await asker.ask("/metrics?worker=2"))[0] == 503


async def test_the_drain_is_that_of_all(asker: Asker) -> None:
    first, second = asker.workers
    assert first is not None
    assert second is not None
    second.drain = {"state": "drained", "connections": 0, "ending": False}
    status, text = await asker.ask("/v1/drain", "POST")

    assert status == 200
    assert json.loads(text) == {"state": "serving", "connections": 3, "ending": False}
    assert first.asked == second.asked == [("POST", "/v1/drain", "k")]
    second.status, second.drain = 403, {"title": "no"}
    status, text = await asker.ask("/v1/drain")
    assert (status, json.loads(text)) == (403, {"title": "no"})


async def test_without_workers_nothing_else_is_answered(asker: Asker) -> None:
    asker.workers[:] = [None, None]

    for path in ("/v1/publish", "/v1/drain", "/console", "/metrics?worker=1"):
        assert (await asker.ask(path))[0] == 503
    assert (await asker.ask("/metrics"))[0] == 200
