"""The console below an application, on a loopback port, with a replica made of fakes."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import DummyCookieJar, web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from gateway.api.problem import problems
from gateway.config import Config, LimitsSettings
from gateway.config.sections import ApiKeySettings, ApiSettings, AuthSettings
from gateway.console import Console, Sources
from gateway.console.sign_in import COOKIE
from gateway.hub.registry import Registry
from gateway.log import RecentLines
from gateway.metrics import Metrics
from gateway.sessions.commands import Session
from gateway.sessions.registry import SessionRegistry
from gateway.tail import TailEvent
from gateway.tracker.entry import Entry
from tests.unit.api.fakes import (
    PERSONAL,
    RULES,
    Readiness,
    RecordingDirectory,
    RecordingDrain,
    RecordingRelay,
    RecordingTopics,
    two_replicas,
)

KEYS = {"ops": "key-of-ops", "reader": "key-of-reader", "shop": "key-of-shop"}
CONFIG = Config(
    api=ApiSettings(
        keys=(
            ApiKeySettings(name="ops", key=KEYS["ops"], scopes=("publish", "read", "manage")),
            ApiKeySettings(name="reader", key=KEYS["reader"], scopes=("read",)),
            ApiKeySettings(name="shop", key=KEYS["shop"], scopes=("publish",)),
        )
    ),
    auth=AuthSettings(secrets=("a secret of the tests, which is long enough",)),
    limits=LimitsSettings(max_message_bytes=1000),
)


class Clock:
    """Unix seconds, as the test says."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class FakeTail:
    """A tail that yields what the test puts in."""

    def __init__(self) -> None:
        self.events: deque[TailEvent] = deque()
        self.wake = asyncio.Event()
        self.closed = False

    async def take(self, _: float, /) -> list[TailEvent]:
        await self.wake.wait()
        self.wake.clear()
        events = list(self.events)
        self.events.clear()
        return events

    def put(self, *events: TailEvent) -> None:
        """Have these taken."""
        self.events += events
        self.wake.set()

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeTails:
    """Opens tails, and remembers them."""

    open: dict[str, FakeTail] = field(default_factory=dict)
    failure: Exception | None = None

    async def open_topic(self, topic: str, /) -> FakeTail:
        if self.failure is not None:
            raise self.failure
        return self.open.setdefault(topic, FakeTail())


@dataclass
class Desk:
    """The console, what it stands on, and a browser without a cookie jar."""

    console: Console
    client: TestClient[Any, Any]
    directory: RecordingDirectory
    topics: RecordingTopics
    relay: RecordingRelay
    drain: RecordingDrain
    tails: FakeTails
    registry: Registry
    lines: RecentLines
    clock: Clock
    here: dict[str, list[Session]]
    present: dict[str, list[Entry]]

    @property
    def origin(self) -> str:
        """The console's own, as a browser says it."""
        return str(self.client.make_url("/")).rstrip("/")

    async def get(
        self, path: str, cookie: str = "", headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """GET below ``/console``; status and text, redirects not followed."""
        sent = {"Cookie": f"{COOKIE}={cookie}"} if cookie else {}
        async with self.client.get(
            URL(f"/console{path}", encoded=True),
            headers=sent | dict(headers or {}),
            allow_redirects=False,
        ) as answer:
            return answer.status, await answer.text()

    async def post(
        self,
        path: str,
        cookie: str = "",
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, str]:
        """POST a form below ``/console`` from a page of the console."""
        sent = {"Cookie": f"{COOKIE}={cookie}"} if cookie else {}
        told = {"Origin": self.origin} if headers is None else dict(headers)
        async with self.client.post(
            URL(f"/console{path}", encoded=True),
            data=dict(form or {"": ""}),
            headers=sent | told,
            allow_redirects=False,
        ) as answer:
            return answer.status, await answer.text()

    async def sign_in(self, name: str) -> tuple[str, str]:
        """Sign in with a key: the cookie, and the token of its forms."""
        async with self.client.post(
            "/console/sign-in",
            data={"key": KEYS[name]},
            headers={"Origin": self.origin},
            allow_redirects=False,
        ) as answer:
            assert answer.status == 303
            cookie = answer.cookies[COOKIE].value
        sign_in = self.console.sign_ins.read(cookie)
        assert sign_in is not None
        return cookie, sign_in.form_token


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    directory, topics, relay = RecordingDirectory(), RecordingTopics(), RecordingRelay()
    drain, tails, registry, clock = RecordingDrain(), FakeTails(), Registry(), Clock()
    lines = RecentLines(10)
    here: dict[str, list[Session]] = {}
    present: dict[str, list[Entry]] = {}
    console = Console(
        Sources(
            config=CONFIG,
            metrics=Metrics(),
            registry=registry,
            sessions=SessionRegistry(offline_after_seconds=3, clock=clock),
            directory=directory,
            topics=topics,
            publisher=relay,
            tails=tails,
            rules=RULES,
            personal=PERSONAL,
            drain=drain,
            readiness=Readiness(),
            connections=lambda: 3,
            replicas=two_replicas,
            sessions_here=lambda user: here.get(user, []),
            present=lambda topic: present.get(topic, []),
            history_problem=lambda: None,
            lines=lines,
            clock=clock,
        )
    )
    app = web.Application(middlewares=[problems(max_body_bytes=1000)])
    app.add_subapp("/console", console.app)
    async with TestClient(TestServer(app), cookie_jar=DummyCookieJar()) as client:
        yield Desk(
            console, client, directory, topics, relay, drain, tails, registry, lines, clock,
            here, present,
        )  # fmt: skip
