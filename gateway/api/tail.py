"""Streams a topic's messages to an operator as they come: ``GET /v1/tail``."""

import asyncio
import base64
from collections.abc import Iterable, Iterator
from typing import Annotated, Final, Literal, Protocol, TypeAlias

import msgspec
from aiohttp import hdrs, web
from msgspec import UNSET, Meta, UnsetType

from gateway.api import body
from gateway.api.drain import ReplicaDrain
from gateway.api.problem import BUS_UNAVAILABLE, DRAINED, TOO_MANY_TAILS, FieldError, refusal
from gateway.api.user_types import rfc3339
from gateway.errors import BusError, TooManyTails
from gateway.history.position import Position, decode
from gateway.protocol.reserved import MAX_NAME_BYTES, name_fits
from gateway.tail import Tail, TailEnded, TailEvent, TailGap, TailMessage, TailStarted

MEDIA_TYPE: Final = "application/x-ndjson"

HEARTBEAT_SECONDS: Final = 5.0
"""How long a stream is silent at most."""

WRITE_SECONDS: Final = 30.0
"""How long a reader may take nothing before it is cut off: it keeps others from their place."""

CHUNK_BYTES: Final = 64 * 1024

_QUERY: Final = ("topic", "pattern", "after")

TailLineType: TypeAlias = Literal["start", "message", "gap", "heartbeat", "end"]


class TailLine(msgspec.Struct, omit_defaults=True):
    """One line of the stream; which fields it has depends on its type."""

    type: Annotated[
        TailLineType,
        Meta(
            description="`start`: the first. `message`: one that was published. `gap`: messages are not "
            f"shown here. `heartbeat`: nothing came for {HEARTBEAT_SECONDS:g} seconds. `end`: the last; this "
            "replica has moved its clients away, so ask another one."
        ),
    ]
    topic: Annotated[str, Meta(description="Of a message: its topic.")] | UnsetType = UNSET
    event: Annotated[str, Meta(description="Of a message: its event.")] | UnsetType = UNSET
    payload: (
        Annotated[
            msgspec.Raw,
            Meta(
                description="Of a message: as it was published.",
                extra_json_schema={"type": "object"},
            ),
        ]
        | UnsetType
    ) = UNSET
    base64: (
        Annotated[str, Meta(description="Of a binary message, in place of `payload`: its bytes.")]
        | UnsetType
    ) = UNSET
    time: (
        Annotated[
            str,
            Meta(
                description="Of a message: when it came to this replica, or was stored if it is older than "
                "the stream. RFC 3339 in UTC."
            ),
        ]
        | UnsetType
    ) = UNSET
    exclude_sessions: (
        Annotated[list[str], Meta(description="Of a message: sessions that do not get it.")]
        | UnsetType
    ) = UNSET
    exclude_devices: (
        Annotated[list[str], Meta(description="Of a message: devices that do not get it.")]
        | UnsetType
    ) = UNSET
    device_types: (
        Annotated[list[str], Meta(description="Of a message: types of device that get it.")]
        | UnsetType
    ) = UNSET
    position: (
        Annotated[
            str,
            Meta(
                description="Where one stands who has read until here, to go on with `after`; on a topic "
                "whose messages are kept."
            ),
        ]
        | UnsetType
    ) = UNSET
    recovered: (
        Annotated[
            bool | None,
            Meta(
                description="Of the start: whether all that came after `after` follows; null without it."
            ),
        ]
        | UnsetType
    ) = UNSET
    messages: (
        Annotated[int | None, Meta(description="Of a gap: how many; null if nobody knows.")]
        | UnsetType
    ) = UNSET
    reason: (
        Annotated[
            str | None,
            Meta(
                description="Of the start: why `recovered` is not true, as in the reply to a join, or null. "
                "Of a gap: `slow` (this reader was), `history` (it lost them), `bus` (it was away, and "
                "nothing is kept). Of the end: `drained`."
            ),
        ]
        | UnsetType
    ) = UNSET


class TailOpener(Protocol):
    """What opens tails on this replica."""

    def open_pattern(self, prefix: str, /) -> Tail:
        """See :meth:`gateway.tail.Tails.open_pattern`."""

    async def open_topic(self, topic: str, /, after: Position | None = None) -> Tail:
        """See :meth:`gateway.tail.Tails.open_topic`."""


class TailCalls:
    """The call."""

    def __init__(self, tails: TailOpener, drain: ReplicaDrain) -> None:
        self._tails = tails
        self._drain = drain

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """``GET /v1/tail``, until the client goes or this replica is drained."""
        topic, prefix, after = _asked(request)
        response = web.StreamResponse(
            headers={hdrs.CONTENT_TYPE: MEDIA_TYPE, hdrs.CACHE_CONTROL: "no-store"}
        )
        if request.method == hdrs.METH_HEAD:
            return response
        if self._drain.state == "drained":
            raise refusal(DRAINED, "Nothing comes here any more. Ask another replica.")
        try:
            if prefix is not None:
                tail = self._tails.open_pattern(prefix)
            else:
                tail = await self._tails.open_topic(topic, after)
        except TooManyTails as error:
            raise refusal(TOO_MANY_TAILS, f"{error}.") from None
        except BusError as error:
            raise refusal(BUS_UNAVAILABLE, f"The topic cannot be followed now: {error}") from None
        try:
            await response.prepare(request)
            await _send(tail, response)
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            tail.close()
        return response


async def _send(tail: Tail, response: web.StreamResponse) -> None:
    ended = False
    while not ended:
        events = await tail.take(HEARTBEAT_SECONDS)
        ended = bool(events) and isinstance(events[-1], TailEnded)
        for chunk in _chunks(map(_line, events)) if events else [_encoded(_heartbeat(tail))]:
            async with asyncio.timeout(WRITE_SECONDS):
                await response.write(chunk)


def _asked(request: web.Request) -> tuple[str, str | None, Position | None]:
    """The topic, or in its place what topics begin with; and the position to go on from."""
    query = request.query
    faults = [FieldError(name, "is not known here") for name in query if name not in _QUERY]
    topic, pattern, after = (query.get(name) for name in _QUERY)
    position = None
    if (topic is None) == (pattern is None):
        faults.append(FieldError("topic", "either it or pattern is needed"))
    elif not name_fits(topic or pattern or "") or topic == "":
        faults.append(FieldError("topic", f"must have 1 to {MAX_NAME_BYTES} bytes of UTF-8"))
    elif pattern is not None and pattern.partition("*")[1:] != ("*", ""):
        faults.append(FieldError("pattern", 'must end with its only "*", as room:* does'))
    if after is not None:
        try:
            position = decode(after)
        except ValueError:
            faults.append(FieldError("after", "is no position"))
        if topic is None:
            faults.append(FieldError("after", "goes with a topic alone"))
    if faults:
        raise body.invalid(*faults)
    return topic or "", None if pattern is None else pattern[:-1], position


def _line(event: TailEvent) -> TailLine:
    match event:
        case TailMessage(message, time):
            line = TailLine(
                "message",
                topic=message.topic,
                event=message.event,
                time=rfc3339(time),
                position=message.position[1:-1].decode() or UNSET,
            )
            if message.binary:
                line.base64 = base64.b64encode(message.payload).decode()
            else:
                line.payload = msgspec.Raw(message.payload)
            if (to := message.audience) is not None:
                line.exclude_sessions = sorted(to.excluded_sessions) or UNSET
                line.exclude_devices = sorted(to.excluded_devices) or UNSET
                line.device_types = sorted(to.device_types) or UNSET
            return line
        case TailStarted(recovered, reason, position):
            return TailLine("start", recovered=recovered, reason=reason, position=position or UNSET)
        case TailGap(messages, reason):
            return TailLine("gap", messages=messages, reason=reason)
    return TailLine("end", reason="drained")


def _heartbeat(tail: Tail) -> TailLine:
    return TailLine("heartbeat", position=tail.position or UNSET)


def _encoded(line: TailLine) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def _chunks(lines: Iterable[TailLine]) -> Iterator[bytes]:
    """Lines, several joined as long as they are short."""
    parts: list[bytes] = []
    size = 0
    for line in map(_encoded, lines):
        parts.append(line)
        size += len(line)
        if size >= CHUNK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)
