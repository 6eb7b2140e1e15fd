"""The messages in the body of a long-poll client's POST (``Phoenix.Transports.LongPoll``)."""

import base64
import binascii
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

NDJSON: Final = "application/x-ndjson"

LINES_PER_PART: Final = 256
"""Lines looked at for one part of a batch, at most: one of the shortest, or of empty ones, has millions."""


class BatchMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message of a batch.

    Attributes:
        data: JSON in UTF-8, or a binary push when ``binary``.
    """

    data: bytes
    binary: bool = False


def messages_in(body: bytes, content_type: str, longest: int) -> Iterator[BatchMessage | None]:
    """What a client says, one after the other, and None for each empty line.

    A batch has one message a line, a binary push in base64; a body of any other type is one message.
    What is neither is a message too, to be found malformed where all are; one
    that is too long is cut to what is still too long.

    Args:
        longest: Bytes that a message may have.

    Raises:
        UnicodeDecodeError: It is no text.
    """
    if not body.isascii():
        body.decode()
    if content_type != NDJSON:
        return iter((BatchMessage(body[: longest + 1]),))
    return (_message(line, longest + 1) for line in io.BytesIO(body))


def in_parts(
    messages: Iterable[BatchMessage | None], size: int
) -> Iterator[Sequence[BatchMessage]]:
    """A batch in parts of so many bytes at most, or of one message.

    Whoever takes them gives others a turn in between. Empty lines are passed over, and take turns all the
    same: a part may be empty.
    """
    part: list[BatchMessage] = []
    room, lines = size, 0
    for message in messages:
        length = 0 if message is None else len(message.data)
        if lines == LINES_PER_PART or (part and length > room):
            yield part
            part, room, lines = [], size, 0
        lines += 1
        room -= length
        if message is not None:
            part.append(message)
    yield part


def _message(line: bytes, most: int) -> BatchMessage | None:
    if line.isspace():
        return None
    text = line.removesuffix(b"\n")
    if text[:1] not in (b"[", b"{"):
        try:
            return BatchMessage(base64.b64decode(text, validate=True)[:most], binary=True)
        except binascii.Error:
            pass
    return BatchMessage(text[:most])
