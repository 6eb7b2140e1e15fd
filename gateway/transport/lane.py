"""The callbacks about one socket: one at a time, in order of arrival, and not too many."""

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Final, TypeAlias

Work: TypeAlias = Callable[[], Coroutine[None, None, None]]

MAX_WAITING: Final = 64
"""Callbacks that may wait for a socket's turn; a client that sends more faster is told ``rate limited``."""

MAX_WAITING_BYTES: Final = 256 * 1024
"""Payloads of all of them, unless there is only one."""


class Lane:
    """What waits; made for a socket when there is work.

    Args:
        crashed: Called when work raises; the rest goes on.
    """

    __slots__ = ("_crashed", "_size", "_waiting")

    def __init__(self, crashed: Callable[[], None]) -> None:
        self._waiting: deque[tuple[Work, int]] = deque()
        self._size = 0
        self._crashed = crashed

    def add(self, work: Work, size: int) -> bool:
        """Do this when all before it is done; False when too much waits already.

        Args:
            size: Bytes that are kept until then.
        """
        if self._waiting and (
            len(self._waiting) >= MAX_WAITING or self._size + size > MAX_WAITING_BYTES
        ):
            return False
        self._waiting.append((work, size))
        self._size += size
        return True

    async def run(self) -> None:
        """Work until nothing waits."""
        while self._waiting:
            work, size = self._waiting[0]
            try:
                await work()
            except Exception:  # noqa: BLE001 -- top of this task; whoever is told logs it
                self._crashed()
            # only now: what is under way counts among what is kept
            self._waiting.popleft()
            self._size -= size
