"""What a socket knows of one of its channels: first a join under way, then a membership."""

import asyncio
from collections.abc import Sequence

from gateway.auth.rules import Rule
from gateway.history.base import Stored
from gateway.history.position import Position
from gateway.history.resume import Outcome, ResumeRequest
from gateway.hub.broadcast import Encoding, Outlet
from gateway.hub.registry import Member
from gateway.leases import Lease
from gateway.protocol.messages import EMPTY_OBJECT, Json


class Recall:
    """What a join's ``resume`` was answered, and what it is to be sent.

    Attributes:
        outcome: As the reply says.
        messages: To be sent before anything else, in order.
    """

    __slots__ = ("messages", "outcome")

    def __init__(self, outcome: Outcome, tail: Sequence[Stored]) -> None:
        self.outcome = outcome
        self.messages = [*outcome.replay, *tail]


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

    __slots__ = (
        "entered",
        "lease",
        "presence",
        "recall",
        "request",
        "response",
        "rule",
        "sent",
        "task",
    )

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.response: Json = EMPTY_OBJECT
        self.presence: Json = EMPTY_OBJECT
        self.request: ResumeRequest | None = None
        self.sent: Position | None = None
        self.recall: Recall | None = None
        self.entered = False
        self.lease: Lease | None = None
        self.task: asyncio.Task[None] | None = None


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
