"""Small values kept on the NATS server, in JetStream key-value buckets (NATS ADR-8).

A bucket is a stream: each key is a subject of it, the last message of the subject its value.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from nats.aio.client import Client
from nats.errors import Error
from nats.js.api import AckPolicy, ConsumerConfig, KeyValueConfig
from nats.js.client import JetStreamContext
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError
from nats.js.kv import KV_MARKER_REASON, KV_OP, KeyValue

from gateway.errors import BusUnavailable, NothingKept

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

MADE_HERE: Final = "made by gateway"
"""Description of the buckets that may be changed; others are their maker's."""

_NO_JETSTREAM: Final = frozenset({None, 10039, 10076})
"""Errors with status 503 that mean there is none: nobody answers, not for this account, not enabled."""

_log = structlog.get_logger(__name__)


class Buckets:
    """The buckets, by way of one connection; they are made when they are first written."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._writable: dict[str, KeyValue] = {}
        self._opening: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._refusals: dict[str, tuple[float, BusUnavailable]] = {}
        self._denied: set[str] = set()

    def denied(self, subject: str) -> None:
        """The server's permissions deny a subject; it tells only when something was tried.

        Nothing else is said about it: what was tried is not answered, as by a JetStream that hangs.
        """
        first, second, *_ = *subject.lower().split("."), ""  # as in nats-py's errors
        if first == "$kv":
            self._denied.add(second)
        elif (first, second) == ("$js", "api") or second == "inbox":
            self._denied.add("")

    async def put(self, bucket: str, key: str, value: bytes, keep_seconds: float) -> None:
        """Keep a value; see :meth:`gateway.bus.base.Bus.put`."""
        with self._sparing(bucket):
            await (await self._open(bucket, keep_seconds)).put(key, value)

    async def get(self, bucket: str, key: str) -> bytes | None:
        """A kept value; see :meth:`gateway.bus.base.Bus.get`."""
        with self._sparing(bucket):
            try:
                message = await self._jetstream().get_msg(
                    _stream(bucket), subject=_subject(bucket) + key
                )
            except NotFoundError:  # the value or the bucket
                return None
            return None if _is_marker(message.headers) else message.data or b""

    async def entries(self, bucket: str) -> dict[str, bytes]:
        """All kept values; see :meth:`gateway.bus.base.Bus.entries`."""
        with self._translating(bucket):
            stream = self._jetstream()
            try:
                # asked of the stream's leader, while a reader may sit on a copy that lags behind
                messages = (await stream.stream_info(_stream(bucket))).state.messages
            except NotFoundError:
                return {}
            return await _read(stream, bucket, messages) if messages else {}

    def _jetstream(self) -> JetStreamContext:
        return self._client.jetstream(timeout=ANSWER_SECONDS)

    async def _open(self, name: str, keep_seconds: float) -> KeyValue:
        async with self._opening[name]:
            bucket = self._writable.get(name)
            if bucket is None:
                self._check(name)  # others may have waited for the lock, too
                bucket = self._writable[name] = await _make(self._jetstream(), name, keep_seconds)
            return bucket

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
            raise BusUnavailable(str(problem) or type(problem).__name__) from problem

    def _allow(self, bucket: str) -> None:
        if not self._denied.isdisjoint({"", bucket.lower()}):
            raise NothingKept("the permissions for JetStream are missing")


async def _make(stream: JetStreamContext, name: str, keep_seconds: float) -> KeyValue:
    """A bucket, made unless it is there.

    One of the gateway's own that keeps its values for too short a time, since it was made with another
    configuration, is told the longer one; a shorter one would throw away what others still want.
    """
    wanted = KeyValueConfig(bucket=name, ttl=keep_seconds, description=MADE_HERE)
    try:
        return await stream.create_key_value(config=wanted)
    except APIError:
        there = await stream.key_value(name)
    config = (await stream.stream_info(_stream(name))).config
    if config.max_age and config.max_age < keep_seconds:
        if config.description == MADE_HERE:
            await stream.update_stream(config, max_age=keep_seconds)
        else:
            _log.warning(
                "bucket keeps values for too short a time",
                bucket=name,
                seconds=config.max_age,
                needed=keep_seconds,
            )
    return there


async def _read(stream: JetStreamContext, bucket: str, messages: int) -> dict[str, bytes]:
    """All values of a bucket whose stream has that many messages, or more since.

    Raises:
        BusUnavailable: Fewer were found: some have ended meanwhile, or the copy read was not up to date.
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
    read, left = 0, messages
    try:
        while left:
            page = await reader.fetch(min(left, PAGE_MESSAGES), timeout=ANSWER_SECONDS)
            read += len(page)
            left = page[-1].metadata.num_pending
            for message in page:
                key = message.subject.removeprefix(_subject(bucket))
                if _is_marker(message.headers):
                    found.pop(key, None)
                else:
                    found[key] = message.data
    finally:
        await reader.unsubscribe()
    if read < messages:
        raise BusUnavailable(f"{read} of {messages} kept values were read")
    return found


def _is_marker(headers: dict[str, str] | None) -> bool:
    """Whether a message says that there is no value any more."""
    return headers is not None and (KV_OP in headers or KV_MARKER_REASON in headers)


def _stream(bucket: str) -> str:
    return f"KV_{bucket}"


def _subject(bucket: str) -> str:
    """What a bucket's subjects begin with."""
    return f"$KV.{bucket}."
