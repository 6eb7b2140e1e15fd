"""Effects: what the tracker's core asks the code around it to do, in order."""

from typing import TypeAlias

import msgspec

from gateway.tracker.messages import TrackerMessage
from gateway.tracker.view import Change


class Publish(msgspec.Struct, frozen=True):
    """Send to all replicas that hold the key."""

    key: str
    message: TrackerMessage


class Announce(msgspec.Struct, frozen=True):
    """Send to all replicas."""

    message: TrackerMessage


class Direct(msgspec.Struct, frozen=True):
    """Send to one replica."""

    replica: str
    message: TrackerMessage


class Lost(msgspec.Struct, frozen=True):
    """A run of a replica ended without a farewell; its entries were dropped.

    Attributes:
        sessions: How many it had when it was last heard of.
    """

    replica: str
    incarnation: int
    sessions: int


class Superseded(msgspec.Struct, frozen=True):
    """Another process runs under this replica's id, and it is the later one."""


TrackerEffect: TypeAlias = Publish | Announce | Direct | Change | Lost | Superseded
