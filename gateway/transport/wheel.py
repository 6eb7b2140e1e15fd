"""One timer for all sockets: a wheel of one-second slots instead of a timer or task per socket."""

from collections import defaultdict
from typing import Protocol


class Timed(Protocol):
    """Something that wants to be looked at from time to time."""

    def due(self, now: float) -> float | None:
        """Called when its time has come; returns when to come again, None for never."""


class TimerWheel:
    """Looks at each entry no earlier than asked and at most a second late.

    An entry that is heard from often is not moved each time: it says its new time when the old one
    comes. Times are monotonic seconds; whoever owns the wheel calls :meth:`turn` once a second.
    """

    def __init__(self, now: float) -> None:
        self._slots: defaultdict[int, list[Timed]] = defaultdict(list)
        self._next_slot = int(now)

    def add(self, entry: Timed, when: float) -> None:
        """Look at ``entry`` at ``when``, or in the next turn if that has passed."""
        self._slots[max(int(when) + 1, self._next_slot)].append(entry)

    def turn(self, now: float) -> None:
        """Look at everything whose time has come.

        Raises:
            Exception: An entry did, which is looked at no more; the next turn goes on behind it.
        """
        while self._next_slot <= int(now):
            entries = iter(self._slots.pop(self._next_slot, ()))
            self._next_slot += 1
            try:
                for entry in entries:
                    again = entry.due(now)
                    if again is not None:
                        self.add(entry, again)
            except Exception:
                self._slots[self._next_slot].extend(entries)
                raise
