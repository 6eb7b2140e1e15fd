"""Circuit breakers: stop calling a backend that fails, and try it with one call after a pause.

::

    CLOSED ──enough failures──▶ OPEN ──time is up, next call──▶ HALF_OPEN ──success──▶ CLOSED
                                 ▲                                  │
                                 └──failure, or given up────────────┘

A backend has one for each client whose calls fail, and one for all clients. The first needs failures in a
row, the second clients that fail while nobody is answered. So who says what the backend chokes on is cut
off alone, and a backend that is down is spared by the few who use it as well as by the many.

The result of a call counts only in the state in which it was let through: what was sent before a breaker
opened says nothing about how the backend is now.
"""

from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from typing import Final, TypeAlias

FAILURES: Final = 5
"""A client's failures in a row that cut it off; and clients that fail in a row so that all are."""

SHORTEST_SECONDS: Final = 1.0
"""How long a breaker is open at first, and that for all each time."""

LONGEST_SECONDS: Final = 30.0
"""How long a client's stays open at most, which is twice as long after each try that fails."""

PROVEN_SECONDS: Final = 2.0
"""For how long an answer to anybody shows that the backend works."""

MOST_CLIENTS: Final = 1000
"""Clients whose failures are remembered: those that failed last."""

BreakerTicket: TypeAlias = tuple[int, int]
"""States in which a call was let through: of the breaker for all, and of its client's."""


class BreakerState(Enum):
    """What becomes of calls."""

    CLOSED = "closed"
    """All are let through."""
    OPEN = "open"
    """None is, until the time is up."""
    HALF_OPEN = "half_open"
    """One is under way, and its result decides."""


class Breaker:
    """One breaker; its owner says when enough has failed.

    Args:
        clock: Monotonic seconds.
        longest: How long it stays open at most, in seconds.

    Attributes:
        state: Where it stands.
        generation: The number of its state; of the calls let through in it, too.
        failures: What its owner counted in a row.
        seconds: How long it stays open, or stayed the last time.
    """

    __slots__ = ("_clock", "_longest", "_open_until", "failures", "generation", "seconds", "state")

    def __init__(self, clock: Callable[[], float], longest: float) -> None:
        self._clock = clock
        self._longest = longest
        self._open_until = 0.0
        self.failures = 0
        self.generation = 0
        self.seconds = 0.0
        self.state = BreakerState.CLOSED

    def refuses(self, later: float = 0.0) -> bool:
        """Whether a call would not be let through now.

        Args:
            later: By how many seconds others may try before this one.
        """
        match self.state:
            case BreakerState.CLOSED:
                return False
            case BreakerState.OPEN:
                return self._clock() < self._open_until + later
            case BreakerState.HALF_OPEN:
                return True

    def admit(self) -> int:
        """Let a call through that is not refused; returns the generation it belongs to."""
        if self.state is BreakerState.OPEN:
            self._change(BreakerState.HALF_OPEN)
        return self.generation

    def open(self) -> None:
        """Refuse calls, for twice as long as the last time."""
        self.seconds = min(self._longest, max(SHORTEST_SECONDS, 2 * self.seconds))
        self._open_until = self._clock() + self.seconds
        self._change(BreakerState.OPEN)

    def close(self) -> bool:
        """Let all through; returns whether that is news."""
        if self.state is BreakerState.CLOSED:
            return False
        self._change(BreakerState.CLOSED)
        return True

    def given_up(self, generation: int) -> None:
        """Nobody waited for the answer, so it says nothing; the next may try."""
        if generation == self.generation and self.state is BreakerState.HALF_OPEN:
            self._change(BreakerState.OPEN)
            self.end_pause()

    def end_pause(self) -> None:
        """The next may try, if it is open."""
        self._open_until = self._clock()

    def _change(self, state: BreakerState) -> None:
        self.state = state
        self.generation += 1


class Breakers:
    """Those of one backend.

    Args:
        clock: Monotonic seconds.

    Attributes:
        all: The one for all clients.
        clients: Those of clients that failed and were not answered since, the last to fail at the end.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answered_at = clock()  # as far as is known
        self._failing: set[str] = set()  # clients, since anybody was answered; not more than matter
        self.all = Breaker(clock, SHORTEST_SECONDS)
        self.clients: OrderedDict[str, Breaker] = OrderedDict()

    def refuses(self, client: str) -> bool:
        """Whether a call of the client would not be let through now."""
        own = self.clients.get(client)
        if own is None:
            return self.all.refuses()
        # else many that fail for reasons of their own would take each try
        return self.all.refuses(SHORTEST_SECONDS) or own.refuses()

    def admit(self, client: str) -> BreakerTicket | None:
        """Let a call through; None to refuse it.

        Returns:
            A ticket, to be handed back once to :meth:`succeeded`, :meth:`failed` or :meth:`given_up`.
        """
        if self.refuses(client):
            return None
        own = self.clients.get(client)
        return self.all.admit(), 0 if own is None else own.admit()

    def succeeded(self, client: str, ticket: BreakerTicket) -> Breaker | None:
        """The backend answered; returns the breaker that this closed, the most important if both."""
        closed = None
        own = self.clients.get(client)
        if own is not None and own.generation == ticket[1]:
            del self.clients[client]
            closed = own if own.close() else None
        if self.all.generation == ticket[0]:
            self._answered_at = self._clock()
            self._failing.clear()
            if self.all.close():
                closed = self.all
                for each in self.clients.values():  # they may have failed as the backend did
                    each.end_pause()
        return closed

    def failed(self, client: str, ticket: BreakerTicket) -> Breaker | None:
        """The backend did not answer, or not usably; returns the breaker that this opened, as above."""
        opened = None
        own = self.clients.setdefault(client, Breaker(self._clock, LONGEST_SECONDS))
        self.clients.move_to_end(client)
        if own.generation == ticket[1]:
            own.failures += 1
            if own.failures >= FAILURES:
                own.open()
                opened = own
        if len(self.clients) > MOST_CLIENTS:
            self.clients.popitem(last=False)
        if self.all.generation == ticket[0]:
            if len(self._failing) < FAILURES:
                self._failing.add(client)
            if len(self._failing) == FAILURES and not self._proven():
                self.all.open()
                opened = self.all
        return opened

    def given_up(self, client: str, ticket: BreakerTicket) -> None:
        """Nobody waits for its answer any more."""
        self.all.given_up(ticket[0])
        own = self.clients.get(client)
        if own is not None:
            own.given_up(ticket[1])

    def _proven(self) -> bool:
        return self._clock() - self._answered_at < PROVEN_SECONDS
