"""What the API stands on, as fakes that remember what they were asked."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient
from yarl import URL

from gateway.api import problem
from gateway.api.drain import DrainState
from gateway.api.history import HistoryItem
from gateway.api.user_types import ReplicaReport
from gateway.audience import Audience
from gateway.auth.revocations import Revocation
from gateway.auth.rules import PersonalTopic, Rules
from gateway.cluster import Cover
from gateway.config import ChannelSettings, Config, LimitsSettings
from gateway.config.sections import ApiKeySettings, ApiSettings
from gateway.listener_check import ListenerCheck
from gateway.metrics import Metrics
from gateway.relay import NOT_KEPT, Published
from gateway.retention import Retention
from gateway.sessions.commands import Presence, Session
from gateway.topics.commands import Figures, PresentUser
from tests.support.tails import TailScene

CONFIG = Config(
    api=ApiSettings(
        keys=(
            ApiKeySettings(name="publisher", key="publish-key", scopes=("publish",)),
            ApiKeySettings(name="reader", key="read-key", scopes=("read",)),
            ApiKeySettings(name="manager", key="manage-key", scopes=("manage",)),
            ApiKeySettings(name="all", key="schlüssel", scopes=("publish", "read", "manage")),
        )
    ),
    limits=LimitsSettings(max_message_bytes=1000),
)

KINDS = tuple(value for value in vars(problem).values() if isinstance(value, problem.Kind))
"""All kinds of problems, in the order of the module."""

PERSONAL = PersonalTopic("user:{sub}")

RULES = Rules(
    (
        ChannelSettings(pattern="room:*", history=Retention(100, 300)),
        PERSONAL,
        ChannelSettings(pattern="watched:*", presence=True),
        ChannelSettings(pattern="phoenix"),
    )
)


class KnownListeners(ListenerCheck):
    """Knows who listens, of those that it is asked about."""

    def __init__(self, listeners: dict[str, bool]) -> None:
        self._listeners = listeners
        self._asked: list[str] = []

    def __exit__(self, *_: object) -> None: ...

    def ask(self, topic: str) -> None:
        self._asked.append(topic)

    async def answers(self) -> dict[str, bool]:
        return {topic: self._listeners[topic] for topic in self._asked if topic in self._listeners}


@dataclass
class RecordingRelay:
    """Remembers what was published; fails for the topics it is told to."""

    published: list[tuple[str, str, bytes]] = field(default_factory=list)
    audiences: list[Audience | None] = field(default_factory=list)
    ids: list[str | None] = field(default_factory=list)
    tried: list[str | None] = field(default_factory=list)
    answer: Published = NOT_KEPT
    listeners: dict[str, bool] = field(default_factory=dict)
    checks: list[ListenerCheck | None] = field(default_factory=list)
    failures: dict[str, Exception] = field(default_factory=dict)
    failure: Exception | None = None

    async def publish(
        self,
        topic: str,
        event: str,
        payload: bytes,
        /,
        *,
        audience: Audience | None,
        message_id: str | None,
        check: ListenerCheck | None,
    ) -> Published:
        self.tried.append(message_id)
        failure = self.failure or self.failures.get(topic)
        if failure is not None:
            raise failure
        self.checks.append(check)
        if check is not None:
            check.ask(topic)
        self.published.append((topic, event, payload))
        self.audiences.append(audience)
        self.ids.append(message_id)
        return self.answer

    def listener_check(self) -> ListenerCheck:
        return KnownListeners(self.listeners)


@dataclass
class RecordingDirectory:
    """Knows what it is told of users, and remembers what it was asked."""

    known: dict[str, Presence] = field(default_factory=dict)
    kept: dict[str, float] = field(default_factory=dict)
    listed: list[Session] = field(default_factory=list)
    number: int = 0
    cover: Cover = field(default_factory=Cover)
    asked: list[tuple[object, ...]] = field(default_factory=list)

    async def presences(self, users: list[str], /) -> tuple[dict[str, Presence], Cover]:
        self.asked.append(("presences", *users))
        return {user: self.known.get(user, Presence()) for user in users}, self.cover

    async def last_seen(self, user: str, /) -> float:
        return self.kept.get(user, 0.0)

    async def sessions(self, user: str, /) -> tuple[list[Session], Cover]:
        self.asked.append(("sessions", user))
        return self.listed, self.cover

    async def close(
        self, user: str, /, *, only: tuple[str, ...] = (), keep: tuple[str, ...] = ()
    ) -> tuple[int, Cover]:
        self.asked.append(("close", user, only, keep))
        return self.number, self.cover

    async def leave_topic(self, user: str, topic: str, /) -> tuple[int, Cover]:
        self.asked.append(("leave_topic", user, topic))
        return self.number, self.cover


@dataclass
class RecordingTopics:
    """Knows what it is told of topics, and remembers what it was asked."""

    channels: dict[str, int] = field(default_factory=dict)
    here: Figures = field(default_factory=Figures)
    total: Figures = field(default_factory=Figures)
    users: dict[str, PresentUser] = field(default_factory=dict)
    following: str | None = None
    cover: Cover = field(default_factory=Cover)
    asked: list[tuple[object, ...]] = field(default_factory=list)

    async def topics(
        self, prefix: str, after: str | None, limit: int, /
    ) -> tuple[dict[str, int], str | None, Cover]:
        self.asked.append((prefix, after, limit))
        return self.channels, self.following, self.cover

    async def figures(self, topic: str, /) -> tuple[Figures, Figures, Cover]:
        self.asked.append((topic,))
        return self.here, self.total, self.cover

    async def present(
        self, topic: str, after: str | None, limit: int, /
    ) -> tuple[dict[str, PresentUser], str | None, Cover]:
        self.asked.append((topic, after, limit))
        return self.users, self.following, self.cover


@dataclass
class RecordingRevoker:
    """Remembers what was revoked; fails when it is told to."""

    revoked: list[Revocation] = field(default_factory=list)
    number: int = 0
    cover: Cover = field(default_factory=Cover)
    failure: Exception | None = None

    async def revoke(self, revocation: Revocation, /) -> tuple[int, Cover]:
        self.revoked.append(revocation)
        if self.failure is not None:
            raise self.failure
        return self.number, self.cover


@dataclass
class RecordingArchive:
    """Keeps what it is told to; fails when it is told to."""

    items: list[HistoryItem] = field(default_factory=list)
    more: str | None = None
    asked: list[tuple[object, ...]] = field(default_factory=list)
    failure: Exception | None = None

    async def page(
        self, topic: str, cursor: str | None, limit: int, /
    ) -> tuple[list[HistoryItem], str, str | None]:
        self.asked.append((topic, cursor, limit))
        if self.failure is not None:
            raise self.failure
        return self.items, "@e.9.9", self.more

    async def ends(self, topic: str, /) -> tuple[str | None, str | None]:
        self.asked.append(("ends", topic))
        if self.failure is not None:
            raise self.failure
        return "@e.1.1", "@e.9.9"

    async def erase(self, topic: str, /) -> int:
        self.asked.append((topic,))
        if self.failure is not None:
            raise self.failure
        return 12


def two_replicas() -> list[ReplicaReport]:
    """This replica and another."""
    return [ReplicaReport("a", True, 2, 3), ReplicaReport("b", False, 4, 5)]


@dataclass
class Readiness:
    """What the replica says of itself."""

    why_not: list[str] = field(default_factory=list)
    alive: bool = True

    def reasons(self) -> list[str]:
        return self.why_not

    def live(self) -> bool:
        return self.alive


@dataclass(frozen=True)
class Answer:
    """An answer, read whole."""

    status: int
    media: str
    headers: Mapping[str, str]
    json: Any

    @classmethod
    async def of(cls, response: ClientResponse) -> "Answer":
        body = json.loads(await response.read())
        return cls(response.status, response.content_type, response.headers, body)

    @property
    def slug(self) -> str:
        """The problem's kind."""
        assert self.media == "application/problem+json"
        assert self.json["status"] == self.status
        return str(self.json["type"]).removeprefix("urn:gateway:problem:")

    @property
    def fields(self) -> list[str]:
        """The fields the problem names."""
        return [error["field"] for error in self.json.get("errors", [])]


@dataclass
class RecordingDrain:
    """A drain that takes no time, of a replica with two clients."""

    draining: bool = False
    drained: bool = False
    ending: bool = False
    connections: int = 2

    @property
    def state(self) -> DrainState:
        if self.drained:
            return "drained"
        return "draining" if self.draining else "serving"

    def start(self) -> None:
        self.draining = True

    def abort(self) -> bool:
        self.draining = self.ending
        return not self.ending


@dataclass
class Gateway:
    """The API's surroundings, and a client of it."""

    app: web.Application
    client: TestClient[web.Request, web.Application]
    relay: RecordingRelay
    directory: RecordingDirectory
    topics: RecordingTopics
    revoker: RecordingRevoker
    archive: RecordingArchive
    drain: RecordingDrain
    looked: TailScene
    readiness: Readiness
    metrics: Metrics

    def publish_requests(self) -> dict[str, int]:
        """Publish requests that were counted, by status."""
        [family] = self.metrics.publish_requests.collect()
        samples = [each for each in family.samples if each.name.endswith("_total")]
        return {each.labels["status"]: int(each.value) for each in samples if each.value}

    async def post(self, path: str, data: bytes | str | io.BytesIO, **headers: str) -> "Answer":
        """POST with the publisher's key unless the headers say otherwise."""
        sent = {"X-API-Key": "publish-key", "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.post(path, data=data, headers=sent) as response:
            return await Answer.of(response)

    async def ask(self, method: str, path: str, key: str = "schlüssel") -> "Answer":
        """A request without a body; the path goes out as it stands here."""
        url = self.client.make_url("/").join(URL(path, encoded=True))
        headers = {"X-API-Key": key}
        async with self.client.session.request(method, url, headers=headers) as response:
            return await Answer.of(response)
