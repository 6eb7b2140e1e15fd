"""Lets a bounded number of waiters pass in each turn of the event loop, in order of arrival.

After a stall, or when another replica dies, hundreds of clients may be ready in one turn: to serve them all
at once would stall everybody else.
"""

import asyncio
from collections import deque
from collections.abc import Callable


class Pacer:
    """A queue that is empty as long as no crowd comes: who comes alone does not wait.

    Args:
        per_turn: How many pass in one turn of the event loop.
    """

    def __init__(self, per_turn: int) -> None:
        self._per_turn = per_turn
        self._room = per_turn
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._scheduled = False

    async def wait(self) -> None:
        """Return when it is the caller's turn."""
        place = self._place()
        if place is not None:
            await place

    def call(self, then: Callable[[], None]) -> None:
        """Call ``then`` when its turn has come, which may be at once."""
        place = self._place()
        if place is None:
            then()
        else:
            place.add_done_callback(lambda _: then())

    def _place(self) -> "asyncio.Future[None] | None":
        """A place in the queue; None for who need not wait."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)
        if self._room:
            self._room -= 1
            return None
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        return place

    def _turn(self) -> None:
        room = self._per_turn
        while room and self._waiting:
            place = self._waiting.popleft()
            if not place.done():  # else who waited was cancelled
                place.set_result(None)
                room -= 1
        self._room = room
        self._scheduled = room < self._per_turn
        if self._scheduled:
            asyncio.get_running_loop().call_soon(self._turn)
