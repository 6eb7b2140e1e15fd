"""Messages between the trackers of replicas, in MessagePack, a tag first."""

from math import isfinite
from typing import TypeAlias

import msgspec

from gateway.protocol.messages import is_object
from gateway.tracker.entry import Entry


class _Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all: the sender's id, and which of its runs it is; a later run has a higher number."""

    replica: str
    incarnation: int


class Hello(_Message, frozen=True, array_like=True, tag=1):
    """To a key's subject, from a replica that begins to hold it or wants to be told again.

    It comes with the sender's own entries, as a :class:`State` does, and is answered with one.
    """

    key: str
    version: int
    entries: tuple[Entry, ...]


class State(_Message, frozen=True, array_like=True, tag=2):
    """To one replica: all of the sender's entries on a key.

    Or, to all, with version 0, no entries and one orphan: a client that begins to move.

    Attributes:
        orphans: Moving entries, of replicas that have left or soon will have; nobody else could tell.
    """

    key: str
    version: int
    entries: tuple[Entry, ...]
    orphans: tuple[Entry, ...] = ()


class Delta(_Message, frozen=True, array_like=True, tag=3):
    """To a key's subject: what changed among the sender's entries.

    Attributes:
        previous: The version this builds upon; who does not know it has missed something.
    """

    key: str
    previous: int
    version: int
    put: tuple[Entry, ...] = ()
    removed: tuple[str, ...] = ()


class Digest(_Message, frozen=True, array_like=True, tag=4):
    """To a key's subject: the version the sender is at. Without it a lost last delta never heals.

    Attributes:
        known: A checksum of what the sender knows of all replicas, where it may have missed something: who
            knows something else answers with its own digest. None where it asks nobody.
    """

    key: str
    version: int
    count: int
    known: int | None = None


class Ask(_Message, frozen=True, array_like=True, tag=5):
    """To one replica: send me the :class:`State` of a key."""

    key: str


class Beat(_Message, frozen=True, array_like=True, tag=6):
    """To all replicas, every few seconds: I am here, with so many sessions and connections.

    Attributes:
        time: The sender's clock, Unix seconds; 0 from an earlier release.
        held: Seconds since it first held a key; 0 if it never did, and from an earlier release.
        missed: It heard nothing of what was said in the last so many seconds: who changed something meanwhile
            compares it.
        wanted: Whether the receiver has not been heard for long, and is to say at once that it is alive.
    """

    sessions: int = 0
    connections: int = 0
    time: float = 0.0
    held: float = 0.0
    missed: float = 0.0
    wanted: bool = False


class Farewell(_Message, frozen=True, array_like=True, tag=7):
    """To all replicas: I am gone; keep my moving entries until their time is over, drop the rest."""


TrackerMessage: TypeAlias = Hello | State | Delta | Digest | Ask | Beat | Farewell

encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(TrackerMessage)


def decode(data: bytes) -> TrackerMessage:
    """A message from its bytes.

    Raises:
        ValueError: It is none this release knows, or an entry in it cannot be shown to clients.
    """
    try:
        message: TrackerMessage = _decoder.decode(data)
    except RecursionError as problem:
        raise ValueError("nested too deep") from problem
    match message:
        case Hello():
            check_entries(message.entries)
        case State():
            check_entries(message.entries + message.orphans)
        case Delta():
            check_entries(message.put)
    return message


def check_entries(entries: tuple[Entry, ...]) -> None:
    """Make sure that entries of another replica can be shown.

    Metas go out as they are, behind fields of the gateway's own; so an empty one must have no blanks.

    Raises:
        ValueError: They cannot.
    """
    for entry in entries:
        meta = entry.meta
        if meta != b"{}" and not (is_object(meta) and meta[1:].lstrip()[:1] == b'"'):
            raise ValueError("a meta is no object")
        if not (isfinite(entry.online_at) and isfinite(entry.connected_at)):
            raise ValueError("a time is none")
