"""How long to wait before what has died is started again."""

from typing import Final

STEADY_SECONDS: Final = 30.0
"""What has lived so long is not one that cannot start."""

FIRST_SECONDS: Final = 0.5
MOST_SECONDS: Final = 30.0


class Backoff:
    """The pauses between starts of one process: none after a long life, then longer and longer ones."""

    def __init__(self) -> None:
        self._short_lives = 0

    def died(self, lived_seconds: float) -> float:
        """Seconds to wait before the next start."""
        if lived_seconds >= STEADY_SECONDS:
            self._short_lives = 0
        self._short_lives += 1
        if self._short_lives == 1:
            return 0.0
        return min(MOST_SECONDS, FIRST_SECONDS * 2.0 ** min(self._short_lives - 2, 10))
