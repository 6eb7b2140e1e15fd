"""Reads a message's position in its stream from the headers NATS gave it.

A message that JetStream stored and published again comes with these (NATS ADR-8, ADR-31)::

    NATS/1.0
    Nats-Msg-Id: …                             what its publisher said, if anything
    Nats-Stream: GATEWAY
    Nats-Subject: gateway.store.room.1
    Nats-Sequence: 42
    Nats-Time-Stamp: 2026-08-06T00:29:27.587861324Z
    Nats-Last-Sequence: 40

The server's own lines stand behind the publisher's, so the last of a name is the server's.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import msgspec

_SEQUENCE: Final = b"\r\nNats-Sequence: "
_TIME: Final = b"\r\nNats-Time-Stamp: "
_PREVIOUS: Final = b"\r\nNats-Last-Sequence: "
_SUBJECT: Final = b"\r\nNats-Subject: "
_PENDING: Final = b"\r\nNats-Num-Pending: "

_MINUTE: Final = len("2026-08-06T00:29")


class StreamPosition(msgspec.Struct, frozen=True, gc=False):
    """A message's position in the stream it is stored in.

    Attributes:
        offset: Its place in the history of all topics, from 1 on.
        previous: Offset of the message before it on the same topic; 0 when none is kept.
        time: When it was stored, in Unix seconds of the server's clock.
        subject: The subject it is stored under.
    """

    offset: int
    previous: int
    time: float
    subject: str


def stream_position_in(headers: bytes) -> StreamPosition | None:
    """What a block of headers says; None where it does not say it all. Never raises."""
    try:
        return StreamPosition(
            _number(headers, _SEQUENCE),
            _number(headers, _PREVIOUS),
            unix_seconds(_value(headers, _TIME)),
            _value(headers, _SUBJECT).decode(),
        )
    except ValueError:
        return None


def pending_in(headers: bytes) -> int:
    """How many more messages an answer in several parts could have had; 0 where it is not said."""
    try:
        return _number(headers, _PENDING)
    except ValueError:
        return 0


def unix_seconds(timestamp: bytes) -> float:
    """A time as NATS writes it: RFC 3339 in UTC, with up to nine digits after the point.

    Raises:
        ValueError: It is none.
    """
    seconds = timestamp[_MINUTE + 1 : -1]
    # float() alone would take signs, blanks and words
    if timestamp[-1:] != b"Z" or not seconds.replace(b".", b"", 1).isdigit():
        raise ValueError("not a time in UTC")
    return _unix_minute(timestamp[:_MINUTE]) + float(seconds)


@lru_cache(maxsize=64)
def _unix_minute(text: bytes) -> float:
    """Messages of one minute share all of a time but its seconds."""
    return datetime.strptime(text.decode(), "%Y-%m-%dT%H:%M").replace(tzinfo=UTC).timestamp()


def _number(headers: bytes, name: bytes) -> int:
    value = _value(headers, name)
    if not value.isdigit():  # int() would take more
        raise ValueError("not a number")
    return int(value)


def _value(headers: bytes, name: bytes) -> bytes:
    start = headers.rfind(name)
    if start < 0:
        raise ValueError("not said")
    start += len(name)
    return headers[start : headers.find(b"\r\n", start)]
