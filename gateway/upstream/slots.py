"""How many callbacks may be under way, and how many may wait for their turn."""

import asyncio
from types import TracebackType
from typing import Final

from gateway.errors import UpstreamUnavailable

WAITING_PER_SLOT: Final = 10
"""Callbacks that may wait for each that is under way; more would only wait until their time is over."""


class Slots:
    """To be entered for each callback; first come, first served.

    Args:
        most: Callbacks under way at a time.

    Attributes:
        taken: Callbacks under way.
    """

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)
        self._most_waiting = WAITING_PER_SLOT * most
        self._waiting = 0
        self.taken = 0

    async def __aenter__(self) -> None:
        """Wait for a turn.

        Raises:
            UpstreamUnavailable: ``busy``: too many wait already.
        """
        if self._free.locked():
            if self._waiting >= self._most_waiting:
                raise UpstreamUnavailable("busy")
            self._waiting += 1
            try:
                await self._free.acquire()
            finally:
                self._waiting -= 1
        else:
            await self._free.acquire()  # returns without waiting
        self.taken += 1

    async def __aexit__(
        self,
        _: type[BaseException] | None,
        __: BaseException | None,
        ___: TracebackType | None,
    ) -> None:
        self.taken -= 1
        self._free.release()
