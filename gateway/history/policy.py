"""What a channel rule keeps of a topic."""

from typing import Protocol


class HistoryPolicy(Protocol):
    """``history = { messages = 100, seconds = 300 }`` of a channel rule."""

    @property
    def messages(self) -> int:
        """How many messages a client may have missed and still get all; at least 1."""

    @property
    def seconds(self) -> float:
        """How old a position may be; more than 0."""
