"""One socket's membership in one topic, from join to leave.

States and what moves between them:

    (none)       phx_join                -> JOINING       Authorize
    JOINING      decision: allowed       -> SUBSCRIBING   Subscribe
    JOINING      decision: refused       -> (none)        error reply
    SUBSCRIBING  the bus confirmed       -> JOINED        ok reply, Activate
    SUBSCRIBING  the bus failed          -> (none)        error reply
    JOINED       phx_leave               -> (none)        Unsubscribe, ok reply, phx_close
    JOINED       phx_join again          -> JOINING       Unsubscribe at once; the old channel's
                                                          phx_close follows the new join's reply
    any          the gateway closes it   -> (none)        phx_close, or an error reply to the join

The ok is held until the bus confirmed the subscription: otherwise a message published right after the
reply would miss the first subscriber of a topic.

Phoenix joins synchronously: whatever a client sends for a topic right after its join waits until the
join is decided. So a channel that is not yet JOINED keeps the messages of its topic, in order, and
they are received when it is decided. Other topics, heartbeats among them, go on.
"""

from collections import deque
from enum import Enum, auto
from typing import Final

from gateway.protocol.messages import Json, Message, encode_json

MAX_HELD: Final = 64
"""
Messages kept for a channel while its join is under way; those above are answered ``rate limited``.

phoenix.js sends nothing before the join's reply.
"""

MAX_HELD_BYTES: Final = 256 * 1024
"""Payloads kept for all channels of one socket; :data:`MAX_HELD` of each would be a lot of memory."""


class ChannelState(Enum):
    """The states above; an absent channel has none."""

    JOINING = auto()
    SUBSCRIBING = auto()
    JOINED = auto()


class Channel:
    """State of one channel.

    Attributes:
        attempt: Number of the join on its socket.
        topic: The topic as JSON, encoded once for all replies.
        join_ref: As the client sent it in its join, ``null`` when it sent none; leaves must match it.
        ref: The join's ref, for its reply.
        replaced: join_ref of the channel a duplicate join replaced, until its phx_close is sent.
        held: Messages that wait for the decision.
        may_push: Whether the rule lets clients push.
        shows_presence: Whether others see the client there, which may then change what they see.
    """

    __slots__ = (
        "attempt",
        "held",
        "join_ref",
        "may_push",
        "ref",
        "replaced",
        "shows_presence",
        "state",
        "topic",
    )

    def __init__(self, attempt: int, message: Message) -> None:
        self.attempt = attempt
        self.topic: Json = encode_json(message.topic)
        self.join_ref: Json = message.join_ref
        self.ref: Json = message.ref
        self.state = ChannelState.JOINING
        self.replaced: Json | None = None
        self.held: deque[Message] | None = None
        self.may_push = False
        self.shows_presence = False

    def hold(self, message: Message) -> bool:
        """Keep a message until the join is decided; False when too many are kept already."""
        if self.held is None:
            self.held = deque()
        if len(self.held) >= MAX_HELD:
            return False
        self.held.append(message)
        return True
