"""Limits how many callbacks are under way, and how many wait for their turn."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final

from gateway.errors import UpstreamUnavailable

WAITING_PER_SLOT: Final = 10
"""Callbacks that may wait for each that is under way; more would only wait until their time is over."""


class Slots:
    """To be entered for each callback; first come, first served.

    Args:
        most: Callbacks under way at a time.
        changed: Told how many are under way, each time that changes.
    """

    def __init__(self, most: int, changed: Callable[[int], None]) -> None:
        self._free = asyncio.Semaphore(most)
        self._most_waiting = WAITING_PER_SLOT * most
        self._waiting = 0
        self._taken = 0
        self._changed = changed

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
        self._taken += 1
        self._changed(self._taken)

    async def __aexit__(
        self,
        _: type[BaseException] | None,
        __: BaseException | None,
        ___: TracebackType | None,
    ) -> None:
        self._taken -= 1
        self._changed(self._taken)
        self._free.release()
