"""What time it is at the server that stores messages."""

from collections.abc import Callable


class ServerClock:
    """Reckons the server's time from its answers.

    An answer's time was taken somewhere between question and arrival. It is counted as of the question, so
    the reckoned time is late by at most one round trip, and never early while both clocks go evenly.

    Args:
        monotonic: Monotonic seconds: setting this machine's clock must not matter.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._difference = 0.0

    def mark(self) -> float:
        """To be taken just before a question."""
        return self._monotonic()

    def observe(self, asked: float, answer: float) -> None:
        """The answer to a question.

        Args:
            asked: The mark taken before it.
            answer: The server's time, in Unix seconds.
        """
        self._difference = answer - asked

    def now(self) -> float:
        """The server's time, in Unix seconds."""
        return self._monotonic() + self._difference
