"""Listeners that get what members of topics get, and are none themselves: in no count, and in no limit."""

from typing import Protocol

from gateway.hub.broadcast import Broadcast


class Tap(Protocol):
    """Somebody who looks on."""

    def offer(self, message: Broadcast) -> None:
        """A message of a topic that is tapped has come to this replica; never waits."""

    def lost(self) -> None:
        """Messages of such a topic are gone before they could be read."""


class Taps:
    """The taps of a replica; they are few, so each message is compared with all of them.

    Attributes:
        open: By tap its topic, or what the topics begin with, and which of both it is. While it is empty,
            taps cost a message nothing but a look at it.
    """

    def __init__(self) -> None:
        self.open: dict[Tap, tuple[str, bool]] = {}

    def add(self, tap: Tap, name: str, *, prefix: bool) -> None:
        """Offer the messages that come from now on, of one topic or of all that begin with ``name``."""
        self.open[tap] = name, prefix

    def remove(self, tap: Tap) -> None:
        """Offer nothing more. Idempotent."""
        self.open.pop(tap, None)

    def offer(self, message: Broadcast) -> None:
        """A message came."""
        for tap in self._of(message.topic):
            tap.offer(message)

    def lost(self, topic: str) -> None:
        """Messages of a topic are gone."""
        for tap in self._of(topic):
            tap.lost()

    def _of(self, topic: str) -> list[Tap]:
        return [
            tap
            for tap, (name, prefix) in self.open.items()
            if (topic.startswith(name) if prefix else topic == name)
        ]
