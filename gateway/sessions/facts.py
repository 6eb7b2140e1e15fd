"""Facts: what the backend can be told of that it did not ask for, each once for all replicas."""

from typing import Final, Literal, Protocol, TypeAlias

import msgspec

from gateway.device import Device
from gateway.protocol.messages import Json

EVENTS: Final = frozenset(
    {"session.started", "session.ended", "user.online", "user.offline", "replica.lost"}
)
"""All there are, named as in ``upstream.events``."""


class SessionFact(msgspec.Struct, frozen=True):
    """A session began or ended. Told by the replica that has or had it.

    Attributes:
        event: As it stands in ``upstream.events``.
        at: When, unix seconds by the clock of the replica that tells it.
        replica: Where the session is or was.
        state: What the backend keeps with the session, JSON.
    """

    event: Literal["session.started", "session.ended"]
    at: float
    session: str
    user: str
    device: Device
    replica: str
    state: Json

    @property
    def subject(self) -> str:
        """Whom the fact is about."""
        return self.user

    def body(self) -> Json:
        """What the backend is sent."""
        device = {"id": self.device.id, "name": self.device.name, "type": self.device.type}
        return _encode(
            {
                "session": self.session,
                "user": self.user,
                "device": device,
                "replica": self.replica,
                "state": msgspec.Raw(self.state),
            }
        )


class UserFact(msgspec.Struct, frozen=True):
    """A user who was offline on all replicas is online, or the other way round.

    Attributes:
        at: When that was decided, unix seconds.
    """

    event: Literal["user.online", "user.offline"]
    at: float
    user: str

    @property
    def subject(self) -> str:
        """Whom the fact is about."""
        return self.user

    def body(self) -> Json:
        """What the backend is sent."""
        return _encode({"user": self.user})


class ReplicaFact(msgspec.Struct, frozen=True):
    """A replica is gone without a farewell, and its sessions with it.

    Attributes:
        at: When that was decided, unix seconds.
        sessions: How many it had when it was last heard of.
    """

    event: Literal["replica.lost"]
    at: float
    replica: str
    sessions: int

    @property
    def subject(self) -> str:
        """What the fact is about."""
        return self.replica

    def body(self) -> Json:
        """What the backend is sent."""
        return _encode({"replica": self.replica, "sessions": self.sessions})


Fact: TypeAlias = SessionFact | UserFact | ReplicaFact


class Facts(Protocol):
    """Where facts go."""

    def tell(self, fact: Fact) -> None:
        """Have the backend told; returns at once, and never raises."""


class NoBackend:
    """Where facts go when there is nobody to tell."""

    def tell(self, fact: Fact) -> None:
        """Nothing happens."""


_encode = msgspec.json.Encoder().encode
