"""One backend URL with its circuit breakers, and what is logged of both."""

from collections.abc import Callable

import structlog
from yarl import URL

from gateway.errors import UpstreamUnavailable
from gateway.log import QUIET_SECONDS, Throttle
from gateway.upstream.breaker import Breaker, Breakers, BreakerTicket
from gateway.upstream.call import Call

_log = structlog.get_logger(__name__)


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
        self._breakers = Breakers(clock)
        self._throttle = Throttle(QUIET_SECONDS, clock)

    def check(self, client: str) -> None:
        """Refuse a callback before it waits for its turn, if it would be refused then.

        Raises:
            UpstreamUnavailable: ``breaker_open``.
        """
        if self._breakers.refuses(client):
            raise UpstreamUnavailable("breaker_open")

    def admit(self, client: str) -> BreakerTicket:
        """Let a callback be sent; returns the ticket to report its end with.

        Raises:
            UpstreamUnavailable: ``breaker_open``.
        """
        ticket = self._breakers.admit(client)
        if ticket is None:
            raise UpstreamUnavailable("breaker_open")
        return ticket

    def answered(self, client: str, ticket: BreakerTicket) -> None:
        """A callback was answered, be it with a refusal."""
        closed = self._breakers.succeeded(client, ticket)
        self._changed(self._log.info, "upstream works again", closed, client)

    def failed(
        self, client: str, ticket: BreakerTicket, call: Call, status: str, detail: str
    ) -> None:
        """A callback was not answered, or not usably.

        Args:
            status: As metrics count it.
            detail: What is known beyond, quoting nothing of the answer.
        """
        if (held := self._throttle.admit(status)) is not None:
            self._log.warning(
                "callback failed", type=call.type, status=status, detail=detail, held=held
            )
        opened = self._breakers.failed(client, ticket)
        self._changed(self._log.warning, "upstream is left alone", opened, client)

    def given_up(self, client: str, ticket: BreakerTicket) -> None:
        """Nobody waits for its answer any more."""
        self._breakers.given_up(client, ticket)

    def _changed(
        self, log: Callable[..., object], event: str, breaker: Breaker | None, client: str
    ) -> None:
        if breaker is None:
            return
        of_all = breaker is self._breakers.all
        if (held := self._throttle.admit(f"{event}{of_all}")) is not None:
            whose = "all" if of_all else client
            log(event, client=whose, seconds=breaker.seconds, held=held)
