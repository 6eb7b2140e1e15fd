"""What is answered for all workers together: probes, metrics and the drain."""

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import hdrs, web
from structlog.stdlib import get_logger

from gateway.api import operations as known
from gateway.api.drain import DrainReport
from gateway.api.problem import MEDIA_TYPE, NOT_FOUND, Problem, problem
from gateway.api.types import Liveness, ReadinessReport
from gateway.exposition import ExpositionSum
from gateway.metrics import SupervisorMetrics
from gateway.workers.process import WorkerAnswer, WorkerProcess

ASK_SECONDS: Final = 5.0
"""How long a worker has for its part of an answer."""

_NAME: Final = "supervisor"
_JSON: Final = "application/json"
_STAGES: Final = ("serving", "draining", "drained")

_log = get_logger(__name__)


class Front:
    """Answers on a Unix socket for the workers that are asked, and on the internal port while none is up.

    Args:
        workers: Those that live, by number; None where there is none now.
        leaving: Those whose work another has taken over, and that have not ended.
    """

    def __init__(
        self,
        workers: Callable[[], Sequence[WorkerProcess | None]],
        leaving: Callable[[], Iterable[WorkerProcess]],
        metrics: SupervisorMetrics,
    ) -> None:
        self._workers = workers
        self._leaving = leaving
        self._metrics = metrics
        self._sum = ExpositionSum()
        app = web.Application()
        app.on_response_prepare.append(_once)
        app.router.add_get(known.LIVEZ.path, self._livez)
        app.router.add_get(known.READYZ.path, self._readyz)
        app.router.add_get(known.METRICS.path, self._show_metrics)
        app.router.add_route("*", known.GET_DRAIN.path, self._drain)
        app.router.add_route("*", "/{rest:.*}", self._nobody)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
        self._stand_in: asyncio.Server | None = None

    async def start(self, path: Path) -> None:
        """Answer on a Unix socket."""
        await self._runner.setup()
        await web.UnixSite(self._runner, str(path)).start()

    async def stand_in(self, listener: socket.socket, *, wanted: bool) -> None:
        """Answer on the internal port, too, or leave it to the workers, who share its socket."""
        if wanted and self._stand_in is None:
            assert self._runner.server is not None  # noqa: S101 -- it was started
            self._stand_in = await asyncio.get_running_loop().create_server(
                self._runner.server, sock=listener.dup()
            )
        elif not wanted and self._stand_in is not None:
            self._stand_in.close()
            self._stand_in = None

    def forget(self, worker: WorkerProcess) -> None:
        """A worker has ended: what it has counted stays."""
        self._sum.end(worker.name)

    async def close(self) -> None:
        """Answer nothing more."""
        if self._stand_in is not None:
            self._stand_in.close()
        await self._runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return _answer(Liveness(live=True), HTTPStatus.OK)

    async def _readyz(self, _: web.Request) -> web.Response:
        found = await asyncio.gather(*map(_reasons, self._workers()))
        reasons = list(dict.fromkeys(reason for each in found for reason in each))
        report = ReadinessReport(not reasons, reasons)
        return _answer(report, HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK)

    async def _show_metrics(self, request: web.Request) -> web.Response:
        if (number := request.query.get("worker")) is not None:
            return await self._one_workers_metrics(number)
        asked = [each for each in self._workers() if each is not None and each.up]
        await asyncio.gather(*map(self._scrape, (*asked, *self._leaving())))
        self._sum.show(_NAME, self._metrics.exposition())
        text, content_type = self._sum.text()
        return web.Response(body=text, headers={hdrs.CONTENT_TYPE: content_type})

    async def _scrape(self, worker: WorkerProcess) -> None:
        # of one that is silent its last figures stay
        if (
            answer := await _ask(worker, known.METRICS.path)
        ) is not None and not worker.ended.is_set():
            self._sum.show(worker.name, answer.body.decode())

    async def _one_workers_metrics(self, number: str) -> web.Response:
        workers = self._workers()
        if not number.isdecimal() or not 1 <= int(number) <= len(workers):
            return _refused(problem(NOT_FOUND, f"There are workers 1 to {len(workers)}."))
        worker = workers[int(number) - 1]
        answer = None if worker is None else await _ask(worker, known.METRICS.path)
        return _unavailable() if answer is None else _passed_on(answer)

    async def _drain(self, request: web.Request) -> web.Response:
        """The same for each worker; how far the last is, and the clients of all."""
        key = request.headers.get(hdrs.AUTHORIZATION)
        path = known.GET_DRAIN.path
        asked = [each for each in self._workers() if each is not None]
        answers = [
            answer
            for answer in await asyncio.gather(
                *(_ask(each, path, method=request.method, key=key) for each in asked)
            )
            if answer is not None
        ]
        if not answers:
            return _unavailable()
        worst = max(answers, key=lambda answer: answer.status)
        if worst.status != HTTPStatus.OK:
            return _passed_on(worst)
        reports = [msgspec.json.decode(answer.body, type=DrainReport) for answer in answers]
        return _answer(
            DrainReport(
                state=min((each.state for each in reports), key=_STAGES.index),
                connections=sum(each.connections for each in reports),
                ending=any(each.ending for each in reports),
            ),
            HTTPStatus.OK,
        )

    async def _nobody(self, _: web.Request) -> web.Response:
        return _unavailable()


async def _once(_: web.Request, response: web.StreamResponse) -> None:
    """The next request on the same connection may be for a worker."""
    response.force_close()


async def _reasons(worker: WorkerProcess | None) -> list[str]:
    return ["worker_down"] if worker is None else await worker.reasons()


async def _ask(
    worker: WorkerProcess, path: str, *, method: str = "GET", key: str | None = None
) -> WorkerAnswer | None:
    try:
        return await worker.ask(path, method=method, key=key, within=ASK_SECONDS)
    except TimeoutError:
        _log.warning("worker does not answer", worker=worker.number, throttle="silent worker")
        return None


def _answer(report: msgspec.Struct, status: int) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(report),
        status=status,
        content_type=_JSON,
        headers={hdrs.CACHE_CONTROL: "no-store"},
    )


def _passed_on(answer: WorkerAnswer) -> web.Response:
    return web.Response(
        body=answer.body, status=answer.status, headers={hdrs.CONTENT_TYPE: answer.content_type}
    )


def _refused(refused: Problem) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(refused), status=refused.status, content_type=MEDIA_TYPE
    )


def _unavailable() -> web.Response:
    status = HTTPStatus.SERVICE_UNAVAILABLE
    return _refused(Problem("about:blank", status.phrase, status, "No worker is up."))
