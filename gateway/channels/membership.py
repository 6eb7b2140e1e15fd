"""What a socket knows of one of its channels: first a join under way, then a membership."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway.auth.rules import Rule
from gateway.history.base import Stored
from gateway.history.position import Position
from gateway.history.resume import Outcome, ResumeRequest
from gateway.hub.broadcast import Encoding, Outlet
from gateway.hub.registry import Member
from gateway.leases import Lease
from gateway.protocol.messages import EMPTY_OBJECT, Json


class Recall(NamedTuple):
    """What a join's ``resume`` was answered, and the messages to be sent before anything else."""

    outcome: Outcome
    messages: Sequence[Stored]


@dataclass(slots=True, eq=False)
class Joining:
    """A join between its admission and its reply.

    Attributes:
        response: What the backend wants the ok reply to say.
        presence: What the backend wants shown of the client here, beside its token's.
        request: How it wants to resume; None where it does not.
        sent: Position up to which this socket has the topic already, by a channel this join replaces.
        recall: What came of the request.
        entered: Whether it made its socket a session, or relies on its being one.
        lease: Has the topic's messages come here; None until they do.
        task: What waits for the bus; None while nothing does.
    """

    rule: Rule
    response: Json = EMPTY_OBJECT
    presence: Json = EMPTY_OBJECT
    request: ResumeRequest | None = None
    sent: Position | None = None
    recall: Recall | None = None
    entered: bool = False
    lease: Lease | None = None
    task: asyncio.Task[None] | None = None


class Membership(Member):
    """A member of a topic, with what its socket must know of it.

    Attributes:
        attempt: Number of the join on its socket.
        lease: Has the topic's messages come here.
        presence: As :attr:`Joining.presence`.
        replaying: Sends what was missed; until that is done, it is no member yet.
    """

    __slots__ = ("attempt", "lease", "presence", "replaying", "rule")

    def __init__(
        self, outlet: Outlet, encoding: Encoding, joining: Joining, lease: Lease, attempt: int
    ) -> None:
        super().__init__(outlet, encoding, drops=joining.rule.slow_consumer == "drop")
        self.rule = joining.rule
        self.presence = joining.presence
        self.lease = lease
        self.attempt = attempt
        self.replaying: asyncio.Task[None] | None = None
