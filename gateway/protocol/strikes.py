"""Malformed frames of one client, until there are too many."""

from collections import deque
from typing import Final

MALFORMED_LIMIT: Final = 10
"""Malformed frames within :data:`MALFORMED_SECONDS` after which a socket is closed with 1008."""
MALFORMED_SECONDS: Final = 60.0


class Strikes:
    """The times of recent ones."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MALFORMED_LIMIT)

    def add(self, now: float) -> bool:
        """Count one; whether it is one too many. ``now`` is in monotonic seconds."""
        self._times.append(now)
        return len(self._times) == MALFORMED_LIMIT and now - self._times[0] < MALFORMED_SECONDS
