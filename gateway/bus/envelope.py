"""The bytes that travel between replicas, readable by neighbouring releases.

::

     0       1      2               10             12            16
     +-------+------+---------------+--------------+-------------+-------+------+---------+
     |version| kind | published_at  | event length | meta length | event | meta | payload |
     +-------+------+---------------+--------------+-------------+-------+------+---------+
       uint8  uint8   float64         uint16         uint32        UTF-8   JSON   the rest

All numbers are big-endian. Meta is a JSON object, or nothing when there is nothing to say. A later
release may add keys to it, which an earlier one ignores; what an earlier one must not ignore gets a
new kind, and a change of this layout a new version.

What gateways say to each other (:class:`Control`) has only version and kind before it.
"""

from enum import IntEnum
from math import isfinite
from struct import Struct
from typing import Final

import msgspec

from gateway.audience import Audience

VERSION: Final = 1

_TEXT: Final = 1
_BINARY: Final = 2


class Control(IntEnum):
    """Kinds of messages from gateway to gateway, which no client ever sees."""

    TRACKER = 3
    REQUEST = 4
    ANSWER = 5
    REVOCATION = 6
    ERASED = 7
    LONG_REQUEST = 8
    PROBE = 9


_CONTROLS: Final = frozenset(Control)
_CONTROL_HEAD_BYTES: Final = 2

_HEADER: Final = Struct(">BBdHI")
_HEADER_BYTES: Final = _HEADER.size
_MAX_EVENT_BYTES: Final = 0xFFFF


class EnvelopeError(ValueError):
    """Bytes that are no envelope this release can read, or an event too long to be sent.

    Attributes:
        label: Stable word for logs and metrics: ``truncated``, ``version``, ``kind``,
            ``published_at``, ``event`` or ``meta``.
    """

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.label = label


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """One message between replicas.

    Attributes:
        event: At most 65,535 bytes in UTF-8.
        payload: A JSON object in UTF-8, or any bytes when ``binary``; never looked into.
        binary: Whether the payload is for clients that understand binary frames only.
        published_at: Unix seconds on the publisher's clock.
        audience: Who gets it; None for everybody.
    """

    event: str
    payload: bytes
    binary: bool
    published_at: float
    audience: Audience | None = None


_encode_meta = msgspec.json.Encoder().encode
_decode_meta = msgspec.json.Decoder(Audience).decode


def encode(envelope: Envelope) -> bytes:
    """The bytes of an envelope.

    Raises:
        EnvelopeError: ``event``: it is too long, or no text that UTF-8 can carry.
    """
    try:
        event = envelope.event.encode()
    except UnicodeEncodeError:
        raise EnvelopeError("event") from None
    if len(event) > _MAX_EVENT_BYTES:
        raise EnvelopeError("event")
    meta = b"" if envelope.audience is None else _encode_meta(envelope.audience)
    kind = _BINARY if envelope.binary else _TEXT
    header = _HEADER.pack(VERSION, kind, envelope.published_at, len(event), len(meta))
    return b"".join((header, event, meta, envelope.payload))


def decode(data: bytes) -> Envelope:
    """The envelope in some bytes, whoever sent them.

    Raises:
        EnvelopeError: And nothing else, whatever the bytes are.
    """
    if not data:
        raise EnvelopeError("truncated")
    if data[0] != VERSION:
        raise EnvelopeError("version")
    if len(data) < _HEADER_BYTES:
        raise EnvelopeError("truncated")
    _, kind, published_at, event_bytes, meta_bytes = _HEADER.unpack_from(data)
    event_end = _HEADER_BYTES + event_bytes
    meta_end = event_end + meta_bytes
    if kind not in {_TEXT, _BINARY}:
        raise EnvelopeError("kind")
    if len(data) < meta_end:
        raise EnvelopeError("truncated")
    if not isfinite(published_at):  # one NaN would spoil a histogram's sum for good
        raise EnvelopeError("published_at")
    try:
        event = data[_HEADER_BYTES:event_end].decode()
    except UnicodeDecodeError:
        raise EnvelopeError("event") from None
    audience = None
    if meta_bytes:
        try:
            audience = _decode_meta(data[event_end:meta_end])
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            raise EnvelopeError("meta") from None
    return Envelope(
        event,
        data[meta_end:],
        kind == _BINARY,
        published_at,
        audience,
    )


def encode_control(kind: Control, message: bytes) -> bytes:
    """A message from gateway to gateway."""
    return bytes((VERSION, kind)) + message


def control_in(data: bytes) -> tuple[Control, bytes] | None:
    """The message from gateway to gateway in some bytes; None where they are anything else."""
    if len(data) < _CONTROL_HEAD_BYTES or data[0] != VERSION or data[1] not in _CONTROLS:
        return None
    return Control(data[1]), data[_CONTROL_HEAD_BYTES:]
