"""The reasons and close codes that clients are given: stable words and numbers.

Reasons travel as ``{"reason": "…"}`` in the response of an error reply; ``docs/protocol.md`` explains each.
"""

from enum import IntEnum, StrEnum
from typing import Self


class Reason(StrEnum):
    """Reason of an error reply.

    Attributes:
        when: When it is given, in Markdown.
    """

    _value_: str
    when: str

    def __new__(cls, value: str, when: str = "") -> Self:  # a default, as calls look a member up
        """A reason and when it is given, in Markdown."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.when = when
        return member

    UNMATCHED_TOPIC = (
        "unmatched topic",
        "no channel rule matches the topic, or the topic was not joined",
    )
    UNAUTHORIZED = (
        "unauthorized",
        "the rule does not let this client join, or a token is refused",
    )
    SESSION_LIMIT = (
        "session limit reached",
        "the user has as many sessions as she may; it is the socket's first join",
    )
    TOO_MANY_CHANNELS = (
        "too many channels joined",
        "`limits.max_channels_per_socket` is reached",
    )
    PUSH_NOT_ALLOWED = (
        "push not allowed",
        (
            "the rule denies pushes, the event is reserved or `live`, or the push is binary "
            "and for a backend or a topic with history"
        ),
    )
    INVALID_RESUME = (
        "invalid resume",
        (
            'the join\'s `resume` is neither null, a position, nor `{"last": n}` with an n the '
            "rule allows"
        ),
    )
    MALFORMED = (
        "malformed",
        (
            "the frame is no Phoenix message, a string in it has half of a surrogate pair "
            '(`"\\ud83d"`, text cut within an emoji), a name, ref or join_ref is longer than '
            "255 bytes (a ref as JSON text; one that is longer is not echoed), or a push's "
            "payload is no object"
        ),
    )
    PAYLOAD_TOO_LARGE = (
        "payload too large",
        "the message is above what the bus carries, or a meta above `presence.max_meta_bytes`",
    )
    RATE_LIMITED = (
        "rate limited",
        (
            "too many joins are under way, on this replica or before this join's answer, or "
            "too many of this socket's joins and pushes wait for the backend"
        ),
    )
    BUS_UNAVAILABLE = (
        "bus unavailable",
        "the bus is down, or its server refuses the topic; nobody got the push",
    )
    UPSTREAM_UNAVAILABLE = (
        "upstream unavailable",
        "the backend cannot be reached, fails, or answers what cannot be used",
    )
    UPSTREAM_TIMEOUT = (
        "upstream timeout",
        "the backend did not answer in time; it may have got the push",
    )
    JOIN_CRASHED = (
        "join crashed",
        "our fault; it is in the log",
    )


class CloseCode(IntEnum):
    """WebSocket close codes the gateway sends (RFC 6455 section 7.4, and the application range).

    phoenix.js before 1.8.16 does not reconnect after 1000, so 1000 only ever answers a client that
    asked to close.

    Attributes:
        when: When it is sent, in Markdown.
    """

    _value_: int
    when: str

    def __new__(cls, value: int, when: str = "") -> Self:  # a default, as calls look a member up
        """A code and when it is given, in Markdown."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.when = when
        return member

    NORMAL = (
        1000,
        "the client closed",
    )
    GOING_AWAY = (
        1001,
        (
            "a backend closed the session, or revoked its token; it may come back, with "
            "another token in that case"
        ),
    )
    IDLE = (
        1002,
        (
            "nothing heard from the client for `limits.idle_timeout_seconds` (counted anew "
            "after a stall of the gateway's process), or broken framing"
        ),
    )
    INVALID_DATA = (
        1007,
        "a text that is not UTF-8, or a compressed message that cannot be inflated",
    )
    PROTOCOL_ABUSE = (
        1008,
        "ten malformed frames within a minute",
    )
    TOO_BIG = (
        1009,
        "a frame above `limits.max_message_bytes`, or one that inflates to more",
    )
    INTERNAL_ERROR = (
        1011,
        "our fault; it is in the log",
    )
    SERVICE_RESTART = (
        1012,
        "the replica is drained",
    )
    TRY_AGAIN_LATER = (
        1013,
        "slow consumer: more than `limits.outbound_buffer_bytes` waited for this client",
    )
    SESSION_ENDED = (
        4001,
        (
            "another session took this one's place, or there are more than the user may have; "
            "the close frame says `session replaced` or `session limit reached`"
        ),
    )
    TOKEN_EXPIRED = (
        4003,
        "the token expired and was not refreshed",
    )
