"""A subscription on a bus server, through all connections to it."""

from collections.abc import Callable

from gateway.bus.base import Handler
from gateway.bus.delivery import Delivery
from gateway.bus.stream_position import StreamPosition


class RemoteSubscription:
    """A handler on a subject; there may be tens of thousands, so it is one small object.

    Attributes:
        number: Its id on the current connection, set by that.
    """

    __slots__ = ("_delivery", "_forget", "_handler", "number", "subject")

    def __init__(
        self,
        subject: str,
        handler: Handler,
        delivery: Delivery,
        forget: Callable[["RemoteSubscription"], None],
    ) -> None:
        self.subject = subject
        self.number = 0
        self._handler: Handler | None = handler
        self._delivery = delivery
        self._forget = forget

    @property
    def closed(self) -> bool:
        return self._handler is None

    def deliver(self, body: bytes, position: StreamPosition | None) -> None:
        if self._handler is not None:
            self._delivery.message(self.subject, self._handler, body, position)

    def close(self) -> None:
        if self._handler is not None:
            self._handler = None
            self._forget(self)
