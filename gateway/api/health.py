"""What probes and scrapers ask."""

from typing import Protocol

import msgspec
from aiohttp import web

from gateway.api.types import Liveness, ReadinessReport


class HealthState(Protocol):
    """What the replica knows about itself."""

    def reasons(self) -> list[str]:
        """Why new clients should go elsewhere; empty when ready."""

    def live(self) -> bool:
        """Whether the process works."""


class Exposition(Protocol):
    """The metrics in Prometheus' text format."""

    def exposition(self) -> tuple[bytes, str]:
        """Body and content type."""


class Health:
    """``/livez``, ``/readyz`` and ``/metrics``."""

    def __init__(self, readiness: HealthState, metrics: Exposition) -> None:
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
        body, content_type = self._metrics.exposition()
        return web.Response(body=body, headers={"Content-Type": content_type})


def _report(report: Liveness | ReadinessReport, *, ok: bool) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(report),
        status=200 if ok else 503,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
