"""The interface of the wire formats, and what both versions share; the handshake picks the version."""

import re
from typing import Final, Protocol, TypeVar

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
from gateway.protocol.reserved import MAX_REF_BYTES, RESERVED_TOPIC, name_fits

NO_JOIN_REF: Final[Json] = b"null"

Parts = TypeVar("Parts")


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
            Undecodable: With a reply where only a length is wrong.
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


def checked(message: Message) -> Message:
    """A client's message whose parts are not too long.

    Raises:
        Undecodable: For a topic or event above ``MAX_NAME_BYTES``, which binary frames could not carry, and
            for a ref or join_ref above ``MAX_REF_BYTES``.
    """
    if (
        len(message.ref) <= MAX_REF_BYTES
        and len(message.join_ref) <= MAX_REF_BYTES
        and name_fits(message.topic)
        and name_fits(message.event)
    ):
        return message
    raise _malformed(message.ref, encode_json(message.topic))


def undecodable(ref: Json | None, topic: Json | None, event: Json | None) -> Undecodable:
    """What to say about a frame of the right outer shape whose fields are not all right.

    All are as sent, None where the frame has none; without a ref nothing can be replied.
    """
    if ref is None:
        return Undecodable(None)
    if topic is None:
        topic = encode_json(RESERVED_TOPIC)
    elif (
        len(ref) <= MAX_REF_BYTES and topic[:1] != b'"' and event is not None and event[:1] == b'"'
    ):
        # Phoenix looks any topic up and finds nothing for one that is not a string.
        reply = error_reply(NO_JOIN_REF, ref, topic, Reason.UNMATCHED_TOPIC)
        return Undecodable(reply, malformed=False)
    return _malformed(ref, topic)


def _malformed(ref: Json, topic: Json) -> Undecodable:
    """The reply echoes no ref that is too long: it would be as long itself."""
    echo = ref if len(ref) <= MAX_REF_BYTES else NULL
    return Undecodable(error_reply(NO_JOIN_REF, echo, topic, Reason.MALFORMED))


DecodeErrors: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""
What decoding hostile input raises.

RecursionError: JSON nested deeper than the interpreter's stack allows.
"""

_LONE_SURROGATE: Final = re.compile(
    r"(?<!\\)((?:\\\\)*+)\\(u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
"""The escape of half a UTF-16 pair in a JSON string, or of a whole pair, which :func:`_mark` lets be."""

_MARKED: Final = re.compile(rb"\\u0000(u[dD][89a-fA-F][0-9a-fA-F]{2})")


def decode_parts(decoder: msgspec.json.Decoder[Parts], text: str) -> Parts | None:
    """The parts of a frame that is not right, for the answer; None where it is no such JSON.

    JSON's grammar allows lone surrogates, and ``JSON.stringify`` writes them for text that was cut within an
    emoji; msgspec, as UTF-8, has no form for them. They are escaped here, and :func:`as_sent` undoes it.
    """
    try:
        return decoder.decode(text)
    except DecodeErrors:
        pass
    try:
        return decoder.decode(_LONE_SURROGATE.sub(_mark, text))
    except DecodeErrors:
        return None


def as_sent(part: msgspec.Raw) -> Json:
    """A part of what :func:`decode_parts` read, in the client's own form."""
    return _MARKED.sub(rb"\\\1", bytes(part))


def _mark(match: re.Match[str]) -> str:
    before, escaped = match.groups()
    return match[0] if "\\" in escaped else rf"{before}\u0000{escaped}"
