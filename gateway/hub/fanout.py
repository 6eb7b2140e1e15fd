"""Fan-out: one message to every local member of its topic.

A message is encoded once for each kind of socket and the same bytes object is written to all of them:
no task, queue or await per socket. Work is done in slices, one per turn of the event loop, so that a
topic with many members does not hold up heartbeats. While a topic's pass is under way its next
messages wait, and the next pass joins them into one write per socket: under load the number of writes
falls, and an idle topic pays nothing for it.

What members missed while the bus was away comes all at once, and not because they are slow. So a pass with
such messages goes on as its members read: to one for whom much waits it writes a moment later.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Final

from gateway.hub.broadcast import Broadcast, Encoding
from gateway.hub.registry import Member, Registry, Topic
from gateway.log import background_error
from gateway.metrics import Metrics

SLICE_WRITES: Final = 256
"""Writes in one turn of the event loop: about 2.5 ms at 10 µs a write, most of it the kernel's."""

PASS_BYTES: Final = 64 * 1024
"""Messages joined into one pass at most, in payload bytes; at least one message is taken."""


PACED_BYTES: Final = 64 * 1024
"""What may wait for a member before it is sent more of what was missed."""

POLL_SECONDS: Final = 0.01
"""How often a member that is waited for is looked at."""

PATIENCE_SECONDS: Final = 0.5
"""How long one pass waits for all its members together: who does not read shall not keep others waiting."""


class _Pass:
    """One round over the members of a topic with one or more messages."""

    __slots__ = (
        "encoded",
        "first",
        "members",
        "messages",
        "patient_until",
        "position",
        "reached",
        "selective",
        "started",
    )

    def __init__(self, topic: Topic, messages: list[Broadcast], first: int, now: float) -> None:
        self.members = list(topic.members)
        self.messages = messages
        self.first = first
        self.position = 0
        self.started = now
        self.patient_until = now + PATIENCE_SECONDS if first < topic.paced_until else 0.0
        self.selective = False
        self.reached = b""  # where members stand after the last message that has a place
        for message in messages:
            if message.audience is not None or message.reminder:
                self.selective = True
            if message.position:
                self.reached = message.position
        # kind of socket -> number of the first message -> bytes and how many messages they hold
        self.encoded: dict[tuple[Encoding, int], tuple[bytes, int]] = {}

    def whole(self, encoding: Encoding, start: int) -> tuple[bytes, int]:
        """All messages from ``start`` on, joined: the bytes and how many messages they are."""
        key = (encoding, start)
        known = self.encoded.get(key)
        if known is None:
            # few joined during the messages of one pass
            messages = self.messages[start:]
            known = self.encoded[key] = _join(encoding, messages, shared=start == 0)
        return known

    def for_member(self, member: Member) -> tuple[bytes, int, int]:
        """What one member gets: the bytes, how many messages they are, how many it misses."""
        outlet = member.outlet
        start = max(0, member.first - self.first)
        wanted = len(self.messages) - start
        if wanted <= 0:
            return b"", 0, 0
        encoding = member.encoding
        if self.selective:
            mine = [
                m
                for m in self.messages[start:]
                if (m.audience is None or m.audience.admits(outlet.id, outlet.device))
                and (encoding.positions or not m.reminder)
            ]
            if len(mine) != wanted:
                data, count = _join(encoding, mine, shared=False)
                return data, count, len(mine) - count
        data, count = self.whole(encoding, start)
        return data, count, wanted - count


def _join(encoding: Encoding, messages: list[Broadcast], *, shared: bool) -> tuple[bytes, int]:
    parts: list[bytes] = []
    for message in messages:
        try:
            part = encoding.broadcast(message, shared=shared)
        except Exception as problem:  # noqa: BLE001 -- the messages beside it still have to go
            background_error("fanout", problem)
            continue
        if part is not None:
            parts.append(part)
    return (parts[0] if len(parts) == 1 else b"".join(parts)), len(parts)


class Fanout:
    """Carries messages to the members of their topics.

    Args:
        outbound_limit: Bytes that may wait for one socket; a message for one above it closes the
            socket, or is dropped where the rule says so.
        call_soon: Runs a function in the next turn of the event loop.
        call_later: Runs one after so many seconds.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        registry: Registry,
        metrics: Metrics,
        *,
        outbound_limit: int,
        call_soon: Callable[[Callable[[], None]], object],
        call_later: Callable[[float, Callable[[], None]], object],
        clock: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._delivered = metrics.messages_delivered.inc
        self._dropped = metrics.messages_dropped
        self._passed = metrics.fanout.observe
        self._outbound_limit = outbound_limit
        self._paced_bytes = min(PACED_BYTES, outbound_limit)
        self._call_soon = call_soon
        self._call_later = call_later
        self._clock = clock
        self._active: deque[Topic] = deque()
        self._passes: dict[Topic, _Pass] = {}
        self._scheduled = False

    def send(self, message: Broadcast, *, paced: bool = False) -> None:
        """Deliver to everyone who is a member now; members see messages in the order of these calls.

        Args:
            paced: Whether it is one of many that come at once because they were missed.
        """
        topic = self._registry.get(message.topic)
        if topic is None:
            return
        topic.next_number += 1
        if paced:
            topic.paced_until = topic.next_number
        topic.waiting.append(message)
        if len(topic.waiting) == 1 and topic not in self._passes:
            self._active.append(topic)
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._turn)

    def _go_on(self, topic: Topic) -> None:
        """Somebody was waited for."""
        self._active.append(topic)
        self._schedule()

    def _turn(self) -> None:
        """One slice; topics take turns, so a big one does not hold up the others."""
        budget = SLICE_WRITES
        try:
            while self._active and budget > 0:
                budget -= self._slice(self._active.popleft(), budget)
        finally:
            # whatever went wrong with one message, the others still have to go
            self._scheduled = bool(self._active)
            if self._scheduled:
                self._call_soon(self._turn)

    def _slice(self, topic: Topic, budget: int) -> int:
        """Go on with a topic's pass, or begin one; returns how many members were looked at."""
        current = self._passes.pop(topic, None)
        looked = 0
        waits = False
        try:
            if current is None:
                current = self._begin(topic)
            if current.patient_until:
                budget = self._ready(current, budget)
                waits = not budget
            looked = self._advance(current, budget)
            if current.position < len(current.members):
                self._passes[topic] = current
            else:
                self._passed(self._clock() - current.started)
        finally:
            if waits:
                self._call_later(POLL_SECONDS, partial(self._go_on, topic))
            elif topic in self._passes or topic.waiting:
                self._active.append(topic)
        return looked

    def _begin(self, topic: Topic) -> _Pass:
        waiting = topic.waiting
        size = len(waiting[0].payload)
        taken = 1
        for message in islice(waiting, 1, None):
            size += len(message.payload)
            if size > PASS_BYTES:
                break
            taken += 1
        first = topic.next_number - len(waiting)
        messages = waiting[:taken]
        del waiting[:taken]
        return _Pass(topic, messages, first, self._clock())

    def _ready(self, current: _Pass, budget: int) -> int:
        """How many of a pass's next members need not be waited for; 0 if the first of them does."""
        if self._clock() >= current.patient_until:
            return budget
        start = current.position
        members = current.members[start : start + budget]
        for index, member in enumerate(members):
            if not member.live:
                continue
            if self._paced_bytes < member.wire.get_write_buffer_size() <= self._outbound_limit:
                return index
        return budget

    def _advance(self, current: _Pass, budget: int) -> int:
        """Write to at most ``budget`` members; returns how many were looked at (at least one)."""
        start = current.position
        members = current.members[start : start + budget]
        current.position = start + len(members)
        limit = self._outbound_limit
        delivered = 0
        plain = not current.selective
        first = current.first
        reached = current.reached
        encoding: Encoding | None = None
        data, count = b"", 0
        for member in members:
            if not member.live:
                continue
            if reached:
                member.position = reached
            missed = 0
            if plain and member.first <= first:
                # the usual case: everybody gets the same bytes
                if member.encoding is not encoding:
                    encoding = member.encoding
                    data, count = current.whole(encoding, 0)
                chunk, messages = data, count
                missed = len(current.messages) - count
            else:
                chunk, messages, missed = current.for_member(member)
            if missed:
                self._dropped.labels("no_binary").inc(missed)
            if not chunk:
                continue
            try:
                wire = member.wire
                if not wire.clear and wire.get_write_buffer_size() > limit:
                    self._dropped.labels("slow_consumer").inc(messages)
                    if not member.drops:
                        member.outlet.overflowed()
                    continue
                wire.write(chunk)
            except RuntimeError:
                # Its connection is gone, and whoever ends its membership has not had a turn yet.
                self._dropped.labels("disconnected").inc(messages)
                continue
            except Exception as problem:  # noqa: BLE001 -- the other members still have to get it
                background_error("fanout", problem)
                continue
            delivered += messages
        if delivered:
            self._delivered(delivered)
        return len(members) or 1
