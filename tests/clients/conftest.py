"""Unmodified clients of others, against real gateways."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.driver import Driver
from tests.clients.npm import install
from tests.support.gateway import GatewayProcess

CHANNELS = [
    {"pattern": "room:*", "join": "authenticated", "push": "broadcast"},
]

Drive = Callable[..., Awaitable[Driver]]


@pytest.fixture(scope="session")
def npm_packages() -> Path:
    """Where the packages of ``node/package.json`` are installed."""
    return install()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway the tests of a file share; each uses topics of its own."""
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"), {"channels": CHANNELS})
    process.start()
    yield process
    process.kill()


@pytest.fixture
async def drive(
    node: str,
    npm_packages: Path,  # noqa: ARG001 -- the driver finds them beside it
) -> AsyncIterator[Drive]:
    """Starts scenarios of ``node/driver.mjs``; ends them after the test."""
    drivers: list[Driver] = []

    async def start(package: str, scenario: str, gateway: GatewayProcess, **options: Any) -> Driver:
        drivers.append(await Driver.start(node, package, scenario, gateway, options))
        return drivers[-1]

    yield start
    for driver in drivers:
        await driver.end()
