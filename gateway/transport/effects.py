"""Carries out what the protocol core decides for one socket."""

from typing import TYPE_CHECKING, assert_never

from gateway.protocol.effects import (
    Activate,
    Authorize,
    Close,
    Effect,
    Forward,
    Refresh,
    RefuseJoin,
    Resume,
    Send,
    Subscribe,
    Unsubscribe,
    UpdatePresence,
)
from gateway.transport import joins, pushes
from gateway.transport.credentials import refresh

if TYPE_CHECKING:
    from gateway.transport.connection import Connection

BACKEND_REFUSED = "upstream refused"
"""Result of a join that a backend refused in its own words, as a metric label."""


async def perform(connection: "Connection", effects: list[Effect]) -> None:
    """Carry out effects in order; what follows from one is appended and comes after the rest."""
    core = connection.core
    for effect in effects:
        match effect:
            case Send():
                connection.send(connection.encoding.outgoing(effect.message))
            case Forward():
                effects += await pushes.forward(connection, effect)
            case Authorize():
                effects += joins.authorize(connection, effect)
            case Subscribe():
                effects += joins.subscribe(connection, effect)
            case Activate():
                joins.activate(connection, effect)
            case Resume():
                effects += core.resume(effect.topic, effect.attempt)
            case RefuseJoin():
                label = BACKEND_REFUSED if effect.reason is None else effect.reason.value
                connection.endpoint.metrics.joins.labels(label).inc()
                connection.send(connection.encoding.outgoing(effect.message))
            case Unsubscribe():
                joins.unsubscribe(connection, effect)
            case UpdatePresence():
                effects += pushes.update_presence(connection, effect)
            case Refresh():
                effects += refresh(connection, effect)
            case Close():
                connection.close(effect.code)
            case _:
                assert_never(effect)
    connection.departed = None  # what replaces a channel stands in the same list as its end
