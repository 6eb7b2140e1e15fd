"""The gateways that vectors and differences are tried on, one for the whole session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway import GatewayProcess

ROOMS = {"pattern": "room:*", "join": "anyone", "push": "broadcast"}


def conforming(directory: Path, *, echo: bool) -> Iterator[GatewayProcess]:
    """A gateway whose rules stand in for the captured server's channel modules."""
    process = GatewayProcess(
        directory,
        {
            "server": {"allowed_origins": ["*"]},
            "auth": {"allow_anonymous": True},
            "channels": [{"pattern": "room:private"}, {**ROOMS, "echo": echo}],
        },
    )
    process.start()
    yield process
    process.kill()


@pytest.fixture(scope="session")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Pushes come back to their author, as ``broadcast!`` has it."""
    yield from conforming(tmp_path_factory.mktemp("loud"), echo=True)


@pytest.fixture(scope="session")
def polled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A loud one for clients that poll, whose sessions outlive their tests by some seconds."""
    yield from conforming(tmp_path_factory.mktemp("polled"), echo=True)


@pytest.fixture(scope="session")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Pushes do not come back to their author, as ``broadcast_from!`` has it."""
    yield from conforming(tmp_path_factory.mktemp("quiet"), echo=False)
