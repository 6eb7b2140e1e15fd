"""Devices that lately had to give way to another one of their user. Pure.

Some Phoenix clients take the ``phx_close`` before 4001 for a crash of the channel and come back by
themselves: the Rust client, and now and then the Go client. Two such devices of a user who may have one
session would push each other out for ever. So for a while a device that gave way pushes nobody out; each time
that happens again soon, for twice as long.
"""

from collections.abc import Callable
from typing import Final

FIRST_SECONDS: Final = 10.0
"""How long a device that gave way for the first time pushes nobody out."""

LONGEST_SECONDS: Final = 320.0

REMEMBERED: Final = 3
"""How many times as long as that it is remembered, for the next time to be longer."""

MOST: Final = 10_000
"""Devices remembered; of more, those that gave way the longest ago are forgotten."""


class Displaced:
    """The devices of all users that gave way on any replica.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # (user, device) -> until when it pushes nobody out, and for how many seconds that is
        self._known: dict[tuple[str, str], tuple[float, float]] = {}

    def add(self, user: str, device: str) -> None:
        """A device gives way."""
        now = self._clock()
        until, seconds = self._known.pop((user, device), (0.0, 0.0))
        again = seconds and now < until + REMEMBERED * seconds
        seconds = min(2 * seconds, LONGEST_SECONDS) if again else FIRST_SECONDS
        self._known[user, device] = (now + seconds, seconds)
        while len(self._known) > MOST or self._is_past(next(iter(self._known)), now):
            del self._known[next(iter(self._known))]

    def lately(self, user: str, device: str) -> bool:
        """Whether a device gave way so lately that it may push nobody out."""
        until, _ = self._known.get((user, device), (0.0, 0.0))
        return self._clock() < until

    def _is_past(self, device: tuple[str, str], now: float) -> bool:
        until, seconds = self._known[device]
        return now >= until + REMEMBERED * seconds
