"""How many messages of a topic are kept, and for how long: ``{messages, seconds}`` of a channel rule."""

from typing import Annotated, Final

import msgspec

SPARE_MESSAGES: Final = 1
"""What a store keeps of each topic beyond its rule: the one that tells "all" from "more than that"."""

SPARE_SECONDS: Final = 60
"""How much longer than its rule says a store keeps messages: for clocks that differ, and slow readers."""


class Retention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of a topic's past is kept."""

    messages: Annotated[
        int, msgspec.Meta(ge=1, le=100_000, description="At most so many messages.")
    ]
    seconds: Annotated[
        int, msgspec.Meta(ge=1, le=366 * 86_400, description="None older than this.")
    ]

    @property
    def stored_messages(self) -> int:
        """How many messages a store keeps at least, as one more may be asked for."""
        return self.messages + SPARE_MESSAGES

    @property
    def stored_seconds(self) -> int:
        """How long a store keeps them at least."""
        return self.seconds + SPARE_SECONDS
