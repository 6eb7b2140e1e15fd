"""A socket's membership in a topic: while it joins, and once it has joined."""

from typing import TYPE_CHECKING

from gateway.auth.rules import Rule
from gateway.hub.broadcast import Encoding, Outlet
from gateway.hub.registry import Member
from gateway.leases import Lease
from gateway.protocol.messages import EMPTY_OBJECT, Json
from gateway.protocol.reasons import Reason
from gateway.sessions.client import Client
from gateway.transport.endpoint import Endpoint

if TYPE_CHECKING:
    import asyncio

    from gateway.history.position import Position
    from gateway.history.resume import Request
    from gateway.transport.replay import Recall


class Membership(Member):
    """A member of a topic, with what the transport must know of it.

    Attributes:
        presence: What the backend wants shown of the client here, beside its token's.
        lease: On the topic's messages.
        replaying: Sends what was missed; until that is done, it is no member yet.
    """

    __slots__ = ("attempt", "lease", "presence", "replaying", "rule")

    def __init__(
        self, outlet: Outlet, encoding: Encoding, joining: "Joining", attempt: int
    ) -> None:
        super().__init__(outlet, encoding, drops=joining.rule.slow_consumer == "drop")
        self.rule = joining.rule
        self.presence = joining.presence
        self.attempt = attempt
        self.lease = joining.lease
        self.replaying: asyncio.Task[None] | None = None


class Joining:
    """A join between its admission and its reply.

    Attributes:
        response: What the backend wants the ok reply to say.
        presence: As :attr:`Membership.presence`.
        request: How it wants to resume; None where it does not.
        sent: Position up to which this socket has the topic already, by a channel this join replaces.
        recall: What came of the request.
        lease: On the topic's messages, once it has one.
        task: What waits for the bus; None while nothing does.
    """

    __slots__ = ("lease", "presence", "recall", "request", "response", "rule", "sent", "task")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.response: Json = EMPTY_OBJECT
        self.presence: Json = EMPTY_OBJECT
        self.request: Request | None = None
        self.sent: Position | None = None
        self.recall: Recall | None = None
        self.lease: Lease | None = None
        self.task: asyncio.Task[None] | None = None


async def prepare(endpoint: Endpoint, client: Client, topic: str) -> Lease | Reason:
    """Have a topic subscribed and its joiner made a session; returns why not, if it is refused.

    Raises:
        BusError: The bus is down; nothing is subscribed.
    """
    if client.claims is None:
        return await endpoint.relay.subscribe(topic)
    sessions = endpoint.sessions
    # The session first: its limit is asked for at the subject of a topic that may be this very one, and
    # whoever is subscribed to it himself is not told that nobody else is.
    refused = await sessions.enter(client)
    if refused is not None:
        return refused
    try:
        lease = await endpoint.relay.subscribe(topic)
    except BaseException:
        if not client.topics:
            sessions.leave(client)  # a socket is a session from its first successful join on
        raise
    if sessions.has(client):
        return lease
    # another join of this client failed meanwhile, and took the session with it
    refused = Reason.JOIN_CRASHED
    try:
        refused = await sessions.enter(client)
    finally:
        if refused is not None:
            lease.close()
    return lease if refused is None else refused
