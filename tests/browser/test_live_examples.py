"""The backends of ``deploy/live``, which have no JavaScript, on two replicas of which one is killed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import Page, expect

from tests.support.gateway import API_KEY, GatewayProcess
from tests.support.nats import NatsServer
from tests.support.ports import free_port, wait_until_listening
from tests.support.tokens import SECRET

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "FastAPI": ("uvicorn", "deploy.live.fastapi_app:app", "--host=127.0.0.1", "--port={port}"),
    "Django": ("deploy.live.django_app", "runserver", "--noreload", "127.0.0.1:{port}"),
}


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[GatewayProcess]]:
    """Two that share their public port, as a load balancer would have it."""
    directory, port = tmp_path_factory.mktemp("live"), free_port()
    nats = NatsServer(directory / "nats")
    nats.start()
    server = {"public": f"127.0.0.1:{port}", "reuse_port": True, "allowed_origins": ["*"]}
    channels = [{"pattern": "notes", "history": {"messages": 100, "seconds": 300}}]
    config = {"server": server, "bus": {"url": nats.url}, "channels": channels}
    started = [GatewayProcess(directory / name, config) for name in "ab"]
    for replica in started:
        replica.public_port = port
        replica.start()
    yield started
    for replica in started:
        replica.kill()
    nats.stop()


@pytest.fixture(params=COMMANDS)
def backend(
    request: pytest.FixtureRequest, tmp_path: Path, replicas: list[GatewayProcess]
) -> Iterator[str]:
    """The URL of a running backend."""
    port = free_port()
    told = {
        "GATEWAY_URL": replicas[0].public_url,
        "GATEWAY_APIS": ",".join(replica.internal_url for replica in replicas),
        "GATEWAY_API_KEY": API_KEY,
        "GATEWAY_TOKEN_SECRET": SECRET,
    }
    command = [part.format(port=port) for part in COMMANDS[request.param]]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=os.environ | told,
            stdout=log,
            stderr=log,
        )
    wait_until_listening(process, port, tmp_path / "log")
    yield f"http://127.0.0.1:{port}/"
    process.terminate()
    process.wait()


async def post(page: Page, url: str, text: str) -> None:
    """Send the page's form from elsewhere."""
    form = {"text": text}
    if token := await page.evaluate("document.querySelector('[name=csrfmiddlewaretoken]')?.value"):
        form["csrfmiddlewaretoken"] = token
    cookies = {cookie["name"]: cookie["value"] for cookie in await page.context.cookies()}
    async with (
        aiohttp.ClientSession(cookies=cookies) as http,
        http.post(f"{url}notes", data=form, allow_redirects=False) as answer,
    ):
        assert answer.status in {302, 303}, await answer.text()


async def test_what_a_backend_renders_is_shown_and_outlives_a_replica(
    page: Page, backend: str, replicas: list[GatewayProcess]
) -> None:
    await page.goto(backend)
    await expect(page.locator("html[data-live-state=connected]")).to_have_count(1)
    await page.get_by_label("Note").press_sequentially("half a th")
    await post(page, backend, "first <b>& foremost</b>")
    notes = page.locator("#list li")
    await expect(notes).to_have_text(["first <b>& foremost</b>"])
    await expect(page.locator("#count")).to_have_text("1")

    [serving] = [replica for replica in replicas if replica.metric("connections") == 1]
    serving.kill()
    for number in range(5):
        await post(page, backend, f"note {number}")
    await expect(notes).to_have_text(["first <b>& foremost</b>", *(f"note {n}" for n in range(5))])
    await expect(page.locator("#count")).to_have_text("6")
    await expect(page.locator("html[data-live-state=connected]")).to_have_count(1)
    await page.keyboard.type("ought")
    await expect(page.get_by_label("Note")).to_have_value("half a thought")
    serving.start()
