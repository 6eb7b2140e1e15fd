"""The bus on NATS, which connects again whenever its connection is lost."""

import asyncio
import random
from typing import Final

import structlog

from gateway.bus.base import BusConfig, Handler, Listener, NoResponders
from gateway.bus.delivery import Delivery, RemoteSubscription
from gateway.bus.nats import NatsLink
from gateway.bus.requests import Reply
from gateway.bus.servers import Servers
from gateway.bus.subjects import check
from gateway.errors import BusUnavailable, SubscriptionRefused
from gateway.log import QUIET_SECONDS, Throttle
from gateway.metrics import Metrics

FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 1.0

CLOSE_SECONDS: Final = 1.0
"""How long the server has at the end to read what was taken: a few milliseconds, unless it is ill."""

DEFAULT_MAX_PAYLOAD: Final = 1024 * 1024
"""What nats-server takes if not told otherwise; assumed until one was met."""

_log = structlog.get_logger(__name__)


class RemoteBus:
    """A :class:`~gateway.bus.base.Bus` on NATS.

    Args:
        config: Its ``url`` names the servers.
        copies: Servers that shall keep each value.
        name: Shown by the servers' monitoring.

    Raises:
        ConfigError: The addresses or the credentials cannot be used.
    """

    def __init__(self, config: BusConfig, *, copies: int, metrics: Metrics, name: str) -> None:
        self._servers = Servers(config.url, config.credentials_file)
        self._prefix = config.prefix
        self._copies = copies
        self._name = name
        self._metrics = metrics
        self._delivery = Delivery(metrics)
        self._throttle = Throttle(QUIET_SECONDS)
        self._listeners: list[Listener] = []
        self._subscriptions: dict[RemoteSubscription, None] = {}  # in the order they came
        self._advertised: list[str] = []
        self._max_payload = DEFAULT_MAX_PAYLOAD
        self._link: NatsLink | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._met = False  # a server, ever
        self._told = False  # the listeners, that the bus is up
        self._closed = False

    @property
    def connected(self) -> bool:
        return self._link is not None and self._link.usable and not self._closed

    @property
    def max_envelope_bytes(self) -> int:
        """The server's ``max_payload``; bodies travel without headers."""
        if self._link is not None and self._link.usable:
            self._max_payload = self._link.client.max_payload
        return self._max_payload

    @property
    def server_version(self) -> str:
        return self._link.client.version if self._link is not None and self._link.usable else ""

    async def start(self) -> asyncio.Task[None] | None:
        if self._keeper is None and not self._closed:
            self._keeper = asyncio.create_task(self._keep(), name="bus")
        return self._keeper

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        link = self._link
        try:
            if link is not None and link.usable:
                await _drain(link)
        finally:
            for subscription in tuple(self._subscriptions):
                subscription.close()
            if link is not None:
                link.fail("closed")
            if self._keeper is not None:
                self._keeper.cancel()
        if self._keeper is not None:
            await asyncio.wait((self._keeper,))

    async def subscribe(self, subject: str, handler: Handler) -> RemoteSubscription:
        check(subject)
        link = self._require_link()
        subscription = RemoteSubscription(subject, handler, self._delivery, self._forget)
        self._subscriptions[subscription] = None
        try:
            await link.confirmations.confirm(subscription)
        except BaseException:  # cancelled as well: nobody would ever close it
            subscription.close()
            raise
        return subscription

    def publish(
        self, subject: str, body: bytes, *, no_responders: NoResponders | None = None
    ) -> None:
        check(subject)
        self._require_link().publish(subject, body, no_responders)

    async def request(
        self, subject: str, body: bytes, *, headers: bytes = b"", seconds: float
    ) -> Reply:
        """Send a request and wait for its answer; any number may be under way.

        Args:
            headers: A block of header lines, from ``NATS/1.0`` to the empty line; or nothing.
            seconds: How long to wait.

        Raises:
            BusUnavailable: Certainly nothing was sent, or the server denied it.
            EnvelopeTooLarge: Headers and body are above what the server takes.
            OutcomeUnknown: No answer in time, or the connection was lost before it.
        """
        check(subject)
        link = self._require_link()
        return (await link.request(subject, body, headers, seconds, many=False))[0]

    async def request_parts(self, subject: str, body: bytes, *, seconds: float) -> list[Reply]:
        """Send a request that is answered in parts; the last one has a status.

        Args:
            seconds: How long to wait for each part.

        Raises:
            BusError: As :meth:`request` does.
        """
        check(subject)
        return await self._require_link().request(subject, body, b"", seconds, many=True)

    async def put(self, bucket: str, key: str, value: bytes, *, keep_seconds: float) -> None:
        await self._require_link().buckets.put(bucket, key, value, keep_seconds)

    async def get(self, bucket: str, key: str) -> bytes | None:
        return await self._require_link().buckets.get(bucket, key)

    async def entries(self, bucket: str) -> dict[str, bytes]:
        return await self._require_link().buckets.entries(bucket)

    async def server_time(self) -> float | None:
        return await self._require_link().server_time()

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def _require_link(self) -> NatsLink:
        link = self._link
        if link is None or self._closed or not link.usable:
            raise BusUnavailable("not connected to the bus")
        return link

    def _forget(self, subscription: RemoteSubscription) -> None:
        self._subscriptions.pop(subscription, None)
        if self._link is not None:
            self._link.client.forget(subscription)

    async def _keep(self) -> None:
        """Keep a connection for as long as the bus is open."""
        pause = FIRST_PAUSE_SECONDS
        while not self._closed:
            link = self._link = NatsLink(self._prefix, self._copies, self._complain)
            try:
                await self._connect(link)
                pause = FIRST_PAUSE_SECONDS
                await link.lost.wait()
            except Exception as problem:  # noqa: BLE001 - whatever it is, the bus must come back
                self._complain("bus unreachable", problem)
            finally:
                await self._give_up(link)
            # spread, so that the replicas do not all come at once to a server that starts
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _connect(self, link: NatsLink) -> None:
        self._servers.check_credentials()
        servers = self._servers.in_turn(self._advertised)
        await link.open(servers, self._servers.login, self._name, self._metrics.bus_pending.set)
        denied = await link.confirmations.confirm_all(tuple(self._subscriptions))
        for subject in denied:
            self._complain("bus took a subscription away", SubscriptionRefused(subject))
        self._advertised = link.client.advertised
        self._max_payload = link.client.max_payload
        if self._met:
            self._metrics.bus_reconnects.inc()
        link.up = self._met = self._told = True
        _log.info(
            "bus connected",
            subscriptions=len(self._subscriptions),
            server=link.client.server,
            clustered=link.client.clustered,
            max_payload=link.client.max_payload,
        )
        self._delivery.change(self._listeners, up=True)

    async def _give_up(self, link: NatsLink) -> None:
        self._servers.failed(link.client.server)
        if self._told:
            self._told = False
            if not self._closed:
                _log.warning("bus lost", reason=link.reason)
            self._delivery.change(self._listeners, up=False)
        await link.close()
        self._metrics.bus_pending.set(0)

    def _complain(self, event: str, problem: BaseException) -> None:
        if event == "bus refused a message":
            self._metrics.bus_dropped.inc()
        if (held := self._throttle.admit(event)) is not None:
            _log.warning(event, problem=f"{type(problem).__name__}: {problem}", held=held)


async def _drain(link: NatsLink) -> None:
    """Wait until the server has what was taken, the link is lost, or it takes too long."""
    ends = (asyncio.create_task(link.drain()), asyncio.create_task(link.lost.wait()))
    await asyncio.wait(ends, timeout=CLOSE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()
