"""How much a run measures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True)
class Settings:
    """The amounts.

    Attributes:
        rounds: How often each server is measured, by turns.
        subscribers: Of the one topic of ``fanout``.
        rates: Messages a second that are published to it, the calmest first.
        seconds: For how long at each rate.
        connects: Clients of ``connect`` that come at once.
        sizes: Numbers of subscribers of ``sizes``.
        paced: Deliveries a second of ``sizes`` and of ``topics``, however many subscribers there are.
        topics: Topics of two of ``topics``.
        settle_seconds: Quiet time before memory is read.
        share: What the amounts of Gateway alone are divided by.
    """

    rounds: int = 3
    subscribers: int = 2000
    rates: Sequence[float] = (10, 60, 200)
    seconds: float = 3.0
    connects: int = 5000
    sizes: Sequence[int] = (1000, 5000, 15_000)
    paced: float = 20_000
    topics: int = 10_000
    settle_seconds: float = 1.0
    share: int = 1

    def within(self, descriptors: int) -> "Settings":
        """The same with as few topics as a process with so many descriptors bears."""
        return replace(self, topics=min(self.topics, (descriptors - 500) // 2))


FULL: Final = Settings()

QUICK: Final = Settings(
    rounds=1,
    subscribers=50,
    rates=(20, 60),
    seconds=0.3,
    connects=100,
    sizes=(20, 40),
    paced=800,
    topics=50,
    settle_seconds=0.1,
    share=50,
)
"""Whether it works; its figures mean nothing."""
