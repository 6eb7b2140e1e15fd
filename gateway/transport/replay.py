"""What a client missed, written to it before it becomes a member: as fast as it reads, and no faster."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import structlog

from gateway.errors import BusError, HistoryUnavailable
from gateway.history.base import Stored
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
    def reached(self) -> int:
        """Offset where the client stands when it was sent all of them."""
        return self.messages[-1].offset if self.messages else self.outcome.position.offset


def begin(connection: "Connection", topic: str, member: Membership, recall: Recall) -> None:
    """Send what fits at once, and make the client a member; else go on in a task."""
    relay = connection.endpoint.relay
    rest = _write(connection, topic, member, recall.messages)
    if not rest and relay.follower.level(topic, recall.reached):
        relay.add(topic, member)
        return
    member.replaying = asyncio.create_task(_replay(connection, topic, member, rest, recall.reached))


async def _replay(
    connection: "Connection",
    topic: str,
    member: Membership,
    rest: Sequence[Stored],
    reached: int,
) -> None:
    """Write what is left as the client reads, then what came meanwhile, until there is nothing more."""
    relay = connection.endpoint.relay
    follower = relay.follower
    epoch = follower.epoch
    read_upto = 0
    try:
        while True:
            while rest:
                await _drained(connection)
                rest = _write(connection, topic, member, rest)
            if follower.epoch != epoch:
                raise HistoryUnavailable("unavailable", "offsets began anew")
            if not follower.level(topic, reached):
                # the client was further elsewhere than this replica is
                await asyncio.sleep(POLL_SECONDS)
                continue
            recent = follower.since(topic, reached, read_upto)
            if recent is None:  # it read so slowly that memory has moved on
                rest, read_upto = await follower.read(topic, reached)
            elif not recent:
                break
            else:
                rest = recent
            reached = rest[-1].offset if rest else reached
    except Exception as problem:  # noqa: BLE001 -- top of this task: logged, and the client joins again
        if isinstance(problem, BusError):
            _log.warning("replay broken off", problem=type(problem).__name__)
        else:
            _log.exception("replay crashed")
        await connection.perform(connection.core.crash(topic, member.attempt))
        return
    member.replaying = None
    relay.add(topic, member)


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
