"""Pushes of one socket: broadcast, handed to the backend, or a change of what is shown of the client."""

from functools import partial
from typing import TYPE_CHECKING

import structlog

from gateway.auth.rules import Rule
from gateway.errors import BusError, EnvelopeTooLarge
from gateway.hub.broadcast import Audience
from gateway.protocol.effects import Effect, Forward, UpdatePresence
from gateway.protocol.messages import EMPTY_OBJECT, Json
from gateway.protocol.reasons import Reason
from gateway.protocol.reserved import is_reserved_event, name_fits
from gateway.sessions.presence import MetaTooLarge
from gateway.upstream.answers import PushAnswer

if TYPE_CHECKING:
    from gateway.transport.connection import Connection

_log = structlog.get_logger(__name__)


async def forward(connection: "Connection", push: Forward) -> list[Effect]:
    """Do with a push what the rule says; the backend's answer comes later."""
    rule = connection.members[push.topic].rule
    refused: Reason | None
    if rule.push != "upstream" and rule.history is None:
        refused = await _publish(
            connection, push.topic, push.event, push.payload, rule=rule, binary=push.binary
        )
    elif push.binary:
        # a callback is JSON, which bytes are not; and binary frames have no place for a position
        refused = Reason.PUSH_NOT_ALLOWED
    elif connection.endpoint.callbacks.queue(
        connection,
        partial(_in_turn, connection, push, rule),
        len(push.payload) + len(push.ref),
        push.topic,
    ):
        return []
    else:
        refused = Reason.RATE_LIMITED
    return connection.core.push_answered(push.topic, push.attempt, push.ref, refused=refused)


def update_presence(connection: "Connection", ask: UpdatePresence) -> list[Effect]:
    """Change what others see of the client."""
    refused: Reason | None = None
    base = connection.members[ask.topic].presence
    try:
        connection.endpoint.presences.update(ask.topic, connection, ask.meta, base)
    except MetaTooLarge:
        refused = Reason.PAYLOAD_TOO_LARGE
    except ValueError:
        refused = Reason.MALFORMED
    return connection.core.push_answered(ask.topic, ask.attempt, ask.ref, refused=refused)


async def _in_turn(connection: "Connection", push: Forward, rule: Rule) -> None:
    """Store a push or ask the backend, unless its client was thrown out while it waited."""
    if connection.claims is not None and connection.endpoint.revoked(connection.claims):
        connection.endpoint.pushes_dropped(1)
        return
    await (_ask_backend if rule.push == "upstream" else _store)(connection, push, rule)


async def _store(connection: "Connection", push: Forward, rule: Rule) -> None:
    """Answer when the message is stored; heartbeats do not wait for that."""
    refused = await _publish(connection, push.topic, push.event, push.payload, rule=rule)
    await connection.perform(
        connection.core.push_answered(push.topic, push.attempt, push.ref, refused=refused)
    )


async def _ask_backend(connection: "Connection", push: Forward, rule: Rule) -> None:
    """Have the backend answer a push, and publish what it wants broadcast."""
    refused: Reason | Json | None = None
    response: Json = EMPTY_OBJECT
    answer = await connection.endpoint.callbacks.push(
        connection, push.topic, push.event, push.payload, rule
    )
    if isinstance(answer, PushAnswer):
        response = answer.response
        for message in answer.broadcast:
            if is_reserved_event(message.event) or not name_fits(message.event):
                connection.endpoint.metrics.messages_dropped.labels("reserved_event").inc()
                _log.warning("broadcast of a backend dropped", problem="reserved event")
                continue
            failed = await _publish(
                connection, push.topic, message.event, message.payload, rule=rule
            )
            refused = refused or failed
    else:
        refused = answer
    await connection.perform(
        connection.core.push_answered(
            push.topic, push.attempt, push.ref, refused=refused, response=response
        )
    )


async def _publish(
    connection: "Connection",
    topic: str,
    event: str,
    payload: bytes,
    *,
    rule: Rule,
    binary: bool = False,
) -> Reason | None:
    """Send a message to the topic; returns why it was not sent."""
    relay = connection.endpoint.relay
    audience = None if rule.echo else Audience(frozenset((connection.id,)))
    try:
        if rule.history is None:
            relay.send(topic, event, payload, binary=binary, audience=audience)
        else:
            await relay.store(topic, event, payload, audience=audience)
    except EnvelopeTooLarge:
        return Reason.PAYLOAD_TOO_LARGE
    except BusError:
        return Reason.BUS_UNAVAILABLE
    return None
