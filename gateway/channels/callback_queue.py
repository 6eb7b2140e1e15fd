"""The callback queue of a socket: what waits for backend or store is done one by one, in order of arrival."""

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Final, TypeAlias

Work: TypeAlias = Callable[[], Coroutine[None, None, None]]

MAX_WAITING: Final = 64
"""Pieces of work that may wait for one socket; above that a client is told ``rate limited``."""

MAX_WAITING_BYTES: Final = 256 * 1024
"""Payloads of all of them, unless there is only one."""


class CallbackQueue:
    """Work that waits, bounded in number and bytes; a socket has a queue while there is any.

    Args:
        user: Whose socket it is; None for an anonymous one.
        crashed: Called when work raises; the rest goes on.
    """

    __slots__ = ("_crashed", "_size", "_waiting", "user")

    def __init__(self, user: str | None, crashed: Callable[[], None]) -> None:
        self.user = user
        self._waiting: deque[tuple[Work, int, str | None]] = deque()
        self._size = 0
        self._crashed = crashed

    def add(self, work: Work, size: int, topic: str | None = None) -> bool:
        """Do this when all before it is done; False when too much waits already.

        Args:
            size: Bytes that are kept until then.
            topic: The one of a push, which is dropped with it; None for what must be done.
        """
        if self._waiting and (
            len(self._waiting) >= MAX_WAITING or self._size + size > MAX_WAITING_BYTES
        ):
            return False
        self._waiting.append((work, size, topic))
        self._size += size
        return True

    def drop(self, topic: str) -> int:
        """Drop the pushes of a topic; returns how many. One that is under way goes on."""
        before = len(self._waiting)
        kept = [each for n, each in enumerate(self._waiting) if n == 0 or each[2] != topic]
        self._waiting = deque(kept)
        self._size = sum(size for _, size, _ in kept)
        return before - len(kept)

    @property
    def pushes(self) -> int:
        """How many pushes wait, the one under way included."""
        return sum(topic is not None for _, _, topic in self._waiting)

    async def run(self) -> None:
        while self._waiting:
            work, size, _ = self._waiting[0]
            try:
                await work()
            except Exception:  # noqa: BLE001 -- top of this task; whoever is told logs it
                self._crashed()
            # only now: what is under way counts among what is kept
            self._waiting.popleft()
            self._size -= size
