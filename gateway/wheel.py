"""A timer wheel: timers for tens of thousands of objects in slots of one second, without a task for each."""

from typing import Final

STALL_SECONDS: Final = 3.0
"""Time without a turn after which the process was stopped, or its machine suspended: a second is usual."""


class Timed:
    """An entry of the wheel.

    Attributes:
        before: Its neighbour in its slot, set by the wheel; None when it is in none.
        after: The other neighbour; None for the last.
    """

    __slots__ = ("after", "before")

    def __init__(self) -> None:
        self.before: Timed | None = None
        self.after: Timed | None = None

    def due(self, now: float) -> float | None:
        """Called when its time has come; returns when to be called again, None for never."""
        raise NotImplementedError


class TimerWheel:
    """Calls :meth:`Timed.due` of each entry no earlier than asked and at most a second late.

    A slot is a chain through its entries: 16 bytes for each, and one that is gone leaves nothing behind. An
    entry that is heard from often is not moved each time: it says its new time when the old one comes. Times
    are monotonic seconds; whoever owns the wheel calls :meth:`turn` once a second.

    Attributes:
        stalled_until: When the last stall was over. Whoever counts silence counts from then: while the
            process stood still it heard nobody, and what they said lies in the kernel.
    """

    def __init__(self, now: float) -> None:
        self._slots: dict[int, Timed] = {}  # the head of each chain, itself no entry
        self._next_slot = int(now)
        self._turning = Timed()
        self._turned_at = now
        self.stalled_until = now

    def add(self, entry: Timed, when: float) -> None:
        """Call ``entry`` at ``when``, or in the next turn if that has passed; it leaves its old slot."""
        self.discard(entry)
        slot = max(int(when) + 1, self._next_slot)
        head = self._slots.get(slot)
        if head is None:
            head = self._slots[slot] = Timed()
        entry.before, entry.after = head, head.after
        if head.after is not None:
            head.after.before = entry
        head.after = entry

    def discard(self, entry: Timed) -> None:
        """Remove ``entry``. Idempotent."""
        if entry.before is None:
            return
        entry.before.after = entry.after
        if entry.after is not None:
            entry.after.before = entry.before
        entry.before = entry.after = None

    def turn(self, now: float) -> None:
        """Call all entries whose time has come; after an error of one, the next turn goes on."""
        if now - self._turned_at > STALL_SECONDS:
            self.stalled_until = now
        self._turned_at = now
        while True:
            while (entry := self._turning.after) is not None:
                self.discard(entry)
                again = entry.due(now)
                if again is not None:
                    self.add(entry, again)
            if self._next_slot > int(now):
                return
            self._turning = self._slots.pop(self._next_slot, self._turning)
            self._next_slot += 1
