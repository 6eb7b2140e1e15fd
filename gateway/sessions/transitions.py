"""Decides when a user goes online or offline, so that exactly one replica tells the backend. Pure.

A replica *vouches* for a user: it is one of those because of which the backend believes that she is online.
She comes online when somebody vouches for her and nobody did before, and she goes offline when the last
one ceases to. A replica begins or ceases to vouch only by a *decision*, and each goes like this:

1. ask all other replicas whether they vouch for her,
2. when all have answered, act: whoever begins to vouch and is the first tells ``user.online``, whoever ceases
   to and is the last tells ``user.offline``;
3. but if anybody asked this replica about her between 1 and 2, or a session of hers began or ended
   here, the answers are void, and she is looked at again a little later.

By 3, of two decisions at least one is made with the other's outcome known: were it not so, each of the two
replicas would have answered the other before it began to ask, which cannot be. So decisions have an order,
and each knows the outcome of all before it, as if there were a lock. No clocks are compared.

Time comes in as monotonic seconds.
"""

import heapq
from collections.abc import Callable, Iterable
from typing import Final

from gateway.sessions.commands import Standing
from gateway.tracker.view import MOVING_SECONDS

SETTLE_SECONDS: Final = 0.5
"""How long a user has to be here before it is asked whether she just came online."""

AGAIN_SECONDS: Final = 1.0
"""How long, give or take a half, until a decision that could not be made is tried again."""


class Transitions:
    """The users one replica vouches for, and those it has to decide on.

    Args:
        present: Whether a user has sessions here.
        offline_after_seconds: Grace after her last session.
        spread: A number from 0 to 1: two replicas that were in each other's way should not be so again.
    """

    def __init__(
        self,
        present: Callable[[str], bool],
        *,
        offline_after_seconds: float,
        spread: Callable[[], float],
    ) -> None:
        self._present = present
        self._grace_seconds = offline_after_seconds
        self._moving_seconds = max(offline_after_seconds, MOVING_SECONDS)
        self._spread = spread
        self._leaving = False
        self._vouched: set[str] = set()
        self._due: dict[str, float] = {}
        # at least one entry for each user in _due, at her time or before
        self._timers: list[tuple[float, str]] = []
        self._asking: set[str] = set()

    def started(self, user: str, now: float) -> None:
        """A session began here."""
        self._asking.discard(user)
        if user not in self._vouched and user not in self._due:
            self._look_at(user, now + SETTLE_SECONDS)

    def ended(self, user: str, now: float, *, moving: bool) -> None:
        """A session ended here; ``moving`` when its client is expected on another replica."""
        self._asking.discard(user)
        if user in self._vouched:
            until = now + (self._moving_seconds if moving else self._grace_seconds)
            self._look_at(user, max(until, self._due.get(user, until)))
        elif not self._present(user):
            self._due.pop(user, None)  # gone again before it was said that she is here

    def begin(self, now: float, most: int) -> tuple[str, ...]:
        """Begin to decide: the users the other replicas are to be asked about, if there are any."""
        self._asking.clear()
        while self._timers and self._timers[0][0] <= now and len(self._asking) < most:
            _, user = heapq.heappop(self._timers)
            due = self._due.pop(user, None)
            if due is None:
                continue
            if due > now:
                self._look_at(user, due)
            elif self._present(user) != (user in self._vouched):
                self._asking.add(user)
                # if nothing comes of it
                self._look_at(user, now + AGAIN_SECONDS * (0.5 + self._spread()))
        return tuple(self._asking)

    def decide(self, others: Iterable[Standing]) -> list[tuple[str, bool]]:
        """Decide on those it was begun with, now that all others have answered.

        Returns:
            Who came online (True) or went offline, for this replica to tell.
        """
        answers = list(others)
        vouched = {user for each in answers for user in each.vouched}
        settling = {user for each in answers for user in each.settling}
        told = []
        for user in self._asking:
            if user not in self._vouched:
                self._vouched.add(user)
                if user not in vouched:
                    told.append((user, True))
            elif user in settling and user not in vouched:
                continue  # it will vouch in a moment; she need not go offline and come back
            else:
                self._vouched.discard(user)
                if user not in vouched:
                    told.append((user, False))
            del self._due[user]
        self._asking.clear()
        return told

    def standing(self, users: Iterable[str]) -> Standing:
        """What to answer to another replica that decides on these users."""
        asked = list(users)
        self._asking.difference_update(asked)
        return Standing(
            tuple(user for user in asked if user in self._vouched),
            tuple(user for user in asked if user in self._due and user not in self._vouched),
        )

    def inherit(self, users: Iterable[str], now: float) -> bool:
        """Vouch for users in the place of a replica that leaves; False if this one leaves, too."""
        if self._leaving:
            return False
        for user in users:
            self._asking.discard(user)
            self._vouched.add(user)
            until = now + self._moving_seconds
            self._look_at(user, max(until, self._due.get(user, until)))
        return True

    def again(self, now: float) -> None:
        """The others gave this replica up, and decided without it: who is here comes online anew."""
        for user in [user for user in self._vouched if self._present(user)]:
            self._asking.discard(user)
            self._vouched.discard(user)
            self._look_at(user, now + SETTLE_SECONDS)

    def leave(self) -> list[str]:
        """This replica leaves, and has no sessions any more: whom others are to vouch for.

        It goes on to answer for them, but decides on nobody any more.
        """
        self._leaving = True
        self._asking.clear()
        self._due.clear()
        return list(self._vouched)

    def abandon(self, users: Iterable[str], now: float) -> None:
        """Nobody takes these users over: decide on them now."""
        for user in users:
            self._look_at(user, now)

    @property
    def undecided(self) -> bool:
        """Whether there is anybody to decide on, now or later."""
        return bool(self._due)

    def _look_at(self, user: str, when: float) -> None:
        before = self._due.get(user)
        self._due[user] = when
        if before is None or when < before:
            heapq.heappush(self._timers, (when, user))
