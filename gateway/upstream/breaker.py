"""A circuit breaker: stops calling a backend that fails, and tries it with one call after a pause.

::

    CLOSED ──5 failures in a row──▶ OPEN ──time is up, next call──▶ HALF_OPEN ──success──▶ CLOSED
                                     ▲                                  │
                                     └──failure: twice as long──────────┤
                                     └──given up: the next may try──────┘

The result of a call counts only in the state in which it was let through: what was sent before the
breaker opened says nothing about how the backend is now. And while the backend works for others, of
failures that follow each other and may all be due to one client's input only the first counts: else that
client could have everybody cut off from a backend that chokes on what it says.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final

FAILURES: Final = 5
"""Failures in a row that open it."""

SHORTEST_SECONDS: Final = 1.0
"""How long it stays open at first; twice as long after each try that fails."""

LONGEST_SECONDS: Final = 30.0

PROVEN_SECONDS: Final = 60.0
"""For how long an answer to one client shows that failures of another are its own."""


class BreakerState(Enum):
    """What becomes of calls."""

    CLOSED = "closed"
    """All are let through."""
    OPEN = "open"
    """None is, until the time is up."""
    HALF_OPEN = "half_open"
    """One is under way, and its result decides."""


class Breaker:
    """The breaker of one backend.

    Args:
        clock: Monotonic seconds.

    Attributes:
        state: Where it stands.
        seconds: How long it stays open, or stayed the last time.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._suspect = ""  # of the last failure
        # the last two clients that were answered, and when
        self._proofs: list[tuple[str, float]] = []
        self._open_until = 0.0
        self._generation = 0
        self.state = BreakerState.CLOSED
        self.seconds = 0.0

    def refuses(self) -> bool:
        """Whether a call would not be let through now."""
        match self.state:
            case BreakerState.CLOSED:
                return False
            case BreakerState.OPEN:
                return self._clock() < self._open_until
            case BreakerState.HALF_OPEN:
                return True

    def admit(self) -> int | None:
        """Let a call through; None to refuse it.

        Returns:
            A ticket, to be handed back once to :meth:`succeeded`, :meth:`failed` or :meth:`given_up`.
        """
        if self.refuses():
            return None
        if self.state is BreakerState.OPEN:
            self._change(BreakerState.HALF_OPEN)
        return self._generation

    def succeeded(self, ticket: int, client: str = "") -> bool:
        """The backend answered; returns whether that closed it.

        Args:
            client: Whom it was about.
        """
        if ticket != self._generation:
            return False
        self._failures = 0
        others = [proof for proof in self._proofs if proof[0] != client]
        self._proofs = [(client, self._clock()), *others[:1]]
        if self.state is BreakerState.CLOSED:
            return False
        self.seconds = 0.0
        self._change(BreakerState.CLOSED)
        return True

    def failed(self, ticket: int, suspect: str = "") -> bool:
        """The backend did not answer, or not usably; returns whether that opened it.

        Args:
            suspect: The client whose input may be the reason; empty where it cannot be.
        """
        if ticket != self._generation:
            return False
        again, self._suspect = suspect == self._suspect, suspect
        if self.state is BreakerState.CLOSED and suspect and again and self._works_without(suspect):
            return False
        self._failures += 1
        if self.state is BreakerState.CLOSED and self._failures < FAILURES:
            return False
        self.seconds = min(LONGEST_SECONDS, max(SHORTEST_SECONDS, 2 * self.seconds))
        self._open_until = self._clock() + self.seconds
        self._change(BreakerState.OPEN)
        return True

    def given_up(self, ticket: int) -> None:
        """Nobody waited for the answer, so it says nothing."""
        if ticket == self._generation and self.state is BreakerState.HALF_OPEN:
            self._open_until = self._clock()
            self._change(BreakerState.OPEN)

    def _works_without(self, client: str) -> bool:
        """Whether others were answered not long ago."""
        since = self._clock() - PROVEN_SECONDS
        return any(other != client and at > since for other, at in self._proofs)

    def _change(self, state: BreakerState) -> None:
        self.state = state
        self._generation += 1
