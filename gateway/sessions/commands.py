"""What replicas ask each other about users and tokens, and what they answer. MessagePack, a tag first."""

from typing import Final, TypeAlias

import msgspec

from gateway.auth.revocations import Revocation
from gateway.device import Device


class Count(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """How many sessions do these users have with you? Answered with :class:`Presence` by user."""

    users: tuple[str, ...]


class List(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Which sessions does this user have with you? Answered with a list of :class:`Session`."""

    user: str


class Close(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Close sessions of a user; answered with their number.

    Attributes:
        only: The sessions meant; empty for all.
        keep: Those that stay.
    """

    user: str
    only: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()


class Leave(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Take a user off a topic; answered with the number of channels that ended."""

    user: str
    topic: str


class Vouchers(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Do you vouch for these users? Answered with a :class:`Standing`.

    See :mod:`gateway.sessions.transitions` for what that means, and what has to follow from being asked.
    """

    users: tuple[str, ...]


class Inherit(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """I leave: vouch for these users in my place; answered with whether that is done."""

    users: tuple[str, ...]


class Missed(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Do you know this run of a replica, dead or alive? Answered with a bool.

    Who knows it and comes before the asker, by id, deals with its loss.
    """

    replica: str
    incarnation: int


class Return(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """You were given up as lost: tell the backend again who is there. Answered with a bool."""


Report: TypeAlias = Vouchers | Inherit | Missed | Return
"""What those parts of replicas ask each other that tell the backend."""


class Revoke(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Refuse tokens from now on; answered with the number of sockets closed for it."""

    revocation: Revocation


class ListRevoked(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """What do you refuse? Answered with a list of revocations."""


Command: TypeAlias = Count | List | Close | Leave | Report | Revoke | ListRevoked


class Presence(msgspec.Struct, frozen=True, array_like=True):
    """How a replica knows a user.

    Attributes:
        sessions: How many she has there.
        online: Whether she is to be called online: in the grace after her last session, too, and
            while a session moves.
        last_seen_at: When she was last heard of there, unix seconds; 0 when never.
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


encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Command).decode
decode_presences: Final = msgspec.msgpack.Decoder(dict[str, Presence]).decode
decode_sessions: Final = msgspec.msgpack.Decoder(list[Session]).decode
decode_number: Final = msgspec.msgpack.Decoder(int).decode
decode_standing: Final = msgspec.msgpack.Decoder(Standing).decode
decode_bool: Final = msgspec.msgpack.Decoder(bool).decode


def decode(data: bytes) -> Command:
    """A command from its bytes.

    Raises:
        ValueError: It is none this release knows.
    """
    command: Command = _decode(data)
    return command
