"""Handles clients' pushes: broadcasts or stores them, asks the backend, or updates a presence."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import structlog

from gateway.audience import Audience
from gateway.auth.claims import Claims
from gateway.auth.rules import Rule
from gateway.channels.callbacks import Callbacks, CallingSocket
from gateway.errors import BusError, EnvelopeTooLarge
from gateway.protocol.effects import Effect, Forward, UpdatePresence
from gateway.protocol.messages import EMPTY_OBJECT, Json
from gateway.protocol.reasons import Reason
from gateway.protocol.reserved import is_reserved_event, name_fits
from gateway.protocol.socket import Socket
from gateway.relay import Relay
from gateway.sessions.client import Client
from gateway.sessions.presence import MetaTooLarge, Presences
from gateway.upstream.answers import PushAnswer

_log = structlog.get_logger(__name__)


class PushingSocket(CallingSocket, Client, Protocol):
    """A socket as its pushes need it."""

    state: Json

    @property
    def core(self) -> Socket: ...

    def perform(self, effects: list[Effect]) -> None: ...


class Pushes:
    """The pushes of a replica's sockets.

    Args:
        revoked: Whether the token behind some claims was revoked.
        reserved: Counts messages of a backend that nobody may broadcast.
    """

    def __init__(
        self,
        relay: Relay,
        callbacks: Callbacks,
        presences: Presences,
        *,
        revoked: Callable[[Claims], bool],
        reserved: Callable[[], None],
    ) -> None:
        self._relay = relay
        self._callbacks = callbacks
        self._presences = presences
        self._revoked = revoked
        self._reserved = reserved

    def forward(self, socket: PushingSocket, push: Forward, rule: Rule) -> list[Effect]:
        """Do with a push what the rule says; what has to be waited for answers later."""
        refused: Reason | None
        if rule.push != "upstream" and rule.history is None:
            refused = self._send(socket, push, rule)
        elif push.binary:
            # a callback is JSON, which bytes are not; and binary frames have no place for a position
            refused = Reason.PUSH_NOT_ALLOWED
        elif self._callbacks.queue(
            socket,
            partial(self._in_turn, socket, push, rule),
            len(push.payload) + len(push.ref),
            push.topic,
        ):
            return []
        else:
            refused = Reason.RATE_LIMITED
        return socket.core.push_answered(push.topic, push.attempt, push.ref, refused=refused)

    def update_presence(
        self, socket: PushingSocket, ask: UpdatePresence, base: Json
    ) -> list[Effect]:
        """Change what others see of the client.

        Args:
            base: What the backend wants shown of it there.
        """
        refused: Reason | None = None
        try:
            self._presences.update(ask.topic, socket, ask.meta, base)
        except MetaTooLarge:
            refused = Reason.PAYLOAD_TOO_LARGE
        except ValueError:
            refused = Reason.MALFORMED
        return socket.core.push_answered(ask.topic, ask.attempt, ask.ref, refused=refused)

    async def _in_turn(self, socket: PushingSocket, push: Forward, rule: Rule) -> None:
        """Store a push or ask the backend, unless its client was thrown out while it waited."""
        if socket.claims is not None and self._revoked(socket.claims):
            self._callbacks.not_handed_over(1)
            return
        refused: Reason | Json | None
        response: Json = EMPTY_OBJECT
        if rule.push == "upstream":
            refused, response = await self._ask_backend(socket, push, rule)
        else:
            refused = await self._store(socket, push.topic, push.event, push.payload, rule)
        socket.perform(
            socket.core.push_answered(
                push.topic, push.attempt, push.ref, refused=refused, response=response
            )
        )

    async def _ask_backend(
        self, socket: PushingSocket, push: Forward, rule: Rule
    ) -> tuple[Reason | Json | None, Json]:
        """Have the backend answer a push, and publish what it wants broadcast; why not, and the response."""
        answer = await self._callbacks.push(socket, push.topic, push.event, push.payload, rule)
        if not isinstance(answer, PushAnswer):
            return answer, EMPTY_OBJECT
        refused: Reason | None = None
        for message in answer.broadcast:
            if is_reserved_event(message.event) or not name_fits(message.event):
                self._reserved()
                _log.warning(
                    "broadcast of a backend dropped", problem="reserved event", throttle=""
                )
                continue
            failed = await self._store(
                socket, push.topic, message.event, message.payload, rule, message_id=message.id
            )
            refused = refused or failed
        return refused, answer.response

    def _send(self, socket: Client, push: Forward, rule: Rule) -> Reason | None:
        """Send a push to a topic without history; returns why it was not sent."""
        try:
            self._relay.send(
                push.topic,
                push.event,
                push.payload,
                binary=push.binary,
                audience=_audience(socket, rule),
            )
        except EnvelopeTooLarge:
            return Reason.PAYLOAD_TOO_LARGE
        except BusError:
            return Reason.BUS_UNAVAILABLE
        return None

    async def _store(
        self,
        socket: Client,
        topic: str,
        event: str,
        payload: Json,
        rule: Rule,
        *,
        message_id: str | None = None,
    ) -> Reason | None:
        """Send a message to a topic, stored first where its rule keeps history; returns why it was not."""
        try:
            audience = _audience(socket, rule)
            await self._relay.publish(
                topic, event, payload, audience=audience, message_id=message_id
            )
        except EnvelopeTooLarge:
            return Reason.PAYLOAD_TOO_LARGE
        except BusError:
            return Reason.BUS_UNAVAILABLE
        return None


def _audience(socket: Client, rule: Rule) -> Audience | None:
    return None if rule.echo else Audience(frozenset((socket.id,)))
