"""What probes and scrapers see."""

import pytest
from prometheus_client import CONTENT_TYPE_LATEST

from tests.unit.api.fakes import Answer, Gateway


async def get(gateway: Gateway, path: str) -> Answer:
    """GET without a key."""
    async with gateway.client.get(path) as response:
        return await Answer.of(response)


async def test_livez_says_whether_the_process_works(gateway: Gateway) -> None:
    alive = await get(gateway, "/livez")
    gateway.readiness.alive = False
    stuck = await get(gateway, "/livez")

    assert (alive.status, alive.json) == (200, {"live": True})
    assert (stuck.status, stuck.json) == (503, {"live": False})


async def test_readyz_gives_all_reasons(gateway: Gateway) -> None:
    ready = await get(gateway, "/readyz")
    gateway.readiness.why_not = ["draining", "bus_down"]
    unready = await get(gateway, "/readyz")
    live = await get(gateway, "/livez")

    assert (ready.status, ready.json) == (200, {"ready": True, "reasons": []})
    assert (unready.status, unready.json) == (
        503,
        {"ready": False, "reasons": ["draining", "bus_down"]},
    )
    assert unready.headers["Cache-Control"] == "no-store"
    assert live.status == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_probes_may_use_head(gateway: Gateway, path: str) -> None:
    assert (await gateway.client.head(path)).status == 200


async def test_metrics_are_passed_on_as_they_are(gateway: Gateway) -> None:
    gateway.metrics.sessions.set(7)
    response = await gateway.client.get("/metrics")

    assert response.status == 200
    assert response.headers["Content-Type"] == CONTENT_TYPE_LATEST
    assert b"gateway_sessions 7.0\n" in await response.read()
