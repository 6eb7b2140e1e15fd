"""``live.js`` in a page with a strict policy: what it changes, what stays, and how it keeps up to date."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import Page, expect

from gateway import live
from tests.support.api import Backend
from tests.support.gateway import GatewayProcess
from tests.support.ports import free_port
from tests.support.tokens import BRIEF, token
from tests.support.waiting import eventually

CONNECTED = "html[data-live-state=connected]"
FOREIGN_POSITION = "@LTE6MA"


class Site:
    """An application with one page and one fragment of it.

    Attributes:
        body: Of the page.
        fragment: What ``/fragment`` answers; None for 500.
        open: Set while ``/fragment`` answers; a request that comes before waits.
        asked: Paths that were asked for.
        token_seconds: How long its tokens are good for.
    """

    def __init__(self, gateway: GatewayProcess) -> None:
        self.gateway = gateway
        self.body = ""
        self.fragment: str | None = "fresh"
        self.open = asyncio.Event()
        self.open.set()
        self.asked: list[str] = []
        self.token_seconds = 3600

    async def start(self) -> web.AppRunner:
        """Serve it."""
        application = web.Application()
        application.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(application)
        await runner.setup()
        self.url = f"http://127.0.0.1:{(port := free_port())}/"
        await web.TCPSite(runner, "127.0.0.1", port).start()
        return runner

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if request.path == "/fragment":
            await self.open.wait()
            status = 200 if self.fragment is not None else 500
            return web.Response(text=self.fragment, status=status, content_type="text/html")
        if request.path == "/token":
            return web.Response(text=token("42", ttl=self.token_seconds))
        gateway = self.gateway.public_url
        policy = f"default-src 'none'; img-src data:; script-src {gateway}; connect-src 'self' ws:"
        page = (
            f'<!doctype html><title>Page</title><link rel="icon" href="data:,">'
            f'<meta name="live-token" content="{token("42", ttl=self.token_seconds)}" data-src="/token">'
            f'<script type="module" src="{gateway}/live.js"></script>{self.body}'
        )
        return web.Response(
            text=page, content_type="text/html", headers={"Content-Security-Policy": policy}
        )


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One for all tests."""
    history = {"messages": 100, "seconds": 300}
    rules: list[dict[str, Any]] = [
        {"pattern": "kept:*", "history": history},
        {"pattern": "room:*", "push": "broadcast"},
    ]
    process = GatewayProcess(
        tmp_path_factory.mktemp("live"),
        {
            "server": {"allowed_origins": ["*"]},
            "auth": {"leeway_seconds": 0},
            "channels": rules,
        },
    )
    process.start()
    yield process
    process.kill()


@pytest.fixture
async def site(gateway: GatewayProcess) -> AsyncIterator[Site]:
    """The application, running."""
    site = Site(gateway)
    runner = await site.start()
    yield site
    await runner.cleanup()


@pytest.fixture
async def backend(gateway: GatewayProcess) -> AsyncIterator[Backend]:
    """What publishes."""
    async with Backend(gateway) as backend:
        yield backend


async def send(backend: Backend, topic: str, target: str, action: str, html: str = "") -> None:
    """Publish a fragment."""
    payload = {"target": target, "action": action, "html": html}
    assert await backend.publish(topic, "live", payload) == 202


async def html(page: Page, selector: str) -> str:
    """What is in an element."""
    return await page.locator(selector).inner_html()


async def test_each_action_changes_the_page(page: Page, site: Site, backend: Backend) -> None:
    site.body = (
        '<div data-live="kept:1"><p id="p" class="old">old <i>text</i></p>'
        '<ul id="list"><li id="one">1</li></ul></div><b class="n">0</b><b class="n">0</b>'
        '<table><tbody id="rows"></tbody></table>'
    )
    warnings: list[str] = []
    page.on("console", lambda message: warnings.append(message.text))
    await page.goto(site.url)
    await expect(page.locator(CONNECTED)).to_have_count(1)

    await send(backend, "kept:1", "list", "append", '<li id="two">2</li><li id="one">one</li>')
    await send(backend, "kept:1", "list", "prepend", '<li id="zero">0</li>')
    await send(backend, "kept:1", "p", "replace", '<p id="p">new</p>')
    await send(backend, "kept:1", ".n", "update", "7")
    await send(backend, "kept:1", "rows", "update", "<tr><td>cell")
    for bad in (
        {"target": "p", "action": "explode", "html": "x"},
        {"target": "p[", "action": "remove"},
        {},
    ):
        assert await backend.publish("kept:1", "live", bad) == 202
    await send(
        backend, "kept:1", "rows", "append", "<script>document.title = 'run'</script><tr id=end>"
    )
    await expect(page.locator("#end")).to_have_count(1)

    assert (
        await html(page, "#list") == '<li id="zero">0</li><li id="one">one</li><li id="two">2</li>'
    )
    assert await page.locator("#p").evaluate("p => p.outerHTML") == '<p id="p">new</p>'
    assert await page.locator(".n").all_inner_texts() == ["7", "7"]
    assert await html(page, "#rows") == '<tr><td>cell</td></tr><tr id="end"></tr>'
    assert await page.title() == "Page"
    assert [text[:21] for text in warnings] == ["live: message ignored"] * 3

    await send(backend, "kept:1", "two", "remove")
    await expect(page.locator("#two")).to_have_count(0)


async def test_focus_selection_input_and_scroll_stay(
    page: Page, site: Site, backend: Backend
) -> None:
    rows = "".join(f"<p>{n}</p>" for n in range(60))
    field = '<input id="field" value="">'
    box = f'<section id="box">{rows}</section>'
    site.body = f'<main id="main" data-live="room:1"><h1>One</h1>{field}{box}</main>{rows}'
    await page.goto(site.url)
    await expect(page.locator(CONNECTED)).to_have_count(1)
    await eventually(lambda: site.gateway.metric("joins_total", result="ok") > 0)
    await page.evaluate(
        "const sheet = new CSSStyleSheet(); sheet.replaceSync('#box { height: 90px; overflow: scroll }');"
        "document.adoptedStyleSheets = [sheet]; box.scrollTop = 200"
    )
    await page.locator("#field").press_sequentially("half a thought")
    await page.evaluate("field.setSelectionRange(2, 6); scrollTo(0, 300)")
    seen = "[box.scrollTop, document.body.lastElementChild.getBoundingClientRect().top]"
    before = await page.evaluate(seen)

    fresh = f"<h1>Two</h1><p>more</p>{box}<hr>{field}"  # moved, and in new company
    await send(backend, "room:1", "main", "update", fresh)
    await expect(page.locator("h1")).to_have_text("Two")

    kept = "[document.activeElement.id, field.value, field.selectionStart, field.selectionEnd]"
    assert await page.evaluate(kept) == ["field", "half a thought", 2, 6]
    assert await page.evaluate(seen) == before


async def test_elements_of_one_topic_share_a_channel_and_come_and_go(
    page: Page, site: Site, gateway: GatewayProcess, backend: Backend
) -> None:
    site.body = '<div id="a" data-live="room:7"></div><div id="b" data-live="room:7"></div>'
    joins = gateway.metric("joins_total", result="ok")
    await page.goto(site.url)
    await eventually(lambda: gateway.metric("joins_total", result="ok") == joins + 1)
    await send(backend, "room:7", "b", "update", '<p id="c" data-live="room:8"></p>')
    await eventually(lambda: gateway.metric("joins_total", result="ok") == joins + 2)
    await send(backend, "room:8", "c", "update", "later")
    await expect(page.locator("#c")).to_have_text("later")

    async def joined() -> list[str]:
        _, answer = await backend.get("/v1/topics?prefix=room:")
        return sorted(item["topic"] for item in answer["items"])

    async def only(*topics: str) -> bool:
        return await joined() == list(topics)

    await send(backend, "room:7", "c", "remove")
    await eventually(lambda: only("room:7"))
    await page.evaluate("a.remove(), b.dataset.live = 'room:9'")
    await eventually(lambda: only("room:9"))


async def test_a_page_that_cannot_catch_up_fetches_its_fragment(
    page: Page, site: Site, backend: Backend
) -> None:
    """Again where that fails; and what is published meanwhile is not lost."""
    site.body = (
        '<div id="a" data-live="kept:9" data-live-src="/fragment"'
        f' data-live-position="{FOREIGN_POSITION}"></div>'
    )
    frames: list[str] = []
    page.on("websocket", lambda ws: ws.on("framereceived", lambda frame: frames.append(str(frame))))
    site.fragment = None
    await page.goto(site.url)
    await eventually(lambda: "/fragment" in site.asked)
    site.fragment = '<p>from the fragment</p><ul id="list"></ul>'
    site.open.clear()
    await eventually(lambda: site.asked.count("/fragment") == 2)
    await send(backend, "kept:9", "list", "append", "<li>then</li>")
    await eventually(lambda: "then" in frames[-1])
    site.open.set()

    await expect(page.locator("#a p")).to_have_text("from the fragment")
    await expect(page.locator("#list li")).to_have_text(["then"])


async def test_what_was_published_after_it_was_rendered_is_shown(
    page: Page, site: Site, backend: Backend
) -> None:
    first = {"topic": "kept:5", "event": "live", "payload": {}}
    _, answer = await backend.post("/v1/publish", first)
    position = answer["results"][0]["position"]
    await send(backend, "kept:5", "a", "append", "missed")
    site.body = f'<p id="a" data-live="kept:5" data-live-src="/fragment" data-live-position="{position}"></p>'
    await page.goto(site.url)

    await expect(page.locator("#a")).to_have_text("missed")
    assert "/fragment" not in site.asked


async def test_a_page_outlives_its_token(page: Page, site: Site, gateway: GatewayProcess) -> None:
    site.body, site.token_seconds = '<p data-live="room:3"></p>', BRIEF
    connects = gateway.metric("connects_total", result="ok")
    await page.goto(site.url)
    await eventually(lambda: site.asked.count("/token") == 2)

    assert gateway.metric("connects_total", result="ok") == connects + 1
    assert gateway.metric("disconnects_total", code="4003") == 0


def test_phoenix_is_the_published_package(npm_packages: Path) -> None:
    published = npm_packages / "phoenix-1.8"
    served = live.source("phoenix.mjs")

    assert served.endswith((published / "priv/static/phoenix.mjs").read_bytes())
    assert (published / "LICENSE.md").read_bytes() in served
