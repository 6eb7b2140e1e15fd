"""Schedules the digests of all keys: version numbers, by which others notice that they missed a change."""

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import count
from typing import Final

from gateway.tracker.view import View

SOON_SECONDS: Final = 1.0
"""When a digest is sent after a key's last change."""

SETTLED_SECONDS: Final = 10.0
"""When it is sent again, at the earliest, in case that one is lost."""

AUDIT_SECONDS: Final = 60.0
"""Time between the digests of a key that does not change, on average, while others hold it too."""

ALONE_SECONDS: Final = 600.0
"""The same where nobody else is known to hold it: whoever took it said so, unless all of that was lost."""

COMPARISONS: Final = 2
"""Digests in a row by which others notice, too, what this replica missed, in case one is lost."""

STALE: Final = 1000
"""Times kept at most, beside one for each key, that do not hold any more."""


class Digests:
    """The schedule of all keys' digests.

    Args:
        views: The keys.
        spread: A number from 0 to 1, to keep replicas from sending theirs at once.
        settled_seconds: When a digest is repeated after a change: later than any outage nobody notices.
    """

    def __init__(
        self, views: Collection[View], spread: Callable[[], float], settled_seconds: float
    ) -> None:
        self._views = views
        self._spread = spread
        self._settled_seconds = max(settled_seconds, SETTLED_SECONDS)
        self._heap: list[tuple[float, int, View]] = []
        self._order = count()

    def held(self, view: View, now: float) -> None:
        """A key is held from now on."""
        view.comparing = COMPARISONS
        self.changed(view, now)

    def changed(self, view: View, now: float) -> None:
        """A key changed."""
        view.changed_at = now
        view.settling = True
        due = now + SOON_SECONDS
        if not (view.comparing and view.due <= due):  # which a busy key must not put off for ever
            self._schedule(view, due)

    def compare(self, views: Iterable[View], now: float, seconds_each: float) -> None:
        """Compare keys with whoever holds them, one after another."""
        for number, view in enumerate(views):
            due = now + number * seconds_each
            view.comparing = COMPARISONS
            if not (view.settling and view.due <= due):
                view.settling = True
                self._schedule(view, due)

    def met(self, view: View, now: float) -> None:
        """Another replica holds the key, too."""
        if view.due > now + 1.25 * AUDIT_SECONDS:
            self._schedule(view, now + self._spread_out(AUDIT_SECONDS))

    def due(self, now: float) -> Iterator[View]:
        """Keys whose time has come; each is to be :meth:`sent` or forgotten."""
        while self._heap and self._heap[0][0] <= now:
            due, _, view = heapq.heappop(self._heap)
            if view.due == due:  # else it changed since then, and has another time
                yield view

    def sent(self, view: View, now: float) -> bool:
        """Schedule the next; False when a key that only fades has had its last."""
        if view.settling:
            view.settling = False
            self._schedule(view, now + self._settled_seconds - SOON_SECONDS)
        elif view.held:
            each = AUDIT_SECONDS if view.remotes else ALONE_SECONDS
            self._schedule(view, now + self._spread_out(each))
        else:
            return False
        return True

    def _spread_out(self, seconds: float) -> float:
        return seconds * (0.75 + self._spread() / 2)

    def _schedule(self, view: View, due: float) -> None:
        view.due = due
        heapq.heappush(self._heap, (due, next(self._order), view))
        if len(self._heap) > 2 * len(self._views) + STALE:
            self._heap = [(each.due, next(self._order), each) for each in self._views]
            heapq.heapify(self._heap)
