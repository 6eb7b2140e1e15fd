"""Shares what may be under way, and what may wait for that, among clients.

Nobody may have more than a quarter of what is free: the dynamic threshold of Choudhury and Hahne for shared
buffers (IEEE/ACM Transactions on Networking 6, 1998). One alone gets a fifth of all, twenty get five sixths
together, and for who comes new there is room at once.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from gateway.errors import UpstreamUnavailable

SHARE: Final = 4
"""A client may have one in so many of what is free."""

WAITING_PER_SLOT: Final = 10
"""Callbacks that may wait for each that is under way; more would only wait until their time is over."""

T = TypeVar("T")


class FairShare(Generic[T]):
    """Who has how many slots, who waits, and whose turn is next: the client with the fewest.

    Among equals it is who was not served for the longest; of one client's waiters, the first. A step costs
    the same however many clients there are, and a client is forgotten with its last slot and waiter.

    Args:
        slots: To be had at a time.
        places: To wait in.

    Attributes:
        free: Slots that nobody has. All who wait have their share of it, or more.
    """

    def __init__(self, slots: int, places: int) -> None:
        self.free = slots
        self._places = places
        self._taken: dict[str, int] = {}
        self._waiting: dict[str, OrderedDict[T, None]] = {}
        # Who waits, by how many slots they have: all different, so they are about the root of twice the
        # slots at most.
        self._lines: dict[int, OrderedDict[str, None]] = {}

    def take(self, client: str) -> bool:
        """Take a slot; False if the client has to wait."""
        taken = self._taken.get(client, 0)
        if SHARE * taken >= self.free:
            return False
        self._taken[client] = taken + 1
        self.free -= 1
        return True

    def wait(self, client: str, waiter: T) -> bool:
        """Wait for a slot after :meth:`take` was refused; False if too much waits already."""
        waiters = self._waiting.get(client)
        if SHARE * (0 if waiters is None else len(waiters)) >= self._places:
            return False
        self._places -= 1
        if waiters is None:
            waiters = self._waiting[client] = OrderedDict()
            self._line_up(client)
        waiters[waiter] = None
        return True

    def leave(self, client: str, waiter: T) -> bool:
        """Wait no longer; False if the slot was given to the waiter already."""
        waiters = self._waiting.get(client)
        if waiters is None or waiter not in waiters:
            return False
        self._places += 1
        del waiters[waiter]
        if not waiters:
            self._step_out(client)
            del self._waiting[client]
        return True

    def release(self, client: str) -> T | None:
        """Give a slot back; returns the waiter who has it now."""
        if not self._waiting:
            self._release(client)
            return None
        waits = client in self._waiting
        if waits:
            self._step_out(client)
        self._release(client)
        if waits:
            self._line_up(client)
        fewest = min(self._lines)
        if SHARE * fewest >= self.free:
            return None
        heir = next(iter(self._lines[fewest]))
        waiter = next(iter(self._waiting[heir]))
        self._step_out(heir)
        self.take(heir)
        self._line_up(heir)
        self.leave(heir, waiter)
        return waiter

    def _release(self, client: str) -> None:
        taken = self._taken.pop(client)
        if taken > 1:
            self._taken[client] = taken - 1
        self.free += 1

    def _line_up(self, client: str) -> None:
        self._lines.setdefault(self._taken.get(client, 0), OrderedDict())[client] = None

    def _step_out(self, client: str) -> None:
        taken = self._taken.get(client, 0)
        line = self._lines[taken]
        del line[client]
        if not line:
            del self._lines[taken]


class Slots:
    """Slots for callbacks, to be waited for.

    Args:
        most: Callbacks under way at a time.
        changed: Told how many are under way, each time that changes.
    """

    def __init__(self, most: int, changed: Callable[[int], None]) -> None:
        self._most = most
        self._share: FairShare[asyncio.Future[None]] = FairShare(most, WAITING_PER_SLOT * most)
        self._changed = changed

    async def take(self, client: str) -> None:
        """Wait for a turn; to be followed by :meth:`give_back`.

        Raises:
            UpstreamUnavailable: ``busy``: too many wait already.
        """
        if self._share.take(client):
            self._changed(self._most - self._share.free)
            return
        turn = asyncio.get_running_loop().create_future()
        if not self._share.wait(client, turn):
            raise UpstreamUnavailable("busy")
        try:
            await turn
        except asyncio.CancelledError:
            if not self._share.leave(client, turn):  # it came at the same time
                self.give_back(client)
            raise

    def give_back(self, client: str) -> None:
        """The callback has ended."""
        turn = self._share.release(client)
        self._changed(self._most - self._share.free)
        if turn is not None and not turn.done():
            turn.set_result(None)
