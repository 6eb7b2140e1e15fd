"""Reads the stored history of a topic for the API, page by page, and erases it."""

import asyncio
from typing import Final

from gateway.api.history import HistoryItem, item
from gateway.bus.envelope import EnvelopeError, decode
from gateway.errors import HistoryUnavailable
from gateway.history.base import MessageHistory, Stored
from gateway.history.position import Position, encode
from gateway.history.position import decode as decode_position
from gateway.relay import Relay
from gateway.retention import Retention

NEWER: Final = 100
"""Messages read from the last on that a copy of the store knows: it lags by some at most."""


class StoredArchive:
    """What is kept of topics; for gateways whose rules keep something."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def page(
        self, topic: str, cursor: str | None, limit: int
    ) -> tuple[list[HistoryItem], str, str | None]:
        """See :meth:`gateway.api.history.Archive.page`."""
        history, retention = self._relay.history, self._retention(topic)
        tip = await history.tip()
        end = encode(Position(tip.epoch, tip.offset, tip.time))
        if cursor is None:
            found = await _first(history, topic, retention, limit + 1, tip.offset)
        else:
            position = decode_position(cursor)
            if position.epoch != tip.epoch:
                raise ValueError("of another epoch")
            found = await history.after(topic, position.offset, limit=limit + 1, upto=tip.offset)
        more = len(found) > limit
        oldest = tip.time - retention.seconds
        items = [_item(tip.epoch, m) for m in found[:limit] if m.time >= oldest]
        shown = [each for each in items if each is not None]
        if not more:
            return shown, end, None
        last = found[limit - 1]
        position_of_last = _position(tip.epoch, last)
        return shown, position_of_last, position_of_last

    async def ends(self, topic: str) -> tuple[str | None, str | None]:
        """See :meth:`gateway.api.history.Archive.ends`."""
        history, retention = self._relay.history, self._retention(topic)
        tip = await history.tip()
        known = (await history.last_offsets((topic,))).get(topic, 0)
        first, newest = await asyncio.gather(
            history.after(topic, 0, limit=1, upto=tip.offset),
            # from the last that a copy knows of: it may lag
            history.after(topic, max(known - 1, 0), limit=NEWER, upto=tip.offset),
        )
        if not newest or newest[-1].time < tip.time - retention.seconds:
            return None, None
        oldest = (first or newest)[0]
        return _position(tip.epoch, oldest), _position(tip.epoch, newest[-1])

    async def erase(self, topic: str) -> int:
        """See :meth:`gateway.api.history.Archive.erase`."""
        return await self._relay.erase(topic)

    def _retention(self, topic: str) -> Retention:
        retention = self._relay.policy(topic)
        if retention is None:
            raise HistoryUnavailable("unavailable", "nothing is kept of this topic")
        return retention


async def _first(
    history: MessageHistory, topic: str, retention: Retention, limit: int, upto: int
) -> list[Stored]:
    """The oldest messages that the rule still counts; of a short history not more than it keeps."""
    if retention.messages <= limit:
        return [m for m in await history.newest(topic, retention.messages) if m.offset <= upto]
    return await history.after(topic, 0, limit=limit, upto=upto)


def _item(epoch: str, message: Stored) -> HistoryItem | None:
    """What the API shows of a message; None if this release cannot read it."""
    try:
        envelope = decode(message.body)
    except EnvelopeError:
        return None
    position = _position(epoch, message)
    return item(position, message.time, envelope.event, envelope.payload, envelope.audience)


def _position(epoch: str, message: Stored) -> str:
    return encode(Position(epoch, message.offset, message.time))
