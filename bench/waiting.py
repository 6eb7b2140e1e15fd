"""Whether the clients kept up with the server, or were what was measured."""

import select
import time
from typing import Final

from bench.wire import LoadError

LEAST_SHARE: Final = 0.1
"""Of the time, in which clients must have had nothing to do."""

MOST_LATE_MS: Final = 25.0
"""How much later than planned clients may come, all but one of a hundred."""


class Waiting:
    """Counts the time in which the clients' process had nothing to do but wait for the server.

    It ends with the last thing that came.
    """

    def __init__(self) -> None:
        self._started = self._ended = time.perf_counter()
        self._idle = self._idle_since = 0.0

    def poll(self, epoll: select.epoll, most: int) -> list[tuple[int, int]]:
        """What is ready now; if nothing is, the time it took to find that out was spent waiting."""
        before = time.perf_counter()
        ready = epoll.poll(0, most)
        now = time.perf_counter()
        if ready:
            self._idle += self._idle_since
            self._idle_since = 0.0
            self._ended = now
        else:
            self._idle_since += now - before
        return ready

    @property
    def share(self) -> float:
        """Of the time until then."""
        return self._idle / (self._ended - self._started)


def check_waited(share: float) -> None:
    """Make sure that a quicker server would have got more to do.

    Args:
        share: See :attr:`Waiting.share`.

    Raises:
        LoadError: The clients hardly waited for the server.
    """
    if share < LEAST_SHARE:
        raise LoadError(f"the clients are the bottleneck: they waited {share:.0%} of the time")


def check_punctual(late_ms: float) -> None:
    """Make sure that clients came as planned.

    Args:
        late_ms: How much later than planned, the 99th percentile.

    Raises:
        LoadError: They did not.
    """
    if late_ms > MOST_LATE_MS:
        raise LoadError(f"the clients are the bottleneck: they came {late_ms:.0f} ms late")
