"""The API on a loopback port."""

from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from gateway.api import build_api
from gateway.auth.rules import PersonalTopic
from tests.unit.api.fakes import (
    Config,
    Gateway,
    Metrics,
    Readiness,
    RecordingArchive,
    RecordingDirectory,
    RecordingRelay,
    RecordingRevoker,
    RoomsAndUsers,
    two_replicas,
)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    config, relay, readiness, metrics = Config(), RecordingRelay(), Readiness(), Metrics()
    directory, revoker, archive = RecordingDirectory(), RecordingRevoker(), RecordingArchive()
    app = build_api(
        config=config,
        relay=relay,
        rules=RoomsAndUsers(),
        personal=PersonalTopic("user:{sub}"),
        directory=directory,
        revoker=revoker,
        archive=archive,
        keeps=lambda topic: topic.startswith("room:"),
        replicas=two_replicas,
        readiness=readiness,
        metrics=metrics,
    )
    async with TestClient(TestServer(app)) as client:
        yield Gateway(app, client, config, relay, directory, revoker, archive, readiness, metrics)
