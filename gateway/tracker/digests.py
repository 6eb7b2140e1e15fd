"""Schedules the digests of all keys: version numbers, by which others notice that they missed a change."""

import heapq
from collections.abc import Callable, Iterator
from itertools import count
from typing import Final

from gateway.tracker.view import View

AFTER_CHANGE_SECONDS: Final = (1.0, 10.0)
"""When a digest is sent after a key's last change: soon, and again in case that one is lost."""

AUDIT_SECONDS: Final = 60.0
"""Time between the digests of a key that does not change, on average."""


class Digests:
    """The schedule of all keys' digests.

    Args:
        spread: A number from 0 to 1, to keep replicas from sending theirs at once.
    """

    def __init__(self, spread: Callable[[], float]) -> None:
        self._spread = spread
        self._heap: list[tuple[float, int, View]] = []
        self._order = count()

    def changed(self, view: View, now: float) -> None:
        """A key changed, or is held from now on."""
        view.changed_at = now
        self._schedule(view, now + AFTER_CHANGE_SECONDS[0])

    def due(self, now: float) -> Iterator[View]:
        """Keys whose time has come; each is to be :meth:`sent` or forgotten."""
        while self._heap and self._heap[0][0] <= now:
            due, _, view = heapq.heappop(self._heap)
            if view.due == due:  # else it changed since then, and has a later time
                yield view

    def sent(self, view: View, now: float) -> bool:
        """Schedule the next; False when a key that only fades has had its last."""
        second = view.changed_at + AFTER_CHANGE_SECONDS[1]
        if now < second:
            self._schedule(view, second)
        elif view.held:
            self._schedule(view, now + AUDIT_SECONDS * (0.75 + self._spread() / 2))
        else:
            return False
        return True

    def _schedule(self, view: View, due: float) -> None:
        view.due = due
        heapq.heappush(self._heap, (due, next(self._order), view))
