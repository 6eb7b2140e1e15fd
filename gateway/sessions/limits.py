"""Which sessions of a user may stay: the same answer on every replica, whoever asks.

Sessions are in order of their beginning, then of their id. Each replica closes those of its own that lose
among all it knows of. To know more only makes a session lose, never win, and the winners lose nowhere: so
however a race goes, it ends with the winners alone.

There are two exceptions, in which a race within the milliseconds that replicas take to hear of each other
may close one too many: newcomers are refused and a device is replaced as well; and tokens of one user that
name different limits.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import msgspec

from gateway.tracker.entry import Entry

WhenFull: TypeAlias = Literal["refuse", "close_oldest"]
SameDevice: TypeAlias = Literal["keep", "replace"]


class Limits(msgspec.Struct, frozen=True):
    """The policy.

    Attributes:
        max_per_user: Sessions of one user; 0 for no limit. The newest session's own limit comes first.
        when_full: What gives way: the new session, or the oldest.
        same_device: Whether a device's new session replaces its earlier one.
    """

    max_per_user: int
    when_full: WhenFull
    same_device: SameDevice

    def concern(self, newcomer: Entry) -> bool:
        """Whether the other sessions have to be known before this one can be let in."""
        return bool(self.max_per_user or newcomer.limit)

    def refuse(self, newcomer: Entry, others: Iterable[Entry]) -> bool:
        """Whether a new session, the latest of all, may not begin."""
        if self.when_full == "close_oldest":
            return False
        return newcomer in self.losers([*others, newcomer])

    def losers(self, entries: Iterable[Entry]) -> list[Entry]:
        """The sessions that may not stay; moving ones neither count nor lose."""
        ordered = sorted((e for e in entries if not e.moving), key=lambda e: e.order)
        replaced = _replaced(ordered) if self.same_device == "replace" else []
        staying = [entry for entry in ordered if entry not in replaced]
        allowed = self._allowed(staying)
        excess = len(staying) - allowed if allowed else 0
        if excess <= 0:
            return replaced
        refused = staying[:excess] if self.when_full == "close_oldest" else staying[-excess:]
        return replaced + refused

    def _allowed(self, ordered: Sequence[Entry]) -> int:
        if not ordered:
            return 0
        own = ordered[-1].limit
        return self.max_per_user if own is None else own


def _replaced(ordered: Sequence[Entry]) -> list[Entry]:
    """All but the last session of each device."""
    last = {entry.device.id: entry for entry in ordered}
    return [entry for entry in ordered if entry.device.id and last[entry.device.id] is not entry]
