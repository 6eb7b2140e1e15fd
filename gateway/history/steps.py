"""What the log of a topic asks for: messages to deliver, and reads from the store."""

from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.history.base import Stored


class Fetch(msgspec.Struct, frozen=True, gc=False):
    """What is to be read from the store: the topic's messages above ``after``, up to ``upto``."""

    after: int
    upto: int


class Step(msgspec.Struct, frozen=True, gc=False):
    """What is to be done now.

    Attributes:
        deliver: To all members, in this order.
        fetch: To be read from the store.
        doubtful: The store may have given up messages that lie before those delivered here. Make the members
            that resume join again (``phx_error``) before anything is delivered: what they missed is
            judged by their positions.
        restarted: Offsets began anew, so the epoch must have changed, or the store lost its end.
    """

    deliver: Sequence[Stored] = ()
    fetch: Fetch | None = None
    doubtful: bool = False
    restarted: bool = False


NOTHING: Final = Step()
"""Nothing is to be done."""
