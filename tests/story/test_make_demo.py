"""``make demo`` in a real browser: three devices side by side, and what becomes of what they say."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.support.demo import DemoRun, free_base

DEVICES = ("laptop", "phone", "friend")
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoRun]:
    """One that runs."""
    run = DemoRun(tmp_path_factory.mktemp("demo") / "run.log", free_base())
    run.up()
    yield run
    run.kill()


class Stage:
    """The open page.

    Attributes:
        amiss: What nobody caught, and what was asked of other servers than the demo's.
    """

    def __init__(self, page: Page, demo: DemoRun) -> None:
        self.page = page
        self.amiss: list[str] = []
        self._url = demo.page
        page.on("pageerror", lambda error: self.amiss.append(str(error)))
        page.on("request", lambda request: self._asked(request.url))
        page.on("websocket", lambda socket: self._asked(socket.url))

    def _asked(self, url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:")):
            self.amiss.append(url)

    async def open(self) -> None:
        """Load it, and wait until all devices are in."""
        await self.page.goto(f"{self._url}/")
        await expect(self.button("Start messages")).to_be_enabled(timeout=WAIT_MS)

    def button(self, name: str) -> Locator:
        """A button outside of the devices."""
        return self.page.get_by_role("button", name=name)

    def part(self, name: str) -> Locator:
        """A process, as it is shown."""
        return self.page.locator(f"[data-part={name}] .state")

    async def say(self, device: str, text: str) -> None:
        """Type a message on a device, and send it by Enter."""
        frame = self.page.frame_locator(f"[data-device={device}] iframe")
        await frame.get_by_label("Message", exact=True).fill(text)
        await self.page.keyboard.press("Enter")

    async def counts(self, name: str) -> set[int]:
        """What is shown under a name, at one moment."""
        places = self.page.locator(f"[data-count={name}]")
        return {int(text) for text in await places.all_inner_texts()}

    async def goes_on(self, more: int = 5) -> None:
        """Wait until so many more messages have been seen on all devices."""
        wanted = max(await self.counts("seen")) + more
        for device in DEVICES:
            await self.page.wait_for_function(
                "([selector, wanted]) => document.querySelector(selector).textContent >= wanted",
                arg=[f"[data-device={device}] [data-count=seen]", wanted],
                timeout=WAIT_MS,
            )


async def all_seen_once(*stages: Stage) -> int:
    """Wait until all has been seen on all devices of all pages; returns how many messages that is."""
    total: set[int] = set()
    deadline = time.monotonic() + WAIT_MS / 1000
    while len(total) != 1:
        assert time.monotonic() < deadline, total
        total = {
            n for stage in stages for name in ("sent", "seen") for n in await stage.counts(name)
        }
    for stage in stages:
        assert await stage.counts("missed") == await stage.counts("repeated") == {0}
        assert stage.amiss == []
    return total.pop()


@pytest.mark.slow
async def test_nobody_misses_anything_whatever_is_ended_from_the_page(
    browser: Browser, demo: DemoRun
) -> None:
    """Two pages of three phoenix.js clients each, while gateways are killed and a backend is stopped."""
    pages = [await browser.new_page(reduced_motion="reduce") for _ in range(2)]
    first, second = [Stage(page, demo) for page in pages]
    for stage in (first, second):
        await stage.open()
    await first.button("Start messages").click()
    await second.goes_on()

    await second.button("Stop Backend 1").click()
    await first.button("Kill Gateway a").press("Enter")
    await expect(second.part("gateway-a")).to_have_attribute("data-state", "down")
    await second.say("friend", "Who was that?")
    await expect(first.part("backend-1")).to_have_attribute("data-state", "stopped")
    await first.goes_on()
    await expect(second.part("gateway-a")).to_have_attribute("data-state", "up", timeout=WAIT_MS)
    await second.button("Kill Gateway b").click()
    await expect(first.part("gateway-b")).to_have_attribute("data-state", "down")
    await first.button("Start Backend 1").click()
    await second.goes_on()

    await first.button("Stop messages").click()
    assert await all_seen_once(first, second) > 15


async def test_the_page_fits_its_window(browser: Browser, demo: DemoRun, screenshots: Path) -> None:
    stage = Stage(await browser.new_page(viewport={"width": 1440, "height": 900}), demo)
    await stage.open()
    await stage.button("Start messages").click()
    await stage.goes_on()
    await stage.button("Stop messages").click()
    await all_seen_once(stage)
    for width in (380, 768, 1440):
        for scheme in ("light", "dark"):
            await stage.page.set_viewport_size({"width": width, "height": 900})
            await stage.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            shot = screenshots / f"demo-{scheme}-{width}.png"
            await stage.page.screenshot(path=shot, full_page=True)
            for frame in stage.page.frames:
                wide = "document.documentElement.scrollWidth > innerWidth"
                assert not await frame.evaluate(wide), f"{frame.url} at {width} px"
