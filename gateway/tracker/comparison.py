"""Chooses keys to compare with other replicas: what changed while they could not hear each other."""

from collections.abc import Iterable
from math import inf
from typing import Final

from gateway.tracker.digests import Digests
from gateway.tracker.view import View

COMPARED_PER_SECOND: Final = 200
"""Keys that one replica compares with others at most..."""

COMPARED_BY_ALL: Final = 20_000
"""...and all together, as they may all do so at once."""

AGAIN_SECONDS: Final = 5.0
"""Wishes to compare that come within this time after one are gathered."""


class Comparison:
    """What one replica is still to compare."""

    def __init__(self) -> None:
        self._since = inf
        self._shared = False
        self._begins_at = -inf

    def want(self, since: float, *, shared: bool = False) -> None:
        """Compare what changed since a time, monotonic seconds; ``shared``: all that others hold, too."""
        self._since = min(self._since, since)
        self._shared |= shared

    def begin(self, views: Iterable[View], digests: Digests, replicas: int, now: float) -> None:
        """Have digests sent for what is to be compared, if it is time to.

        Args:
            replicas: How many there are.
        """
        if self._since == inf or now < self._begins_at:
            return
        chosen = [
            view
            for view in views
            if view.changed_at >= self._since or (self._shared and view.remotes)
        ]
        chosen.sort(key=lambda view: not view.shared)
        per_second = min(COMPARED_PER_SECOND, COMPARED_BY_ALL / replicas)
        digests.compare(chosen, now, 1 / per_second)
        self._begins_at = now + AGAIN_SECONDS
        self._since, self._shared = inf, False
