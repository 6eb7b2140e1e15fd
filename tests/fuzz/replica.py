"""A whole replica within this process, on the memory bus, and a client beside what is fuzzed."""

import asyncio
import gc
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Self

import structlog
from structlog.typing import EventDict, WrappedLogger
from websockets.exceptions import ConnectionClosed

from gateway.app.replica import Gateway
from gateway.bus.memory import MemoryBus
from gateway.config import Config
from gateway.config.sections import (
    ApiKeySettings,
    ApiSettings,
    AuthSettings,
    ChannelSettings,
    DrainSettings,
    LimitsSettings,
    ServerSettings,
)
from gateway.retention import Retention
from tests.support.client import PhoenixClient
from tests.support.ports import free_port
from tests.support.tokens import SECRET, token
from tests.support.waiting import eventually

KEY = "a key of the fuzz"
QUIET = "room:quiet"
PATIENCE_SECONDS = 30.0
MESSAGE_BYTES = 4096


class Broken(AssertionError):
    """Something did not hold."""


class Errors:
    """What is logged as an error while a replica is fuzzed."""

    def __init__(self) -> None:
        self.lines: list[EventDict] = []

    def __call__(self, _: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """As a processor of structlog."""
        if method in {"error", "critical", "exception"}:
            self.lines.append(event)
        raise structlog.DropEvent


@contextmanager
def _listened() -> Iterator[Errors]:
    errors = Errors()
    before = structlog.get_config()
    structlog.configure(processors=[errors], cache_logger_on_first_use=False)
    try:
        yield errors
    finally:
        structlog.configure(**before)


class Replica:
    """What is fuzzed.

    Attributes:
        gateway: The replica.
        public: Its port for clients.
        internal: Its port for backends.
        errors: What it logged as errors.
    """

    def __init__(self, errors: Errors) -> None:
        self.public, self.internal = free_port(), free_port()
        self.errors = errors
        self.gateway = Gateway(
            Config(
                server=ServerSettings(
                    public=f"127.0.0.1:{self.public}",
                    internal=f"127.0.0.1:{self.internal}",
                    replica="fuzzed",
                ),
                auth=AuthSettings(secrets=(SECRET,)),
                api=ApiSettings(
                    keys=(
                        ApiKeySettings(name="fuzz", key=KEY, scopes=("publish", "read", "manage")),
                    )
                ),
                limits=LimitsSettings(max_message_bytes=MESSAGE_BYTES),
                drain=DrainSettings(delay_seconds=0, window_seconds=0),
                channels=(
                    ChannelSettings(pattern="room:*", push="broadcast"),
                    ChannelSettings(
                        pattern="kept:*",
                        push="broadcast",
                        history=Retention(messages=20, seconds=60),
                    ),
                    ChannelSettings(pattern="shown:*", push="broadcast", presence=True),
                    ChannelSettings(pattern="count:*", presence="count"),
                ),
            ),
            descriptors=1024,
        )

    @property
    def bus(self) -> MemoryBus:
        """The bus it is on."""
        assert isinstance(self.gateway._bus, MemoryBus)
        return self.gateway._bus

    @property
    def url(self) -> str:
        """Where WebSocket clients connect."""
        return f"ws://127.0.0.1:{self.public}/socket/websocket"

    @property
    def serving(self) -> bool:
        """Whether clients are let in."""
        return self.gateway._connections.refusal() is None

    def check(self) -> None:
        """Make sure that nothing went wrong inside.

        Raises:
            Broken: It did.
        """
        if self.errors.lines:
            line = self.errors.lines[0]
            raise Broken(f"an error was logged: {line}") from line.get("exc_info") or None


@asynccontextmanager
async def replica() -> AsyncIterator[Replica]:
    """One that serves."""
    thresholds = gc.get_threshold()
    with _listened() as errors:
        found = Replica(errors)
        serving = asyncio.create_task(found.gateway.serve())
        try:
            await eventually(lambda: found.serving or serving.done(), PATIENCE_SECONDS, "it serves")
            yield found
        finally:
            found.gateway._signalled(signal.SIGTERM)
            found.gateway._signalled(signal.SIGTERM)
            await serving
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            loop.set_exception_handler(None)
            gc.unfreeze()
            gc.set_threshold(*thresholds)


class Neighbour:
    """A client that minds its own business, and gets what is said on its topics.

    Args:
        topics: Others than its own that it is on; what comes there must be well-formed.
    """

    def __init__(self, replica: Replica, *topics: str) -> None:
        self._replica = replica
        self._topics = topics
        self._client: PhoenixClient
        self._number = 0

    async def __aenter__(self) -> Self:
        self._client = await PhoenixClient.connect(self._replica.url, token("quiet"))
        for topic in (QUIET, *self._topics):
            assert (await self._client.join(topic))[4]["status"] == "ok"
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(ValueError):  # it got what is no message, which was said
            await self._client.close()

    async def check(self) -> None:
        """Say something, and hear it.

        Raises:
            Broken: It is not answered, or got what is no message.
        """
        self._number += 1
        client = self._client
        if client.unreadable is not None:
            raise Broken(f"the neighbour got {client.unreadable!r}")
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await client.heartbeat()
                await client.ask(QUIET, "say", {"n": self._number})
                await client.expect(
                    lambda f: f[2] == QUIET and f[3] == "say" and f[4] == {"n": self._number},
                    PATIENCE_SECONDS,
                )
        except (AssertionError, TimeoutError, ConnectionClosed) as problem:
            raise Broken(f"the neighbour, closed with {client.close_code}: {problem}") from problem
        for frame in client.inbox:
            if isinstance(frame, list) and not _well_formed(frame):
                raise Broken(f"the neighbour got {json.dumps(frame)[:300]}")
        client.inbox.clear()


def _well_formed(frame: list[Any]) -> bool:
    if len(frame) != 5:
        return False
    _, _, topic, event, payload = frame
    return isinstance(topic, str) and isinstance(event, str) and isinstance(payload, dict)
