"""How much the POSTs of one long-poll session may hold in memory until they were handled."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

MAX_BODY_BYTES: Final = 2 * 1024 * 1024
"""A batch of messages, at most."""

MAX_WAITING_BYTES: Final = 2 * MAX_BODY_BYTES
"""All batches of one session under way on this replica, the one being handled among them."""

LEAST_BYTES: Final = 4096
"""What any POST counts for: a connection, a request and a task are there whatever it says."""


class Waiting:
    """The bytes under way, by session."""

    def __init__(self) -> None:
        self._bytes: dict[str, int] = {}

    def __len__(self) -> int:
        """Sessions that have POSTs under way."""
        return len(self._bytes)

    @contextmanager
    def one_more(self, session: str, length: int | None) -> Iterator[bool]:
        """Whether there is room for one more POST, which is over when the block is.

        Args:
            length: Of its body; None where it does not say.
        """
        size = MAX_BODY_BYTES if length is None else min(max(length, LEAST_BYTES), MAX_BODY_BYTES)
        there = self._bytes.get(session, 0)
        if there + size > MAX_WAITING_BYTES:
            yield False
            return
        self._bytes[session] = there + size
        try:
            yield True
        finally:
            left = self._bytes.pop(session) - size
            if left:
                self._bytes[session] = left
