"""The clocks of a cluster: this replica's, the other replicas' and the NATS server's, and how they differ."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import structlog

from gateway.errors import BusError
from gateway.log import Throttle

LOOK_SECONDS: Final = 10.0
"""Time between two questions to the server."""

LOOKS: Final = 3
"""Of the last so many answers the newest counts: one that was long under way looks like an older clock."""

MOST_AHEAD_SECONDS: Final = 3600.0
"""A clock further ahead is broken, and not followed."""

MOST_SKEW_SECONDS: Final = 2.0
"""Above it the log warns: times are compared with tokens of another machine, too."""

WARN_AGAIN_SECONDS: Final = 60.0

SERVER: Final = "nats-server"

_log = structlog.get_logger(__name__)


class TimeServer(Protocol):
    """As much of the bus as matters here."""

    async def server_time(self) -> float | None:
        """See :meth:`gateway.bus.base.Bus.server_time`."""


class ClusterClock:
    """The newest of all clocks, in Unix seconds.

    Args:
        bus: Its server has a clock, perhaps.
        peers: By replica, what its clock was ahead of this process's monotonic clock when it was last heard.
        wall_clock: This replica's, Unix seconds.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        bus: TimeServer,
        peers: Callable[[], Mapping[str, float]],
        *,
        wall_clock: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._bus = bus
        self._peers = peers
        self._wall_clock = wall_clock
        self._clock = clock
        self._server: deque[float] = deque(maxlen=LOOKS)
        self._throttle = Throttle(WARN_AGAIN_SECONDS, clock)

    def now(self) -> float:
        """The newest time anybody has: what is revoked until now includes tokens of whoever is ahead."""
        ahead = [each for each in self._ahead().values() if each <= MOST_AHEAD_SECONDS]
        return self._wall_clock() + max(0.0, max(ahead, default=0.0))

    def skew(self) -> float:
        """Seconds between this replica's clock and the one that differs most; many of them are logged."""
        ahead = self._ahead()
        if not ahead:
            return 0.0
        other = max(ahead, key=lambda name: abs(ahead[name]))
        if (
            abs(ahead[other]) > MOST_SKEW_SECONDS
            and (held := self._throttle.admit("skew")) is not None
        ):
            _log.warning(
                "clocks differ; keep them level, with NTP for instance",
                other=other,
                seconds_ahead=round(ahead[other], 3),
                held=held,
            )
        return abs(ahead[other])

    async def look(self) -> None:
        """Ask the server, if there is one that answers."""
        try:
            time = await self._bus.server_time()
        except BusError:
            return
        if time is not None:
            self._server.append(time - self._clock())

    async def next_look(self) -> None:
        """Wait for the next look, and take it. To be called over and over."""
        await asyncio.sleep(LOOK_SECONDS)
        await self.look()

    def _ahead(self) -> dict[str, float]:
        """How many seconds each other clock is ahead of this replica's."""
        clocks = dict(self._peers())
        if self._server:
            clocks[SERVER] = max(self._server)
        own = self._wall_clock() - self._clock()
        return {name: clock - own for name, clock in clocks.items()}
