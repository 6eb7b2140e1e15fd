"""The reasons and close codes that clients are given: stable words and numbers.

Reasons travel as ``{"reason": "…"}`` in the response of an error reply; ``docs/protocol.md`` explains each.
"""

from enum import IntEnum, StrEnum


class Reason(StrEnum):
    """Reason of an error reply."""

    UNMATCHED_TOPIC = "unmatched topic"
    UNAUTHORIZED = "unauthorized"
    SESSION_LIMIT = "session limit reached"
    TOO_MANY_CHANNELS = "too many channels joined"
    PUSH_NOT_ALLOWED = "push not allowed"
    INVALID_RESUME = "invalid resume"
    MALFORMED = "malformed"
    PAYLOAD_TOO_LARGE = "payload too large"
    RATE_LIMITED = "rate limited"
    BUS_UNAVAILABLE = "bus unavailable"
    UPSTREAM_UNAVAILABLE = "upstream unavailable"
    UPSTREAM_TIMEOUT = "upstream timeout"
    JOIN_CRASHED = "join crashed"


class CloseCode(IntEnum):
    """WebSocket close codes the gateway sends (RFC 6455 section 7.4, and the application range).

    phoenix.js before 1.8.16 does not reconnect after 1000, so 1000 only ever answers a client that
    asked to close.
    """

    NORMAL = 1000
    GOING_AWAY = 1001
    IDLE = 1002
    INVALID_DATA = 1007
    PROTOCOL_ABUSE = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    SESSION_ENDED = 4001
    TOKEN_EXPIRED = 4003
