"""What a client missed, written to it before it becomes a member: as fast as it reads, and no faster."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import structlog

from gateway.errors import BusError
from gateway.history.base import Stored
from gateway.history.position import Position
from gateway.history.resume import Outcome
from gateway.transport.membership import Membership

if TYPE_CHECKING:
    from gateway.transport.connection import Connection

AT_ONCE_BYTES: Final = 64 * 1024
"""Messages written in a row; more has to wait until the client has read some."""

POLL_SECONDS: Final = 0.01
"""How often a client that reads slowly is looked at."""

_log = structlog.get_logger(__name__)


class Recall:
    """What a join's ``resume`` was answered, and what it is to be sent.

    Attributes:
        outcome: As the reply says.
        messages: To be sent before anything else, in order.
    """

    __slots__ = ("messages", "outcome")

    def __init__(self, outcome: Outcome, tail: Sequence[Stored]) -> None:
        self.outcome = outcome
        self.messages = [*outcome.replay, *tail]

    @property
    def reached(self) -> Position:
        """Where the client stands when it was sent all of them."""
        return _after(self.messages, self.outcome.position)


def begin(connection: "Connection", topic: str, member: Membership, recall: Recall) -> None:
    """Send what fits at once, and make the client a member; else go on in a task.

    To be called in the turn of the event loop in which the resume was answered.
    """
    relay = connection.endpoint.relay
    rest = _write(connection, topic, member, recall.messages)
    if not rest and relay.follower.level(topic, recall.reached.offset):
        relay.add(topic, member)
        return
    generation = relay.follower.generation(topic)
    member.replaying = asyncio.create_task(
        _replay(connection, topic, member, rest, reached=recall.reached, generation=generation)
    )


async def _replay(
    connection: "Connection",
    topic: str,
    member: Membership,
    rest: Sequence[Stored],
    *,
    reached: Position,
    generation: int,
) -> None:
    """Write what is left as the client reads, then what came meanwhile, until there is nothing more."""
    relay = connection.endpoint.relay
    try:
        while True:
            while rest:
                await _drained(connection)
                if not relay.follower.goes_on(topic, generation):
                    break  # what is left has no place any more; catching up says so
                rest = _write(connection, topic, member, rest)
            rest = await relay.follower.catch_up(topic, generation, reached)
            if not rest:
                break
            reached = _after(rest, reached)
    except Exception as problem:  # noqa: BLE001 -- top of this task: logged, and the client joins again
        if isinstance(problem, BusError):
            _log.warning("replay broken off", problem=str(problem))
        else:
            _log.exception("replay crashed")
        connection.rejoin(topic, member)
        return
    member.replaying = None
    relay.add(topic, member)


def _after(messages: Sequence[Stored], position: Position) -> Position:
    """Where one stands who stood at a position and was sent some messages."""
    if not messages:
        return position
    return Position(position.epoch, messages[-1].offset, messages[-1].time)


def _write(
    connection: "Connection", topic: str, member: Membership, messages: Sequence[Stored]
) -> Sequence[Stored]:
    """Write the first of some messages, joined; returns the rest."""
    relay, encoding = connection.endpoint.relay, member.encoding
    parts: list[bytes] = []
    size = taken = 0
    for message in messages:
        if taken and size + len(message.body) > AT_ONCE_BYTES:
            break
        taken += 1
        size += len(message.body)
        broadcast = relay.broadcast(topic, message)
        if broadcast is None:
            continue
        member.position = broadcast.position
        audience = broadcast.audience
        if audience is None or audience.admits(connection):
            data = encoding.broadcast(broadcast)
            if data is not None:
                parts.append(data)
    if parts:
        connection.send(b"".join(parts))
        connection.endpoint.metrics.messages_delivered.inc(len(parts))
    return messages[taken:]


async def _drained(connection: "Connection") -> None:
    # aiohttp's protocol is told when there is room again, and nobody else
    while connection.buffered() > AT_ONCE_BYTES:  # noqa: ASYNC110
        await asyncio.sleep(POLL_SECONDS)
