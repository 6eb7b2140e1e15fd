"""What a replica knows of the store's offsets: their epoch, how far they go, and by when they were given."""

from bisect import bisect_left
from dataclasses import dataclass, field
from math import inf
from typing import Final, NamedTuple

from gateway.bus.stream_position import StreamPosition
from gateway.history.base import Tip

AHEAD_OFFSETS: Final = 1 << 20
"""
How far above what the store has said a live copy may claim to stand.

More than are stored between two questions to it. A copy further on is no proof of anything: a look at the
store shows what there is.
"""

AHEAD_SECONDS: Final = 30.0
"""
By how much it may claim to be younger than the store's clock, which differs between its servers.

Less than :data:`gateway.retention.SPARE_SECONDS`: for so long a position that was made of it lives longer.
"""

BELIEVED_SECONDS: Final = 5.0
"""
How long the store must say that it ends before what is known, until that is taken for true.

A server that has just become its leader may not have come to what the one before said; it does in a moment.
"""

POSITION_SECONDS: Final = 0.001
"""A position has its time to the millisecond."""

REMEMBERED_TIPS: Final = 1024
"""Ends of the history that are remembered; when there are more, every other one is forgotten."""


class KnownOffsets(NamedTuple):
    """What was known when the end of the history was asked for."""

    generation: int
    highest: int


@dataclass(slots=True, eq=False)
class EpochWatch:
    """What is known of the store's offsets.

    Attributes:
        epoch: The store's word for it; empty before any is known.
        highest: Offset that the store said is given to a message. What a live copy says does not count: who
            may publish on its subject can make one.
        generation: How many epochs there were, the one of a restored older copy among them.
        tips: Ends of the history that were seen, offset and time, both growing: what lies at or below the
            offset was stored by that time.
    """

    epoch: str = ""
    highest: int = 0
    generation: int = 0
    tips: list[tuple[int, float]] = field(default_factory=list)

    def known(self) -> KnownOffsets:
        return KnownOffsets(self.generation, self.highest)

    def went_back(self, tip: Tip, asked: KnownOffsets) -> bool:
        """Whether the same history ends before what was known when its end was asked for."""
        same = tip.epoch == self.epoch and asked.generation == self.generation
        return same and tip.offset < asked.highest

    def note(self, tip: Tip, asked: KnownOffsets) -> bool:
        """Take note of the end of the history; says whether offsets have begun anew with it.

        An end that went back is that of a store that was replaced by an older copy.

        Args:
            asked: What was known before it was asked for.
        """
        known_before = self.epoch
        if anew := tip.epoch != self.epoch or self.went_back(tip, asked):
            self.epoch = tip.epoch
            self.highest = 0
            self.generation += 1
            self.tips.clear()
        if not self.tips or tip.offset > self.tips[-1][0]:
            self.tips.append((tip.offset, tip.time))
            if len(self.tips) > REMEMBERED_TIPS:
                del self.tips[-2::-2]
        self.highest = max(self.highest, tip.offset)
        return anew and bool(known_before)

    def stored_by(self, offset: int, time: float) -> bool:
        """Whether it is known here that everything up to an offset was stored by a time."""
        at = bisect_left(self.tips, (offset, -inf))
        return at < len(self.tips) and self.tips[at][1] <= time

    def may_lack(self, tip: Tip, offset: int, time: float, found: int = 0) -> bool:
        """Whether the store may have let go of messages that follow a position, whatever made it do so.

        It lets go of the oldest first, unless an operator purges a single subject, which nobody can see. So
        what is still there tells, and what was there when it was looked at before.

        Args:
            offset: Everything at or below it is known.
            time: Nothing that is not known was stored before it.
            found: How many messages the store has of the topic after that.
        """
        narrowed = tip.narrowed
        if narrowed is not None and time < narrowed.until and found >= narrowed.messages:
            return True
        return (
            tip.first > offset + 1
            and tip.kept_since > time - POSITION_SECONDS
            and not self.stored_by(tip.first - 1, time)
        )

    def implausible(self, position: StreamPosition, now: float) -> str | None:
        """Why a live copy cannot be the store's, as far as can be told without asking it; None if it can.

        Args:
            now: The store's time.
        """
        if position.previous >= position.offset:
            return "no stream sequence"
        if not self.epoch:
            return None
        if position.offset > self.highest + AHEAD_OFFSETS:
            return "sequence beyond the stream's end"
        if position.time > now + AHEAD_SECONDS:
            return "time in the future"
        return None
