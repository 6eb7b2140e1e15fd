"""Protocol version 2: JSON arrays, and binary frames.

Source: ``Phoenix.Socket.V2.JSONSerializer``. Extra array elements are ignored, as there.
"""

from typing import Final

import msgspec

from gateway.protocol.messages import NULL, Json, Message, Outgoing, Undecodable, encode_json
from gateway.protocol.serializer import (
    DecodeErrors,
    as_sent,
    checked,
    decode_parts,
    undecodable,
)

PUSH: Final = 0
"""Kind of a client's binary frame: push."""
BROADCAST: Final = 2
"""Kind of a server's binary frame: broadcast."""

_PUSH_HEADER_BYTES: Final = 5  # kind, then the lengths of join_ref, ref, topic and event


class _Frame(msgspec.Struct, array_like=True, gc=False):
    join_ref: msgspec.Raw
    ref: msgspec.Raw
    topic: str
    event: str
    payload: msgspec.Raw


_frame: Final = msgspec.json.Decoder(_Frame)
_elements: Final = msgspec.json.Decoder(list[msgspec.Raw])


class V2:
    """Serializer of ``vsn`` 2.0.x."""

    def decode(self, text: str) -> Message:
        try:
            frame = _frame.decode(text)
        except DecodeErrors:
            raise _explain(text) from None
        return checked(
            Message(
                bytes(frame.join_ref),
                bytes(frame.ref),
                frame.topic,
                frame.event,
                bytes(frame.payload),
            )
        )

    def decode_binary(self, data: bytes) -> Message:
        if len(data) < _PUSH_HEADER_BYTES or data[0] != PUSH:
            raise Undecodable(None)
        ends = []
        end = _PUSH_HEADER_BYTES
        for length in data[1:_PUSH_HEADER_BYTES]:
            end += length
            ends.append(end)
        if end > len(data):
            raise Undecodable(None)
        try:
            join_ref = data[_PUSH_HEADER_BYTES : ends[0]].decode()
            ref = data[ends[0] : ends[1]].decode()
            topic = data[ends[1] : ends[2]].decode()
            event = data[ends[2] : ends[3]].decode()
        except UnicodeDecodeError:
            raise Undecodable(None) from None
        # refs are strings here; the replies are JSON text and echo them as JSON strings
        of_channel = encode_json(join_ref) if join_ref else NULL
        return checked(Message(of_channel, encode_json(ref), topic, event, data[end:], True))

    def encode(self, message: Outgoing) -> bytes:
        return b"[%b,%b,%b,%b,%b]" % (
            message.join_ref,
            message.ref,
            message.topic,
            message.event,
            message.payload,
        )

    def broadcast(self, topic: str, event: str, payload: Json, ref: Json = NULL) -> bytes:
        return b"[null,%b,%b,%b,%b]" % (ref, encode_json(topic), encode_json(event), payload)

    def broadcast_binary(self, topic: str, event: str, payload: bytes) -> bytes | None:
        topic_bytes = topic.encode()
        event_bytes = event.encode()
        header = bytes((BROADCAST, len(topic_bytes), len(event_bytes)))
        return header + topic_bytes + event_bytes + payload


def _explain(text: str) -> Undecodable:
    """Why a text is no V2 frame."""
    parts = decode_parts(_elements, text)
    if parts is None:
        return Undecodable(None)
    fields = [as_sent(raw) for raw in parts[:5]]
    padded: list[Json | None] = [*fields, *[None] * (5 - len(fields))]
    _join_ref, ref, topic, event, payload = padded
    if payload is None:
        event = None  # incomplete: malformed whatever the topic is
    return undecodable(ref, topic, event)
