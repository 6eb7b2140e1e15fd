"""Puts a topic's messages in the store's order, each exactly once, whatever copies of them the bus delivers.

Live copies of stored messages come at most once in theory; in practice they are lost with a route, repeated
or late. Each names the message stored before it on the same topic, so a copy that continues what is known
can be delivered at once; any other waits until the store was read. What is lost with nothing after it is
found by the position check.

How to call it. Nothing here waits, reads or looks at a clock; all calls are made in one thread.

1. Make the log when the replica begins to subscribe to the topic, and give it every live copy from then on,
   with :meth:`TopicLog.live`. After the subscription is confirmed, read the store's tip and give it to
   :meth:`TopicLog.baseline`; until then copies wait. What the tip covers is not delivered.
2. Each of these calls returns a :class:`Step`: deliver its messages now, in order; if it wants a fetch, read
   all messages of the topic above ``fetch.after`` and up to ``fetch.upto``, and tell the result with
   :meth:`TopicLog.fetched`, or :meth:`TopicLog.failed`. No other fetch is wanted meanwhile. The read must
   not be stale: what is stored at or below ``fetch.upto`` was stored before the fetch was wanted.
3. Compare the topic's last offset with :meth:`TopicLog.check`: a second after the baseline, after every
   event of the bus, and every 30 seconds. ``time`` is the store's time when the question was sent.
4. A failed fetch is wanted again with the next live copy or check; :meth:`TopicLog.retry`, after a pause,
   makes it sooner.
5. When the epoch changed, :meth:`TopicLog.reset`, and then a check. Answers to questions of before the reset
   must not be told any more (a fetch may: it is recognised). When a step says ``restarted``, the log has
   found out by itself that offsets count anew: look at the epoch, and check. In both cases whoever has a
   replay under way has to join again: its offset is of another counting.

The promise: every message that was stored above the baseline is delivered exactly once, in the store's
order, provided that a later check and the fetches it wants succeed. What the store has given up before it
could be fetched is lost: it was erased, became too old, or as many came after it as are kept. A fetch that
brings less than its range may hold does not tell, since a quiet stretch looks the same. A step is
``doubtful`` when the check before was too long ago, when more was missing than the rule keeps, or when a
message that is known to have been stored is not there. Only a burst of more than that, all copies of which
were lost while the store was read, escapes it.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from gateway.history.base import Stored
from gateway.history.position import CLOCK_SECONDS
from gateway.history.ring import Ring, weight
from gateway.retention import Retention

CONFIRMED_SECONDS: Final = 45.0
"""
How long a check counts: a check is every 30 seconds.

Less than :data:`gateway.retention.SPARE_SECONDS`, because for so long a message whose live copy was lost may
lie after a position that is younger than it.
"""


class FetchRange(msgspec.Struct, frozen=True, gc=False):
    """What is to be read from the store: the topic's messages above ``after``, up to ``upto``."""

    after: int
    upto: int


class Step(msgspec.Struct, frozen=True, gc=False):
    """What is to be done now.

    Attributes:
        deliver: To all members, in this order.
        fetch: To be read from the store.
        doubtful: The store may have given up messages that lie before those delivered here. Make the members
            that resume join again (``phx_error``) before anything is delivered: what they missed is
            judged by their positions.
        restarted: Offsets began anew, so the epoch must have changed, or the store lost its end.
    """

    deliver: Sequence[Stored] = ()
    fetch: FetchRange | None = None
    doubtful: bool = False
    restarted: bool = False


NOTHING: Final = Step()
"""Nothing is to be done."""


class TopicLog:
    """The log of one topic.

    Args:
        retention: What the topic's rule keeps.
        max_bytes: Bound of the messages in the ring, and of those that wait for a fetch.

    Attributes:
        floor: Everything of the topic at or below this offset is done with; None before the baseline.
        ready: Whether ``ring``, ``standing`` and ``vouches`` may be used: not before the baseline, nor after
            a restart until a check, fetch or live copy has shown what there is.
        ring: What was delivered last, for those who join.
    """

    __slots__ = (
        "_began",
        "_confirmed",
        "_fetch",
        "_goal",
        "_held",
        "_held_bytes",
        "_last",
        "_max_bytes",
        "_newest",
        "_retention",
        "_until",
        "floor",
        "ready",
        "ring",
    )

    def __init__(self, retention: Retention, max_bytes: int) -> None:
        self.floor: int | None = None
        self.ready = False
        self._retention = retention
        self._max_bytes = max_bytes
        self.ring = Ring(retention, max_bytes)
        # Of the last message delivered, or where the log began: unlike the floor, never another topic's.
        self._last = 0
        # Everything up to this offset is known to exist and has to be done with.
        self._goal = 0
        self._fetch: FetchRange | None = None
        # Waiting for what is before them, by offset; a topic without trouble has no dict.
        self._held: dict[int, tuple[int, Stored]] | None = None
        self._held_bytes = 0
        # The store's time when the log was last known to lack nothing.
        self._confirmed = 0.0
        # Nothing that was delivered is younger than this.
        self._newest = 0.0
        # After offsets began anew: what was stored up to this time was delivered under its old offset.
        self._until = 0.0
        self._began = 0.0

    def baseline(self, offset: int, time: float) -> Step:
        """Begin above the last offset of the stream; a second baseline changes nothing.

        Args:
            time: The store's, when that was its last offset.
        """
        if self.floor is not None:
            return NOTHING
        self.floor = self._last = offset
        self.ready = True
        self._began = self._confirmed = time
        self._newest = time
        self.ring.restart(offset, time)
        return self._proceed([])

    def live(self, offset: int, previous: int, time: float, body: bytes) -> Step:
        """A live copy.

        Args:
            previous: Offset of the message stored before it on this topic; 0 when the store had none.
            time: When it was stored.
        """
        floor = self.floor
        if floor is None:
            self._hold(previous, Stored(offset, time, body))
            return NOTHING
        restarted = False
        if offset <= floor:
            if time <= self._newest + CLOCK_SECONDS:
                return NOTHING  # repeated, or late
            # Younger than all that was ever delivered: another message bears this offset now.
            self.reset(time)
            floor = 0
            restarted = True
        elif time <= self._until:
            return NOTHING  # a late copy from before the offsets began anew
        message = Stored(offset, time, body)
        if self._held is None and _continues(floor, offset, previous):
            self._deliver(previous, message)
            return Step((message,), self._want(), restarted=restarted)
        self._hold(previous, message)
        return self._proceed([], restarted=restarted)

    def check(self, last: int, time: float) -> Step:
        """The position check.

        Args:
            last: Offset of the topic's last message in the store; 0 when there is none. An answer that lags
                behind the store finds a gap later, and never makes one.
            time: The store's, when it was asked.
        """
        if self.floor is None:
            return NOTHING
        ring = self.ring
        ring.trim(time)
        newest = ring.newest_message
        if newest is not None and last < newest.offset and newest.time < time - CLOCK_SECONDS:
            ring.restart(self._last, time)  # it was erased
        doubtful = self._overdue(time)
        if last > self.floor:
            self._goal = max(self._goal, last)
        elif self._goal <= self.floor:
            self._confirmed = max(self._confirmed, time)
            self.ready = True
        return self._proceed([], doubtful=doubtful)

    def fetched(
        self, fetch: FetchRange, messages: Iterable[Stored], *, upto: int, time: float
    ) -> Step:
        """The result of a fetch.

        Args:
            fetch: The one that was wanted; the result of any other is passed over.
            messages: What the store has of the topic above ``fetch.after`` up to ``upto``. There may be none:
                they were erased, or others took their place.
            upto: Offset up to which they are all there are. A read that ends early says how far it came; the
                rest is wanted next. One that came nowhere counts as failed. One that was cut off by its limit
                has more messages than the rule keeps.
            time: The store's, when it was read.
        """
        if fetch is not self._fetch or self.floor is None:
            return NOTHING
        self._fetch = None
        if upto <= fetch.after:
            return NOTHING
        found = {message.offset: message for message in messages if message.offset <= upto}
        doubtful = self._overdue(time) or self._lacks(fetch, found, upto)
        if self._held is not None:
            # what waits and is no longer in the store need not be lost
            found |= {o: message for o, (_, message) in self._held.items() if o <= upto}
        delivered: list[Stored] = []
        for offset in sorted(found):
            if offset <= self.floor:
                continue
            message = found[offset]
            if message.time > self._until:
                self._deliver(None, message)
                delivered.append(message)
            else:
                self.floor = self._last = offset
                self.ring.restart(offset, self._until)
        self.floor = max(self.floor, upto)
        self.ready = self.ready or upto >= fetch.upto
        return self._proceed(delivered, doubtful=doubtful)

    def failed(self, fetch: FetchRange) -> None:
        """A fetch came to nothing. A result that comes later is passed over."""
        if fetch is self._fetch:
            self._fetch = None

    def retry(self) -> Step:
        """Ask again for what a failed fetch was to bring, if it is still missing."""
        return self._proceed([])

    def reset(self, time: float) -> None:
        """Offsets begin anew. What has a new offset is delivered, unless it was under an old one.

        That is judged by the times of storing: the store's clock must not have been put back to before the
        last message delivered, and of what came between the new beginning and this call, nothing is delivered
        that is older than the last that was. What waits is let go: it will be fetched, if it is to be had.

        Args:
            time: The store's.
        """
        if self.floor is None:
            return
        self.floor = self._last = self._goal = 0
        self.ready = False
        self._fetch = None
        self._held = None
        self._held_bytes = 0
        self._until = self._newest
        self._began = time
        self.ring.restart(0, self._newest)

    def erased(self, upto: int = 0) -> None:
        """Messages of the topic are gone: the ring forgets what it has.

        Args:
            upto: Some at or below this offset may never have been here: the ring answers for nobody who
                stands below it.
        """
        if self.floor is not None:
            self.ring.restart(max(self._last, upto), self._confirmed)

    def standing(self, now: float) -> tuple[int, float]:
        """Offset and time of a client that was sent all that was delivered; for ``position`` events, too.

        The time is the store's time given, as long as checks confirm that nothing is missing; then it stands
        still.
        """
        # after what was lost for good, where the ring begins: nobody is missing anything above that
        offset = max(self._last, self.ring.start)
        return offset, max(self._confirmed, min(now, self._confirmed + CONFIRMED_SECONDS))

    def vouches(self, time: float) -> bool:
        """Whether a position of this time cannot be of a store that was replaced by an older copy since."""
        return time >= self._began

    def _overdue(self, time: float) -> bool:
        """Whether what was not delivered may have become too old by now; this is said once."""
        kept = self._retention.stored_seconds - CLOCK_SECONDS
        if time - self._confirmed <= kept:
            return False
        self._confirmed = time
        return True

    def _lacks(self, fetch: FetchRange, found: dict[int, Stored], upto: int) -> bool:
        """Whether messages have gone from the store that were to be fetched."""
        held = self._held or {}
        fresh = sum(message.time > self._until for message in found.values())
        if fresh + sum(offset not in found for offset in held) > self._retention.messages:
            return True  # so many that the store need not keep those before them
        stored = {previous for previous, _ in held.values()}
        if fetch.upto + 1 not in held:  # else it was only a look at what lies before that one
            stored.add(fetch.upto)
        floor = self.floor or 0
        return any(floor < o <= upto and o not in found and o not in held for o in stored)

    def _deliver(self, previous: int | None, message: Stored) -> None:
        time = message.time
        ring = self.ring
        if previous == 0 and ring:
            ring.restart(self._last, time)  # the store has none before this one: they were erased
        ring.add(message)
        self.floor = self._last = message.offset
        self.ready = True
        self._newest = max(self._newest, time)
        self._confirmed = max(self._confirmed, time)

    def _hold(self, previous: int, message: Stored) -> None:
        """Keep a message until what is before it was looked for."""
        if self._held is None:
            self._held = {}
        if message.offset in self._held:
            return
        size = weight(message)
        if self._held_bytes + size > self._max_bytes:
            # Those that came first are kept: the store has the last ones for longest.
            self._goal = max(self._goal, message.offset)
            return
        self._held[message.offset] = (previous, message)
        self._held_bytes += size
        self._goal = max(self._goal, previous or message.offset - 1)

    def _proceed(
        self, delivered: list[Stored], *, doubtful: bool = False, restarted: bool = False
    ) -> Step:
        """Let pass what waits no longer, and want a fetch for the rest."""
        if self.floor is None:
            return NOTHING
        if self._held is not None:
            for offset in sorted(self._held):
                previous, message = self._held[offset]
                if offset > self.floor:
                    if not _continues(self.floor, offset, previous):
                        break
                    self._deliver(previous, message)
                    delivered.append(message)
                del self._held[offset]
                self._held_bytes -= weight(message)
            if not self._held:
                self._held = None
        return Step(delivered, self._want(), doubtful, restarted)

    def _want(self) -> FetchRange | None:
        """The fetch that is to be made now, if any."""
        if self.floor is None or self._goal <= self.floor or self._fetch is not None:
            return None
        self._fetch = FetchRange(self.floor, self._goal)
        return self._fetch


def _continues(floor: int, offset: int, previous: int) -> bool:
    """Whether nothing of the topic lies between the floor and a message.

    A previous offset of 0 alone proves nothing: the message before may have been stored, and aged out. It
    needs a look, which takes the floor to the offset before.
    """
    return offset == floor + 1 or 0 < previous <= floor
