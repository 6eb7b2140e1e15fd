"""An operator's view of messages as they come: of one topic, or of what reaches this replica on many.

A tail is no socket: it is in no presence, counts in no limit and needs no channel rule. It never holds
up what it looks at: where its reader is slower than the messages, it misses some, and says how many.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from gateway.errors import TooManyTails
from gateway.history.base import Stored
from gateway.history.position import Position, encode
from gateway.history.resume import After, FromNow, Loss, without_history
from gateway.hub.broadcast import Broadcast
from gateway.leases import Lease
from gateway.relay import Relay

MAX_TAILS: Final = 32
"""Tails of one replica at once."""

WAITING_BYTES: Final = 1024 * 1024
"""Payload that may wait for one tail's reader; what does not fit is missed."""

MESSAGE_BYTES: Final = 256
"""What a waiting message counts beside its payload."""

MissReason: TypeAlias = Literal["slow", "history", "bus"]


class TailStarted(msgspec.Struct, frozen=True):
    """The first event of a tail, as a join that resumes is answered.

    Attributes:
        recovered: Whether all that came after the position asked for follows; None when none was.
        reason: Why not, or that nothing is kept.
        position: Where it starts; empty where nothing is kept, and for patterns.
    """

    recovered: bool | None
    reason: Loss | None
    position: str


class TailMessage(msgspec.Struct, frozen=True, gc=False):
    """A message.

    Attributes:
        time: When it came to this replica; of one that is replayed, when it was stored. Unix seconds.
    """

    message: Broadcast
    time: float


class TailGap(msgspec.Struct, frozen=True, gc=False):
    """Messages are missing here.

    Attributes:
        messages: How many; None where nobody knows, or knows whether there were any.
        reason: The reader was too slow; the history lost them; the bus was away.
    """

    messages: int | None
    reason: MissReason


class TailEnded(msgspec.Struct, frozen=True, gc=False):
    """The last event: this replica has moved its clients away."""


TailEvent: TypeAlias = TailStarted | TailMessage | TailGap | TailEnded


class Tail:
    """One tail, which is to be closed by whoever opened it.

    Attributes:
        follows: Whether it is of one topic whose messages are kept.
        position: Where its reader stands who has taken all; empty unless it follows.
    """

    def __init__(
        self,
        started: TailStarted,
        *,
        follows: bool,
        clock: Callable[[], float],
        dropped: Callable[[int], None],
        close: Callable[["Tail"], None],
    ) -> None:
        self.position = started.position
        self.follows = follows
        self._clock = clock
        self._count_dropped = dropped
        self._close = close
        self._waiting: deque[TailEvent] = deque((started,))
        self._bytes = 0
        self._dropped = 0
        self._wake = asyncio.Event()
        self._wake.set()

    def close(self) -> None:
        """Give back what it holds. Idempotent."""
        self._close(self)

    async def take(self, seconds: float) -> list[TailEvent]:
        """All events that have come since the last call, in order; waits for the first of them.

        Returns:
            The events; none when nothing came for so many seconds.
        """
        if not self._waiting:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
        events = list(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        if self._dropped:
            events.append(TailGap(self._dropped, "slow"))
            self._dropped = 0
        return events

    def offer(self, message: Broadcast) -> None:
        """See :meth:`gateway.hub.taps.Tap.offer`."""
        if self.follows and message.position:
            self.position = message.position[1:-1].decode()
        if message.reminder:
            return
        size = len(message.payload) + MESSAGE_BYTES
        if self._dropped or (self._bytes and self._bytes + size > WAITING_BYTES):
            self._dropped += 1
            self._count_dropped(1)
            return
        self._bytes += size
        self._put(TailMessage(message, self._clock()))

    def replay(self, message: Broadcast, time: float) -> None:
        """A message that was stored before; what is replayed is bounded by the rule that keeps it."""
        self.position = message.position[1:-1].decode()
        self._put(TailMessage(message, time))

    def lost(self) -> None:
        """See :meth:`gateway.hub.taps.Tap.lost`."""
        self._put(TailGap(None, "history"))

    def bus_returned(self) -> None:
        """The bus was away: of what is not kept, nobody knows what was published meanwhile."""
        if not self.follows:
            self._put(TailGap(None, "bus"))

    def end(self) -> None:
        """Nothing more comes."""
        self._put(TailEnded())

    def _put(self, event: TailEvent) -> None:
        self._waiting.append(event)
        self._wake.set()


class Tails:
    """The tails of a replica.

    Args:
        clock: Unix seconds.
        dropped: Counts messages that a tail's reader was too slow for.
    """

    def __init__(
        self, relay: Relay, *, clock: Callable[[], float], dropped: Callable[[int], None]
    ) -> None:
        self._relay = relay
        self._clock = clock
        self._dropped = dropped
        self._open: dict[Tail, Lease | None] = {}
        self._opening = 0

    def __len__(self) -> int:
        return len(self._open)

    def bus_changed(self, connected: bool) -> None:
        """The bus came up, or went down."""
        if connected:
            for tail in self._open:
                tail.bus_returned()

    def end(self) -> None:
        """Tell all that there is nothing more to come."""
        for tail in self._open:
            tail.end()

    def open_pattern(self, prefix: str) -> Tail:
        """Tail what reaches this replica on topics that begin with a prefix, from now on.

        That is what has members here, and what lingers for some seconds after the last of them.

        Raises:
            TooManyTails: So many are open.
        """
        self._require_room()
        tail = self._made(TailStarted(None, None, ""), follows=False)
        self._open[tail] = None
        self._relay.taps.add(tail, prefix, prefix=True)
        return tail

    async def open_topic(self, topic: str, after: Position | None = None) -> Tail:
        """Tail all that is published on a topic, on whichever replica, from now on or from a position on.

        Raises:
            TooManyTails: So many are open.
            BusError: The bus or the store does not answer.
        """
        self._require_room()
        self._opening += 1
        try:
            lease = await self._relay.subscribe(topic)
            try:
                tail = await self._opened(topic, after)
            except BaseException:
                lease.close()
                raise
            self._open[tail] = lease
            self._relay.taps.add(tail, topic, prefix=False)
        finally:
            self._opening -= 1
        return tail

    async def _opened(self, topic: str, after: Position | None) -> Tail:
        """A tail that has all up to the present turn of the event loop."""
        relay = self._relay
        request = FromNow() if after is None else After(after)
        if relay.policy(topic) is None:
            nothing = without_history(request)
            return self._made(TailStarted(nothing.recovered, nothing.reason, ""), follows=False)
        outcome, recent = await relay.resumer.resume(topic, request, None)
        replay = [*outcome.replay, *recent]
        reached = _after(replay, outcome.position)
        generation = relay.follower.generation(topic)
        if not relay.follower.level(topic, reached.offset):
            # the reader was further on another replica than this one is
            while missed := await relay.follower.catch_up(topic, generation, reached):
                replay += missed
                reached = _after(missed, reached)
        started = TailStarted(outcome.recovered, outcome.reason, encode(outcome.position))
        tail = self._made(started, follows=True)
        for stored in replay:
            if (broadcast := relay.broadcast(topic, stored)) is not None:
                tail.replay(broadcast, stored.time)
        relay.follower.resuming(topic, 1)  # so that its position does not grow old in a quiet topic
        return tail

    def _made(self, started: TailStarted, *, follows: bool) -> Tail:
        return Tail(
            started, follows=follows, clock=self._clock, dropped=self._dropped, close=self._close
        )

    def _require_room(self) -> None:
        if len(self._open) + self._opening >= MAX_TAILS:
            raise TooManyTails(MAX_TAILS)

    def _close(self, tail: Tail) -> None:
        if tail not in self._open:
            return
        lease = self._open.pop(tail)
        topic, _ = self._relay.taps.open[tail]
        self._relay.taps.remove(tail)
        if tail.follows:
            self._relay.follower.resuming(topic, -1)
        if lease is not None:
            lease.close()


def _after(messages: Sequence[Stored], position: Position) -> Position:
    """Where one stands who stood at a position and got some messages."""
    if not messages:
        return position
    return Position(position.epoch, messages[-1].offset, messages[-1].time)
