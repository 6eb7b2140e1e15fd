"""How many bytes of request bodies are in memory at a time: of one sender, and of all together."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LEAST_BYTES: Final = 4096
"""What any body counts for: a connection, a request and a task are there whatever it says."""


class InFlight:
    """The bodies that are being read, or were and are being handled.

    Args:
        longest: Bytes of one, at most.
        each: Bytes of all of one sender.
        total: Bytes of all.
    """

    def __init__(self, *, longest: int, each: int, total: int) -> None:
        self._longest = longest
        self._each = each
        self._total = total
        self._by_sender: dict[str, int] = {}
        self._sum = 0

    def __len__(self) -> int:
        """Senders that have some."""
        return len(self._by_sender)

    @contextmanager
    def one_more(self, sender: str, length: int | None) -> Iterator[bool]:
        """Whether there is room for one more body, which is over when the block is.

        Args:
            length: Its bytes; None where that is not known before it was read.
        """
        size = self._longest if length is None else min(max(length, LEAST_BYTES), self._longest)
        there = self._by_sender.get(sender, 0)
        if there + size > self._each or self._sum + size > self._total:
            yield False
            return
        self._by_sender[sender] = there + size
        self._sum += size
        try:
            yield True
        finally:
            self._sum -= size
            left = self._by_sender.pop(sender) - size
            if left:
                self._by_sender[sender] = left
