"""What a channel rule keeps of a topic."""

from typing import Final, Protocol

RETENTION_SLACK_SECONDS: Final = 60.0
"""How much longer than any rule says the store keeps messages."""


class HistoryPolicy(Protocol):
    """``history = { messages = 100, seconds = 300 }`` of a channel rule."""

    @property
    def messages(self) -> int:
        """How many messages a client may have missed and still get all; at least 1."""

    @property
    def seconds(self) -> float:
        """How old a position may be; more than 0."""
