"""Replays to a client what it missed, no faster than it reads, and then makes it a member."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from gateway.channels.membership import Membership, Recall
from gateway.errors import BusError
from gateway.history.base import Stored
from gateway.history.position import Position
from gateway.hub.broadcast import Outlet
from gateway.log import background_error
from gateway.relay import Relay

AT_ONCE_BYTES: Final = 64 * 1024
"""Messages written in a row; more has to wait until the client has read some."""

POLL_SECONDS: Final = 0.01
"""How often a client that reads slowly is looked at."""

_log = structlog.get_logger(__name__)


class ReplaySocket(Outlet, Protocol):
    """A socket as a replay needs it."""

    def buffered(self) -> int: ...

    def send(self, data: bytes) -> None: ...


class Replays:
    """The replays of a replica.

    Args:
        delivered: Counts messages handed to sockets.
    """

    def __init__(self, relay: Relay, delivered: Callable[[int], None]) -> None:
        self._relay = relay
        self._delivered = delivered

    def begin(self, socket: ReplaySocket, topic: str, member: Membership, recall: Recall) -> None:
        """Send what fits at once, and make the client a member; else go on in a task.

        To be called in the turn of the event loop in which the resume was answered.
        """
        relay = self._relay
        reached = _after(recall.messages, recall.outcome.position)
        rest = self._write(socket, topic, member, recall.messages)
        if not rest and relay.follower.level(topic, reached.offset):
            relay.add(topic, member)
            return
        generation = relay.follower.generation(topic)
        member.replaying = asyncio.create_task(
            self._replay(socket, topic, member, rest, reached=reached, generation=generation)
        )

    async def _replay(
        self,
        socket: ReplaySocket,
        topic: str,
        member: Membership,
        rest: Sequence[Stored],
        *,
        reached: Position,
        generation: int,
    ) -> None:
        """Write what is left as the client reads, then what came meanwhile, until there is nothing more."""
        relay = self._relay
        try:
            while True:
                while rest:
                    await _drained(socket)
                    if not relay.follower.goes_on(topic, generation):
                        break  # what is left has no place any more; catching up says so
                    rest = self._write(socket, topic, member, rest)
                rest = await relay.follower.catch_up(topic, generation, reached)
                if not rest:
                    break
                reached = _after(rest, reached)
        except Exception as problem:  # noqa: BLE001 -- top of this task: logged, and the client joins again
            if isinstance(problem, BusError):
                _log.warning("replay broken off", problem=str(problem), throttle="")
            else:
                _log.exception("replay crashed", throttle="")
            socket.rejoin(topic, member)
            return
        member.replaying = None
        relay.add(topic, member)

    def _write(
        self, socket: ReplaySocket, topic: str, member: Membership, messages: Sequence[Stored]
    ) -> Sequence[Stored]:
        """Write the first of some messages, joined; returns the rest."""
        encoding = member.encoding
        parts: list[bytes] = []
        size = taken = 0
        for message in messages:
            if taken and size + len(message.body) > AT_ONCE_BYTES:
                break
            taken += 1
            size += len(message.body)
            try:
                broadcast = self._relay.broadcast(topic, message)
                if broadcast is None:
                    continue
                member.position = broadcast.position
                audience = broadcast.audience
                if audience is None or audience.admits(socket.id, socket.device):
                    data = encoding.broadcast(broadcast, shared=False)
                    if data is not None:
                        parts.append(data)
            except Exception as problem:  # noqa: BLE001 -- else all who resume would stop before it for ever
                background_error("replay", problem)
        if parts:
            socket.send(b"".join(parts))
            self._delivered(len(parts))
        return messages[taken:]


def _after(messages: Sequence[Stored], position: Position) -> Position:
    """Where one stands who stood at a position and was sent some messages."""
    if not messages:
        return position
    return Position(position.epoch, messages[-1].offset, messages[-1].time)


async def _drained(socket: ReplaySocket) -> None:
    # whoever carries the bytes is told when there is room again, and nobody else
    while socket.buffered() > AT_ONCE_BYTES:  # noqa: ASYNC110
        await asyncio.sleep(POLL_SECONDS)
