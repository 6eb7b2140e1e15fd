"""The bus on NATS, which connects again whenever its connection is lost."""

import asyncio
import contextlib
import random
from typing import Final

import structlog

from gateway.bus.base import BusConfig, Handler, Listener, NoResponders
from gateway.bus.delivery import Delivery, RemoteSubscription
from gateway.bus.nats import NatsLink
from gateway.bus.refusals import Refusals
from gateway.bus.requests import Reply
from gateway.bus.servers import Servers
from gateway.bus.subjects import Subjects, check
from gateway.errors import BusUnavailable, SubscriptionRefused
from gateway.log import QUIET_SECONDS, Throttle
from gateway.metrics import Metrics

FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 1.0

FIRST_AGAIN_SECONDS: Final = 1.0
LONGEST_AGAIN_SECONDS: Final = 5.0
"""Time between two questions for subscriptions that the server refused or took away."""

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

    Attributes:
        refusals: To be told what JetStream refuses.

    Raises:
        ConfigError: The addresses or the credentials cannot be used.
    """

    def __init__(self, config: BusConfig, *, copies: int, metrics: Metrics, name: str) -> None:
        self._servers = Servers(config)
        self._prefix = config.prefix
        self._subjects = Subjects(config.prefix)
        self.refusals = Refusals(metrics)
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
        self._why = ""  # the words in which the server refused the last connection
        self._barred: set[str] = set()  # vital subjects whose subscribers were refused
        self._closed = False

    @property
    def connected(self) -> bool:
        return self._link is not None and self._link.usable and not self._closed

    @property
    def doubt(self) -> str | None:
        """As :attr:`Bus.doubt`.

        A single topic that is denied is no reason to send all clients elsewhere, where it is denied as well,
        most likely: who joins it is told, and its members hear again when the right is back. It is one where
        at least every other topic that is wanted here is denied.
        """
        link = self._link
        if self._barred or (link is not None and link.hindrance):
            return "bus_subscription_denied"
        if link is None or not self.connected:
            return "bus_down"
        deaf = sum(self._subjects.is_topic(each.subject) for each in link.deaf)
        if deaf and 2 * deaf >= sum(
            self._subjects.is_topic(each.subject) for each in self._subscriptions
        ):
            return "bus_subscription_denied"
        return "bus_publish_denied" if self._subjects.replicas in link.denied.known else None

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
        except BaseException as problem:  # cancelled as well: nobody would ever close it
            subscription.close()
            if isinstance(problem, SubscriptionRefused) and link.is_vital(subject):
                self._barred.add(subject)
            raise
        self._barred.discard(subject)
        return subscription

    def subscribe_now(self, subject: str, handler: Handler) -> None:
        """Never: a server has to confirm it."""

    def deserted(self, subject: str) -> bool:
        """Unknown: the server is asked by ``no_responders``."""
        del subject
        return False

    def publish(
        self, subject: str, body: bytes, *, no_responders: NoResponders | None = None
    ) -> None:
        check(subject)
        self._require_link().publish(subject, body, no_responders)

    async def flush(self) -> None:
        await self._require_link().flush()

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
            why = self._why or (link.hindrance if link is not None else "")
            raise BusUnavailable(f"not connected to the bus{why and ': '}{why}")
        return link

    def _forget(self, subscription: RemoteSubscription) -> None:
        self._subscriptions.pop(subscription, None)
        if self._link is not None:
            self._link.forget(subscription)

    async def _keep(self) -> None:
        """Keep a connection for as long as the bus is open."""
        pause = FIRST_PAUSE_SECONDS
        while not self._closed:
            link = self._link = NatsLink(
                self._prefix,
                self._copies,
                self._complain,
                refusals=self.refusals,
                dropped=self._metrics.bus_dropped.inc,
                deafened=self._tell,
            )
            try:
                await self._connect(link)
                pause = FIRST_PAUSE_SECONDS
                await self._hold(link)
            except Exception as problem:  # noqa: BLE001 - whatever it is, the bus must come back
                self._complain("bus unreachable", problem)
            finally:
                await self._give_up(link)
            # spread, so that the replicas do not all come at once to a server that starts
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _connect(self, link: NatsLink) -> None:
        servers = self._servers.in_turn(self._advertised)
        await link.open(servers, self._servers.login(), self._name, self._metrics.bus_pending.set)
        own = (link.client.requests, link.client.no_responders)
        await link.listen((*own, *self._subscriptions))
        self._advertised = link.client.advertised
        self._max_payload = link.client.max_payload
        if self._met:
            self._metrics.bus_reconnects.inc()
        link.up = self._met = True
        self._why = ""
        _log.info(
            "bus connected",
            subscriptions=len(self._subscriptions),
            server=link.client.server,
            clustered=link.client.clustered,
            max_payload=link.client.max_payload,
        )
        self._tell()

    async def _hold(self, link: NatsLink) -> None:
        """Wait until a connection is lost; what the server refused meanwhile is asked for again and again."""
        pause = FIRST_AGAIN_SECONDS
        back = False
        while not link.lost.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await link.lost.wait()
            if not link.deaf:
                pause, back = FIRST_AGAIN_SECONDS, False
                continue
            with contextlib.suppress(BusUnavailable):  # lost meanwhile
                back = await link.listen_again(to_all=back)
                pause = FIRST_AGAIN_SECONDS if back else min(2 * pause, LONGEST_AGAIN_SECONDS)
                if back:
                    _log.info("bus subscriptions are back", still_refused=len(link.deaf))
                    self._tell(up=False)
                self._tell()

    def _tell(self, *, up: bool | None = None) -> None:
        """Tell the listeners how the bus is, if they were told otherwise."""
        up = self.connected if up is None else up
        if up != self._told:
            self._told = up
            self._delivery.change(self._listeners, up=up)

    async def _give_up(self, link: NatsLink) -> None:
        self._servers.failed(link.client.server)
        self._why = link.refusal
        if self._told and not self._closed:
            _log.warning("bus lost", reason=link.reason)
        self._tell(up=False)
        await link.close()
        self._metrics.bus_pending.set(0)

    def _complain(self, event: str, problem: BaseException) -> None:
        if (held := self._throttle.admit(event)) is not None:
            _log.warning(event, problem=f"{type(problem).__name__}: {problem}", held=held)


async def _drain(link: NatsLink) -> None:
    """Wait until the server has what was taken, the link is lost, or it takes too long."""
    ends = (asyncio.create_task(link.drain()), asyncio.create_task(link.lost.wait()))
    await asyncio.wait(ends, timeout=CLOSE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()
