"""A ring buffer of a topic's newest messages, and the offset from which on it has no gaps."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import attrgetter
from typing import Final

from gateway.history.base import Stored
from gateway.retention import Retention

OVERHEAD_BYTES: Final = 200
"""What a message takes in memory beside its body."""

_offset: Final = attrgetter("offset")


def weight(message: Stored) -> int:
    """Bytes a message counts for where memory is bounded."""
    return len(message.body) + OVERHEAD_BYTES


class Ring:
    """The newest messages of a topic; the oldest go when there are too many, too much, or they are too old.

    It holds one message more than a client may have missed: a full ring so tells by itself that somebody
    missed too many.

    Args:
        max_bytes: Bound of what the messages take together.

    Attributes:
        start: It has every message of the topic above this offset, up to the newest that was added.
        start_time: It has every one that was stored after this time, up to the newest that was added.
    """

    __slots__ = ("_bytes", "_max_bytes", "_messages", "_retention", "start", "start_time")

    def __init__(self, retention: Retention, max_bytes: int) -> None:
        self._retention = retention
        self._max_bytes = max_bytes
        self._messages: list[Stored] | None = None  # an idle topic has no list
        self._bytes = 0
        self.start = 0
        self.start_time = 0.0

    def __len__(self) -> int:
        return len(self._messages) if self._messages else 0

    @property
    def newest_message(self) -> Stored | None:
        """The last that was added, if it is still there."""
        return self._messages[-1] if self._messages else None

    def restart(self, start: int, start_time: float) -> None:
        """Forget everything; what is added from now on is complete above these."""
        self._messages = None
        self._bytes = 0
        self.start = start
        self.start_time = start_time

    def add(self, message: Stored) -> None:
        """Append the topic's next message."""
        if self._messages is None:
            self._messages = []
        self._messages.append(message)
        self._bytes += weight(message)
        self.trim(message.time)

    def extend(self, after: int, messages: Sequence[Stored], known: int) -> None:
        """Reach further back, with what was read for one who joined, for those who follow.

        Args:
            after: An offset.
            messages: All messages of the topic above it and at or below ``known``, in order, and perhaps
                later ones. Not a read that was cut off by its limit.
            known: The tip's offset before they were read.
        """
        if not after < self.start <= known:
            return
        older = [message for message in messages if after < message.offset <= self.start]
        self.start = after
        if not older:
            return
        self.start_time = min(self.start_time, older[0].time)
        self._messages = older + (self._messages or [])
        self._bytes += sum(map(weight, older))
        self.trim(self._messages[-1].time)

    def trim(self, now: float) -> None:
        """Let go what is beyond the bounds at a time."""
        messages = self._messages
        if messages is None:
            return
        spare = len(messages) - self._retention.stored_messages
        oldest = now - self._retention.seconds
        gone = 0
        for message in messages:
            if gone >= spare and self._bytes <= self._max_bytes and message.time >= oldest:
                break
            self._bytes -= weight(message)
            self.start = message.offset
            self.start_time = max(self.start_time, message.time)
            gone += 1
        if gone == len(messages):
            self._messages = None
        elif gone:
            del messages[:gone]

    def since(self, offset: int, known: int = 0) -> list[Stored] | None:
        """All messages above an offset, in order; None if there may be some that are no longer here.

        Args:
            known: What lies at or below this offset need not be here.
        """
        if max(offset, known) < self.start:
            return None
        messages = self._messages
        if messages is None or messages[-1].offset <= offset:
            return []
        return messages[bisect_right(messages, offset, key=_offset) :]

    def time_at(self, offset: int) -> float | None:
        """When the message at an offset was stored; None if it is not here."""
        messages = self._messages or ()
        place = bisect_left(messages, offset, key=_offset)
        if place == len(messages) or messages[place].offset != offset:
            return None
        return messages[place].time

    def missed(self, offset: int) -> list[Stored] | None:
        """The same for a join: also where only some are here, but those alone are too many."""
        if offset < self.start and len(self) > self._retention.messages:
            return list(self._messages or ())
        return self.since(offset)

    def newest(self, count: int, now: float) -> list[Stored] | None:
        """The newest messages that are not too old, in order; None if there may be some that are not here.

        Args:
            count: At most the rule's ``messages``.
            now: The store's time.
        """
        oldest = now - self._retention.seconds
        if len(self) < count and self.start_time > oldest:
            return None
        return [message for message in (self._messages or [])[-count:] if message.time >= oldest]
