"""One socket's membership in one topic, from join to leave.

States and what moves between them:

    (none)       phx_join                -> JOINING       Authorize
    JOINING      decision: allowed       -> SUBSCRIBING   Subscribe
    JOINING      decision: refused       -> (none)        error reply
    SUBSCRIBING  the bus confirmed       -> JOINED        ok reply, Activate
    SUBSCRIBING  the bus failed          -> (none)        error reply
    JOINED       phx_leave               -> (none)        Unsubscribe, ok reply, phx_close, once the
                                                          pushes before it are answered
    JOINED       phx_join again          -> JOINING       Unsubscribe at once; the old channel's
                                                          phx_close follows the new join's reply
    any          the gateway closes it   -> (none)        phx_close, or an error reply to the join

The ok is held until the bus confirmed the subscription: otherwise a message published right after the
reply would miss the first subscriber of a topic.

Phoenix joins synchronously: whatever a client sends for a topic right after its join waits until the
join is decided. So a channel that is not yet JOINED keeps the messages of its topic, in order, and
they are received when it is decided. In the same way a leave waits until the pushes before it are answered,
as it would in the mailbox of the channel's process, and what comes after it waits too. Other topics,
heartbeats among them, go on.
"""

from collections import deque
from enum import Enum, auto
from typing import Final

from gateway.protocol.messages import LEAVE, NULL, Json, Message, encode_json

MAX_HELD_BYTES: Final = 512 * 1024
"""
Messages kept for all channels of one socket, unless it is only one; those above are ``rate limited``.

:attr:`~gateway.protocol.messages.Message.size` counts 512 bytes beside what the client wrote, so they are
1,024 at most.
"""


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
        held: Messages that wait, in order: for the decision, or behind a leave.
        unanswered: Pushes that were handed over and are not answered yet.
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
        "unanswered",
    )

    def __init__(self, attempt: int, message: Message) -> None:
        self.attempt = attempt
        self.topic: Json = encode_json(message.topic)
        self.join_ref: Json = message.join_ref
        self.ref: Json = message.ref
        self.state = ChannelState.JOINING
        self.replaced: Json | None = None
        self.held: deque[Message] | None = None
        self.unanswered = 0
        self.may_push = False
        self.shows_presence = False

    def is_meant(self, message: Message) -> bool:
        """Whether a message is for this channel: one with another join_ref is for an earlier one."""
        return message.join_ref in (NULL, self.join_ref)

    @property
    def leaving(self) -> bool:
        """Whether it ends as soon as the pushes before its leave are answered."""
        if not self.held or self.state is not ChannelState.JOINED:
            return False
        return self._ends_with(self.held[0])

    def delays(self, message: Message) -> bool:
        """Whether a message has to wait."""
        if self.held or self.state is not ChannelState.JOINED:
            return True
        return self.unanswered > 0 and self._ends_with(message)

    def _ends_with(self, message: Message) -> bool:
        return message.event == LEAVE and self.is_meant(message)

    def hold(self, message: Message) -> None:
        """Keep a message until its turn comes."""
        if self.held is None:
            self.held = deque()
        self.held.append(message)
