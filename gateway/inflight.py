"""How many bytes of request bodies are in memory at a time: of one sender, and of all together."""

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

    def one_more(self, sender: str, length: int | None) -> "Room":
        """Room for one more body, for as long as the block lasts; ``as`` says whether there is any.

        Args:
            length: Its bytes; None where that is not known before it was read.
        """
        size = self._longest if length is None else min(max(length, LEAST_BYTES), self._longest)
        return Room(self, sender, size)

    def take(self, sender: str, size: int) -> bool:
        """Have so many bytes more, if there is room; else nothing happens."""
        there = self._by_sender.get(sender, 0)
        if there + size > self._each or self._sum + size > self._total:
            return False
        self._by_sender[sender] = there + size
        self._sum += size
        return True

    def give_back(self, sender: str, size: int) -> None:
        """Have so many bytes less."""
        self._sum -= size
        left = self._by_sender.pop(sender) - size
        if left:
            self._by_sender[sender] = left


class Room:
    """What one body takes up. A generator would take longer than all else here."""

    __slots__ = ("_bodies", "_sender", "_size", "_taken")

    def __init__(self, bodies: InFlight, sender: str, size: int) -> None:
        self._bodies = bodies
        self._sender = sender
        self._size = size
        self._taken = False

    def __enter__(self) -> bool:
        self._taken = self._bodies.take(self._sender, self._size)
        return self._taken

    def __exit__(self, *_: object) -> None:
        if self._taken:
            self._bodies.give_back(self._sender, self._size)
