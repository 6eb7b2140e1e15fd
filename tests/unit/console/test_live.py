"""The console's own socket: who hears what moves, rendered how often, and until when."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import structlog
from aiohttp import ClientWebSocketResponse, WSMsgType

from gateway.console.feeds import Feed
from gateway.console.routes import FRAMES_PER_SECOND
from gateway.console.sign_in import COOKIE, HOURS
from gateway.console.tailing import SHOWN_TOGETHER, TOPIC
from gateway.console.trend import KEPT, SAMPLE_SECONDS
from gateway.errors import BusUnavailable, TooManyTails
from gateway.hub.broadcast import Broadcast
from gateway.protocol.reasons import CloseCode
from gateway.tail import TailEnded, TailGap, TailMessage
from tests.support.waiting import eventually
from tests.unit.console.conftest import Desk


class Page:
    """A page's socket."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.socket = socket

    async def say(self, topic: str, event: str, payload: Any = None) -> list[Any]:
        """Send a message; its reply."""
        await self.socket.send_json(["1", "2", topic, event, payload or {}])
        while (frame := await self.hear())[3] != "phx_reply":
            pass
        return frame

    async def hear(self) -> list[Any]:
        """The next message."""
        frame: list[Any] = await self.socket.receive_json(timeout=10)
        return frame

    async def shown(self) -> dict[str, str]:
        """The next fragment."""
        _, _, _, event, payload = await self.hear()
        assert event == "live"
        fragment: dict[str, str] = payload
        return fragment


@pytest.fixture
async def opened(desk: Desk) -> AsyncIterator[Callable[..., Any]]:
    pages: list[Page] = []

    async def open_page(name: str = "ops") -> Page:
        cookie, _ = await desk.sign_in(name)
        headers = {"Cookie": f"{COOKIE}={cookie}", "Origin": desk.origin}
        socket = await desk.client.ws_connect("/console/socket/websocket", headers=headers)
        pages.append(Page(socket))
        return pages[-1]

    yield open_page
    for page in pages:
        await page.socket.close()


async def test_a_page_is_brought_up_to_date_and_then_told_what_changes(
    desk: Desk, opened: Callable[..., Any]
) -> None:
    page = await opened("shop")
    reply = await page.say("console:overview", "phx_join")
    assert reply[4] == {"status": "ok", "response": {"recovered": True, "position": None}}
    first = {(await page.shown())["target"] for _ in range(4)}
    assert first == {"tiles", "health", "drops", "replicas"}

    desk.drain.start()
    desk.console.tick()
    told = await page.shown()
    while told["target"] != "health":
        told = await page.shown()
    assert told["action"] == "update"
    assert "draining" in told["html"]


async def test_a_topic_is_for_keys_with_its_scope(desk: Desk, opened: Callable[..., Any]) -> None:
    shop, reader = await opened("shop"), await opened("reader")
    for topic, reason in (
        ("console:topics", "unauthorized"),
        ("console:replica", "unauthorized"),
        (f"{TOPIC}room:1", "unauthorized"),
        ("room:1", "unmatched topic"),
        ("console:", "unmatched topic"),
    ):
        answer = (await shop.say(topic, "phx_join"))[4]
        assert answer == {"status": "error", "response": {"reason": reason}}
    assert desk.tails.open == {}
    for topic in ("console:topics", "console:replica"):
        assert (await reader.say(topic, "phx_join"))[4]["status"] == "ok"


async def test_who_may_not_look_leaves_nothing_behind(
    opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr("gateway.console.routes.TailFeed", lambda name, *_: made.append(name))
    shop = await opened("shop")
    for number in range(3):
        await shop.say(f"{TOPIC}room:{number}", "phx_join")

    assert made == []


async def test_who_tails_is_logged_whichever_way_they_come(opened: Callable[..., Any]) -> None:
    shop, reader = await opened("shop"), await opened("reader")
    with structlog.testing.capture_logs() as logs:
        await shop.say(f"{TOPIC}room:1", "phx_join")
        await reader.say(f"{TOPIC}room:1", "phx_join")

    assert [(x["who"], x["action"], x["outcome"], x["topic"]) for x in logs] == [
        ("shop", "refused", "scope read", "room:1"),
        ("reader", "tail", "done", "room:1"),
    ]


async def test_a_page_that_sends_much_waits(
    opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    page = await opened()
    monkeypatch.setattr("gateway.console.routes.asyncio.sleep", sleep)
    for _ in range(2 * FRAMES_PER_SECOND):
        await page.say("phoenix", "heartbeat")
    assert waits


async def test_a_feed_that_fails_ends_neither_the_others_nor_the_replica(
    desk: Desk, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: bool) -> str:
        raise ValueError

    failed: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    replica, overview = await opened(), await opened()
    await replica.say("console:replica", "phx_join")
    await overview.say("console:overview", "phx_join")
    for _ in range(2):
        await replica.shown()
    monkeypatch.setattr("gateway.console.views.good", fail)
    desk.drain.start()
    desk.console.tick()

    assert [context["background"] for context in failed] == ["console"]
    assert "draining" in (await replica.shown())["html"]
    late = await opened()
    await late.say("console:overview", "phx_join")
    assert (await late.socket.receive(timeout=10)).type is WSMsgType.CLOSE
    assert late.socket.close_code == CloseCode.INTERNAL_ERROR


async def test_a_line_with_half_a_surrogate_pair_is_shown(desk: Desk) -> None:
    desk.lines.lines.append('{"event": "odd", "agent": "a\\udcff"}')
    desk.console.feeds["replica"].enter(looker := Written())

    assert b"agent: a?" in b"".join(looker.data)


async def test_nothing_can_be_pushed(opened: Callable[..., Any]) -> None:
    page = await opened()
    await page.say("console:overview", "phx_join")
    for event in ("message", "presence_update", "live"):
        answer = (await page.say("console:overview", event, {"html": "<b>"}))[4]
        assert answer["response"] == {"reason": "push not allowed"}
    answer = (await page.say("phoenix", "access_token", {"access_token": "x"}))[4]
    assert answer["response"] == {"reason": "unauthorized"}
    assert (await page.say("phoenix", "heartbeat"))[4]["status"] == "ok"


async def test_pages_of_one_who_signed_out_are_closed_for_good(
    desk: Desk, opened: Callable[..., Any]
) -> None:
    page = await opened()
    await page.say("console:overview", "phx_join")
    desk.clock.now += HOURS * 3600
    desk.console.tick()
    heard = []
    while (message := await page.socket.receive(timeout=10)).type is WSMsgType.TEXT:
        heard.append(json.loads(message.data)[3])

    assert heard[-1] == "phx_close"
    assert page.socket.close_code == CloseCode.SESSION_ENDED


async def test_garbage_ends_a_page_as_it_would_a_client(opened: Callable[..., Any]) -> None:
    page = await opened()
    for _ in range(10):
        await page.socket.send_str("{")
    while (await page.socket.receive(timeout=10)).type is WSMsgType.TEXT:
        pass

    assert page.socket.close_code == CloseCode.PROTOCOL_ABUSE


class Counted:
    """Renders one element, and counts how often."""

    def __init__(self) -> None:
        self.rendered = 0
        self.text = "a"

    def __call__(self) -> dict[str, str]:
        self.rendered += 1
        return {"it": self.text}


class Written:
    """Somebody who looks, and remembers what came."""

    def __init__(self) -> None:
        self.data: list[bytes] = []

    def write(self, data: bytes, /) -> None:
        self.data.append(data)


def test_a_feed_is_rendered_once_in_a_tick_for_all_and_never_for_nobody() -> None:
    render = Counted()
    feed = Feed("t", None, render)
    for _ in range(5):
        feed.tick()
    assert render.rendered == 0
    lookers = [Written() for _ in range(20)]
    for looker in lookers:
        feed.enter(looker)
        feed.html()
    assert render.rendered == 1
    feed.tick()
    assert render.rendered == 2
    assert [len(looker.data) for looker in lookers] == [1] * 20  # nothing changed
    render.text = "b"
    feed.tick()
    assert render.rendered == 3
    assert [len(looker.data) for looker in lookers] == [2] * 20
    assert len({id(looker.data[1]) for looker in lookers}) == 1  # encoded once
    for looker in lookers:
        feed.leave(looker)
    feed.tick()
    assert render.rendered == 3


def message(number: int) -> TailMessage:
    return TailMessage(Broadcast("room:1", "said", b'{"n":"<%d>"}' % number), 1.0)


async def test_a_tail_shows_messages_and_ends_with_its_last_page(
    desk: Desk, opened: Callable[..., Any]
) -> None:
    first, second = await opened(), await opened("reader")
    for page in (first, second):
        assert (await page.say(f"{TOPIC}room:1", "phx_join"))[4]["status"] == "ok"
    tail = desk.tails.open["room:1"]
    tail.put(message(1), message(2))
    for page in (first, second):
        shown = await page.shown()
        assert (shown["target"], shown["action"]) == ("tail", "prepend")
        assert shown["html"].index("&lt;2&gt;") < shown["html"].index("&lt;1&gt;")
        assert (await page.shown())["action"] == "remove"  # what is above what a page keeps
    await first.say(f"{TOPIC}room:1", "phx_leave")
    assert not tail.closed
    await second.socket.close()
    await eventually(lambda: tail.closed)


async def test_a_tail_says_what_it_does_not_show(desk: Desk, opened: Callable[..., Any]) -> None:
    page = await opened()
    await page.say(f"{TOPIC}room:1", "phx_join")
    tail = desk.tails.open["room:1"]
    tail.put(TailGap(4, "slow"), TailEnded(), *map(message, range(SHOWN_TOGETHER + 3)))
    texts = [(await page.shown()).get("html", "") for _ in range(8)]

    assert "4 messages are missing here: slow" in texts[0]
    assert "moved its clients away" in texts[2]
    assert texts[4].count("<li>") == SHOWN_TOGETHER
    assert "3 more" in texts[6]


async def test_a_tail_that_cannot_be_opened_says_why(
    desk: Desk, opened: Callable[..., Any]
) -> None:
    desk.tails.failure = TooManyTails(32)
    page = await opened()
    await page.say(f"{TOPIC}room:1", "phx_join")
    assert "32 tails are open" in (await page.shown())["html"]


async def test_a_tail_that_could_not_be_opened_is_when_it_can(
    desk: Desk, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.console.tailing.RETRY_SECONDS", 0.01)
    desk.tails.failure = BusUnavailable("the bus is away")
    first, second = await opened(), await opened()
    for page in (first, second):  # who comes later is told, too
        await page.say(f"{TOPIC}room:1", "phx_join")
        assert "the bus is away" in (await page.shown())["html"]
        await page.shown()
    desk.tails.failure = None
    assert "shown again" in (await first.shown())["html"]
    desk.tails.open["room:1"].put(message(1))
    await first.shown()
    assert "&lt;1&gt;" in (await first.shown())["html"]


async def test_pages_that_come_and_go_leave_nothing_behind(desk: Desk) -> None:
    """As many objects after hundreds of ticks and visits as before."""

    def come_and_go(times: int) -> int:
        for _ in range(times):
            lookers = [Written() for _ in range(20)]
            for looker in lookers:
                for feed in desk.console.feeds.values():
                    feed.enter(looker)
            desk.clock.now += 1
            desk.console.tick()
            for looker in lookers:
                for feed in desk.console.feeds.values():
                    feed.leave(looker)
        gc.collect()
        return len(gc.get_objects())

    before = come_and_go(SAMPLE_SECONDS * (KEPT + 1))  # until the ring is full
    assert come_and_go(200) - before < 100
