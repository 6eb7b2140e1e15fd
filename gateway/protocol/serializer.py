"""The interface of the wire formats, and what both versions share; the handshake picks the version."""

from typing import Final, Protocol

import msgspec

from gateway.protocol.messages import (
    NULL,
    Json,
    Message,
    Outgoing,
    Undecodable,
    encode_json,
    error_reply,
)
from gateway.protocol.reasons import Reason
from gateway.protocol.reserved import RESERVED_TOPIC, name_fits

NO_JOIN_REF: Final[Json] = b"null"


class Serializer(Protocol):
    """One version of the wire format, without state."""

    def decode(self, text: str) -> Message:
        """Decode a text frame.

        Raises:
            Undecodable: With a reply where a ref could be read.
        """

    def decode_binary(self, data: bytes) -> Message:
        """Decode a binary frame.

        Raises:
            Undecodable: Without a reply.
        """

    def encode(self, message: Outgoing) -> bytes:
        """Encode a message for one client: the payload of a text frame."""

    def broadcast(self, topic: str, event: str, payload: Json, ref: Json = NULL) -> bytes:
        """Encode a message for all members of a topic: the payload of a text frame.

        Args:
            ref: ``null`` as in Phoenix, or a position for those who asked for it: a string that no ref of
                a client equals.
        """

    def broadcast_binary(self, topic: str, event: str, payload: bytes) -> bytes | None:
        """The same for binary data: the payload of a binary frame, None where there is no such form."""


def check_names(topic: str, event: str, ref: Json) -> None:
    """Refuse names that binary frames could not carry.

    Raises:
        Undecodable: For a topic or event above ``MAX_NAME_BYTES``.
    """
    if not (name_fits(topic) and name_fits(event)):
        raise Undecodable(error_reply(NO_JOIN_REF, ref, encode_json(topic), Reason.MALFORMED))


def undecodable(ref: Json | None, topic: Json | None, event: Json | None) -> Undecodable:
    """What to say about a frame of the right outer shape whose fields are not all right.

    All are as sent, None where the frame has none; without a ref nothing can be replied.
    """
    if ref is None:
        return Undecodable(None)
    if topic is None:
        topic = encode_json(RESERVED_TOPIC)
    elif topic[:1] != b'"' and event is not None and event[:1] == b'"':
        # Phoenix looks any topic up and finds nothing for one that is not a string.
        reply = error_reply(NO_JOIN_REF, ref, topic, Reason.UNMATCHED_TOPIC)
        return Undecodable(reply, malformed=False)
    return Undecodable(error_reply(NO_JOIN_REF, ref, topic, Reason.MALFORMED))


DecodeErrors: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""
What decoding hostile input raises.

RecursionError: JSON nested deeper than the interpreter's stack allows.
"""
