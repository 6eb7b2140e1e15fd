"""What the tracker keeps: entries, each of one session on one key."""

from typing import Final

import msgspec

from gateway.device import UNKNOWN, Device

SESSIONS: Final = "s:"
"""Begins the key of a user's sessions; the rest is her personal topic."""

PRESENCE: Final = "p:"
"""Begins the key of who is present on a topic; the rest is the topic."""

NEXT_MOMENT: Final = 1e-6
"""Seconds by which a session begins later than another that it has to come after, whatever the clocks say."""

_KIND_CHARACTERS: Final = 2


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A session on a key: on its user's key it says she is online, on a topic that she is present.

    Attributes:
        id: Id of the session, unique among all sessions.
        user: Subject of its token.
        ref: ``phx_ref``: changes with the meta, is kept when the session moves to another replica.
        connected_at: Unix seconds; later than that of the session whose place it took.
        online_at: Since when it is shown, unix seconds: a session that takes a moving one's place
            keeps that one's.
        meta: JSON object, what others see beside the ref.
        previous_ref: ``phx_ref_prev``: what this ref replaced; empty for nothing.
        moving: Whether its replica is draining and the client is expected on another.
        limit: How many sessions its token allows the user; None where it does not say.
        machine: Tells its device from others as far as that can be told, where it has no id and
            devices give way to each other.
    """

    id: str
    user: str
    ref: str
    connected_at: float
    online_at: float
    device: Device = UNKNOWN
    meta: bytes = b"{}"
    previous_ref: str = ""
    moving: bool = False
    limit: int | None = None
    machine: str = ""

    @property
    def order(self) -> tuple[float, str]:
        """By which sessions are in one order on all replicas."""
        return self.connected_at, self.id

    @property
    def known_as(self) -> str:
        """What tells its device from the user's other ones."""
        return self.device.id or self.machine

    def has_place_of(self, old: "Entry") -> bool:
        """Whether its replica gave it the place of another."""
        return old.ref in (self.ref, self.previous_ref)

    def succeeds(self, old: "Entry") -> bool:
        """Whether this may be the same device's session on its new replica.

        Where a device id is missing, the same user is enough.
        """
        if self.user != old.user or self.moving or not old.moving:
            return False
        return not (self.device.id and old.device.id) or self.device.id == old.device.id


def topic_of(key: str) -> str:
    """The topic on whose subject a key's messages travel."""
    return key[_KIND_CHARACTERS:]
