"""A real browser, and a gateway in dev mode."""

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.clients.npm import install
from tests.support.gateway import START_SECONDS, GatewayProcess

# far above what is expected, as a busy machine must not fail a test
expect.set_options(timeout=20_000)

QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class DevGateway(GatewayProcess):
    """``gateway serve --dev`` without a configuration file, on free ports."""

    def start(self, *, ready: bool = True) -> None:
        """Start it; returns once it is ready."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GATEWAY_")}
        ports = {"public": self.public_port, "internal": self.internal_port}
        told = [f"--set=server.{name}=127.0.0.1:{port}" for name, port in ports.items()]
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve", "--dev", *told],
                cwd=self._log_path.parent,  # its gateway.toml has no say without --config
                stdout=log,
                stderr=log,
                env=environment,
            )
        deadline = time.monotonic() + START_SECONDS
        while ready and self.get("/readyz")[0] != 200:
            assert self.running(), f"it ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"it does not become ready:\n{self.log()}"
            time.sleep(0.02)


@pytest.fixture
def dev_gateway(tmp_path: Path) -> Iterator[DevGateway]:
    """A gateway as ``make run`` starts it."""
    gateway = DevGateway(tmp_path / "dev")
    gateway.start()
    yield gateway
    gateway.kill()


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """Chromium, driven by Playwright."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=QUIET)
        yield browser
        await browser.close()


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """An empty page, as wide as a laptop's."""
    page = await browser.new_page(viewport={"width": 1280, "height": 900})
    yield page
    await page.close()


@pytest.fixture(scope="session")
def npm_packages() -> Path:
    """Where the packages of ``tests/clients/node/package.json`` are installed."""
    return install()
