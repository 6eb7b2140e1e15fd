"""What happened when, so that a message that went astray can be seen beside the fault that did it."""

import time
from typing import NamedTuple

AROUND_SECONDS = 3.0


class Entry(NamedTuple):
    """Something that happened.

    Attributes:
        at: Seconds since the beginning.
        client: Whom it happened to; None for all.
    """

    at: float
    client: int | None
    what: str


class Timeline:
    """All entries of a run, in order."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.entries: list[Entry] = []

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started

    def note(self, what: str, client: int | None = None) -> None:
        """Something happened just now."""
        self.entries.append(Entry(self.now(), client, what))

    def around(self, start: float, end: float, client: int) -> list[str]:
        """What happened to a client or to all, shortly before, within and after a time."""
        first, last = start - AROUND_SECONDS, end + AROUND_SECONDS
        return [
            f"{entry.at:8.3f}  {entry.what}"
            for entry in self.entries
            if first <= entry.at <= last and entry.client in (None, client)
        ]

    def faults(self) -> list[str]:
        """What happened to all."""
        return [f"{entry.at:8.3f}  {entry.what}" for entry in self.entries if entry.client is None]
