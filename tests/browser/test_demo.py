"""The page of ``gateway serve --dev``, as a visitor sees it."""

from itertools import product
from pathlib import Path

import pytest
from playwright.async_api import ConsoleMessage, Error, Locator, Page, expect

from tests.browser.conftest import DevGateway
from tests.support.api import Backend

TOPIC = "room:demo"
DEV_KEY = "dev"
MESSAGE = "grüß Gott 🙂 <b>&amp;</b>"
WIDTHS = (380, 768, 1440)


class Demo:
    """The open page.

    Attributes:
        complaints: Errors and warnings of the console, and errors nothing caught.
    """

    def __init__(self, page: Page, gateway: DevGateway) -> None:
        self.page = page
        self._gateway = gateway
        self.complaints: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", self._error)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.text} ({message.location['url']})")

    def _error(self, error: Error) -> None:
        self.complaints.append(str(error))

    async def open(self) -> None:
        """Load it and wait until both devices have joined."""
        await self.page.goto(f"{self._gateway.public_url}/")
        await self.both_joined()

    def device(self, name: str) -> Locator:
        """The pane of a device."""
        return self.page.locator(f"[data-device={name}]")

    async def both_joined(self) -> None:
        """Wait until both devices have joined."""
        for name in ("laptop", "phone"):
            await expect(self.device(name).locator(".state")).to_have_text("joined", timeout=20_000)

    async def say(self, name: str, text: str) -> None:
        """Type a message on a device and send it by Enter."""
        await self.device(name).get_by_label("Message").fill(text)
        await self.page.keyboard.press("Enter")

    async def both_show(self, *messages: str) -> None:
        """Wait until both devices show these messages, and nothing else."""
        for name in ("laptop", "phone"):
            texts = self.device(name).locator(".messages span")
            await expect(texts).to_have_text(list(messages))


@pytest.fixture
async def demo(page: Page, dev_gateway: DevGateway) -> Demo:
    demo = Demo(page, dev_gateway)
    await demo.open()
    return demo


async def test_what_one_device_says_both_show(demo: Demo, screenshots: Path) -> None:
    await demo.say("laptop", MESSAGE)
    await demo.both_show(MESSAGE)
    await demo.say("phone", "from the phone")
    await demo.both_show(MESSAGE, "from the phone")

    mine = demo.device("phone").locator(".messages li.mine span")
    await expect(mine).to_have_text(["from the phone"])
    await demo.page.screenshot(path=screenshots / "dev.png")
    assert demo.complaints == []


async def test_what_a_backend_publishes_both_show(demo: Demo, dev_gateway: DevGateway) -> None:
    async with Backend(dev_gateway, key=DEV_KEY) as backend:
        assert await backend.publish(TOPIC, "message", {"body": MESSAGE}) == 202

    await demo.both_show(MESSAGE)
    assert demo.complaints == []


async def test_a_device_that_was_offline_gets_what_it_missed(demo: Demo) -> None:
    here = demo.device("laptop").get_by_label("Here now")
    await expect(here).to_have_text("here: ada (laptop), ada (phone)")
    await demo.say("phone", "before")
    await demo.both_show("before")
    phone = demo.device("phone")
    await phone.get_by_role("button", name="Go offline").click()
    await expect(phone.locator(".state")).to_have_text("offline")
    await expect(here).to_have_text("here: ada (laptop)")
    for text in ("one", "two"):
        await demo.say("laptop", text)
    await expect(demo.device("laptop").locator(".messages li")).to_have_count(3)
    await phone.get_by_role("button", name="Come back").click()

    await demo.both_show("before", "one", "two")
    await expect(here).to_have_text("here: ada (laptop), ada (phone)")
    await demo.page.reload()
    await demo.both_joined()
    await demo.both_show("before", "one", "two")
    assert demo.complaints == []


async def test_the_page_comes_back_to_a_gateway_that_restarts(
    demo: Demo, dev_gateway: DevGateway
) -> None:
    await demo.say("laptop", "before")
    await demo.both_show("before")
    dev_gateway.terminate()
    assert dev_gateway.wait() == 0
    for name in ("laptop", "phone"):
        await expect(demo.device(name).locator(".state")).to_have_text("reconnecting")
        await expect(demo.device(name).get_by_role("button", name="Send")).to_be_disabled()
    # a browser itself complains about a connection that is refused, or answered 503 by a gateway
    # that drains; a page cannot keep it quiet
    expected = ("ERR_CONNECTION_REFUSED", "Unexpected response code: 503")
    refused = [text for text in demo.complaints if not any(e in text for e in expected)]
    dev_gateway.start()
    await demo.both_joined()
    await demo.say("phone", "after")

    await demo.both_show("before", "after")
    assert refused == []


async def test_the_page_fits_its_window(demo: Demo, screenshots: Path) -> None:
    for n in range(8):
        await demo.say("laptop" if n % 3 else "phone", f"message {n} " + "and more of it " * n)
    messages = demo.device("laptop").locator(".messages li")
    for turn, (width, scheme) in enumerate(product(WIDTHS, ("light", "dark"))):
        await demo.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        await demo.page.set_viewport_size({"width": width, "height": 900})
        await demo.say("phone", "W" * 200)
        await expect(messages).to_have_count(9 + turn)
        await demo.page.screenshot(path=screenshots / f"dev-{scheme}-{width}.png", full_page=True)

        widths = await demo.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths == [width, width], "nothing makes the page scroll sideways"
        assert await messages.last.evaluate(
            "item => item.getBoundingClientRect().bottom"
            " < item.parentElement.getBoundingClientRect().bottom + 1"  # it scrolls by whole pixels
        ), "the newest message is in view"
    assert demo.complaints == []
