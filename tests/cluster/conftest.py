"""Several replicas on one real nats-server."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import StartGateway, StartNats
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer


class Cluster:
    """Two or more replicas and their bus."""

    def __init__(self, nats: NatsServer, replicas: list[GatewayProcess]) -> None:
        self.nats = nats
        self.replicas = replicas


StartCluster = Callable[..., Cluster]


@pytest.fixture
def start_cluster(start_nats: StartNats, start_gateway: StartGateway) -> StartCluster:
    """Starts a nats-server and so many replicas."""

    def start(
        replicas: int = 2,
        config: dict[str, Any] | None = None,
        nats_config: str = "",
        *,
        jetstream: bool = True,
    ) -> Cluster:
        nats = start_nats(nats_config, jetstream=jetstream)
        bus = {"bus": {"url": nats.url}}
        return Cluster(nats, [start_gateway(bus | (config or {})) for _ in range(replicas)])

    return start
