"""Limits the rate of one client's messages."""


class RateLimit:
    """A token bucket that holds the tokens of one second.

    Args:
        per_second: Frames; 0 for no limit.
        now: Monotonic seconds.
    """

    __slots__ = ("_left", "_per_second", "_then")

    def __init__(self, per_second: float, now: float) -> None:
        self._per_second = per_second
        self._left = float(per_second)
        self._then = now

    def spend(self, now: float) -> float:
        """Count one frame; returns the seconds to stop reading for, 0 within the limit."""
        if not self._per_second:
            return 0.0
        gained = (now - self._then) * self._per_second
        self._then = now
        self._left = min(float(self._per_second), self._left + gained) - 1
        return max(0.0, -self._left / self._per_second)
