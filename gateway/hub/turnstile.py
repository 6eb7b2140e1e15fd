"""A crowd let through bit by bit, so that nobody else waits for all of it."""

import asyncio
from collections import deque
from collections.abc import Callable


class Turnstile:
    """Lets so many pass in one turn of the event loop; the others pass in the next turns, in order.

    After a stall, or when another replica dies, hundreds of clients may be served in one turn: that would
    be the next stall. Who comes alone does not wait.

    Args:
        a_turn: How many pass.
    """

    def __init__(self, a_turn: int) -> None:
        self._a_turn = a_turn
        self._room = a_turn
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._scheduled = False

    async def passed(self) -> None:
        """Return when it is the caller's turn."""
        place = self._place()
        if place is not None:
            await place

    def when_passed(self, then: Callable[[], None]) -> None:
        """The same for one who does not wait: call ``then`` when it is its turn, at once if it is."""
        place = self._place()
        if place is None:
            then()
        else:
            place.add_done_callback(lambda _: then())

    def _place(self) -> "asyncio.Future[None] | None":
        """A place in the queue; None for who need not wait."""
        loop = asyncio.get_running_loop()
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._turn)
        if self._room:
            self._room -= 1
            return None
        place = loop.create_future()
        self._waiting.append(place)
        return place

    def _turn(self) -> None:
        room = self._a_turn
        while room and self._waiting:
            place = self._waiting.popleft()
            if not place.done():  # else who waited was cancelled
                place.set_result(None)
                room -= 1
        self._room = room
        self._scheduled = room < self._a_turn
        if self._scheduled:
            asyncio.get_running_loop().call_soon(self._turn)
