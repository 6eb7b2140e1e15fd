"""Notices when the store's offsets begin anew: in another epoch, or as an older copy took its place."""

from dataclasses import dataclass
from typing import NamedTuple

from gateway.history.base import Tip


class KnownOffsets(NamedTuple):
    """What was known when the end of the history was asked for."""

    generation: int
    highest: int


@dataclass(slots=True, eq=False)
class EpochWatch:
    """What is known of the store's offsets.

    Attributes:
        epoch: The store's word for it; empty before any is known.
        highest: Offset that is known to have been given to a message.
        generation: How many epochs there were, the one of a restored older copy among them.
    """

    epoch: str = ""
    highest: int = 0
    generation: int = 0

    def known(self) -> KnownOffsets:
        return KnownOffsets(self.generation, self.highest)

    def note(self, tip: Tip, asked: KnownOffsets) -> bool:
        """Take note of the end of the history; says whether offsets have begun anew with it.

        An end that went back is that of a store that was replaced by an older copy.

        Args:
            asked: What was known before it was asked for.
        """
        known_before = self.epoch
        back = tip.offset < asked.highest and asked.generation == self.generation
        if anew := tip.epoch != self.epoch or back:
            self.epoch = tip.epoch
            self.highest = 0
            self.generation += 1
        self.highest = max(self.highest, tip.offset)
        return anew and bool(known_before)
