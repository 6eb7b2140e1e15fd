"""The phoenix package as published, in a page that another server serves."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import Page

from tests.conftest import StartGateway
from tests.support.api import Backend
from tests.support.gateway import GatewayProcess
from tests.support.ports import free_port
from tests.support.tokens import token
from tests.support.waiting import eventually

PAGE = """
<!doctype html>
<title>An application</title>
<link rel="icon" href="data:,">
<script type="module">
  const release = new URLSearchParams(location.search).get("release") ?? "1.8";
  window.Phoenix = await import(`/phoenix-${release}/priv/static/phoenix.mjs`);
</script>
"""
OPEN = """
([url, { longpoll, ...options }]) => {
  if (longpoll) options.transport = Phoenix.LongPoll;
  window.seen = [];
  window.opened = new Promise((resolve) => {
    const socket = new Phoenix.Socket(url, options);
    let opened = false;
    socket.onOpen(() => { opened = true; resolve("open"); });
    socket.onError(() => { if (!opened) socket.disconnect(); resolve("error"); });
    window.channel = socket.channel("room:1", {});
    channel.on("said", (payload) => seen.push(payload));
    socket.connect();
  });
  return opened;
}
"""
JOIN = """
() => new Promise((resolve) => channel.join()
  .receive("ok", (response) => resolve({ ok: response }))
  .receive("error", (response) => resolve({ error: response })))
"""
SAY = """
(payload) => new Promise((resolve) => channel.push("said", payload)
  .receive("ok", (response) => resolve({ ok: response })))
"""


@pytest.fixture
async def page_port(npm_packages: Path) -> AsyncIterator[int]:
    """Where an application serves its page with the package in it."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    application = web.Application()
    application.router.add_get("/", answer)
    application.router.add_static("/", npm_packages)
    runner = web.AppRunner(application)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield port
    await runner.cleanup()


@pytest.fixture
def gateway(start_gateway: StartGateway, page_port: int) -> GatewayProcess:
    """One that lets pages of one origin in."""
    return start_gateway({"server": {"allowed_origins": [f"http://localhost:{page_port}"]}})


async def connect(page: Page, gateway: GatewayProcess, **options: Any) -> str:
    """Open a socket: ``open`` or ``error``."""
    url = gateway.socket_url.removesuffix("/websocket")
    result: str = await page.evaluate(OPEN, [url, options])
    return result


@pytest.mark.parametrize(
    "options", [{"params": {"token": token()}}, {"authToken": token()}], ids=["params", "authToken"]
)
async def test_a_page_of_an_allowed_origin_joins_and_receives(
    page: Page, page_port: int, gateway: GatewayProcess, options: dict[str, Any]
) -> None:
    await page.goto(f"http://localhost:{page_port}/")
    await page.wait_for_function("window.Phoenix")

    assert await connect(page, gateway, **options) == "open"
    assert await page.evaluate(JOIN) == {"ok": {}}
    assert await page.evaluate(SAY, {"n": 1}) == {"ok": {}}
    async with Backend(gateway) as backend:
        assert await backend.publish("room:1", "said", {"n": 2}) == 202
    await page.wait_for_function("seen.length === 2")
    assert await page.evaluate("seen") == [{"n": 1}, {"n": 2}]


async def test_a_browser_reads_and_sends_what_is_compressed(
    page: Page, page_port: int, start_gateway: StartGateway
) -> None:
    gateway = start_gateway(
        {
            "server": {"allowed_origins": [f"http://localhost:{page_port}"]},
            "compression": {"enabled": True},
        }
    )
    await page.goto(f"http://localhost:{page_port}/")
    await page.wait_for_function("window.Phoenix")

    assert await connect(page, gateway, authToken=token()) == "open"
    assert await page.evaluate(JOIN) == {"ok": {}}
    said = {"text": "grüß Gott " * 200}
    assert await page.evaluate(SAY, said) == {"ok": {}}
    async with Backend(gateway) as backend:
        assert await backend.publish("room:1", "said", said) == 202
    await page.wait_for_function("seen.length === 2")
    assert await page.evaluate("seen") == [said, said]
    before = gateway.metric("compression_before_bytes_total")
    assert 0 < gateway.metric("compression_after_bytes_total") < before / 4


async def test_a_page_of_a_foreign_origin_is_refused(
    page: Page, page_port: int, gateway: GatewayProcess
) -> None:
    await page.goto(f"http://127.0.0.1:{page_port}/")
    await page.wait_for_function("window.Phoenix")

    assert await connect(page, gateway, params={"token": token()}) == "error"
    assert gateway.metric("connects_total", result="refused", reason="origin") == 1


@pytest.mark.parametrize("release", ["1.8", "1.7", "1.6"])
async def test_a_page_of_an_allowed_origin_polls(
    page: Page, page_port: int, gateway: GatewayProcess, release: str
) -> None:
    await page.goto(f"http://localhost:{page_port}/?release={release}")
    await page.wait_for_function("window.Phoenix")

    assert await connect(page, gateway, params={"token": token()}, longpoll=True) == "open"
    assert await page.evaluate(JOIN) == {"ok": {}}
    assert await page.evaluate(SAY, {"n": 1}) == {"ok": {}}
    async with Backend(gateway) as backend:
        assert await backend.publish("room:1", "said", {"n": 2}) == 202
    await page.wait_for_function("seen.length === 2")
    assert await page.evaluate("seen") == [{"n": 1}, {"n": 2}]
    assert gateway.metric("connections", transport="longpoll") == 1


@pytest.mark.parametrize("release", ["1.8", "1.7", "1.6"])
async def test_a_page_whose_session_ended_joins_again(
    page: Page, page_port: int, gateway: GatewayProcess, release: str
) -> None:
    await page.goto(f"http://localhost:{page_port}/?release={release}")
    await page.wait_for_function("window.Phoenix")

    assert await connect(page, gateway, params={"token": token("42")}, longpoll=True) == "open"
    assert await page.evaluate(JOIN) == {"ok": {}}
    async with Backend(gateway) as backend:
        await backend.delete("/v1/users/42/sessions")
        await eventually(lambda: gateway.metric("joins_total", result="ok") == 2)
        assert await backend.publish("room:1", "said", {"n": 1}) == 202
    await page.wait_for_function("seen.length === 1")


async def test_a_page_behind_a_proxy_without_websockets_falls_back(
    page: Page, page_port: int, gateway: GatewayProcess
) -> None:
    await page.route_web_socket(
        "**/socket/websocket*", lambda _: None
    )  # opened, and nothing is said
    await page.goto(f"http://localhost:{page_port}/")
    await page.wait_for_function("window.Phoenix")

    options = {"authToken": token(), "longPollFallbackMs": 300}
    assert await connect(page, gateway, **options) == "open"
    assert await page.evaluate(JOIN) == {"ok": {}}
    assert await page.evaluate(SAY, {"n": 1}) == {"ok": {}}
    assert gateway.metric("connections", transport="longpoll") == 1
