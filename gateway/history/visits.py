"""When what is to be looked at: a list for each second, so that time decides and no timer is needed."""

from collections import defaultdict
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Visits(Generic[Item]):
    """What is to be visited, each item at its second.

    Args:
        now: Monotonic seconds.
    """

    def __init__(self, now: float) -> None:
        self._slots: defaultdict[int, list[Item]] = defaultdict(list)
        self._next = int(now)

    def add(self, item: Item, when: float) -> None:
        """Visit an item at a time, or in the second after the last that was visited."""
        self._slots[max(int(when), self._next)].append(item)

    def due(self, now: float) -> list[Item]:
        """What is due, earliest first, each item once for each time it was added."""
        items: list[Item] = []
        while self._next <= int(now):
            items += self._slots.pop(self._next, ())
            self._next += 1
        return items
