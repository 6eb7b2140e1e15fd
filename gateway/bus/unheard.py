"""Learns from a NATS server which messages met no subscriber ("no responders", NATS ADR-4)."""

import secrets
from itertools import count
from typing import Final

from gateway.bus.base import Unheard

REMEMBERED: Final = 10_000
"""Messages remembered at most; a server answers within a round trip, if it answers at all."""

_NO_RESPONDERS: Final = b"NATS/1.0 503"


class UnheardInbox:
    """One wildcard subscription whose subjects end with a number, one number for each message.

    Args:
        prefix: First token of the subject, so that permissions on ``prefix.>`` are enough.

    Attributes:
        subject: What to subscribe to.
        number: The subscription's number on its connection; 0 before it was made.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = f"{prefix}.unheard.{secrets.token_hex(8)}."
        self._waiting: dict[str, Unheard] = {}
        self._numbers = count()
        self.subject = f"{self._prefix}*"
        self.number = 0

    def expect(self, unheard: Unheard) -> str:
        """The reply subject of a message whose sender wants to know."""
        if len(self._waiting) >= REMEMBERED:
            del self._waiting[
                next(iter(self._waiting))
            ]  # the oldest was heard: nothing came for it
        subject = f"{self._prefix}{next(self._numbers)}"
        self._waiting[subject] = unheard
        return subject

    def answered(self, subject: str, headers: bytes) -> None:
        """A message came to one of the reply subjects."""
        unheard = self._waiting.pop(subject, None)
        if unheard is not None and headers.startswith(_NO_RESPONDERS):
            unheard()
