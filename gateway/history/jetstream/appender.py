"""Stores messages in a stream: many are under way at a time, each acknowledged by the stream's leader."""

import asyncio
import hashlib
import time
from typing import Final

import msgspec

from gateway.bus.refusals import RefusalKind, kind_of_code
from gateway.bus.remote import RemoteBus
from gateway.bus.requests import NO_RESPONDERS
from gateway.bus.subjects import Subjects
from gateway.errors import BusUnavailable, EnvelopeTooLarge, HistoryUnavailable, OutcomeUnknown
from gateway.history.base import ID_SECONDS, Receipt
from gateway.history.jetstream.api import ApiError, StreamApi
from gateway.history.jetstream.stream import ServerClock, StreamKeeper
from gateway.history.position import CLOCK_SECONDS

ACKNOWLEDGE_SECONDS: Final = 5.0
"""How long an acknowledgement may take; servers that replicate need the consent of others."""

FIRST_PAUSE_SECONDS: Final = 0.005
LONGEST_PAUSE_SECONDS: Final = 0.25

_DUPLICATE_IN_PROCESS: Final = 10158
"""Two messages of one id are on their way into a replicated stream, and this was the later one."""

_TOO_LARGE: Final = 10054

_SENT: Final = b"Gateway-Sent"
"""
Header of a message that has an id: when it was sent, in unix milliseconds of the server's clock.

An acknowledgement does not say when a message was stored. A publisher gets this time in its place, and
whoever publishes the message again reads the same.
"""

SENT_SECONDS: Final = CLOCK_SECONDS / 2
"""How much earlier than it was stored a message may have been sent for that time to stand in its position."""


class _Ack(msgspec.Struct):
    seq: int = 0
    duplicate: bool = False
    error: ApiError | None = None


_decode: Final = msgspec.json.Decoder(_Ack).decode


class Appender:
    """Appends to the stream; the API says when the first message of an id was sent and stored."""

    def __init__(
        self,
        bus: RemoteBus,
        subjects: Subjects,
        keeper: StreamKeeper,
        clock: ServerClock,
        api: StreamApi,
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._keeper = keeper
        self._clock = clock
        self._api = api

    async def append(self, topic: str, body: bytes, id: str | None) -> Receipt:  # noqa: A002
        self._keeper.require()
        subject = self._subjects.stored(topic)
        if id is None:
            ack = await self._publish(subject, b"", body)
            return Receipt(ack.seq, self._clock.now(), False)
        sent = int(self._clock.now() * 1000)
        named = (b"Nats-Msg-Id", _name(topic, id), _SENT, sent)
        ack = await self._publish(subject, b"NATS/1.0\r\n%b: %b\r\n%b: %d\r\n\r\n" % named, body)
        now = self._clock.now()
        if not ack.duplicate and now <= sent / 1000 + SENT_SECONDS:
            return Receipt(ack.seq, sent / 1000, False)
        told = await self._told_time(ack.seq)
        if told is None:  # then no later than it was
            told = now - ID_SECONDS if ack.duplicate else now
        return Receipt(ack.seq, told, ack.duplicate)

    async def _publish(self, subject: str, headers: bytes, body: bytes) -> _Ack:
        deadline = time.monotonic() + ACKNOWLEDGE_SECONDS
        pause = FIRST_PAUSE_SECONDS
        while True:
            ack = await self._ask(subject, headers, body, deadline - time.monotonic())
            if ack.error is None:
                return ack
            if ack.error.err_code != _DUPLICATE_IN_PROCESS:
                raise self._refusal(ack.error, len(headers) + len(body))
            # What becomes of the other is known soon: then this is its duplicate, or the first.
            if time.monotonic() + pause > deadline:
                raise OutcomeUnknown("another message of this id is still under way")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _ask(self, subject: str, headers: bytes, body: bytes, seconds: float) -> _Ack:
        try:
            reply = await self._bus.request(subject, body, headers=headers, seconds=seconds)
        except BusUnavailable as problem:
            raise HistoryUnavailable("unavailable", str(problem)) from problem
        if reply.status == NO_RESPONDERS:
            # The stream is gone, or has no leader at the moment; nobody else would have listened.
            self._keeper.look()
            why = "no server keeps the stream at the moment"
            self._bus.refusals.note(RefusalKind.STREAM, why)
            raise HistoryUnavailable("unavailable", why)
        try:
            return _decode(reply.body)
        except msgspec.DecodeError as problem:
            raise OutcomeUnknown("the acknowledgement cannot be read") from problem

    def _refusal(self, error: ApiError, size: int) -> HistoryUnavailable | EnvelopeTooLarge:
        self._bus.refusals.note(kind_of_code(error.err_code), error.description)
        if error.err_code == _TOO_LARGE:
            return EnvelopeTooLarge(size, int(self._keeper.config.get("max_msg_size", 0)))
        return HistoryUnavailable("unavailable", error.description, error.err_code)

    async def _told_time(self, offset: int) -> float | None:
        """The time in the position of the first message of an id; None if it cannot be found out."""
        try:
            message = await self._api.message(seq=offset)
        except HistoryUnavailable:
            return None
        if message is None:
            return None
        sent = message.header(_SENT)
        if sent.isdigit() and message.stored_at <= int(sent) / 1000 + SENT_SECONDS:
            return int(sent) / 1000
        return message.stored_at


def _name(topic: str, id: str) -> bytes:  # noqa: A002
    """An id that is unique in the stream, which has one space of ids for all subjects."""
    # the length tells where the topic ends; a lone surrogate is no UTF-8 but still a different id
    text = f"{len(topic)}:{topic}{id}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest().encode()
