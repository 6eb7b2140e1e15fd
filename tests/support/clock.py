"""An event loop whose time a test moves: timers come due without anybody waiting for them."""

import asyncio

TURNS = 5
"""Turns of the loop in which everything that is due, and what follows from it, is done."""


class Clock:
    """The running loop's time, standing still but for :meth:`run`; to be made inside the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time()
        self._loop.time = lambda: self.now  # type: ignore[method-assign]

    async def run(self, seconds: float = 0.0) -> None:
        """Let time pass, and do what is due."""
        self.now += seconds
        for _ in range(TURNS):
            await asyncio.sleep(0)
