"""Buses under test, what they told, and the server they are tested against."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.bus.base import Bus, Handler
from gateway.bus.stream_position import StreamPosition
from tests.support.counted import Counted
from tests.support.nats import NatsServer
from tests.support.waiting import eventually


class ChangingServer(NatsServer):
    """A nats-server, and how to log in."""

    def login(self, userinfo: str) -> str:
        """Its address with a user in it."""
        return self.url.replace("://", f"://{userinfo}@")


@dataclass(frozen=True)
class Section:
    """A ``bus`` section of the configuration."""

    url: str
    prefix: str = "t"
    credentials_file: str = ""
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""


class Counters(Counted):
    """What a bus counted."""

    @property
    def reconnects(self) -> float:
        return self.value("bus_reconnects_total")

    @property
    def lost(self) -> float:
        return self.value("bus_dropped_total")

    @property
    def bytes_pending(self) -> float:
        return self.value("bus_pending_bytes")

    @property
    def up(self) -> bool:
        return self.value("bus_connected") == 1


class Client:
    """A bus under test.

    Attributes:
        told: What its listener was told, in order.
    """

    def __init__(self, bus: Bus, counters: Counters) -> None:
        self.bus = bus
        self.counters = counters
        self.told: list[bool] = []
        bus.listen(self.told.append)

    async def until(self, *, up: bool, seconds: float = 15.0) -> None:
        """Wait until its listener was last told so."""
        await eventually(lambda: self.told[-1:] == [up], seconds, f"bus up: {up}")


def bodies(take: Callable[[bytes], object]) -> Handler:
    """A handler that looks at nothing but the body."""

    def handle(body: bytes, _position: StreamPosition | None) -> None:
        take(body)

    return handle


MakeClient = Callable[[], Client]
"""Makes buses that hear each other, not started."""

OpenClient = Callable[..., Awaitable[Client]]
"""Makes and starts buses on NATS, and waits for their connection unless told otherwise."""
