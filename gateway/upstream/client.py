"""Sends callbacks to the backend and waits for its answers, within bounds of time and number."""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

from yarl import URL

from gateway.errors import UpstreamRefused, UpstreamTimeout, UpstreamUnavailable
from gateway.metrics import Metrics
from gateway.pacer import Pacer
from gateway.upstream.answers import (
    ConnectAnswer,
    JoinAnswer,
    PushAnswer,
    connect_answer,
    event_answer,
    join_answer,
    push_answer,
)
from gateway.upstream.backend import Backend
from gateway.upstream.breaker import BreakerTicket
from gateway.upstream.call import Call, body, headers, source
from gateway.upstream.exchange import HttpExchange
from gateway.upstream.slots import Slots

CALLS_PER_TURN: Final = 4
"""Callbacks that begin in one turn of the event loop, those included that are refused: some 1 ms of work."""

T = TypeVar("T")


class CallbackSettings(Protocol):
    """The ``[upstream]`` section, as far as requests are concerned."""

    @property
    def url(self) -> str: ...
    @property
    def secrets(self) -> Sequence[str]: ...
    @property
    def timeout_seconds(self) -> float: ...
    @property
    def max_in_flight(self) -> int: ...
    @property
    def max_state_bytes(self) -> int: ...


class Upstream:
    """The customer's backend; to be made within a running event loop.

    All callbacks share one deadline (``timeout_seconds``, from the call of a method here to the last byte
    of the answer), one pool of connections, and slots of which each client gets its share. Each URL has
    breakers of its own. One whose caller is cancelled is broken off; the backend may have acted on it.

    Args:
        replica: Id of this replica, named as the source of callbacks.
        max_user_bytes: Longest user a backend may name, in UTF-8.
        clock: Monotonic seconds.
        wall_clock: Unix seconds.
    """

    def __init__(
        self,
        settings: CallbackSettings,
        *,
        replica: str,
        max_user_bytes: int,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._source = source(replica)
        self._requests = metrics.upstream_request
        self._clock = clock
        self._wall_clock = wall_clock
        self._exchange = HttpExchange(settings.max_in_flight)
        self._slots = Slots(settings.max_in_flight, metrics.upstream_in_flight.set)
        self._turns = Pacer(CALLS_PER_TURN)
        self._backends: dict[str, Backend] = {}
        bound = settings.max_state_bytes
        self._connect_answer = partial(
            connect_answer, max_state_bytes=bound, max_user_bytes=max_user_bytes
        )
        self._join_answer = partial(join_answer, max_state_bytes=bound)
        self._push_answer = partial(push_answer, max_state_bytes=bound)

    async def connect(self, call: Call, url: str = "") -> ConnectAnswer:
        """Ask about a client that connects.

        Args:
            url: Which backend to ask; empty for ``upstream.url``.

        Raises:
            UpstreamRefused: It answered 4xx.
            UpstreamTimeout: It did not answer in time; it may have acted all the same.
            UpstreamUnavailable: It could not be asked, or gave no answer that can be used.
        """
        return await self._ask(call, url, self._connect_answer)

    async def join(self, call: Call, url: str = "") -> JoinAnswer:
        """Ask about a join; arguments and errors as for :meth:`connect`."""
        return await self._ask(call, url, self._join_answer)

    async def push(self, call: Call, url: str = "") -> PushAnswer:
        """Hand over a client's push; arguments and errors as for :meth:`connect`."""
        return await self._ask(call, url, self._push_answer)

    async def tell(self, call: Call, call_id: str, occurred_at: float) -> None:
        """Tell of an event, once.

        Args:
            call_id: The same when it is told again.
            occurred_at: When it happened, unix seconds.

        Raises:
            UpstreamError: As for :meth:`connect`: the backend has not taken it.
        """
        await self._call(call, "", event_answer, call_id, occurred_at)

    async def close(self) -> None:
        """Close all connections; callbacks under way and later ones fail as ``unreachable``."""
        await self._exchange.close()

    async def _ask(self, call: Call, url: str, read: Callable[[int, bytes], T]) -> T:
        return await self._call(call, url, read, secrets.token_hex(16), self._wall_clock())

    async def _call(
        self,
        call: Call,
        url: str,
        read: Callable[[int, bytes], T],
        call_id: str,
        occurred_at: float,
    ) -> T:
        backend, client = self._backend(url), call.client
        ticket: BreakerTicket | None = None
        started = self._clock()
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                await self._turns.wait()
                backend.check(client)
                await self._slots.take(client)
                try:
                    ticket = backend.admit(client)
                    status, answer = await self._send(backend.url, call, read, call_id, occurred_at)
                finally:
                    self._slots.give_back(client)
        except (TimeoutError, UpstreamUnavailable) as problem:
            word, detail = _describe(problem, sent=ticket is not None)
            self._requests.labels(call.type, word).observe(self._clock() - started)
            if ticket is not None:
                backend.failed(client, ticket, call, word, detail)
            if isinstance(problem, UpstreamUnavailable):
                raise
            if ticket is None:
                raise UpstreamUnavailable("busy") from None
            raise UpstreamTimeout("no answer in time") from None
        except UpstreamRefused as refused:
            self._requests.labels(call.type, str(refused.status)).observe(self._clock() - started)
            if ticket is not None:
                backend.answered(client, ticket)
            raise
        except BaseException:
            if ticket is not None:
                backend.given_up(client, ticket)
            raise
        self._requests.labels(call.type, str(status)).observe(self._clock() - started)
        backend.answered(client, ticket)
        return answer

    async def _send(
        self,
        url: URL,
        call: Call,
        read: Callable[[int, bytes], T],
        call_id: str,
        occurred_at: float,
    ) -> tuple[int, T]:
        content = body(call)
        fields = headers(
            call,
            content,
            call_id=call_id,
            source=self._source,
            occurred_at=occurred_at,
            now=self._wall_clock(),
            secrets=self._settings.secrets,
        )
        status, answer = await self._exchange.post(url, fields, content)
        return status, read(status, answer)

    def _backend(self, url: str) -> Backend:
        url = url or self._settings.url
        backend = self._backends.get(url)
        if backend is None:
            backend = self._backends[url] = Backend(url, self._clock)
        return backend


def _describe(problem: TimeoutError | UpstreamUnavailable, *, sent: bool) -> tuple[str, str]:
    """What metrics call it, and what is known beyond."""
    if isinstance(problem, TimeoutError):
        return "timeout" if sent else "busy", ""
    return "unusable" if problem.reason == "answer" else problem.reason, problem.detail
