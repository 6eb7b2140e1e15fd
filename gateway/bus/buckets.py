"""Small values kept on the NATS server, in JetStream key-value buckets (NATS ADR-8).

A bucket is a stream: each key is a subject of it, the last message of the subject its value.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import structlog
from nats.aio.client import Client
from nats.errors import Error
from nats.js.api import AckPolicy, ConsumerConfig, KeyValueConfig, StreamConfig
from nats.js.client import JetStreamContext
from nats.js.errors import APIError, BucketNotFoundError, NotFoundError, ServiceUnavailableError
from nats.js.kv import KV_MARKER_REASON, KV_OP, KeyValue

from gateway.bus.refusals import Refusals, kind_of_code
from gateway.errors import BusUnavailable, NothingKept
from gateway.log import background_error

ANSWER_SECONDS: Final = 1.0

TRY_AGAIN_SECONDS: Final = 5.0
"""
How long a bucket is not written and no single value read after that has failed.

Whoever writes a value for each user would else have them all wait for a JetStream that hangs.
"""

PAGE_MESSAGES: Final = 1000
"""Values asked for at a time, when all of a bucket are read."""

READER_SECONDS: Final = 5.0
"""How long the server remembers a reader that asks no more."""

WIDEN_AGAIN_SECONDS: Final = 10.0
"""Time between two tries to have the servers keep as many copies as is wanted."""

MADE_HERE: Final = "made by gateway"
"""Description of the buckets that may be changed; others are their maker's."""

_NO_JETSTREAM: Final = frozenset({None, 10039, 10076})
"""Errors with status 503 that mean there is none: nobody answers, not for this account, not enabled."""

DENIED_SECONDS: Final = 300.0
"""How long what the permissions deny is not tried again; they may change while the connection stands."""

_UPDATE: Final = "$JS.API.STREAM.UPDATE."

_log = structlog.get_logger(__name__)


class Buckets:
    """The kept values of a :class:`~gateway.bus.base.Bus`, over one connection; written buckets are made.

    One of the gateway's own that has too few copies, because it was made with another configuration or
    when there were too few servers, is given more as soon as it was used and there are enough.

    Args:
        copies: Servers that shall keep each bucket.
        refusals: Told what JetStream refuses.
    """

    def __init__(self, client: Client, copies: int, refusals: Refusals) -> None:
        self._client = client
        self._refused = refusals.note
        self._copies = copies
        self._thin: set[str] = set()  # have too few
        self._widening: asyncio.Task[None] | None = None
        self._writable: dict[str, KeyValue] = {}
        self._opening: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._refusals: dict[str, tuple[float, BusUnavailable]] = {}
        self._denied: dict[str, float] = {}  # until when, by bucket; all of them have no name
        self._fixed = False  # the permissions let nobody change a bucket

    def denied(self, subject: str) -> None:
        """The server's permissions deny a subject that was tried; no other answer comes to what was tried."""
        if subject.startswith(_UPDATE):
            self._fixed = True  # keeping what there is does not need it
            return
        first, second, *_ = *subject.split("."), ""
        until = time.monotonic() + DENIED_SECONDS
        if first == "$KV":
            self._denied[second] = until
        elif (first, second) == ("$JS", "API"):
            self._denied[""] = until

    async def put(self, bucket: str, key: str, value: bytes, keep_seconds: float) -> None:
        with self._sparing(bucket):
            await (await self._open(bucket, keep_seconds)).put(key, value)

    async def get(self, bucket: str, key: str) -> bytes | None:
        with self._sparing(bucket):
            try:
                message = await self._jetstream().get_msg(
                    _stream(bucket), subject=_subject(bucket) + key
                )
            except NotFoundError:  # the value or the bucket
                return None
            return None if _is_marker(message.headers) else message.data or b""

    async def entries(self, bucket: str) -> dict[str, bytes]:
        with self._translating(bucket):
            stream = self._jetstream()
            try:
                self._count((await stream.stream_info(_stream(bucket))).config, bucket)
                # asked of the stream's leader, while a reader may sit on a copy that lags behind
                last = await stream.get_last_msg(_stream(bucket), f"{_subject(bucket)}>")
            except NotFoundError:  # the bucket or any value
                return {}
            try:
                return await _read(stream, bucket, last.seq or 0)
            except ServiceUnavailableError as problem:
                # No server answers for the reader, which may have ended with its own. That looks like a
                # missing JetStream, which has just answered.
                raise BusUnavailable(f"the reader of {bucket} is gone") from problem

    def stop(self) -> None:
        """The connection is lost: no more is to be done for the buckets."""
        if self._widening is not None:
            self._widening.cancel()

    def _jetstream(self) -> JetStreamContext:
        return self._client.jetstream(timeout=ANSWER_SECONDS)

    async def _open(self, name: str, keep_seconds: float) -> KeyValue:
        async with self._opening[name]:
            bucket = self._writable.get(name)
            if bucket is None:
                self._check(name)  # others may have waited for the lock, too
                wanted = KeyValueConfig(
                    bucket=name, ttl=keep_seconds, description=MADE_HERE, replicas=self._copies
                )
                bucket, config = await self._make(self._jetstream(), wanted)
                self._count(config, name)
                self._writable[name] = bucket
            return bucket

    def _count(self, config: StreamConfig, name: str) -> None:
        """Have more copies of a bucket made, or complain, where it has too few."""
        copies = config.num_replicas or 1
        if copies >= self._copies or name in self._thin:
            return
        if config.description != MADE_HERE:
            _log.warning(
                "bucket has too few copies", bucket=name, copies=copies, needed=self._copies
            )
            return
        self._thin.add(name)
        if self._widening is None or self._widening.done():
            self._widening = asyncio.create_task(self._widen_all(), name="nats-bus-widen")

    async def _widen_all(self) -> None:
        """Have more copies made until all buckets have enough, or the permissions deny it."""
        complained: set[str] = set()
        while self._client.is_connected:
            for name in tuple(self._thin):
                try:
                    await self._widen(name)
                except NotFoundError:  # somebody deleted it; it will be made anew
                    self._thin.discard(name)
                except (Error, TimeoutError) as problem:
                    if name not in complained:
                        complained.add(name)
                        _log.warning(
                            "bucket cannot have more copies yet; will try until it can",
                            bucket=name,
                            problem=str(problem) or type(problem).__name__,
                        )
                except Exception as problem:  # noqa: BLE001 -- whatever it is, the next try may succeed
                    background_error("bus", problem)
            if not self._thin or self._fixed:
                return  # permissions are read when a connection begins; the next one tries again
            await asyncio.sleep(WIDEN_AGAIN_SECONDS)

    async def _widen(self, name: str) -> None:
        stream = self._jetstream()
        config = (await stream.stream_info(_stream(name))).config
        if (config.num_replicas or 1) < self._copies:
            await stream.update_stream(config, num_replicas=self._copies)
            _log.info("bucket has more copies now", bucket=name, copies=self._copies)
        self._thin.discard(name)

    async def _make(
        self, stream: JetStreamContext, wanted: KeyValueConfig
    ) -> tuple[KeyValue, StreamConfig]:
        """A bucket, made unless it is there, and how it is kept.

        Where there are too few servers for the copies it is made with one: what is kept in one place is
        better than what is not kept at all.

        One of the gateway's own that keeps its values for too short a time, since it was made with another
        configuration, is told the longer one; a shorter one would throw away what others still want.
        """
        name, keep_seconds = wanted.bucket, wanted.ttl or 0
        try:
            there = await stream.create_key_value(config=wanted)
        except APIError as refusal:
            try:
                there = await stream.key_value(name)
            except BucketNotFoundError:
                if wanted.replicas == 1:
                    raise refusal from None
                there = await stream.create_key_value(config=replace(wanted, replicas=1))
        config = (await stream.stream_info(_stream(name))).config
        if (
            config.max_age
            and config.max_age < keep_seconds
            and (config.description != MADE_HERE or not await self._lengthen(config, keep_seconds))
        ):
            _log.warning(
                "bucket keeps values for too short a time",
                bucket=name,
                seconds=config.max_age,
                needed=keep_seconds,
            )
        return there, config

    async def _lengthen(self, config: StreamConfig, keep_seconds: float) -> bool:
        """Have a bucket keep its values longer; False where the permissions do not let it."""
        try:
            await self._jetstream().update_stream(config, max_age=keep_seconds)
        except (Error, TimeoutError):
            if not self._fixed:
                raise
            return False
        return True

    def _check(self, bucket: str) -> None:
        until, refusal = self._refusals.get(bucket, (0.0, None))
        if refusal is not None and time.monotonic() < until:
            raise type(refusal)(str(refusal))

    @contextmanager
    def _sparing(self, bucket: str) -> Iterator[None]:
        """Like :meth:`_translating`, and after an error fail at once for a while."""
        self._check(bucket)
        try:
            with self._translating(bucket):
                yield
        except BusUnavailable as refusal:
            self._writable.pop(bucket, None)  # perhaps somebody deleted it
            if time.monotonic() >= self._refusals.get(bucket, (0.0,))[0]:
                self._refusals[bucket] = (time.monotonic() + TRY_AGAIN_SECONDS, refusal)
            raise

    @contextmanager
    def _translating(self, bucket: str) -> Iterator[None]:
        """Turn nats-py's errors into the bus's."""
        self._allow(bucket)
        try:
            yield
        except (Error, TimeoutError) as problem:
            self._allow(bucket)
            if isinstance(problem, ServiceUnavailableError) and problem.err_code in _NO_JETSTREAM:
                raise NothingKept("no JetStream") from problem
            if isinstance(problem, APIError):
                self._refused(
                    kind_of_code(problem.err_code or 0), f"{bucket}: {problem.description}"
                )
            raise BusUnavailable(str(problem) or type(problem).__name__) from problem

    def _allow(self, bucket: str) -> None:
        until = max(self._denied.get("", 0.0), self._denied.get(bucket, 0.0))
        if time.monotonic() < until:
            raise NothingKept("the permissions for JetStream are missing")


async def _read(stream: JetStreamContext, bucket: str, last: int) -> dict[str, bytes]:
    """All values of a bucket the last message of whose stream has this number, or a higher one since.

    Raises:
        BusUnavailable: The copy that was read is not up to date: it does not have that message yet. Or
            the message has ended meanwhile.
    """
    # A consumer of its own for each reading: one that stays would be deaf after a server's restart.
    reader = await stream.pull_subscribe(
        f"{_subject(bucket)}>",
        stream=_stream(bucket),
        config=ConsumerConfig(
            ack_policy=AckPolicy.NONE, inactive_threshold=READER_SECONDS, mem_storage=True
        ),
    )
    found: dict[str, bytes] = {}
    reached, left = 0, 1
    try:
        while left:
            page = await reader.fetch(min(left, PAGE_MESSAGES), timeout=ANSWER_SECONDS)
            if not page:
                break  # a copy that lags behind has none yet
            reached = page[-1].metadata.sequence.stream
            left = page[-1].metadata.num_pending
            for message in page:
                key = message.subject.removeprefix(_subject(bucket))
                if _is_marker(message.headers):
                    found.pop(key, None)
                else:
                    found[key] = message.data
    finally:
        await reader.unsubscribe()
    if reached < last:
        raise BusUnavailable(f"kept values were read up to {reached} of {last}")
    return found


def _is_marker(headers: dict[str, str] | None) -> bool:
    """Whether a message says that there is no value any more."""
    return headers is not None and (KV_OP in headers or KV_MARKER_REASON in headers)


def _stream(bucket: str) -> str:
    return f"KV_{bucket}"


def _subject(bucket: str) -> str:
    """What a bucket's subjects begin with."""
    return f"$KV.{bucket}."
