"""A store in a few lines, and the live copies it sends: what the histories are, without their machinery."""

import msgspec

from gateway.history.base import Stored
from gateway.history.position import Position
from gateway.retention import Retention

TOPIC = "room:1"
OTHER = "room:2"

RETENTION = Retention(messages=5, seconds=100)


class Copy(msgspec.Struct, frozen=True):
    """A live copy of a stored message."""

    offset: int
    previous: int
    time: float
    body: bytes


class Store:
    """Messages of a few topics, numbered together.

    Attributes:
        keeps: How many messages of each topic.
        gone: Offsets whose messages were given up, in this epoch.
    """

    def __init__(self, *, keeps: int = 6, keeps_seconds: float = 160.0) -> None:
        self.keeps = keeps
        self.keeps_seconds = keeps_seconds
        self.epoch = "e1"
        self.now = 1000.0
        self.last = 0
        self.messages: dict[int, tuple[str, Stored]] = {}
        self.gone: set[int] = set()

    def publish(self, topic: str = TOPIC, body: bytes | None = None) -> Copy:
        """Store a message; its body is its name unless one is given."""
        self.expire()
        previous = self.last_of(topic)
        self.now += 0.001  # no two are stored at the same time
        self.last += 1
        body = f"{self.epoch}/{self.last}".encode() if body is None else body
        self.messages[self.last] = (topic, Stored(self.last, self.now, body))
        for message in self.of(topic)[: -self.keeps]:
            self.give_up(message.offset)
        return Copy(self.last, previous, self.now, body)

    def expire(self) -> None:
        """Give up what is too old."""
        for offset, (_, message) in list(self.messages.items()):
            if message.time < self.now - self.keeps_seconds:
                self.give_up(offset)

    def give_up(self, offset: int) -> None:
        """Forget one message."""
        del self.messages[offset]
        self.gone.add(offset)

    def purge(self, topic: str = TOPIC) -> None:
        """Erase a topic."""
        for message in self.of(topic):
            self.give_up(message.offset)

    def restore(self, messages: dict[int, tuple[str, Stored]], last: int) -> None:
        """Go back to an older copy, or to an empty store."""
        self.messages = dict(messages)
        self.last = last
        self.gone = set()

    def of(self, topic: str = TOPIC, above: int = 0, upto: int | None = None) -> list[Stored]:
        """Messages of a topic, in order."""
        self.expire()
        end = self.last if upto is None else upto
        return [
            message
            for offset, (name, message) in sorted(self.messages.items())
            if name == topic and above < offset <= end
        ]

    def last_of(self, topic: str = TOPIC) -> int:
        """Offset of a topic's last message; 0 when there is none."""
        kept = self.of(topic)
        return kept[-1].offset if kept else 0

    def time_at(self, offset: int) -> float | None:
        """When the message at an offset was stored."""
        self.expire()
        return self.messages[offset][1].time if offset in self.messages else None

    def position(self, offset: int, time: float | None = None) -> Position:
        """A position in the current epoch."""
        return Position(self.epoch, offset, self.now if time is None else time)
