"""The messages in the body of a long-poll client's POST (``Phoenix.Transports.LongPoll``)."""

import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

NDJSON: Final = "application/x-ndjson"


class Said(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message.

    Attributes:
        data: JSON in UTF-8, or a binary push when ``binary``.
    """

    data: bytes
    binary: bool = False


def messages_in(body: bytes, content_type: str) -> list[Said]:
    """What a client says.

    A batch has one message a line, a binary push in base64; a body of any other type is one message.
    Empty lines are passed over. What is neither is a message too, to be found malformed where all are.

    Raises:
        UnicodeDecodeError: It is no text.
    """
    if not body.isascii():
        body.decode()
    if content_type != NDJSON:
        return [Said(body)]
    return [_message(line) for line in body.split(b"\n") if line.strip()]


def in_parts(messages: Sequence[Said], size: int) -> Iterator[Sequence[Said]]:
    """A batch in parts of so many bytes at most, or of one message."""
    start = 0
    room = size
    for end, message in enumerate(messages):
        room -= len(message.data)
        if room < 0 and end > start:
            yield messages[start:end]
            start, room = end, size - len(message.data)
    yield messages[start:]


def _message(line: bytes) -> Said:
    if line[:1] not in (b"[", b"{"):
        try:
            return Said(base64.b64decode(line, validate=True), binary=True)
        except binascii.Error:
            pass
    return Said(line)
