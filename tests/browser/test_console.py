"""The console in a browser: what it shows, what moves by itself, what its buttons do, and that it fits."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Request, expect

from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import API_KEY, GatewayProcess
from tests.support.tokens import token
from tests.support.waiting import eventually

ROOM = "room:1"
PAGES = {
    "overview": "",
    "users": "/users",
    "user": "/users/ann",
    "topics": "/topics",
    "topic": "/topics/room%3A1?tail=1",
    "replica": "/replica",
    "keys": "/keys",
}
WIDTHS = (380, 768, 1440)
DEVICES = ("Ann's laptop", "Ann's phone", "Tablet in the kitchen")


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One replica for all tests of this module, each of which leaves it as it was."""
    keys = [
        {"name": "operations", "key": API_KEY, "scopes": ["publish", "read", "manage"]},
        {"name": "on-call, read only", "key": "key-to-read-with", "scopes": ["read"]},
        {"name": "shop", "key": "key-to-publish-with", "scopes": ["publish"]},
    ]
    gateway = GatewayProcess(
        tmp_path_factory.mktemp("console") / "gateway",
        {
            "api": {"keys": keys},
            "channels": [{"pattern": "room:*", "push": "broadcast", "presence": True}],
            "drain": {"delay_seconds": 600, "window_seconds": 0},
        },
    )
    gateway.start()
    yield gateway
    gateway.kill()


@pytest.fixture
async def clients(replica: GatewayProcess) -> AsyncIterator[list[PhoenixClient]]:
    """Ann on three devices, and some others, in rooms."""
    joined = []
    for number in range(8):
        device = DEVICES[number % 3]
        params = {"device_id": f"device-{number}", "device_name": device, "device_type": "phone"}
        user = "ann" if number < 3 else f"user-{number}"
        client = await PhoenixClient.connect(replica.socket_url, token(user), params=params)
        for room in range(1 + number % 4):
            await client.join(f"room:{room + 1}")
        joined.append(client)
    yield joined
    for client in joined:
        await client.close()


class Desk:
    """An operator's browser.

    Attributes:
        complaints: Errors and warnings of the console, and errors nothing caught.
        asked: Hosts of all requests.
    """

    def __init__(self, page: Page, replica: GatewayProcess) -> None:
        self.page = page
        self.url = f"{replica.internal_url}/console"
        self.complaints: list[str] = []
        self.asked: set[str] = set()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def _request(self, request: Request) -> None:
        self.asked.add(urlsplit(request.url).netloc)

    async def sign_in(self, key: str = API_KEY) -> None:
        """Sign in, by the keyboard alone."""
        await self.page.goto(self.url)
        await expect(self.page.get_by_label("API key")).to_be_focused()
        await self.page.keyboard.type(key)
        await self.page.keyboard.press("Enter")
        await expect(self.page.locator("#tiles")).to_be_visible()

    async def open(self, name: str) -> None:
        """Go to a page; one that moves is live when this returns."""
        await self.page.goto(self.url + PAGES[name])
        await self.live(name)

    async def live(self, name: str) -> None:
        """Wait until what moves is connected."""
        if name in {"overview", "topics", "topic", "replica"}:
            connected = self.page.locator("html[data-live-state=connected]")
            await expect(connected).to_have_count(1, timeout=20_000)


@pytest.fixture
async def desk(browser: Browser, replica: GatewayProcess) -> AsyncIterator[Desk]:
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    yield Desk(await context.new_page(), replica)
    await context.close()


async def test_figures_move_by_themselves(
    desk: Desk, clients: list[PhoenixClient], replica: GatewayProcess
) -> None:
    await desk.sign_in()
    await desk.live("overview")
    connections = desk.page.locator(".tile .figure").first
    await expect(connections).to_have_text(str(len(clients)))
    await desk.page.evaluate("window.unchanged = true")
    one = await PhoenixClient.connect(replica.socket_url, token("eve"))
    await expect(connections).to_have_text(str(len(clients) + 1))
    await one.close()
    await expect(connections).to_have_text(str(len(clients)))

    assert await desk.page.evaluate("window.unchanged")
    assert desk.complaints == []
    assert desk.asked == {urlsplit(replica.internal_url).netloc}
    assert replica.metric("sessions") == len(clients)


async def test_a_message_is_published_and_seen_in_the_tail(
    desk: Desk, clients: list[PhoenixClient], replica: GatewayProcess
) -> None:
    await desk.sign_in()
    await desk.open("topic")
    await eventually(lambda: replica.metric("subscriptions") > 0)
    async with Backend(replica) as backend:
        for word in ("<i>one</i>", "two"):
            await backend.publish(ROOM, "said", {"text": word})
    tail = desk.page.locator("#tail li code")
    await expect(tail).to_have_text(['{"text": "two"}', '{"text": "<i>one</i>"}'])
    await desk.page.get_by_label("Payload").fill('{"text": "three"}')
    await desk.page.get_by_role("button", name="Publish").click()
    await expect(desk.page.get_by_role("status").filter(has_text="Sent with id")).to_be_visible()
    await clients[0].expect(lambda frame: frame[4] == {"text": "three"})

    assert desk.complaints == []


async def test_one_session_is_closed_and_then_all(
    desk: Desk, clients: list[PhoenixClient], replica: GatewayProcess
) -> None:
    await desk.sign_in()
    await desk.open("user")
    sessions = desk.page.locator(".session")
    await expect(sessions).to_have_count(3)
    phone = sessions.filter(has_text=DEVICES[1])
    await phone.get_by_role("button", name="Close this session").click()
    await expect(desk.page.get_by_text("1 closed.")).to_be_visible()
    assert await clients[1].closed() == 1001
    await desk.page.get_by_text("Close all sessions").click()
    await desk.page.get_by_role("button", name="Close all", exact=True).click()
    await expect(desk.page.get_by_text("2 closed.")).to_be_visible()
    assert [await clients[n].closed() for n in (0, 2)] == [1001, 1001]

    lines = [line for line in replica.log_lines() if line.get("action") == "close sessions"]
    assert [(x["who"], x["user"], x["closed"]) for x in lines[-2:]] == [
        ("operations", "ann", 1),
        ("operations", "ann", 2),
    ]


async def test_a_drain_is_started_watched_and_aborted(
    desk: Desk, clients: list[PhoenixClient], replica: GatewayProcess, screenshots: Path
) -> None:
    await desk.sign_in()
    await desk.open("replica")
    abort = desk.page.get_by_role("button", name="Abort")
    await expect(abort).to_be_hidden()
    await desk.page.get_by_text("Drain this replica").click()
    await desk.page.get_by_role("button", name="Start the drain").click()
    await expect(desk.page.locator("[data-drain=draining]")).to_be_visible()
    await expect(desk.page.get_by_text(f"{len(clients)} of {len(clients)} clients")).to_be_visible()
    await desk.page.screenshot(path=screenshots / "console-draining.png", full_page=True)
    await abort.click()
    await expect(desk.page.locator("[data-drain=serving]")).to_be_visible()

    assert replica.get("/readyz")[0] == 200


async def test_a_read_only_key_has_no_buttons(desk: Desk, clients: list[PhoenixClient]) -> None:
    assert clients
    await desk.sign_in("key-to-read-with")
    for name in ("user", "replica", "topic"):
        await desk.open(name)
        for label in ("Close this session", "Close all", "Start the drain", "Abort", "Publish"):
            await expect(desk.page.get_by_role("button", name=label)).to_have_count(0)


async def test_a_page_of_another_port_gets_nothing_with_the_operators_cookie(
    desk: Desk, replica: GatewayProcess
) -> None:
    """The demo's page, say: to a browser it is the same site, so the cookie goes with it."""
    await desk.sign_in()
    await desk.page.goto(f"{replica.public_url}/nothing")
    how = "{method: 'POST', mode: 'no-cors', credentials: 'include', body: new URLSearchParams()}"
    await desk.page.evaluate(f"url => fetch(url, {how})", f"{desk.url}/drain")
    opened = (
        "url => new Promise(done => { const s = new WebSocket(url);"
        " s.onopen = () => done(true); s.onclose = () => done(false) })"
    )
    socket = f"{desk.url}/socket/websocket?vsn=2.0.0".replace("http", "ws")
    assert await desk.page.evaluate(opened, socket) is False

    assert replica.get("/readyz")[0] == 200
    refused = [x for x in replica.log_lines() if x.get("outcome") == "origin"]
    assert [x["who"] for x in refused] == ["operations", "operations"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_fits_every_window(
    desk: Desk,
    clients: list[PhoenixClient],
    replica: GatewayProcess,
    screenshots: Path,
    scheme: str,
) -> None:
    assert clients
    await desk.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await desk.page.goto(desk.url)
    for width in WIDTHS:
        await desk.page.set_viewport_size({"width": width, "height": 900})
        await desk.page.screenshot(path=screenshots / f"console-sign_in-{scheme}-{width}.png")
    await desk.sign_in()
    for name in PAGES:
        await desk.open(name)
        if name == "topic":
            async with Backend(replica) as backend:
                for number in range(3):
                    await backend.publish(ROOM, "said", {"text": f"number {number} " * 20})
            await expect(desk.page.locator("#tail li")).to_have_count(3)
        for width in WIDTHS:
            await desk.page.set_viewport_size({"width": width, "height": 900})
            path = screenshots / f"console-{name}-{scheme}-{width}.png"
            await desk.page.screenshot(path=path, full_page=True)
            beside = "document.documentElement.scrollWidth - window.innerWidth"
            assert await desk.page.evaluate(beside) <= 0, (name, width)
    assert desk.complaints == []


async def test_an_open_page_outlives_its_replica(
    desk: Desk, clients: list[PhoenixClient], replica: GatewayProcess
) -> None:
    """Nothing of a sign-in is kept in the process."""
    await desk.sign_in()
    await desk.live("overview")
    connections = desk.page.locator(".tile .figure").first
    await expect(connections).to_have_text(str(len(clients)))
    for _ in range(2):  # the second time it hurries
        replica.terminate()
        await eventually(lambda: replica.get("/readyz")[0] != 200)
    assert replica.wait() == 0
    await expect(desk.page.locator("html[data-live-state=connecting]")).to_have_count(1)
    replica.start()
    await desk.live("overview")
    await expect(connections).to_have_text("0")
