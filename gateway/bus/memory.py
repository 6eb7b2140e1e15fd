"""A bus inside one process: for development, for tests, and for a single replica."""

import asyncio
from collections import deque
from typing import Final

from gateway.bus.base import Handler, Listener, NoResponders
from gateway.bus.delivery import Delivery
from gateway.bus.stream_position import StreamPosition
from gateway.bus.subjects import check
from gateway.errors import BusUnavailable, EnvelopeTooLarge, NothingKept
from gateway.metrics import Metrics

MAX_ENVELOPE_BYTES: Final = 1024 * 1024
"""As nats-server has it by default, so that what works here works there."""


class MemorySubscription:
    """A :class:`~gateway.bus.base.Subscription` at an exchange."""

    __slots__ = ("_bus", "_handler", "_subject")

    refusal = ""

    def __init__(self, bus: "MemoryBus", subject: str, handler: Handler) -> None:
        self._bus = bus
        self._subject = subject
        self._handler: Handler | None = handler

    def close(self) -> None:
        if self._handler is not None:
            self._handler = None
            self._bus.exchange.remove(self._subject, self)

    def deliver(self, body: bytes, position: StreamPosition | None) -> None:
        """Call the handler, unless the subscription or its bus is closed."""
        if self._handler is not None and self._bus.connected:
            self._bus.delivery.message(self._subject, self._handler, body, position)


class MemoryExchange:
    """Where memory buses meet: one order of messages for all of them."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, tuple[MemorySubscription, ...]] = {}
        self._messages: deque[
            tuple[tuple[MemorySubscription, ...], bytes, StreamPosition | None]
        ] = deque()

    def add(self, subject: str, subscription: MemorySubscription) -> None:
        self._subscriptions[subject] = (*self._subscriptions.get(subject, ()), subscription)

    def remove(self, subject: str, subscription: MemorySubscription) -> None:
        others = tuple(one for one in self._subscriptions[subject] if one is not subscription)
        if others:
            self._subscriptions[subject] = others
        else:
            del self._subscriptions[subject]

    def has(self, subject: str) -> bool:
        """Whether anybody is subscribed to a subject."""
        return subject in self._subscriptions

    def send(
        self,
        subject: str,
        body: bytes,
        *,
        position: StreamPosition | None = None,
        no_responders: NoResponders | None = None,
    ) -> None:
        """Deliver a message, in the event loop's next turn, to those subscribed now."""
        at_subject = self._subscriptions.get(subject)
        if at_subject is None:
            if no_responders is not None:
                asyncio.get_running_loop().call_soon(_done, no_responders)
            return
        if not self._messages:
            asyncio.get_running_loop().call_soon(self.deliver)
        self._messages.append((at_subject, body, position))

    def deliver(self) -> None:
        while self._messages:
            subscriptions, body, position = self._messages.popleft()
            for subscription in subscriptions:
                subscription.deliver(body, position)


class MemoryBus:
    """A :class:`~gateway.bus.base.Bus` whose server is an object.

    Args:
        exchange: Shared by the buses that shall hear each other.
    """

    def __init__(
        self,
        *,
        metrics: Metrics,
        exchange: MemoryExchange | None = None,
        max_envelope_bytes: int = MAX_ENVELOPE_BYTES,
    ) -> None:
        self.exchange = exchange or MemoryExchange()
        self.delivery = Delivery(metrics)
        self._max_envelope_bytes = max_envelope_bytes
        self._listeners: list[Listener] = []
        self._open: bool | None = None  # None before the start, False after the end

    @property
    def connected(self) -> bool:
        return self._open is True

    @property
    def doubt(self) -> str | None:
        return None if self.connected else "bus_down"

    @property
    def max_envelope_bytes(self) -> int:
        return self._max_envelope_bytes

    async def start(self) -> None:
        if self._open is None:
            self._open = True
            self.delivery.change(self._listeners, up=True)

    async def close(self) -> None:
        """Deliver what was sent, to all others too, and leave."""
        was_open = self._open
        if was_open:
            self.exchange.deliver()
        self._open = False
        if was_open:
            self.delivery.change(self._listeners, up=False)

    async def subscribe(self, subject: str, handler: Handler) -> MemorySubscription:
        return self._subscribe(subject, handler)

    def subscribe_now(self, subject: str, handler: Handler) -> MemorySubscription | None:
        return self._subscribe(subject, handler)

    def deserted(self, subject: str) -> bool:
        return not self.exchange.has(subject)

    def _subscribe(self, subject: str, handler: Handler) -> MemorySubscription:
        check(subject)
        self._require_open()
        subscription = MemorySubscription(self, subject, handler)
        self.exchange.add(subject, subscription)
        return subscription

    def publish(
        self, subject: str, body: bytes, *, no_responders: NoResponders | None = None
    ) -> None:
        check(subject)
        self.require_room(body)
        self.exchange.send(subject, body, no_responders=no_responders)

    async def flush(self) -> None:
        self._require_open()
        await asyncio.sleep(0)

    async def put(self, bucket: str, key: str, value: bytes, *, keep_seconds: float) -> None:
        size = len(value)
        raise NothingKept(f"in memory {bucket}/{key}, {size} bytes, is not kept {keep_seconds} s")

    async def get(self, bucket: str, key: str) -> bytes | None:
        raise NothingKept(f"the memory bus keeps nothing: {bucket}/{key}")

    async def entries(self, bucket: str) -> dict[str, bytes]:
        raise NothingKept(f"the memory bus keeps nothing: {bucket}")

    async def server_time(self) -> None:
        return None

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def require_room(self, body: bytes) -> None:
        """Check that a message can be sent.

        Raises:
            BusUnavailable: The bus is not open.
            EnvelopeTooLarge: The body is above the limit.
        """
        self._require_open()
        if len(body) > self._max_envelope_bytes:
            raise EnvelopeTooLarge(len(body), self._max_envelope_bytes)

    def _require_open(self) -> None:
        if not self._open:
            raise BusUnavailable("the memory bus is not open")


def _done(no_responders: NoResponders) -> None:
    if not no_responders.done():
        no_responders.set_result(None)
