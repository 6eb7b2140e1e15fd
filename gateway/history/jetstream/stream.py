"""Keeps the stream that stores the messages: makes it, widens it as the rules need, and watches it.

Others may change or delete it, and its servers may choose another leader. What is known of it here is never
older than ten seconds, and much newer where JetStream may tell of changes.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Final

import structlog

from gateway.bus.remote import RemoteBus
from gateway.bus.stream_position import StreamPosition
from gateway.bus.subjects import Subjects
from gateway.config.sections import HistorySettings
from gateway.errors import (
    BusUnavailable,
    HistoryProblem,
    HistoryUnavailable,
    SubscriptionRefused,
)
from gateway.history.base import ID_SECONDS, Narrowed
from gateway.history.jetstream.api import NAME_IN_USE, JsonObject, StreamApi, StreamInfo
from gateway.history.position import CLOCK_SECONDS
from gateway.log import QUIET_SECONDS, Throttle
from gateway.retention import Retention

LEAST_VERSION: Final = (2, 11)
"""The first nats-server with batched direct gets."""

LOOK_SECONDS: Final = 10.0
"""How often the stream is looked at while nothing is wrong and no advisory comes."""

AGAIN_SECONDS: Final = 1.0
"""
When it is looked at again after something was wrong.

Longer each time if the stream cannot become as it has to be, up to :data:`LOOK_SECONDS`. No advisory makes
it sooner then: each try would lead to the next, here and on all other replicas.
"""

DELETED_SECONDS: Final = 1.0
"""
How long a stream that is gone is left alone before another of its name is made.

A server that still deletes moves away, at the end, whatever stands where the files were. These would be the
new stream's, which then acknowledges nothing any more (nats-server 2.15, ``fileStore.Delete``).
"""

ATTEMPTS: Final = 5
"""Other replicas may make or widen the stream at the same time; each time it is wider than before."""

ADVISORIES: Final = ("CREATED", "DELETED", "UPDATED", "LEADER_ELECTED")
"""What JetStream tells of a stream by itself, where this user may listen to it."""

_NARROWED: Final = "gateway.narrowed"
"""
Key of the stream's metadata, with ``<messages> <until, in Unix seconds>``: see :class:`Narrowed`.

What a limit on each subject took away leaves no trace. So who widens it says what it was, to all replicas.
"""

_NOTE: Final = re.compile(r"(\d{1,18}) (\d{1,18}\.\d{3})").fullmatch
_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)").match

_SECOND: Final = 10**9
_NO_LIMIT: Final = (0, -1)
"""How the server writes that there is none."""

_GROWING: Final = ("max_msgs_per_subject", "max_age", "max_bytes")
"""What may have no limit."""

_NECESSARY: Final = ("max_msgs_per_subject", "max_age", "republish", "allow_direct")
"""Without these there would be fewer messages than the rules say, or they would not be delivered."""

_log = structlog.get_logger(__name__)


def stream_config(subjects: Subjects, widest: Retention, config: HistorySettings) -> JsonObject:
    """The configuration of the stream that the rules need.

    Args:
        widest: The most that any rule retains: a stream has one limit for all its subjects.
    """
    return {
        "name": subjects.stream,
        "description": "Message history of the gateway; it is widened, never narrowed.",
        "subjects": [subjects.all_stored],
        # What is stored is published again by the server that stored it: so live order is stored order.
        "republish": {"src": subjects.all_stored, "dest": subjects.all_topics},
        "retention": "limits",
        "discard": "old",
        "max_msgs_per_subject": widest.stored_messages,
        # at least as long as ids are remembered: the server insists on it
        "max_age": max(widest.stored_seconds, ID_SECONDS) * _SECOND,
        "max_bytes": config.max_bytes or -1,
        "storage": config.storage,
        "num_replicas": config.replicas,
        "duplicate_window": ID_SECONDS * _SECOND,
        "allow_direct": True,
        "deny_delete": False,
        "deny_purge": False,
    }


def widened(there: JsonObject, wanted: JsonObject) -> JsonObject:
    """The configuration that does for both: what is there, and what is wanted.

    It never narrows anything, so replicas that start together with different rules come to the same.
    """
    merged = dict(there)
    for key in _GROWING:
        merged[key] = _wider(there.get(key, 0), wanted[key])
    for key in ("num_replicas", "duplicate_window"):
        merged[key] = max(there.get(key, 0), wanted[key])
    for key in ("republish", "discard", "allow_direct"):
        merged[key] = wanted[key]
    return merged


def with_necessities(there: JsonObject, more: JsonObject) -> JsonObject:
    """What is there, with so much of what is wanted as all promises need."""
    return there | {key: more[key] for key in (*_NECESSARY, "metadata") if key in more}


def with_note(more: JsonObject, there: JsonObject, until: float) -> JsonObject:
    """What is wanted, with a note of how many messages of each topic were kept before, if they were fewer.

    Args:
        until: When it will be the wanted number at the latest, in Unix seconds of the server's clock.
    """
    kept = there.get("max_msgs_per_subject", 0)
    if kept == more["max_msgs_per_subject"]:
        return more
    before = narrowed_in(there)
    if before is not None:
        kept = min(kept, before.messages)
    note = {_NARROWED: f"{kept} {until:.3f}"}
    return more | {"metadata": (there.get("metadata") or {}) | note}


def narrowed_in(config: JsonObject) -> Narrowed | None:
    """The note a stream has; None for what is none."""
    note = _NOTE((config.get("metadata") or {}).get(_NARROWED, ""))
    return None if note is None else Narrowed(int(note[1]), float(note[2]))


def is_ours(there: JsonObject, wanted: JsonObject) -> bool:
    """Whether a stream of that name is the history of gateways with this prefix."""
    return set(wanted["subjects"]) <= set(there.get("subjects") or ())


def check_version(version: str) -> None:
    """Whether a nats-server has what is needed.

    Raises:
        HistoryUnavailable: It is too old.
    """
    match = _VERSION(version)
    if match is not None and (int(match[1]), int(match[2])) < LEAST_VERSION:
        least = ".".join(map(str, LEAST_VERSION))
        raise HistoryUnavailable("server_too_old", f"nats-server {version} is older than {least}")


def _wider(there: int, wanted: int) -> int:
    if there in _NO_LIMIT or wanted in _NO_LIMIT:
        return there if there in _NO_LIMIT else wanted
    return max(there, wanted)


class ServerClock:
    """Reckons the server's time from its answers.

    An answer's time was taken somewhere between question and arrival. It is counted as of the question, so
    the reckoned time is late by at most one round trip, and never early while both clocks go evenly.

    Args:
        monotonic: Monotonic seconds: setting this machine's clock must not matter.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._difference = 0.0

    def mark(self) -> float:
        """To be taken just before a question."""
        return self._monotonic()

    def observe(self, asked: float, answer: float) -> None:
        """The answer to a question.

        Args:
            asked: The mark taken before it.
            answer: The server's time, in Unix seconds.
        """
        self._difference = answer - asked

    def now(self) -> float:
        """The server's time, in Unix seconds."""
        return self._monotonic() + self._difference


class StreamKeeper:
    """Makes, widens and watches the stream.

    Args:
        wanted: Its configuration as it is wanted.
        clock: Learns the server's time.

    Attributes:
        problem: Why the stream cannot be used; None when it can.
        epoch: Which stream of this name it is; empty before it was found.
        config: The stream's configuration as it is; empty before it was found.
    """

    def __init__(
        self, bus: RemoteBus, api: StreamApi, wanted: JsonObject, clock: ServerClock
    ) -> None:
        self._bus = bus
        self._api = api
        self._wanted = wanted
        self._clock = clock
        self._listeners: list[Callable[[], None]] = []
        self._advisories = list(ADVISORIES)  # that are still to be subscribed to
        self._throttle = Throttle(QUIET_SECONDS)
        self._woken = asyncio.Event()
        self._connected = asyncio.Event()
        self._losses = 0  # of the bus
        self._leader = ""
        self._task: asyncio.Task[None] | None = None
        self._why = ""  # the problem in the server's words
        self.problem: HistoryProblem | None = "unavailable"
        self.epoch = ""
        self.config: JsonObject = {}
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
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def listen(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def require(self) -> None:
        """Check that the stream can be used.

        Raises:
            HistoryUnavailable: It cannot.
        """
        if self.problem is not None:
            raise HistoryUnavailable(self.problem, f"no history: {self._why or self.problem}")

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
        unfit_seconds = AGAIN_SECONDS
        while True:
            pause, sooner = LOOK_SECONDS, self._woken
            self._woken.clear()
            self._connected.clear()
            losses = self._losses
            try:
                if self._bus.connected:
                    info = await self._look()
                    if losses == self._losses:  # else it is the stream of before
                        self._adopt(info)
                        unfit_seconds = AGAIN_SECONDS
            except HistoryUnavailable as problem:
                pause = AGAIN_SECONDS
                if problem.reason == "stream_unfit":
                    pause, sooner = unfit_seconds, self._connected
                    unfit_seconds = min(2 * unfit_seconds, LOOK_SECONDS)
                self._fail(problem.reason, problem)
            except Exception as problem:  # noqa: BLE001 - whatever it is, the history must come back
                pause = AGAIN_SECONDS
                self._fail("unavailable", problem)
            try:
                async with asyncio.timeout(pause):
                    await sooner.wait()
            except TimeoutError:
                pass

    async def _look(self) -> StreamInfo:
        """The stream, made or widened where needed."""
        check_version(self._bus.server_version)
        await self._subscribe()
        deleted = False
        for _ in range(ATTEMPTS):
            info = await self._info()
            if info is None:
                if self.epoch and not deleted:
                    deleted = True
                    self._fail("unavailable", HistoryUnavailable("unavailable", "it was deleted"))
                    await asyncio.sleep(DELETED_SECONDS)
                else:
                    await self._create()
                continue
            if not is_ours(info.config, self._wanted):
                raise HistoryUnavailable("stream_unfit", "the stream is not this gateway's")
            if info.config.get("sealed"):
                raise HistoryUnavailable(
                    "stream_unfit", "the stream is sealed; it can only be deleted"
                )
            if not await self._widen(info.config):
                return info
        raise HistoryUnavailable("stream_unfit", "others change the stream all the time")

    async def _info(self) -> StreamInfo | None:
        asked = self._clock.mark()
        info = await self._api.info()
        if info is not None:
            self._clock.observe(asked, info.now)
        return info

    async def _create(self) -> None:
        try:
            await self._api.create(self._wanted)
        except HistoryUnavailable as problem:
            if problem.code != NAME_IN_USE:  # else another replica was quicker, with other rules
                raise
        else:
            _log.info("history stream made", stream=self._wanted["name"])

    async def _widen(self, there: JsonObject) -> bool:
        """Whether the stream was changed: if not, it is as it should be, or at least as it must be."""
        more = widened(there, self._wanted)
        if more == there:
            return False
        more = with_note(more, there, self._clock.now() + CLOCK_SECONDS)
        try:
            made = await self._api.update(more)
        except HistoryUnavailable as problem:
            self._complain("history stream cannot be widened", problem)
            more = with_necessities(there, more)
            if more == there:
                return False
            made = await self._api.update(more)
        if made.config == there:
            raise HistoryUnavailable("stream_unfit", "the server leaves the stream as it is")
        _log.info("history stream widened", stream=self._wanted["name"])
        return True

    async def _subscribe(self) -> None:
        """Listen to what JetStream tells of the stream; without it, changes are seen when it is looked at."""
        while self._advisories:
            subject = f"$JS.EVENT.ADVISORY.STREAM.{self._advisories[-1]}.{self._wanted['name']}"
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
        self.problem, self._why = None, ""
        if back:
            _log.info("history ready", epoch=self.epoch, leader=self._leader)
        if new or moved or back:
            for listener in self._listeners:  # the event loop reports the error of a bad one
                asyncio.get_running_loop().call_soon(listener)

    def _fail(self, reason: HistoryProblem, problem: Exception) -> None:
        self.problem, self._why = reason, str(problem)
        if self._bus.connected:  # else the bus has said it all
            self._complain("no history", problem)

    def _complain(self, event: str, problem: Exception) -> None:
        if (held := self._throttle.admit(event)) is not None:
            _log.warning(event, problem=f"{type(problem).__name__}: {problem}", held=held)

    def _advised(self, _body: bytes, _position: StreamPosition | None) -> None:
        self.look()

    def _bus_changed(self, up: bool) -> None:
        self._losses += not up
        self.problem = self.problem or "unavailable"
        if up:
            self._connected.set()
            self.look()
