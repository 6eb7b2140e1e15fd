"""Calls bus handlers and listeners, logging their exceptions instead of letting them stop the bus."""

from collections.abc import Callable

import structlog

from gateway.bus.base import Handler, Listener
from gateway.bus.stream_position import StreamPosition, stream_position_in
from gateway.log import QUIET_SECONDS, Throttle
from gateway.metrics import Metrics

_log = structlog.get_logger(__name__)


class Delivery:
    """Calls handlers with messages, and listeners with changes of the connection."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._throttle = Throttle(QUIET_SECONDS)

    def message(
        self, subject: str, handler: Handler, body: bytes, position: StreamPosition | None
    ) -> None:
        try:
            handler(body, position)
        except Exception as problem:  # noqa: BLE001 - a bug on one subject must not stop the bus
            self._metrics.bus_dropped.inc()
            self._complain("bus handler failed", problem, subject=subject)

    def change(self, listeners: list[Listener], up: bool) -> None:
        """Tell all listeners that the bus came up or went down."""
        self._metrics.bus_connected.set(up)
        for listener in tuple(listeners):
            try:
                listener(up)
            except Exception as problem:  # noqa: BLE001 - the others must learn it all the same
                self._complain("bus listener failed", problem)

    def _complain(self, event: str, problem: Exception, **details: str) -> None:
        if (held := self._throttle.admit(event)) is None:
            return
        # not the exception's text, which may quote the payload
        _log.error(event, problem=type(problem).__name__, at=_place(problem), held=held, **details)


class RemoteSubscription:
    """A handler on a subject; there may be tens of thousands, so it is one small object.

    Attributes:
        number: Its id on the current connection, set by that.
        refusal: The server's words while it does not have the subscription; else empty.
    """

    __slots__ = ("_delivery", "_forget", "_handler", "number", "refusal", "subject")

    def __init__(
        self,
        subject: str,
        handler: Handler,
        delivery: Delivery,
        forget: Callable[["RemoteSubscription"], None],
    ) -> None:
        self.subject = subject
        self.number = 0
        self.refusal = ""
        self._handler: Handler | None = handler
        self._delivery = delivery
        self._forget = forget

    @property
    def closed(self) -> bool:
        return self._handler is None

    def receive(self, _subject: bytes, headers: bytes, body: bytes) -> None:
        if self._handler is not None:
            position = stream_position_in(headers) if headers else None
            self._delivery.message(self.subject, self._handler, body, position)

    def close(self) -> None:
        if self._handler is not None:
            self._handler = None
            self._forget(self)


def _place(problem: Exception) -> str:
    """File and line an exception was raised at."""
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
