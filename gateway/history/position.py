"""Where a client stands in a topic's history: an opaque string beginning with ``@``."""

import re
from functools import lru_cache
from typing import Final

import msgspec

MAX_EPOCH_CHARACTERS: Final = 24

MAX_LENGTH: Final = 1 + MAX_EPOCH_CHARACTERS + 1 + 16 + 1 + 12
"""Characters of the longest position."""

CLOCK_SECONDS: Final = 1.0
"""By how much the time in a position may be wrong, where it is an estimate of the store's clock."""

_MAX_OFFSET: Final = (1 << 64) - 1
_MAX_SECONDS: Final = (1 << 48) / 1000 - 1

_EPOCH: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_EPOCH_CHARACTERS}}}")

# Hexadecimal digits one by one, and no leading zero: int() alone would take underscores, signs, blanks and
# the digits of other scripts, and one position would have many spellings.
_FORM: Final = re.compile(
    rf"@({_EPOCH.pattern})\.(0|[1-9a-f][0-9a-f]{{0,15}})\.(0|[1-9a-f][0-9a-f]{{0,11}})"
)


class Position(msgspec.Struct, frozen=True, gc=False):
    """Everything of the topic up to an offset is known to whoever stands there.

    Attributes:
        epoch: Which counting of offsets this is; 1 to 24 characters of ``A-Z a-z 0-9 _ -``.
        offset: Of the last message that is known, or any later one that none of the topic's lies before.
            0 is before all messages.
        time: Unix seconds by the store's clock: when the message at the offset was stored, or later, if it
            was certain later that nothing had followed it; or when it was sent, less than
            ``CLOCK_SECONDS`` earlier. Encoded to the millisecond.
    """

    epoch: str
    offset: int
    time: float


def encode(position: Position) -> str:
    """The string a client gets: at most 55 characters of URL-safe ASCII, nothing JSON would escape.

    Raises:
        ValueError: The epoch, the offset or the time is none.
    """
    offset = position.offset
    time = position.time
    if not (0 <= offset <= _MAX_OFFSET and 0 <= time <= _MAX_SECONDS):
        raise ValueError("offset or time out of range")
    return f"{_head(position.epoch)}{offset:x}.{int(time * 1000 + 0.5):x}"


def decode(text: str) -> Position:
    """The position a string stands for; each has one spelling only.

    Raises:
        ValueError: It is none that :func:`encode` makes. The text is not in the message.
    """
    form = _FORM.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if form is None:
        raise ValueError("not a position")
    epoch, offset, milliseconds = form.groups()
    return Position(epoch, int(offset, 16), int(milliseconds, 16) / 1000)


@lru_cache(maxsize=16)
def _head(epoch: str) -> str:
    """What all positions of an epoch begin with."""
    if _EPOCH.fullmatch(epoch) is None:
        raise ValueError("not an epoch")
    return f"@{epoch}."
