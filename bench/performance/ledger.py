"""What was published and what each client got of it: pure, so that its counting can be tested."""

import math
import re
from collections.abc import Sequence
from itertools import chain
from typing import Final

from bench.wire import TEXT, LoadError, head, unmasked

FIRST: Final = 1_000_000
"""The number in the first message's payload: all have as many digits, and so all are of the same length."""

_NUMBER: Final = re.compile(rb'\{"n":(\d{7}),')
_HEAD_BYTES: Final = 10

Foreign = tuple[int, bytes]
"""Opcode and payload of a frame that is no message of the ledger: a ping, or an answer."""


def payload(index: int, size: int) -> bytes:
    """A JSON object of so many bytes that tells which message it is."""
    start = b'{"n":%d,"data":"' % (FIRST + index)
    return start + b"x" * (size - len(start) - 2) + b'"}'


class Account:
    """What one client got.

    Attributes:
        topic: The number of its topic.
        next: Index of the message that must come next.
        rest: A frame that is not all there yet.
    """

    __slots__ = ("next", "rest", "topic")

    def __init__(self, topic: int, index: int) -> None:
        self.topic = topic
        self.next = index
        self.rest = b""


class Ledger:
    """All messages, which go to the topics by turns, and how long each took to each client.

    A message that comes after a later one counts as lost and as one too many.

    Args:
        topics: How many there are.
        separator: What stands between the messages of one frame; empty where each has its own.

    Attributes:
        waits: Seconds from when a message was due to when a client had it, of those since :meth:`begin`.
        stale: Messages of before, that came since.
        repeated: Messages that came a second time.
        skipped: Messages that did not come before a later one.
    """

    def __init__(self, topics: int = 1, separator: bytes = b"") -> None:
        self._topics = topics
        self._separator = separator
        self._texts: list[bytes] = []
        self._frames: list[bytes] = []
        self._due: list[float] = []
        self._length = self._text_length = 1
        self._first = 0
        self.waits: list[float] = []
        self.stale = self.repeated = self.skipped = 0

    def __len__(self) -> int:
        return len(self._texts)

    def open(self, topic: int) -> Account:
        """A client that gets what is published from now on."""
        return Account(topic, self._next_of(topic, len(self._texts)))

    def begin(self, texts: Sequence[bytes]) -> None:
        """Have so many more messages, all as long as those before, and count from the first of them.

        They have been published when :meth:`sent` says so.
        """
        self._first = len(self._texts)
        self._texts += texts
        self._frames += map(unmasked, texts)
        self._due += [math.nan] * len(texts)
        self._text_length, self._length = len(self._texts[0]), len(self._frames[0])
        self.waits = []
        self.stale = self.repeated = self.skipped = 0

    def sent(self, index: int, due: float) -> None:
        """A message was published that was due then."""
        self._due[index] = due

    def missing(self, accounts: Sequence[Account]) -> int:
        """How many deliveries there should have been since :meth:`begin` and were not."""
        to_come = 0
        for account in accounts:
            index = max(account.next, self._next_of(account.topic, self._first))
            to_come += len(range(index, len(self._texts), self._topics))
        return to_come + self.skipped

    def take(self, account: Account, data: bytes, now: float) -> Sequence[Foreign]:
        """What came for a client; returns the frames that are none of its messages.

        Raises:
            LoadError: It is a message nobody published, or one of another topic.
        """
        if not account.rest:
            many, odd = divmod(len(data), self._length)
            if not odd and data == b"".join(self._ahead(self._frames, account, many)):
                self._count(account, many, now)
                return ()
        data, position = account.rest + data, 0
        foreign: list[Foreign] = []
        while (found := head(data[position : position + _HEAD_BYTES])) is not None:
            opcode, start, length = found
            end = position + start + length
            if end > len(data):
                break
            text = data[position + start : end]
            position = end
            if opcode == TEXT:
                foreign += self._take_text(account, text, now)
            else:
                foreign.append((opcode, text))
        account.rest = data[position:]
        return foreign

    def _next_of(self, topic: int, index: int) -> int:
        """From an index on, the first of a topic."""
        return index + (topic - index) % self._topics

    def _ahead(self, of: list[bytes], account: Account, many: int) -> list[bytes]:
        return of[account.next : account.next + many * self._topics : self._topics]

    def _take_text(self, account: Account, text: bytes, now: float) -> list[Foreign]:
        gap = len(self._separator)
        many, odd = divmod(len(text) + gap, self._text_length + gap)
        if not odd and text == self._separator.join(self._ahead(self._texts, account, many)):
            self._count(account, many, now)
            return []
        parts = text.split(self._separator) if gap else [text]
        return list(chain.from_iterable(self._take_one(account, part, now) for part in parts))

    def _take_one(self, account: Account, text: bytes, now: float) -> Sequence[Foreign]:
        found = _NUMBER.search(text)
        if found is None:
            return ((TEXT, text),)
        index = int(found[1]) - FIRST
        if index >= len(self._texts) or text != self._texts[index]:
            raise LoadError(f"a client got what nobody published: {text[:200]!r}")
        if index % self._topics != account.topic:
            raise LoadError(f"a client got another topic's message: {text[:200]!r}")
        if index < account.next:
            self.repeated += 1
        else:
            self.skipped += (index - account.next) // self._topics
            account.next = index
            self._count(account, 1, now)
        return ()

    def _count(self, account: Account, many: int, now: float) -> None:
        index, topics = account.next, self._topics
        end = account.next = index + many * topics
        if index < self._first:
            stale = min(many, (self._first - index + topics - 1) // topics)
            self.stale += stale
            index += stale * topics
        self.waits += [now - due for due in self._due[index:end:topics]]
