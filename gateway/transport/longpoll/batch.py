"""The messages in the body of a long-poll client's POST (``Phoenix.Transports.LongPoll``)."""

import base64
import binascii
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

NDJSON: Final = "application/x-ndjson"

MESSAGES_PER_PART: Final = 1024
"""Messages handled at once, at most: a batch of the smallest has a million."""


class BatchMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message of a batch.

    Attributes:
        data: JSON in UTF-8, or a binary push when ``binary``.
    """

    data: bytes
    binary: bool = False


def messages_in(body: bytes, content_type: str, longest: int) -> Iterator[BatchMessage]:
    """The messages of a body, one after the other.

    A batch has one message a line, a binary push in base64; a body of any other type is one message.
    Empty lines are passed over. What is malformed is returned too, to be refused like that of a WebSocket;
    what is too long is cut to what is still too long.

    Args:
        longest: Bytes that a message may have.

    Raises:
        UnicodeDecodeError: It is no text.
    """
    if not body.isascii():
        body.decode()
    if content_type != NDJSON:
        return iter((BatchMessage(body[: longest + 1]),))
    return (_message(line, longest + 1) for line in io.BytesIO(body) if not line.isspace())


def in_parts(messages: Iterable[BatchMessage], size: int) -> Iterator[Sequence[BatchMessage]]:
    """A batch in parts of so many bytes at most, or of one message; of none, one that is empty."""
    part: list[BatchMessage] = []
    room = size
    for message in messages:
        if part and (len(message.data) > room or len(part) == MESSAGES_PER_PART):
            yield part
            part, room = [], size
        part.append(message)
        room -= len(message.data)
    yield part


def _message(line: bytes, most: int) -> BatchMessage:
    text = line.removesuffix(b"\n")
    if text[:1] not in (b"[", b"{"):
        try:
            return BatchMessage(base64.b64decode(text, validate=True)[:most], binary=True)
        except binascii.Error:
            pass
    return BatchMessage(text[:most])
