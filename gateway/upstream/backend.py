"""One backend URL with its circuit breaker, and what is logged of both."""

from collections.abc import Callable
from typing import Final

import structlog
from yarl import URL

from gateway.errors import UpstreamUnavailable
from gateway.log import QUIET_SECONDS, Throttle
from gateway.upstream.breaker import Breaker
from gateway.upstream.call import Call

_log = structlog.get_logger(__name__)

OWN_FAULTS: Final = frozenset({"500", "unusable"})
"""Statuses with which an application ends that choked on what it was sent; proxies use others."""


class Backend:
    """Where callbacks of some topics go.

    Args:
        clock: Monotonic seconds.

    Attributes:
        url: Taken as it is configured, without being quoted again.
    """

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        self.url = URL(url, encoded=True)
        # without path, query and user information: secrets may stand there
        self._log = _log.bind(upstream=str(self.url.origin()))
        self._breaker = Breaker(clock)
        self._throttle = Throttle(QUIET_SECONDS, clock)

    def check(self) -> None:
        """Refuse a callback before it waits for its turn, if it would be refused then.

        Raises:
            UpstreamUnavailable: ``breaker_open``.
        """
        if self._breaker.refuses():
            raise UpstreamUnavailable("breaker_open")

    def admit(self) -> int:
        """Let a callback be sent; returns the ticket to report its end with.

        Raises:
            UpstreamUnavailable: ``breaker_open``.
        """
        ticket = self._breaker.admit()
        if ticket is None:
            raise UpstreamUnavailable("breaker_open")
        return ticket

    def answered(self, ticket: int, call: Call) -> None:
        """A callback was answered, be it with a refusal."""
        if self._breaker.succeeded(ticket, call.client):
            self._log.info("upstream works again")

    def failed(self, ticket: int, call: Call, status: str, detail: str) -> None:
        """A callback was not answered, or not usably.

        Args:
            status: As metrics count it.
            detail: What is known beyond, quoting nothing of the answer.
        """
        if (held := self._throttle.admit(status)) is not None:
            self._log.warning(
                "callback failed", type=call.type, status=status, detail=detail, held=held
            )
        if self._breaker.failed(ticket, call.client if status in OWN_FAULTS else ""):
            self._log.warning("upstream is left alone", seconds=self._breaker.seconds)

    def given_up(self, ticket: int) -> None:
        """Nobody waits for its answer any more."""
        self._breaker.given_up(ticket)
