"""What replicas ask each other about topics, and what they answer. All answers are bounded."""

from typing import Final

import msgspec

from gateway.cluster import Command
from gateway.tracker.entry import Entry
from gateway.tracker.messages import check_entries


class TopicPage(msgspec.Struct, frozen=True, array_like=True):
    """Topics with members on a replica, by name.

    Attributes:
        topics: How many channels each has there.
        more: Whether there are others behind them.
    """

    topics: dict[str, int]
    more: bool


class Figures(msgspec.Struct, frozen=True, array_like=True):
    """Who is on a topic on a replica.

    Attributes:
        channels: All of its members.
        sessions: Those of them that are not anonymous.
        users: How many different users these are of.
        sketch: See :mod:`gateway.topics.distinct`.
    """

    channels: int = 0
    sessions: int = 0
    users: int = 0
    sketch: tuple[int, ...] = ()


class PresentUser(msgspec.Struct, frozen=True, array_like=True):
    """A user who is present on a topic, as one replica knows it.

    Attributes:
        sessions: How many of her entries there are.
        entries: These, but for those above a bound.
    """

    sessions: int
    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        check_entries(self.entries)


class PresencePage(msgspec.Struct, frozen=True, array_like=True):
    """Users who are present, by name.

    Attributes:
        more: Whether there are others behind them.
    """

    users: dict[str, PresentUser]
    more: bool


class ListTopics(Command[TopicPage], frozen=True, tag=12):
    """Which topics have members with you?

    Attributes:
        prefix: What their names begin with.
        after: Only those behind this name.
        limit: At most so many.
    """

    prefix: str
    after: str | None
    limit: int


class CountTopic(Command[Figures], frozen=True, tag=13):
    """How many are on this topic with you?"""

    topic: str


class ListPresent(Command[PresencePage | None], frozen=True, tag=14):
    """Who is present on this topic with you? Answered with None if the asker knows it already.

    Attributes:
        after: Only users behind this name.
        limit: At most so many users.
        known: By replica, the run of it whose entries the asker has, and their version.
    """

    topic: str
    after: str | None
    limit: int
    known: dict[str, tuple[int, int]]


ALL: Final = (ListTopics, CountTopic, ListPresent)
