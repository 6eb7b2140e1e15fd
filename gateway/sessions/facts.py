"""Events the backend is told about sessions, users and replicas, each once for all replicas."""

from collections.abc import Callable
from typing import Final, Literal, TypeAlias, assert_never

import msgspec

from gateway.device import Device
from gateway.protocol.messages import Json
from gateway.upstream.call import Call

EVENTS: Final = frozenset(
    {"session.started", "session.ended", "user.online", "user.offline", "replica.lost"}
)
"""All there are, named as in ``upstream.events``."""


class SessionFact(msgspec.Struct, frozen=True):
    """A session began or ended. Told by the replica that has or had it.

    Attributes:
        event: As it stands in ``upstream.events``.
        replica: Where the session is or was.
        state: What the backend keeps with the session.
    """

    event: Literal["session.started", "session.ended"]
    session: str
    user: str
    device: Device
    replica: str
    state: Json


class UserFact(msgspec.Struct, frozen=True):
    """A user who was offline on all replicas is online, or the other way round."""

    event: Literal["user.online", "user.offline"]
    user: str


class ReplicaFact(msgspec.Struct, frozen=True):
    """A replica is gone without a farewell, and its sessions with it.

    Attributes:
        sessions: How many it had when it was last heard of.
    """

    event: Literal["replica.lost"]
    replica: str
    sessions: int


Fact: TypeAlias = SessionFact | UserFact | ReplicaFact

Tell = Callable[[Fact], None]
"""Has the backend told of a fact, which is true now; returns at once, and never raises."""


def callback(fact: Fact) -> Call:
    """What the backend is told of a fact."""
    kind = f"gateway.{fact.event}"
    match fact:
        case SessionFact():
            return Call(
                kind,
                session=fact.session,
                user=fact.user,
                device=fact.device,
                state=fact.state,
                replica=fact.replica,
            )
        case UserFact():
            return Call(kind, user=fact.user)
        case ReplicaFact():
            return Call(kind, replica=fact.replica, sessions=fact.sessions)
        case _:
            assert_never(fact)
