"""The API on a loopback port."""

from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from gateway.api import build_api
from tests.unit.api.fakes import Config, Gateway, Metrics, Readiness, RecordingRelay, RoomsOnly


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    config, relay, readiness, metrics = Config(), RecordingRelay(), Readiness(), Metrics()
    app = build_api(
        config=config, relay=relay, rules=RoomsOnly(), readiness=readiness, metrics=metrics
    )
    async with TestClient(TestServer(app)) as client:
        yield Gateway(app, client, config, relay, readiness, metrics)
