"""Looks after the stream: that it is there and wide enough, which one it is, and who leads it."""

import asyncio
import re
from typing import Final

import structlog

from gateway.bus.placement import Placement
from gateway.bus.remote import RemoteBus
from gateway.errors import (
    BusUnavailable,
    HistoryProblem,
    HistoryUnavailable,
    SubscriptionRefused,
)
from gateway.history.api import NAME_IN_USE, Json, StreamApi, StreamInfo
from gateway.history.base import Listener
from gateway.history.clock import ServerClock
from gateway.history.listeners import Listeners
from gateway.history.stream import is_ours, widened, with_necessities
from gateway.log import QUIET_SECONDS, Throttle

LEAST_VERSION: Final = (2, 11)
"""The first nats-server with batched direct gets."""

LOOK_SECONDS: Final = 10.0
"""How often the stream is looked at while nothing is wrong and no advisory comes."""

AGAIN_SECONDS: Final = 1.0
"""When it is looked at again after something was wrong."""

ATTEMPTS: Final = 5
"""Other replicas may make or widen the stream at the same time; each time it is wider than before."""

ADVISORIES: Final = ("CREATED", "DELETED", "UPDATED", "LEADER_ELECTED")
"""What JetStream tells of a stream by itself, where this user may listen to it."""

_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)").match

_log = structlog.get_logger(__name__)


class StreamKeeper:
    """What is known of the stream.

    Args:
        api: The stream's.
        wish: Its configuration as it is wanted.
        clock: Learns the server's time.

    Attributes:
        problem: Why the stream cannot be used; None when it can.
        epoch: Which stream of this name it is; empty before it was found.
        config: The stream's configuration as it is; empty before it was found.
    """

    def __init__(self, bus: RemoteBus, api: StreamApi, wish: Json, clock: ServerClock) -> None:
        self._bus = bus
        self._api = api
        self._wish = wish
        self._clock = clock
        self._listeners = Listeners()
        self._advisories = list(ADVISORIES)  # that are still to be subscribed to
        self._throttle = Throttle(QUIET_SECONDS)
        self._woken = asyncio.Event()
        self._losses = 0  # of the bus
        self._leader = ""
        self._task: asyncio.Task[None] | None = None
        self.problem: HistoryProblem | None = "unavailable"
        self.epoch = ""
        self.config: Json = {}
        bus.listen(self._bus_changed)

    @property
    def replicated(self) -> bool:
        """Whether servers other than the leader have copies, which may lag."""
        return bool(self.config.get("num_replicas", 1) > 1)

    def start(self) -> asyncio.Task[None]:
        """Begin; returns what goes on until :meth:`close`."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name="history")
        return self._task

    async def close(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def listen(self, listener: Listener) -> None:
        """See :meth:`gateway.history.base.History.listen`."""
        self._listeners.add(listener)

    def require(self) -> None:
        """Check that the stream can be used.

        Raises:
            HistoryUnavailable: It cannot.
        """
        if self.problem is not None:
            raise HistoryUnavailable(self.problem, f"no history: {self.problem}")

    def look(self) -> None:
        """Have the stream looked at again at once, because something about it is odd."""
        self._woken.set()

    async def info(self) -> StreamInfo:
        """The stream as it is now.

        Raises:
            HistoryUnavailable: It does not answer, or is not there.
        """
        info = await self._info()
        if info is None:
            self.look()
            raise HistoryUnavailable("unavailable", "the stream is gone")
        if (info.epoch, info.cluster.leader) != (self.epoch, self._leader):
            self.look()
        return info

    async def _keep(self) -> None:
        while True:
            pause = LOOK_SECONDS
            self._woken.clear()
            losses = self._losses
            try:
                if self._bus.connected:
                    info = await self._look()
                    if losses == self._losses:  # else it is the stream of before
                        self._adopt(info)
            except HistoryUnavailable as problem:
                pause = AGAIN_SECONDS
                self._fail(problem.reason, problem)
            except Exception as problem:  # noqa: BLE001 - whatever it is, the history must come back
                pause = AGAIN_SECONDS
                self._fail("unavailable", problem)
            try:
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def _look(self) -> StreamInfo:
        """The stream, made or widened where needed."""
        self._check_version()
        await self._subscribe()
        for _ in range(ATTEMPTS):
            info = await self._info()
            if info is None:
                await self._create()
                continue
            if not is_ours(info.config, self._wish):
                raise HistoryUnavailable("unavailable", "the stream is not this gateway's")
            if not await self._widen(info.config):
                return info
        raise HistoryUnavailable("unavailable", "the stream does not become as it is wanted")

    async def _info(self) -> StreamInfo | None:
        asked = self._clock.mark()
        info = await self._api.info()
        if info is not None:
            self._clock.observe(asked, info.now)
        return info

    async def _create(self) -> None:
        try:
            await self._api.create(self._wish)
        except HistoryUnavailable as problem:
            if problem.code != NAME_IN_USE:  # else another replica was quicker, with other rules
                raise
        else:
            _log.info("history stream made", stream=self._wish["name"])

    async def _widen(self, there: Json) -> bool:
        """Whether the stream was changed: if not, it is as it should be, or at least as it must be."""
        more = widened(there, self._wish)
        if more == there:
            return False
        try:
            await self._api.update(more)
        except HistoryUnavailable as problem:
            self._complain("history stream cannot be widened", problem)
            more = with_necessities(there, more)
            if more == there:
                return False
            await self._api.update(more)
        _log.info("history stream widened", stream=self._wish["name"])
        return True

    def _check_version(self) -> None:
        version = self._bus.server_version
        match = _VERSION(version)
        if match is not None and (int(match[1]), int(match[2])) < LEAST_VERSION:
            least = ".".join(map(str, LEAST_VERSION))
            raise HistoryUnavailable(
                "server_too_old", f"nats-server {version} is older than {least}"
            )

    async def _subscribe(self) -> None:
        """Listen to what JetStream tells of the stream; without it, changes are seen when it is looked at."""
        while self._advisories:
            subject = f"$JS.EVENT.ADVISORY.STREAM.{self._advisories[-1]}.{self._wish['name']}"
            try:
                await self._bus.subscribe(subject, self._advised)
            except SubscriptionRefused:
                _log.info("history advisories are denied", subject=subject)
            except BusUnavailable as problem:
                raise HistoryUnavailable("unavailable", str(problem)) from problem
            self._advisories.pop()

    def _adopt(self, info: StreamInfo) -> None:
        """Go by this stream from now on."""
        new = info.epoch != self.epoch
        moved = info.cluster.leader != self._leader
        back = self.problem is not None
        if new and self.epoch:
            _log.warning("history began anew", before=self.epoch, epoch=info.epoch)
        self.epoch, self._leader, self.config = info.epoch, info.cluster.leader, info.config
        self.problem = None
        if back:
            _log.info("history ready", epoch=self.epoch, leader=self._leader)
        if new or moved or back:
            self._listeners.tell()

    def _fail(self, reason: HistoryProblem, problem: Exception) -> None:
        self.problem = reason
        if self._bus.connected:  # else the bus has said it all
            self._complain("no history", problem)

    def _complain(self, event: str, problem: Exception) -> None:
        if (held := self._throttle.admit(event)) is not None:
            _log.warning(event, problem=f"{type(problem).__name__}: {problem}", held=held)

    def _advised(self, _body: bytes, _placement: Placement | None) -> None:
        self.look()

    def _bus_changed(self, up: bool) -> None:
        self._losses += not up
        self.problem = self.problem or "unavailable"
        if up:
            self.look()
