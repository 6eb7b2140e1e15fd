"""What each client is to do, one column after the other; a play returns what the page says of it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tests.matrix.clients import Client
from tests.matrix.driver import Driver
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token

YES = "yes"
TEXT = {"text": 'grüß Gott 🙂, "you", [1, 2]', "n": 1}
ANY = "any"
"""What is reported where no socket is known."""

BYTES = list(range(256))
GONE = {None, 1006, 1012, 4003}
"""Close codes a client may show: its own word for a broken connection, and the gateway's; some show none."""

BRIEF_SECONDS = 8
"""A token is good for that has to end: time to connect and join, on a busy machine too."""

_numbers = count(1)


@dataclass
class Stage:
    """What all clients play on.

    Attributes:
        gateway: Where they connect.
        other: A replica that stays, for messages meanwhile; its sockets have to be heard from.
        idle_seconds: After which it closes those that are not.
    """

    gateway: GatewayProcess
    other: GatewayProcess
    idle_seconds: int


@dataclass
class Play:
    """One client's.

    Attributes:
        cells: What the page says, by column.
    """

    client: Client
    driver: Driver
    stage: Stage
    cells: dict[str, str] = field(default_factory=dict)

    def room(self, kind: str = "room") -> str:
        """A topic nobody else uses."""
        return f"{self.client.prefix}{kind}:{self.client.slug}-{next(_numbers)}"

    def name(self) -> str:
        """Of a socket."""
        return f"socket-{next(_numbers)}"

    async def connect(
        self, *, user: str = "42", to: GatewayProcess | None = None, **details: Any
    ) -> str:
        """A socket that is told to connect; returns its name."""
        name = self.name()
        url = (to or self.stage.gateway).socket_url.removesuffix("/websocket")
        details = {
            "token": token(user),
            "renews": "renewed" not in self.client.cannot,
            "beat": 0,
        } | details
        await self.driver.tell("connect", name, url=url, **details)
        return name

    async def member(self, topic: str, **details: Any) -> str:
        """A socket that is connected and joined; returns its name."""
        name = await self.connect(**details)
        await self.driver.expect("open", name)
        await self.join(name, topic)
        return name

    async def join(
        self, name: str, topic: str, *, resume: bool = False, presence: bool = False
    ) -> None:
        """Join, and wait for the answer."""
        await self.driver.tell("join", name, topic=topic, resume=resume, presence=presence)
        await self.driver.expect("joined", name, topic=topic)

    async def publish(
        self, topic: str, payload: Any, event: str = "said", *, at: GatewayProcess | None = None
    ) -> None:
        """As a backend does."""
        if self.client.prefix:
            payload, event = {"type": "broadcast", "event": event, "payload": payload}, "broadcast"
        async with Backend(at or self.stage.gateway) as backend:
            assert await backend.publish(topic, event, payload) == 202

    async def push(self, name: str, topic: str, payload: Any = TEXT, event: str = "said") -> None:
        """Push, and wait for the ok."""
        answers = len(self.driver.all("answer", name))
        await self.driver.tell("push", name, topic=topic, event=event, payload=payload)
        answer = await self.driver.expect("answer", name, answers + 1)
        assert (answer["status"], answer["response"]) == ("ok", {}), answer

    async def hears(self, name: str, topic: str, payloads: list[Any]) -> None:
        """Wait until it has heard as many messages, which have to be these."""
        await self.driver.expect("heard", name, len(payloads), topic=topic, event="said")
        heard = [
            item["payload"] for item in self.driver.all("heard", name, topic=topic, event="said")
        ]
        if self.client.unordered:
            heard.sort(key=lambda payload: payload["n"])
        assert heard == payloads, (heard, payloads)


async def joins(play: Play) -> str:
    await play.member(play.room())
    return YES


async def pushes(play: Play) -> str:
    topic = play.room()
    ann, ben = await play.member(topic), await play.member(topic)
    await play.push(ann, topic)
    for name in (ann, ben):
        await play.hears(name, topic, [TEXT])
    return YES


async def hears(play: Play) -> str:
    topic = play.room()
    name = await play.member(topic)
    messages = [TEXT | {"n": n} for n in range(10)]
    for message in messages:
        await play.publish(topic, message)
    await play.hears(name, topic, messages)
    return "in no order" if play.client.unordered else "in order"


async def is_told_why(play: Play) -> str:
    topic = play.room("closed")
    name = await play.connect()
    await play.driver.expect("open", name)
    await play.driver.tell("join", name, topic=topic, resume=False, presence=False)
    refused = await play.driver.expect("refused", name, topic=topic)
    assert "unauthorized" in refused["response"]["reason"], refused
    return YES


async def shows_presence(play: Play) -> str:
    topic = play.room("present")
    ann = await play.connect(user="ann")
    await play.driver.expect("open", ann)
    await play.join(ann, topic, presence=True)
    ben = await play.connect(user="ben")
    await play.driver.expect("open", ben)
    await play.join(ben, topic)

    if play.client.events:

        def users(event: str, part: str | None) -> set[str]:
            told = [
                item["payload"] for item in play.driver.all("heard", ann, topic=topic, event=event)
            ]
            return {user for payload in told for user in (payload[part] if part else payload)}

        def both() -> bool:
            joined = users("presence_state", None) | users("presence_diff", "joins")
            return joined == {"ann", "ben"}

        await play.driver.until(both, "not both are shown")
        return "as events"
    await play.driver.expect("present", ann, users={"ann": 1, "ben": 1})
    await play.driver.tell("leave", ben, topic=topic)
    await play.driver.until(
        lambda: play.driver.all("present", ann)[-1]["users"] == {"ann": 1},
        "who left is still shown",
    )
    return YES


async def exchanges_bytes(play: Play) -> str:
    topic = play.room()
    ann, ben = await play.member(topic), await play.member(topic)
    await play.driver.tell("blob", ann, topic=topic, event="blob", bytes=BYTES)
    await play.driver.expect("answer", ann, status="ok")
    for name in (ann, ben):
        heard = await play.driver.expect("heard", name, topic=topic, event="blob")
        assert heard["payload"] == {"bytes": BYTES}, heard
    return YES


async def meets_bytes(play: Play) -> str:
    """What others push as bytes reaches version 2 only."""
    topic = play.room()
    name = await play.member(topic)
    other = await PhoenixClient.connect(play.stage.gateway.socket_url, token())
    try:
        await other.enter(topic)
        sizes = bytes([1, 1, len(topic.encode()), 4])
        await other.send(b"\x00" + sizes + b"1" + b"9" + topic.encode() + b"blob" + bytes(BYTES))
        await play.publish(topic, TEXT)
        await play.driver.until(
            lambda: bool(
                play.driver.all("heard", name, topic=topic, event="said")
                or play.driver.all("closed", name)
                or play.driver.all("thrown", ANY)
            ),
            "it hears nothing more",
        )
    finally:
        await other.close()
    if play.driver.all("thrown", ANY):
        return "throws"
    if play.driver.all("closed", name):
        return "the connection breaks"
    if play.driver.all("heard", name, topic=topic, event="blob"):
        return "hears them"
    return "not sent" if play.client.wire == 1 else "passes over them"


async def leaves(play: Play) -> str:
    topic, later = play.room(), play.room()
    name = await play.member(topic)
    await play.join(name, later)
    await play.driver.tell("leave", name, topic=topic)
    await play.driver.expect("left", name)
    await play.publish(topic, TEXT)
    await play.publish(later, TEXT)
    await play.hears(name, later, [TEXT])
    assert not play.driver.all("heard", name, topic=topic, event="said"), "it still hears"
    return YES


async def beats(play: Play) -> str:
    """A socket that says nothing else stays, where who is silent is closed."""
    client, other = play.client, play.stage.other
    topic = play.room()
    name = await play.member(topic, to=other, beat=client.beats_ms)
    await asyncio.sleep(play.stage.idle_seconds + 2)  # what is waited for is that nothing happens
    await play.publish(topic, TEXT, at=other)
    await play.hears(name, topic, [TEXT])
    assert not play.driver.all("closed", name), "it was closed"
    return YES


async def is_refused(play: Play) -> str:
    name = await play.connect(token="no.token.atall")
    await play.driver.until(
        lambda: bool(play.driver.all("error", name) or play.driver.all("closed", name)),
        "it shows nothing",
    )
    assert not play.driver.all("open", name)
    await play.driver.tell("close", name)  # or many would try again for ever
    return YES


async def renews(play: Play) -> str:
    """Its token ends; the next one lets it in again, by itself."""
    topic = play.room()
    name = await play.member(topic, token=token(ttl=BRIEF_SECONDS))
    await play.driver.tell("token", name, token=token())
    await play.driver.expect("closed", name)
    await play.driver.expect("joined", name, 2, topic=topic)
    await play.publish(topic, TEXT)
    await play.hears(name, topic, [TEXT])
    return YES


async def refreshes(play: Play) -> str:
    """It pushes a new token before the old one ends, and stays."""
    topic = play.room()
    name = await play.member(topic, token=token(ttl=BRIEF_SECONDS))
    await play.push(name, topic, {"access_token": token()}, "access_token")
    await asyncio.sleep(BRIEF_SECONDS + 1)  # what is waited for is that nothing happens
    await play.publish(topic, TEXT)
    await play.hears(name, topic, [TEXT])
    assert not play.driver.all("closed", name), "it was closed"
    return YES


@dataclass(frozen=True)
class Column:
    """One of the page.

    Attributes:
        head: As the page calls it.
        says: What is tried.
        play: How; None where all clients play it together.
    """

    head: str
    says: str
    play: Callable[[Play], Awaitable[str]] | None = None


COLUMNS = {
    "join": Column("join", "connects with a token and joins", joins),
    "push": Column("push, reply", "a push is answered, and heard by two members", pushes),
    "hear": Column("hear", "ten messages of a backend, in order", hears),
    "why": Column("why refused", "a refused join tells the application why", is_told_why),
    "presence": Column("presence", "lists who is there, and sees one leave", shows_presence),
    "bytes": Column("bytes", "pushes bytes, and hears them", exchanges_bytes),
    "others": Column("others' bytes", "what becomes of bytes that others push", meets_bytes),
    "leave": Column("leave", "leaves, and hears nothing more of the topic", leaves),
    "beat": Column("heartbeat", "stays connected though nothing else is said", beats),
    "refused": Column("bad token", "shows that it was refused", is_refused),
    "renewed": Column("token ended", "comes back with the next token by itself", renews),
    "refreshed": Column("token renewed", "pushes `access_token` in time, and stays", refreshes),
    "killed": Column("killed", "its replica is killed: it comes back and joins by itself"),
    "drained": Column("drained", "its replica is drained: it comes back and joins by itself"),
    "resume": Column("resume", "has then missed nothing"),
}


WAITING = ("beat", "renewed", "refreshed")


async def play_alone(play: Play, leave_out: set[str]) -> None:
    """All columns that do not need the others; those that wait go on beside the rest."""
    keys = [key for key in COLUMNS if key not in play.client.cannot and key not in leave_out]
    await _cell(play, keys.pop(0))  # that it has started is what the short tokens wait for
    beside = [asyncio.create_task(_cell(play, key)) for key in keys if key in WAITING]
    for key in keys:
        if COLUMNS[key].play is not None and key not in WAITING:
            await _cell(play, key)
    await asyncio.gather(*beside)


async def _cell(play: Play, key: str) -> None:
    column = COLUMNS[key].play
    assert column is not None
    try:
        play.cells[key] = await column(play)
    except (AssertionError, ConnectionError) as error:
        play.cells[key] = f"failed: {type(error).__name__} {error}"


@dataclass
class Guest:
    """A client's socket that is to come back, and its topics."""

    play: Play
    name: str
    topics: list[str]
    kept: str | None

    @classmethod
    async def enter(cls, play: Play) -> "Guest | None":
        """Connect, join and hear a first message; None where that fails."""
        topic = play.room()
        kept = None if "resume" in play.client.cannot else play.room("kept")
        topics = [topic, kept] if kept else [topic]
        try:
            name = await play.member(topic)
            if kept is not None:
                await play.join(name, kept, resume=True)
            for each in topics:
                await play.publish(each, {"n": 0})
                await play.hears(name, each, [{"n": 0}])
        except (AssertionError, ConnectionError) as error:
            play.cells["killed"] = f"failed: {error}"
            return None
        return cls(play, name, topics, kept)

    async def is_back(self, times: int, key: str) -> None:
        """Wait until it has joined as often, and heard of its topics what it missed and what is new."""
        play = self.play
        try:
            for topic in self.topics:
                await play.driver.expect("joined", self.name, times + 1, topic=topic)
            await play.publish(self.topics[0], {"n": times})
            await play.hears(self.name, self.topics[0], [{"n": n} for n in range(times + 1)])
            codes = {item.get("code") for item in play.driver.all("closed", self.name)}
            assert codes <= GONE, codes
            play.cells[key] = YES
        except (AssertionError, ConnectionError) as error:
            play.cells[key] = f"failed: {error}"
            return
        if self.kept is not None:
            try:
                await play.publish(self.kept, {"n": 2 * times})
                await play.hears(self.name, self.kept, [{"n": n} for n in range(2 * times + 1)])
                play.cells["resume"] = YES
            except (AssertionError, ConnectionError) as error:
                play.cells["resume"] = f"failed: {error}"


async def play_together(plays: list[Play]) -> None:
    """Their replica is killed, and drained; meanwhile another takes messages."""
    plays = [play for play in plays if "killed" not in play.client.cannot]
    guests = [
        guest for guest in await asyncio.gather(*map(Guest.enter, plays)) if guest is not None
    ]
    if not guests:
        return
    stage = plays[0].stage
    for times, key in enumerate(("killed", "drained"), start=1):
        if key == "killed":
            stage.gateway.kill()
        else:
            stage.gateway.terminate()
            assert await asyncio.to_thread(stage.gateway.wait) == 0
        for guest in guests:
            if guest.kept is not None:
                await guest.play.publish(guest.kept, {"n": 2 * times - 1}, at=stage.other)
        await asyncio.to_thread(stage.gateway.start)
        await asyncio.gather(*(guest.is_back(times, key) for guest in guests))
