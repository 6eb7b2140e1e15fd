"""Learns from a NATS server which messages met no subscriber ("no responders", NATS ADR-4)."""

import secrets
from itertools import count
from typing import Final

from gateway.bus.base import NoResponders

_NO_RESPONDERS: Final = b"NATS/1.0 503"


class NoRespondersInbox:
    """One wildcard subscription whose subjects end with a number, one number for each message.

    Args:
        prefix: First token of the subject, so that permissions on ``prefix.>`` are enough.

    Attributes:
        subject: What to subscribe to.
        number: The subscription's id on the connection; 0 before it was made.
        refusal: The server's words while it does not have the subscription; else empty.
    """

    closed = False

    def __init__(self, prefix: str) -> None:
        self._prefix = f"{prefix}.unheard.{secrets.token_hex(8)}."
        self._waiting: dict[str, NoResponders] = {}
        self._numbers = count()
        self.subject = f"{self._prefix}*"
        self.number = 0
        self.refusal = ""

    def __len__(self) -> int:
        """How many messages are remembered: those whose sender still waits to be told."""
        return len(self._waiting)

    def expect(self, no_responders: NoResponders) -> str:
        """The reply subject of a message whose sender wants to know, until that is done or cancelled."""
        subject = f"{self._prefix}{next(self._numbers)}"
        self._waiting[subject] = no_responders
        no_responders.add_done_callback(lambda _: self._waiting.pop(subject))
        return subject

    def receive(self, subject: bytes, headers: bytes, _body: bytes) -> None:
        """A message came to one of the reply subjects."""
        waiting = self._waiting.get(subject.decode())
        if waiting is not None and headers.startswith(_NO_RESPONDERS) and not waiting.done():
            waiting.set_result(None)
