"""Effects: what the protocol core asks the code around it to do.

A list of effects is carried out in order, and that order is a promise: the reply to a join stands
before the ``phx_close`` of the channel it replaced, an ``Unsubscribe`` before the ``phx_close`` after
which the client must hear nothing more of the topic.
"""

from typing import TypeAlias

import msgspec

from gateway.protocol.messages import Json, Outgoing
from gateway.protocol.reasons import CloseCode, Reason


class Send(msgspec.Struct, frozen=True, gc=False):
    """Write one message to the client."""

    message: Outgoing


class RefuseJoin(msgspec.Struct, frozen=True, gc=False):
    """Write the error reply to a join, which ends here.

    Attributes:
        reason: None where a backend refused in its own words.
    """

    message: Outgoing
    reason: Reason | None


class _OfChannel(msgspec.Struct, frozen=True, gc=False):
    """Base of effects on one channel.

    Attributes:
        attempt: Number of the join on this socket. join_refs are the client's and may repeat, so answers name
            the attempt, or they could be taken for those to another join.
    """

    topic: str
    attempt: int


class Authorize(_OfChannel, frozen=True, gc=False):
    """Decide on a join; answer with ``join_decided`` quoting the attempt.

    Attributes:
        params: The join payload as JSON, or None when it came in a binary frame.
    """

    params: Json | None


class Subscribe(_OfChannel, frozen=True, gc=False):
    """Have the topic's messages come to this replica; answer ``subscribed`` or ``subscribe_failed``."""


class Activate(_OfChannel, frozen=True, gc=False):
    """Deliver the topic's messages to this socket from now on; its ok reply was just sent."""


class Resume(_OfChannel, frozen=True, gc=False):
    """Ask with ``resume`` for what a message that waited for the join leads to.

    One message at a time, so that what the one led to is done before the next: a push is answered
    before the leave that follows it ends the channel.
    """


class Unsubscribe(_OfChannel, frozen=True, gc=False):
    """End what ``Authorize``, ``Subscribe`` and ``Activate`` began for this attempt.

    Sent once for every attempt that was not refused, at whichever stage it ended.
    """


class Forward(_OfChannel, frozen=True, gc=False):
    """Publish a client's push; answer with ``push_answered`` quoting attempt and ref."""

    ref: Json
    event: str
    payload: bytes
    binary: bool


class UpdatePresence(_OfChannel, frozen=True, gc=False):
    """Change what others see of this client; answer with ``push_answered`` quoting attempt and ref.

    Attributes:
        meta: A JSON object.
    """

    ref: Json
    meta: Json


class Refresh(_OfChannel, frozen=True, gc=False):
    """Take new credentials for the whole socket; answer with ``refresh_answered``, quoting all but the token.

    Attributes:
        attempt: 0 for the topic ``phoenix``, which has no channel.
        token: Whatever the client says is one.
    """

    ref: Json
    token: str


class Ignore(msgspec.Struct, frozen=True, gc=False):
    """Count a message for a channel that was joined anew since; its sender expects no answer any more."""


class Close(msgspec.Struct, frozen=True, gc=False):
    """Close the whole socket."""

    code: CloseCode


Effect: TypeAlias = (
    Send
    | RefuseJoin
    | Authorize
    | Subscribe
    | Activate
    | Resume
    | Unsubscribe
    | Forward
    | UpdatePresence
    | Refresh
    | Ignore
    | Close
)
