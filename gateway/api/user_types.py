"""The bodies of requests and answers about users, sessions and replicas."""

from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from gateway.device import Device
from gateway.sessions.commands import Session

MAX_USERS: Final = 1000
"""Users of one status request."""

_COMPLETE: Final = Meta(description="Whether every replica that has something to say answered.")
_ONLINE: Final = Meta(description="Whether she has a session, or had one a few seconds ago.")
_SESSIONS: Final = Meta(description="How many she has on all replicas.")
_MISSING: Final = Meta(description="Replicas that should have answered within 500 ms and did not.")


class Covered(msgspec.Struct, kw_only=True):
    """Who an answer is from."""

    complete: Annotated[bool, _COMPLETE]
    missing_replicas: Annotated[tuple[str, ...], _MISSING]


class UserReport(Covered, kw_only=True):
    """Whether a user is there."""

    user: Annotated[str, Meta(description="The user, as she was asked for.")]
    online: Annotated[bool, _ONLINE]
    sessions: Annotated[int, _SESSIONS]
    last_seen_at: Annotated[
        str | None, Meta(description="RFC 3339, UTC; null when nobody remembers her.")
    ]


class StatusRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Users to ask about."""

    users: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=255)]],
        Meta(max_length=MAX_USERS, description="Users, `sub` of their tokens."),
    ]


class UserStatus(msgspec.Struct):
    """Whether a user is there."""

    online: Annotated[bool, _ONLINE]
    sessions: Annotated[int, _SESSIONS]


class StatusReport(Covered, kw_only=True):
    """Whether users are there, by user."""

    users: Annotated[
        dict[str, UserStatus], Meta(description="Each user that was asked for, by name.")
    ]


class DeviceReport(msgspec.Struct):
    """The device of a session; what is not known is null."""

    id: Annotated[str | None, Meta(description="Stays the same through reconnects.")]
    name: Annotated[str | None, Meta(description="For people.", examples=["Ann's phone"])]
    type: Annotated[str | None, Meta(description="For filters.", examples=["phone"])]

    @classmethod
    def of(cls, device: Device) -> "DeviceReport":
        """A device as the API shows it."""
        return cls(device.id or None, device.name or None, device.type or None)


class SessionReport(msgspec.Struct):
    """One socket of a user, from its first join on. Times are RFC 3339 in UTC."""

    id: Annotated[str, Meta(description="For `exclude_sessions`, and to close it.")]
    user: Annotated[str, Meta(description="The user, `sub` of her token.")]
    device: Annotated[
        DeviceReport, Meta(description="As its token describes it, else as the client does.")
    ]
    replica: Annotated[str, Meta(description="Where it is.")]
    transport: Annotated[str, Meta(description="How it is connected.", examples=["websocket"])]
    protocol: Annotated[str, Meta(description="Version of the Phoenix protocol.")]
    ip: Annotated[str, Meta(description="The client's address, behind trusted proxies.")]
    user_agent: Annotated[str, Meta(description="As the client sent it, shortened.")]
    connected_at: Annotated[str, Meta(description="When it became a session.")]
    last_seen_at: Annotated[str, Meta(description="When its last frame came.")]
    topics: Annotated[tuple[str, ...], Meta(description="Topics it has joined.")]

    @classmethod
    def of(cls, session: Session) -> "SessionReport":
        """A session as the API shows it."""
        fields = msgspec.structs.asdict(session)
        fields["device"] = DeviceReport.of(session.device)
        fields["connected_at"] = rfc3339(session.connected_at)
        fields["last_seen_at"] = rfc3339(session.last_seen_at)
        return cls(**fields)


class SessionList(Covered, kw_only=True):
    """A user's sessions, the oldest first."""

    items: Annotated[list[SessionReport], Meta(description="One for each of her sockets.")]


class Disconnected(Covered, kw_only=True):
    """What was closed."""

    disconnected: Annotated[
        int,
        Meta(description="How many were really closed."),
    ]


class Removed(Covered, kw_only=True):
    """What was ended."""

    removed: Annotated[int, Meta(description="Channels that were really ended.")]


class ReplicaReport(msgspec.Struct):
    """One replica that is alive."""

    id: Annotated[str, Meta(description="Its name, `server.replica`.")]
    self: Annotated[bool, Meta(description="Whether it is the one that answers.")]
    sessions: Annotated[int, Meta(description="As it last said, at most some seconds ago.")]
    connections: Annotated[int, Meta(description="The same, anonymous ones included.")]


class ReplicaList(msgspec.Struct):
    """All replicas that are alive, as the one that answers sees it."""

    items: Annotated[list[ReplicaReport], Meta(description="The one that answers comes first.")]


def rfc3339(unix_seconds: float) -> str:
    """A time as text, to the millisecond."""
    text = datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
