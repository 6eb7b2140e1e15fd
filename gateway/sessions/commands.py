"""What replicas ask each other about users and tokens, and what they answer."""

from typing import Final

import msgspec

from gateway.auth.revocations import Revocation
from gateway.cluster import Command
from gateway.device import Device


class Presence(msgspec.Struct, frozen=True, array_like=True):
    """How a replica knows a user.

    Attributes:
        sessions: How many she has there.
        online: Whether she is to be called online: in the grace after her last session, too, and
            while a session moves.
        last_seen_at: When she was last there, unix seconds: now, while she is; 0 when never.
    """

    sessions: int = 0
    online: bool = False
    last_seen_at: float = 0.0


class Standing(msgspec.Struct, frozen=True, array_like=True):
    """What a replica has to do with users.

    Attributes:
        vouched: Those it vouches for.
        settling: Those who have sessions there and whom it does not vouch for yet.
    """

    vouched: tuple[str, ...] = ()
    settling: tuple[str, ...] = ()


class Session(msgspec.Struct, frozen=True, array_like=True):
    """A session with its live fields. Times are unix seconds."""

    id: str
    user: str
    device: Device
    replica: str
    transport: str
    protocol: str
    ip: str
    user_agent: str
    connected_at: float
    last_seen_at: float
    topics: tuple[str, ...]


class Count(Command[dict[str, Presence]], frozen=True, tag=1):
    """How many sessions do these users have with you? Answered by user."""

    users: tuple[str, ...]


class List(Command[list[Session]], frozen=True, tag=2):
    """Which sessions does this user have with you?"""

    user: str


class CloseSessions(Command[int], frozen=True, tag=3):
    """Close sessions of a user; answered with their number.

    Attributes:
        only: The sessions meant; empty for all.
        keep: Those that stay.
    """

    user: str
    only: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()


class Leave(Command[int], frozen=True, tag=4):
    """Take a user off a topic; answered with the number of channels that ended."""

    user: str
    topic: str


class Vouchers(Command[Standing], frozen=True, tag=5):
    """Do you vouch for these users?

    See :mod:`gateway.sessions.transitions` for what that means, and what has to follow from being asked.
    """

    users: tuple[str, ...]


class Inherit(Command[bool], frozen=True, tag=6):
    """I leave: vouch for these users in my place; answered with whether that is done."""

    users: tuple[str, ...]


class Missed(Command[bool], frozen=True, tag=7):
    """Do you know this run of a replica, dead or alive?

    Who knows it and comes before the asker, by id, deals with its loss.
    """

    replica: str
    incarnation: int


class Return(Command[bool], frozen=True, tag=8):
    """You were given up as lost: tell the backend again who is there."""


class Revoke(Command[int], frozen=True, tag=9):
    """Refuse tokens from now on; answered with the number of sockets closed for it."""

    revocation: Revocation


class ListRevoked(Command[tuple[Revocation, ...]], frozen=True, tag=10):
    """What do you refuse?"""


class Displace(Command[bool], frozen=True, tag=11):
    """A device of a user gives way to another; answered with True.

    Attributes:
        device: See :attr:`gateway.tracker.entry.Entry.known_as`.
    """

    user: str
    device: str


ALL: Final = (
    Count,
    List,
    CloseSessions,
    Leave,
    Vouchers,
    Inherit,
    Missed,
    Return,
    Revoke,
    ListRevoked,
    Displace,
)
