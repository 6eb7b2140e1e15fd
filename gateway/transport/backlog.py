"""Shares the reading of one turn of the event loop among all WebSockets.

What many clients send at once would else hold up everybody: twenty who write without pause, each of them
bounded, are twenty times the bound.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

TURN_COST: Final = 262_144
"""What is read in one turn as it comes, of all sockets together: bytes, and ``FRAME_COST`` for each frame."""

FRAME_COST: Final = 8192
"""What each frame counts for, of any kind, beside its bytes: a small one costs about as much."""

SLICE_COST: Final = 65_536
"""What is read of one socket that waits before the next has its turn."""

TURN_SECONDS: Final = 0.001
"""Time in one turn for those that wait, however dear their frames are."""


class Backlog:
    """The sockets that sent more than could be read when it came; each in turn is read some more of.

    A frame that comes alone is read at once all the same: who says little does not wait for who says much.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left = TURN_COST
        self._waiting: deque[Callable[[int], bool]] = deque()
        self._scheduled = False

    @property
    def left(self) -> int:
        """What may still be read in this turn; not above 0 when that is spent."""
        return self._left

    def spend(self, cost: int) -> None:
        """So much was read."""
        self._left -= cost
        if self._left <= 0:
            self._schedule()

    def add(self, read_on: Callable[[int], bool]) -> None:
        """Have a socket read on when its turn has come.

        Args:
            read_on: Reads at most so much, though at least a frame; returns whether there is more.
        """
        self._waiting.append(read_on)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._left = TURN_COST
        end = self._clock() + TURN_SECONDS
        try:
            for _ in range(len(self._waiting)):  # a clock may stand still
                read_on = self._waiting.popleft()
                if read_on(SLICE_COST):
                    self._waiting.append(read_on)
                if self._clock() >= end:
                    break
        finally:
            # whatever went wrong with one socket, the others still have to be read
            if self._waiting:
                self._left = 0
                self._schedule()
