"""The demo's page in a real browser, as three people use it."""

from itertools import product
from pathlib import Path

import pytest
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, expect

from tests.story.conftest import Story
from tests.support.demo import PNG

TEXT = "grüß Gott 🙂 <b>&amp;</b>"
LAPTOP, PHONE = (1280, 800), (400, 800)


class Screen:
    """One device's page.

    Attributes:
        complaints: Errors and warnings of the console, and errors nothing caught.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.text} ({message.location['url']})")

    @property
    def texts(self) -> Locator:
        """The messages that are shown."""
        return self.page.locator("#posts p")

    @property
    def here(self) -> Locator:
        """Who is shown to be here."""
        return self.page.get_by_label("Here now").get_by_role("listitem")

    @property
    def wall(self) -> Locator:
        """What is shown in place of the messages."""
        return self.page.locator("#wall")

    def button(self, name: str) -> Locator:
        """A button that is shown."""
        return self.page.get_by_role("button", name=name)

    async def is_in(self) -> None:
        """Wait until it has joined a room."""
        await expect(self.button("Send")).to_be_enabled(timeout=20_000)

    async def say(self, text: str) -> None:
        """Type a message and send it by Enter."""
        await self.page.get_by_label("Message", exact=True).fill(text)
        await self.page.keyboard.press("Enter")


class Screens:
    """Opens pages of a story."""

    def __init__(self, browser: Browser, story: Story) -> None:
        self._browser = browser
        self.url = story.url
        self.all: list[Screen] = []

    async def open(self, size: tuple[int, int], fragment: str = "") -> Screen:
        """A window of a size."""
        width, height = size
        page = await self._browser.new_page(viewport={"width": width, "height": height})
        screen = Screen(page)
        self.all.append(screen)
        await page.goto(f"{self.url}/rooms{fragment}")
        return screen


@pytest.fixture
def screens(browser: Browser, story: Story) -> Screens:
    return Screens(browser, story)


async def test_a_room_on_laptop_and_phone(screens: Screens, screenshots: Path) -> None:
    """Ada logs in and opens her phone; Bob comes; a message and an image go everywhere."""
    ada = await screens.open(LAPTOP)
    await ada.page.get_by_role("link", name="Ada, laptop").click()
    await ada.is_in()
    async with ada.page.context.expect_page() as opened:
        await ada.page.get_by_role("link", name="Open the phone").click()
    phone = Screen(await opened.value)
    bob = await screens.open(PHONE, "#bob/phone")
    for screen in (phone, bob):
        await screen.is_in()
    await expect(ada.here).to_contain_text(["Ada", "Bob"])
    await expect(ada.here.first).to_contain_text("laptop, phone")

    await ada.say(TEXT)
    await phone.page.get_by_label("Image").set_input_files(
        {"name": "pixel.png", "mimeType": "image/png", "buffer": PNG}
    )
    for screen in (ada, phone, bob):
        await expect(screen.texts).to_have_text([TEXT])
        picture = screen.page.get_by_role("img", name="Image by Ada")
        await expect(picture).to_have_count(1)
        await expect(picture).to_have_js_property("naturalWidth", 1)
        assert screen.complaints == []
    await ada.page.screenshot(path=screenshots / "rooms-ada.png")

    late = await screens.open(LAPTOP, "#bob/laptop")
    await expect(late.texts).to_have_text([TEXT])
    await expect(late.page.get_by_role("img", name="Image by Ada")).to_have_count(1)


async def test_who_is_no_member_is_told_so_until_she_is_added(screens: Screens) -> None:
    eve = await screens.open(LAPTOP, "#eve/laptop")
    await expect(eve.wall).to_contain_text("not a member")
    await expect(eve.button("Send")).to_be_disabled()
    await eve.button("# random").click()
    await eve.is_in()
    await expect(eve.wall).to_be_hidden()
    await eve.say("so I talk here")
    await expect(eve.texts).to_have_text(["so I talk here"])

    ada = await screens.open(LAPTOP, "#ada/laptop")
    await ada.is_in()
    await ada.say("among us")
    await expect(ada.texts).to_have_text(["among us"])
    await expect(eve.texts).to_have_text(["so I talk here"])
    await ada.button("Add Eve").click()
    await eve.button("# general").click()
    await eve.is_in()
    await expect(eve.texts).to_have_text(["among us"])
    await expect(ada.here).to_contain_text(["Ada", "Eve"])
    assert ada.complaints == eve.complaints == []


async def test_who_is_removed_sees_it_on_all_devices(screens: Screens, screenshots: Path) -> None:
    ada = await screens.open(LAPTOP, "#ada/laptop")
    bobs = [
        await screens.open(size, f"#bob/{kind}")
        for size, kind in ((LAPTOP, "laptop"), (PHONE, "phone"))
    ]
    for screen in (ada, *bobs):
        await screen.is_in()
    await expect(ada.here).to_have_count(2)

    await ada.button("Remove Bob").click()
    for bob in bobs:
        await expect(bob.wall).to_contain_text("You were removed")
    await expect(ada.here).to_have_count(1)
    await ada.say("he is gone")
    await expect(ada.texts).to_have_text(["he is gone"])
    for bob in bobs:
        await expect(bob.texts).to_have_count(0)
        await bob.button("Try again").click()
        await expect(bob.wall).to_contain_text("not a member")
        assert bob.complaints == []
    await bobs[1].page.screenshot(path=screenshots / "rooms-removed.png")

    async with ada.page.expect_response("**/members/bob"):
        await ada.button("Add Bob").click()
    await bobs[0].button("Try again").click()
    await bobs[0].is_in()
    await expect(bobs[0].texts).to_have_text(["he is gone"])


async def test_the_page_catches_up_after_its_replica_is_gone(
    screens: Screens, story: Story
) -> None:
    """phoenix.js reconnects when the replica is back, joins again, and the page asks what it missed."""
    ada = await screens.open(LAPTOP, "#ada/laptop")
    bob = await screens.open(PHONE, "#bob/phone")
    for screen in (ada, bob):
        await screen.is_in()
    await ada.say("before")
    await expect(bob.texts).to_have_text(["before"])
    for replica in story.replicas:
        replica.kill()
    await expect(ada.page.locator(".state")).to_have_text("reconnecting")
    writer = await story.login("bob")
    assert (await writer.call("POST", "/rooms/general/messages", json={"text": "meanwhile"}))[
        0
    ] == 201
    for replica in story.replicas:
        replica.start()

    for screen in (ada, bob):
        await expect(screen.texts).to_have_text(["before", "meanwhile"], timeout=30_000)


async def test_the_page_fits_its_window(screens: Screens, screenshots: Path) -> None:
    ada = await screens.open(LAPTOP, "#ada/phone")
    await ada.is_in()
    for n in range(12):
        await ada.say(f"message {n} " + "and more of it " * n)
    for turn, ((width, height), scheme) in enumerate(product((LAPTOP, PHONE), ("light", "dark"))):
        await ada.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        await ada.page.set_viewport_size({"width": width, "height": height})
        await ada.say("W" * 300)
        await expect(ada.texts).to_have_count(13 + turn)
        await ada.page.screenshot(path=screenshots / f"rooms-{scheme}-{width}.png")

        widths = await ada.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths == [width, width], "nothing makes the page scroll sideways"
        heights = await ada.page.evaluate("[document.documentElement.scrollHeight, innerHeight]")
        assert heights == [height, height], "only the messages scroll"
        await expect(ada.texts.last).to_be_in_viewport()
    assert ada.complaints == []
