"""Which topics of this replica have the most messages and members."""

import heapq
from collections.abc import Callable
from typing import Final, NamedTuple

from gateway.hub.registry import Registry, Topic

SHOWN: Final = 25

LOOK_SECONDS: Final = 5.0
"""Time between two looks at all topics: 100,000 of them take some 50 ms."""


class BusyTopic(NamedTuple):
    """One topic.

    Attributes:
        rate: Messages a second since the look before; below 0 at the first look, when nobody knows.
    """

    rate: float
    members: int
    name: str


class Busiest:
    """Looks at all topics once in a while; what it counted at the last look is all it keeps.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counted: dict[str, int] = {}
        self._at = float("-inf")
        self._found: list[BusyTopic] = []

    def look(self, registry: Registry) -> list[BusyTopic]:
        """The busiest, as of the last look."""
        now = self._clock()
        passed = now - self._at
        if passed < LOOK_SECONDS:
            return self._found
        # where nobody looked for a while, it would be the rate of another time
        before = self._counted if passed < 2 * LOOK_SECONDS else None
        topics = registry.all()
        self._counted = {topic.name: topic.next_number for topic in topics}
        self._found = heapq.nlargest(
            SHOWN,
            (
                BusyTopic(_rate(topic, before, passed), len(topic.members), topic.name)
                for topic in topics
            ),
        )
        self._at = now
        return self._found


def _rate(topic: Topic, before: dict[str, int] | None, seconds: float) -> float:
    if before is None:
        return -1.0
    number = topic.next_number
    return max(0, number - before.get(topic.name, number)) / seconds
