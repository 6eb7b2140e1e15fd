"""What a client missed, written as it reads, and what ends that."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.audience import Audience
from gateway.channels.channels import Channels
from gateway.channels.membership import Membership, Recall
from gateway.channels.replay import AT_ONCE_BYTES, Replays
from gateway.errors import HistoryUnavailable
from gateway.history.base import Stored
from gateway.history.position import Position, decode, encode
from gateway.history.resume import Outcome
from gateway.hub.broadcast import Broadcast
from gateway.hub.registry import Registry
from gateway.leases import Lease
from gateway.protocol.effects import Unsubscribe
from tests.support.clock import Clock

ROOM = "room:1"
START = Position("e", 0, 100.0)


class Encoding:
    """Frames as texts that name the message."""

    positions = True

    def broadcast(self, message: Broadcast, *, shared: bool = True) -> bytes | None:  # noqa: ARG002 -- no difference here
        return None if message.binary else b"<%b>" % message.event.encode()


class Follower:
    """The topic: how far it is, and what it has."""

    def __init__(self) -> None:
        self.floor = 10
        self.messages: list[Stored] = []
        self.members = 0
        self.of = 0
        self.problem: Exception | None = None

    def generation(self, topic: str) -> int:
        assert topic == ROOM
        return self.of

    def goes_on(self, topic: str, generation: int) -> bool:
        return self.generation(topic) == generation

    def level(self, topic: str, offset: int) -> bool:
        return self.generation(topic) >= 0 and self.floor >= offset

    async def catch_up(self, topic: str, generation: int, reached: Position) -> list[Stored]:
        while not self.level(topic, reached.offset):  # noqa: ASYNC110 -- as the real one
            await asyncio.sleep(0.01)
        if self.problem is not None:
            raise self.problem
        if not self.goes_on(topic, generation):
            raise HistoryUnavailable("unavailable", "offsets began anew")
        return [m for m in self.messages if m.offset > reached.offset]

    def resuming(self, topic: str, change: int) -> None:
        assert topic == ROOM
        self.members += change


class Scene:
    """A connection as far as a replay knows it, with all that is around it."""

    def __init__(self) -> None:
        self.follower = Follower()
        services: Any = SimpleNamespace(relay=self)
        itself: Any = self
        self.channels = Channels(services)
        self.replays = Replays(itself, self._delivered)
        self.registry = Registry()
        self.written: list[bytes] = []
        self.unread = 0
        self.delivered = 0
        self.errors = 0
        self.unsubscribed = 0
        self.excluded: set[int] = set()
        self.id = "me"
        self.device = None
        self.wire = None

    @property
    def members(self) -> dict[str, Membership]:
        return self.channels.members

    # the relay
    def broadcast(self, topic: str, message: Stored) -> Broadcast | None:
        if message.body == b"unreadable":
            return None
        audience = Audience(frozenset({"me"})) if message.offset in self.excluded else None
        position = b'"%b"' % encode(Position("e", message.offset, message.time)).encode()
        return Broadcast(topic, str(message.offset), b"{}", audience=audience, position=position)

    def add(self, topic: str, member: Membership) -> None:
        self.registry.add(topic, member)

    def remove(self, topic: str, member: Membership) -> None:
        self.registry.remove(topic, member)

    def released(self, *, linger: bool) -> None:
        assert linger
        self.unsubscribed += 1

    # the metrics
    def _delivered(self, count: int) -> None:
        self.delivered += count

    # the connection
    def send(self, data: bytes) -> None:
        self.written.append(data)

    def buffered(self) -> int:
        return self.unread

    def rejoin(self, topic: str, member: object) -> None:
        assert topic == ROOM
        assert member is self.members[ROOM]
        self.errors += 1
        self.end()

    def end(self) -> None:
        """The channel ends, however."""
        itself: Any = self
        self.channels.unsubscribe(itself, Unsubscribe(ROOM, 1))

    def begin(self, *messages: Stored) -> None:
        """A join was answered."""
        rule: Any = type("Rule", (), {"slow_consumer": "disconnect", "presence": False})
        joining: Any = type("Joining", (), {"rule": rule, "presence": b"{}"})
        outlet: Any = self
        member = self.members[ROOM] = Membership(outlet, Encoding(), joining, Lease(self), 1)
        self.follower.resuming(ROOM, 1)
        recall = Recall(Outcome(True, None, START, messages), messages)
        self.replays.begin(outlet, ROOM, member, recall)

    @property
    def reached(self) -> int:
        """Where the client stands, as it will be told."""
        return decode(self.members[ROOM].position[1:-1].decode()).offset

    def is_member(self) -> bool:
        """Whether the client is a member."""
        found = self.registry.get(ROOM)
        return found is not None and self.members.get(ROOM) in found.members

    @property
    def seen(self) -> list[int]:
        """Offsets written, in order."""
        texts = b"".join(self.written).decode().strip("<>").split("><")
        return [int(text) for text in texts if text]


def stored(offset: int, size: int = 10) -> Stored:
    """A message."""
    return Stored(offset, 100.0 + offset, b"x" * size)


@pytest.fixture
async def at() -> AsyncIterator[Scene]:
    """A client that joins."""
    scene = Scene()
    yield scene
    if ROOM in scene.members:
        scene.end()
    await asyncio.sleep(0)


async def test_a_short_replay_is_written_at_once_and_the_client_a_member(at: Scene) -> None:
    at.begin(stored(3), stored(5))

    assert at.is_member()
    assert at.written == [b"<3><5>"], "joined in one write"
    assert at.delivered == 2
    assert at.reached == 5


async def test_what_is_not_for_this_client_is_left_out_and_moves_it_on(at: Scene) -> None:
    at.excluded = {5}
    at.begin(stored(3), Stored(4, 104.0, b"unreadable"), stored(5))

    assert at.seen == [3]
    assert at.reached == 5


async def test_a_long_replay_waits_for_its_reader(at: Scene) -> None:
    clock = Clock()
    at.unread = AT_ONCE_BYTES + 1
    half = AT_ONCE_BYTES // 2
    at.begin(*(stored(n, half) for n in range(1, 6)))
    await clock.run(5)
    assert at.seen == [1, 2]
    assert not at.is_member()
    at.unread = 0
    at.follower.messages = [stored(6), stored(7)]
    for _ in range(5):
        await clock.run(1)

    assert at.seen == [1, 2, 3, 4, 5, 6, 7]
    assert at.is_member()


async def test_a_client_that_was_further_elsewhere_is_a_member_when_the_topic_is_there(
    at: Scene,
) -> None:
    clock = Clock()
    at.follower.floor = 2
    at.begin(stored(3))
    await clock.run(1)
    assert not at.is_member()
    at.follower.floor = 3
    for _ in range(5):
        await clock.run(1)

    assert at.is_member()
    assert at.seen == [3]


@pytest.mark.parametrize("problem", [HistoryUnavailable("unavailable", "x"), RuntimeError("bug")])
async def test_a_replay_that_cannot_go_on_has_the_client_join_again(
    at: Scene, problem: Exception
) -> None:
    clock = Clock()
    at.follower.floor = 0
    at.begin(stored(3))
    at.follower.problem = problem
    at.follower.floor = 3
    for _ in range(3):
        await clock.run(1)

    assert at.errors == 1
    assert (at.follower.members, at.unsubscribed) == (0, 1)
    assert not at.is_member()
    assert at.channels.departed == (ROOM, Position("e", 3, 103.0))


async def test_nothing_more_is_written_once_offsets_began_anew(at: Scene) -> None:
    clock = Clock()
    at.unread = AT_ONCE_BYTES + 1
    at.begin(*(stored(n, AT_ONCE_BYTES) for n in range(1, 4)))
    at.follower.of += 1
    at.unread = 0
    for _ in range(3):
        await clock.run(1)

    assert at.seen == [1]
    assert at.errors == 1


async def test_a_topic_that_is_not_followed_has_the_client_join_again(at: Scene) -> None:
    clock = Clock()
    at.follower.of = -1
    at.follower.problem = HistoryUnavailable("unavailable", "not followed")
    at.follower.floor = 0
    at.begin()
    at.follower.of = 0
    at.follower.floor = 5
    for _ in range(3):
        await clock.run(1)

    assert at.errors == 1


@pytest.mark.parametrize("turns", [0, 1, 3])
async def test_leaving_ends_a_replay_wherever_it_is(at: Scene, turns: int) -> None:
    """Leave, close and drain all end the channel by this way."""
    clock = Clock()
    at.unread = AT_ONCE_BYTES + 1
    at.begin(*(stored(n, AT_ONCE_BYTES) for n in range(1, 4)))
    for _ in range(turns):
        await clock.run(1)
    at.end()
    at.unread = 0
    for _ in range(3):
        await clock.run(1)

    assert at.seen == [1]
    assert not len(at.registry)
    assert (at.follower.members, at.unsubscribed) == (0, 1)
    assert at.errors == 0


async def test_who_leaves_after_the_replay_is_no_member_any_more(at: Scene) -> None:
    clock = Clock()
    at.follower.floor = 0
    at.begin(stored(1))
    at.follower.floor = 1
    for _ in range(3):
        await clock.run(1)
    assert at.is_member()
    at.end()

    assert at.registry.get(ROOM) is None
    assert at.unsubscribed == 1
