"""The API on a loopback port."""

import time
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from gateway.api import build_api
from gateway.metrics import Metrics
from tests.support.tails import TailScene
from tests.unit.api.fakes import (
    CONFIG,
    PERSONAL,
    RULES,
    Gateway,
    Readiness,
    RecordingArchive,
    RecordingDirectory,
    RecordingDrain,
    RecordingRelay,
    RecordingRevoker,
    RecordingTopics,
    two_replicas,
)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    relay, readiness, metrics = RecordingRelay(), Readiness(), Metrics()
    directory, revoker, archive = RecordingDirectory(), RecordingRevoker(), RecordingArchive()
    drain, topics, looked = RecordingDrain(), RecordingTopics(), TailScene()
    await looked.bus.start()
    app = build_api(
        config=CONFIG,
        publisher=relay,
        rules=RULES,
        personal=PERSONAL,
        directory=directory,
        topics=topics,
        revoker=revoker,
        archive=archive,
        replicas=two_replicas,
        drain=drain,
        tails=looked.tails,
        clock=time.time,
        readiness=readiness,
        metrics=metrics,
    )
    async with TestClient(TestServer(app)) as client:
        yield Gateway(
            app,
            client,
            relay,
            directory,
            topics,
            revoker,
            archive,
            drain,
            looked,
            readiness,
            metrics,
        )
    await looked.bus.close()
