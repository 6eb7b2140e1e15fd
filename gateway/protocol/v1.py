"""Protocol version 1: JSON objects. Also what a client without ``vsn`` speaks.

Source: ``Phoenix.Socket.V1.JSONSerializer``. A client's message needs all of topic, event, payload and
ref; join_ref is read where there is one and never sent.
"""

from typing import Final

import msgspec

from gateway.protocol.messages import NULL, Json, Message, Outgoing, Undecodable, encode_json
from gateway.protocol.serializer import (
    NO_JOIN_REF,
    DecodeErrors,
    as_sent,
    checked,
    decode_parts,
    undecodable,
)


class _Frame(msgspec.Struct, gc=False):
    topic: str
    event: str
    payload: msgspec.Raw
    ref: msgspec.Raw
    join_ref: msgspec.Raw = msgspec.Raw(NO_JOIN_REF)


_frame: Final = msgspec.json.Decoder(_Frame)
_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class V1:
    """Serializer of ``vsn`` 1.0.x."""

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
        # Phoenix does not look at the opcode here: JSON in a binary frame is JSON.
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise Undecodable(None) from None
        return self.decode(text)

    def encode(self, message: Outgoing) -> bytes:
        return b'{"topic":%b,"event":%b,"payload":%b,"ref":%b}' % (
            message.topic,
            message.event,
            message.payload,
            message.ref,
        )

    def broadcast(self, topic: str, event: str, payload: Json, ref: Json = NULL) -> bytes:
        return b'{"topic":%b,"event":%b,"payload":%b,"ref":%b}' % (
            encode_json(topic),
            encode_json(event),
            payload,
            ref,
        )

    def broadcast_binary(self, topic: str, event: str, payload: bytes) -> bytes | None:
        del topic, event, payload  # version 1 has no binary form
        return None


def _explain(text: str) -> Undecodable:
    """Why a text is no V1 frame."""
    parts = decode_parts(_fields, text)
    if parts is None:
        return Undecodable(None)
    fields = {name: as_sent(raw) for name, raw in parts.items()}
    event: Json | None = fields.get("event") if "payload" in fields else None
    return undecodable(fields.get("ref"), fields.get("topic"), event)
