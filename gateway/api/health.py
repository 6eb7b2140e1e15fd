"""Answers probes and scrapers: ``/livez``, ``/readyz`` and ``/metrics``."""

from typing import Protocol

from aiohttp import web

from gateway.api import body
from gateway.api.types import Liveness, ReadinessReport
from gateway.metrics import Metrics


class HealthState(Protocol):
    """What the replica knows about itself."""

    def reasons(self) -> list[str]:
        """Why new clients should go elsewhere; empty when ready."""

    def live(self) -> bool:
        """Whether the process works."""


class Health:
    """The calls."""

    def __init__(self, readiness: HealthState, metrics: Metrics) -> None:
        self._readiness = readiness
        self._metrics = metrics

    async def livez(self, _: web.Request) -> web.Response:
        """503 asks for a restart."""
        live = self._readiness.live()
        return _report(Liveness(live), ok=live)

    async def readyz(self, _: web.Request) -> web.Response:
        """503 asks for no new clients."""
        reasons = self._readiness.reasons()
        return _report(ReadinessReport(not reasons, reasons), ok=not reasons)

    async def metrics(self, _: web.Request) -> web.Response:
        """All metrics of this replica."""
        text, content_type = self._metrics.exposition()
        return web.Response(body=text, headers={"Content-Type": content_type})


def _report(report: Liveness | ReadinessReport, *, ok: bool) -> web.Response:
    response = body.answer(report, 200 if ok else 503)
    response.headers["Cache-Control"] = "no-store"
    return response
