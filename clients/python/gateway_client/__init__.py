"""What a backend says to Gateway: publishes messages, verifies callbacks, mints tokens for its users."""

from .publish import AsyncGateway, Gateway, OutcomeUnknown, PublishError, Refused, Unavailable
from .token import Claims, mint_token
from .types import Problem, PublishRequest, PublishResponse, TargetResult
from .webhook import Callback, Device, InvalidSignature, verify

__all__ = [
    "AsyncGateway",
    "Callback",
    "Claims",
    "Device",
    "Gateway",
    "InvalidSignature",
    "OutcomeUnknown",
    "Problem",
    "PublishError",
    "PublishRequest",
    "PublishResponse",
    "Refused",
    "TargetResult",
    "Unavailable",
    "mint_token",
    "verify",
]
