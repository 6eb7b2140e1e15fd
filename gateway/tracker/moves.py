"""Who is moving from one replica to another, on keys that this replica need not hold.

A client that is sent away comes back to any replica, and there it may be the first on its key. Who holds the
key knows the session whose place it takes, but there may be nobody left who does. So all are told beforehand.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from gateway.tracker.entry import Entry
from gateway.tracker.view import MOVING_SECONDS


class Moves:
    """The moving entries of all replicas, each until its time is over."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, tuple[Entry, float]]] = {}
        self._order: deque[tuple[float, str, str]] = deque()

    def add(self, key: str, entries: Iterable[Entry], now: float) -> None:
        """Some began to move; those that are known to do so are ignored."""
        for entry in entries:
            known = self._entries.setdefault(key, {})
            if entry.id not in known:
                known[entry.id] = (entry, now)
                self._order.append((now + MOVING_SECONDS, key, entry.id))

    def of(self, key: str) -> list[tuple[Entry, float]]:
        """Those on a key, and when each was heard of."""
        return list(self._entries.get(key, {}).values())

    def __iter__(self) -> Iterator[str]:
        """Keys on which some move."""
        return iter(self._entries)

    def expire(self, now: float) -> None:
        """Forget those whose time is over."""
        while self._order and self._order[0][0] <= now:
            _, key, session = self._order.popleft()
            del self._entries[key][session]
            if not self._entries[key]:
                del self._entries[key]
