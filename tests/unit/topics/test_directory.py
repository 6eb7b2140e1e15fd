"""What three replicas say together of their topics."""

import asyncio
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.bus.envelope import Control, control_in
from gateway.bus.memory import MemoryBus
from gateway.bus.subjects import Subjects
from gateway.cluster import Cluster, Cover
from gateway.hub.registry import Member, Registry
from gateway.metrics import Metrics
from gateway.topics import commands, directory
from gateway.topics.commands import Figures, ListPresent, PresencePage, PresentUser
from gateway.topics.directory import MAX_ENTRIES, MAX_PAGE_BYTES, TopicDirectory
from gateway.tracker.core import Tracker
from gateway.tracker.entry import Entry
from gateway.tracker.service import TrackerService

SUBJECTS = Subjects("test")
ROOM = "room:1"
KEY = f"p:{ROOM}"


class Replica:
    """One of several on a memory bus, with its tracker and its topics.

    Attributes:
        answered: What it answered to others that asked who is present.
    """

    def __init__(self, name: str, bus: MemoryBus) -> None:
        self.bus = bus
        self.registry = Registry()
        core = Tracker(name, 1, down_after_seconds=10.0, spread=lambda: 0.5)
        self.cluster = Cluster(
            name,
            bus,
            SUBJECTS,
            commands.ALL,
            peers=core.peers,
            undecodable=lambda: None,
            quiet=core.peers.quiet,
        )
        self.tracker = TrackerService(
            core,
            self.cluster,
            clock=lambda: 1.0,
            wall_clock=lambda: 1.0,
            lost=lambda _: None,
            superseded=lambda: None,
        )
        self.topics = TopicDirectory(self.registry, self.cluster, self.tracker)
        self.answered: list[PresencePage | None] = []

        async def present(command: ListPresent) -> PresencePage | None:
            self.answered.append(await self.topics.present_here(command))
            return self.answered[-1]

        self.cluster.handle(commands.ListTopics, self.topics.list_here)
        self.cluster.handle(commands.CountTopic, self.topics.count_here, others=self.topics.others)
        self.cluster.handle(ListPresent, present, others=self.topics.others)
        self.cluster.listen(Control.TRACKER, self.tracker.receive)

    async def start(self) -> None:
        await self.cluster.join()
        self.tracker.announce()
        await turns()

    async def hold(self) -> None:
        """Have a member of the room, so know who is present there."""
        await self.listen(ROOM)
        self.tracker.hold(KEY, lambda _: None)
        await turns()

    async def listen(self, topic: str) -> None:
        """Be subscribed to a topic."""

        def heard(data: bytes, _: object) -> None:
            message = control_in(data)
            assert message is not None
            self.cluster.receive(*message)

        await self.bus.subscribe(SUBJECTS.topic(topic), heard)

    async def enter(self, *entries: Entry) -> None:
        for entry in entries:
            self.tracker.put(KEY, entry)
        await turns()

    def add(self, topic: str, *users: str) -> None:
        """Members of a topic."""
        for user in users:
            outlet: Any = SimpleNamespace(user=user, wire=None)
            self.registry.add(topic, Member(outlet, None, drops=False))  # type: ignore[arg-type]

    def freeze(self) -> None:
        """Hear nothing any more."""
        self.cluster._receive = lambda *_, **__: None  # type: ignore[method-assign]


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


_refs = count()


def entry(session: str, user: str, **fields: Any) -> Entry:
    given: dict[str, Any] = {
        "ref": f"ref-{next(_refs)}",
        "connected_at": 1.0,
        "online_at": 1.0,
    } | fields
    return Entry(session, user, **given)


def shown(users: dict[str, PresentUser]) -> dict[str, list[str]]:
    """Ids of sessions, by user."""
    return {user: sorted(e.id for e in each.entries) for user, each in users.items()}


@pytest.fixture
async def replicas(monkeypatch: pytest.MonkeyPatch) -> list[Replica]:
    """Three that know each other."""
    monkeypatch.setattr(directory, "ANSWER_SECONDS", 1.0)  # all but who is frozen answer at once
    bus = MemoryBus(metrics=Metrics())
    await bus.start()
    replicas = [Replica(name, bus) for name in "abc"]
    for replica in replicas:
        await replica.start()
    return replicas


async def test_topics_of_all_are_listed_with_all_their_members(replicas: list[Replica]) -> None:
    a, b, c = replicas
    a.add("room:1", "u1", "")
    b.add("room:1", "u1")
    b.add("room:3", "u2")
    c.add("room:2", "u3")
    c.add("hall:1", "u3")

    assert await a.topics.topics("", None, 10) == (
        {"hall:1": 1, "room:1": 3, "room:2": 1, "room:3": 1},
        None,
        Cover(),
    )
    assert await c.topics.topics("room:", None, 2) == (
        {"room:1": 3, "room:2": 1},
        "room:2",
        Cover(),
    )
    assert await c.topics.topics("room:", "room:2", 2) == ({"room:3": 1}, None, Cover())
    assert await b.topics.topics("nowhere", None, 2) == ({}, None, Cover())


async def test_a_topic_that_ends_meanwhile_is_not_listed(
    replicas: list[Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = replicas[0]
    a.add("room:1", "u1")
    names = a.registry.names()
    monkeypatch.setattr(a.registry, "names", lambda: [*names, "room:0"])

    assert (await a.topics.topics("", None, 10))[0] == {"room:1": 1}


async def test_who_is_on_a_topic_is_counted_here_and_on_all(replicas: list[Replica]) -> None:
    a, b, _ = replicas
    a.add(ROOM, "u1", "u1", "u2", "")
    b.add(ROOM, "u2", "u3", "")
    here, total, cover = await a.topics.figures(ROOM)

    assert (here.channels, here.sessions, here.users) == (4, 3, 2)
    assert (total, cover) == (Figures(7, 5, 3), Cover())
    assert (await a.topics.figures("nowhere"))[1:] == (Figures(), Cover())


async def test_a_replica_that_is_frozen_is_missing(replicas: list[Replica]) -> None:
    a, b, c = replicas
    for each in replicas:
        each.add(ROOM, "u1")
    await c.hold()
    c.freeze()
    lacking = Cover(("c",), complete=False)

    assert await a.topics.topics("", None, 10) == ({ROOM: 2}, None, lacking)
    here, total, cover = await b.topics.figures(ROOM)
    assert (here.channels, total.channels, cover) == (1, 2, lacking)
    assert await a.topics.present(ROOM, None, 10) == ({}, None, lacking)


async def test_who_is_present_is_asked_where_nobody_here_is_on_the_topic(
    replicas: list[Replica],
) -> None:
    a, b, c = replicas
    await b.hold()
    await c.hold()
    await b.enter(entry("s1", "u1"), entry("s2", "u2"), entry("s3", "u4"))
    await c.enter(entry("s4", "u2"), entry("s5", "u3"))
    first, following, cover = await a.topics.present(ROOM, None, 2)
    last, end, _ = await a.topics.present(ROOM, following, 2)

    assert shown(first) == {"u1": ["s1"], "u2": ["s2", "s4"]}
    assert (following, cover) == ("u2", Cover())
    assert (shown(last), end) == ({"u3": ["s5"], "u4": ["s3"]}, None)
    assert first["u2"].sessions == 2


async def test_what_this_replica_knows_is_not_sent_again(replicas: list[Replica]) -> None:
    a, b, c = replicas
    for replica in replicas:
        await replica.hold()
    await a.enter(entry("s1", "u1"))
    await b.enter(entry("s2", "u2"))
    await c.enter(entry("s3", "u3"))
    found, _, cover = await a.topics.present(ROOM, None, 10)

    assert (shown(found), cover) == ({"u1": ["s1"], "u2": ["s2"], "u3": ["s3"]}, Cover())
    assert b.answered == c.answered == [None]

    # a change that this replica was never told of
    b.tracker._carrier = SimpleNamespace(to_topic=lambda *_: None)
    await b.enter(entry("s4", "u4"))
    assert list((await a.topics.present(ROOM, None, 10))[0]) == ["u1", "u2", "u3", "u4"]

    c.freeze()
    found, _, cover = await a.topics.present(ROOM, None, 10)
    assert "u3" in found, "it was there when it was last heard of"
    assert cover == Cover(("c",), complete=False)


async def test_a_client_that_moves_is_present_once(replicas: list[Replica]) -> None:
    a, b, c = replicas
    await b.hold()
    await c.hold()
    await b.enter(entry("old", "u1"), entry("gone", "u2"))
    for session in ("old", "gone"):
        b.tracker.move(KEY, session)
    await turns()
    await c.enter(entry("new", "u1"))

    assert shown((await a.topics.present(ROOM, None, 10))[0]) == {"u1": ["new"], "u2": ["gone"]}
    b.tracker.farewell()
    await turns()
    found, _, cover = await a.topics.present(ROOM, None, 10)
    assert (shown(found), cover) == ({"u1": ["new"], "u2": ["gone"]}, Cover())
    assert found["u1"].sessions == 1


async def test_a_user_with_very_many_sessions_does_not_make_a_page_long(
    replicas: list[Replica],
) -> None:
    a, b, _ = replicas
    await b.hold()
    await b.enter(*(entry(f"s{n}", "shared") for n in range(MAX_ENTRIES + 50)))
    found, _, _ = await a.topics.present(ROOM, None, 10)

    assert found["shared"].sessions == MAX_ENTRIES + 50
    assert len(found["shared"].entries) == MAX_ENTRIES


async def test_a_page_ends_where_its_metas_become_long(replicas: list[Replica]) -> None:
    a, b, c = replicas
    await b.hold()
    await c.hold()
    long = b'{"a":"%b"}' % (b"x" * (MAX_PAGE_BYTES // 4))
    await b.enter(*(entry(f"s{n}", f"u{n:02}", meta=long) for n in range(10)))
    await c.enter(entry("t", "u07"), entry("z", "u99"))
    users: list[str] = []
    after, pages = None, 0
    while after is not None or not pages:
        found, after, _ = await a.topics.present(ROOM, after, 100)
        users += found
        pages += 1

    assert users == [*(f"u{n:02}" for n in range(10)), "u99"]
    assert pages > 2


async def test_what_cannot_be_shown_counts_as_no_answer(replicas: list[Replica]) -> None:
    a, b, _ = replicas

    def broken(_: ListPresent) -> Any:
        return [
            {
                "u1": [
                    1,
                    [
                        {"id": "s", "user": "u1", "ref": "r", "connected_at": 1.0, "online_at": 1.0}
                        | {"meta": b'1}, "u2": {'}
                    ],
                ]
            },
            False,
        ]

    await b.hold()
    b.cluster.handle(ListPresent, broken, others=b.topics.others)

    assert await a.topics.present(ROOM, None, 10) == ({}, None, Cover(("b",), complete=False))
