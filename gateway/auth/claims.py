"""The claims of a token, and the shape each must have.

The function of a claim raises :class:`~gateway.errors.TokenError` where the claim has another shape.
"""

import re
from typing import Final

import msgspec

from gateway.auth.refusal import TokenRefusal
from gateway.device import Device, parse_device
from gateway.errors import TokenError
from gateway.protocol.reserved import MAX_NAME_BYTES

MAX_SESSIONS: Final = 10**6
"""Highest ``max_sessions`` of a token."""

MAX_TOPICS: Final = 100
"""Most patterns in ``topics``: every join looks through them."""

MAX_ID_CHARACTERS: Final = 256
"""Longest ``jti``."""

NO_PRESENCE: Final = b"{}"

_MAX_TIME: Final = 2**53
"""Times are kept as floats; above this, the next second is the same float."""

# As the patterns of channel rules, but that a claim is not written with placeholders for claims.
_PATTERN: Final = re.compile(r"\*|[^*{}]+\*?")


class Claims(msgspec.Struct, frozen=True, gc=False):
    """What a valid token says. Each socket keeps one, so what is not said costs nothing.

    Attributes:
        user: ``sub``, the authenticated user.
        expires_at: ``exp``, unix seconds.
        others: The string claims beside ``sub`` that channel patterns ask for; None where there are none.
        device: ``device``, the device the token was made for; None where it names none.
        max_sessions: ``max_sessions``, how many sessions the user may have; None where it does not say.
        presence: ``presence``, a JSON object others see where the user is present.
        issued_at: ``iat``, unix seconds; 0 for who came without a token.
        jti: ``jti``, the token's own id; None where it has none.
        topics: ``topics``, patterns of what may be joined where the rule leaves it to the token.
        subject: ``sub``, where the backend named another user at the connect; else empty.
    """

    user: str
    expires_at: float
    others: dict[str, str] | None = None
    device: Device | None = None
    max_sessions: int | None = None
    presence: bytes = NO_PRESENCE
    issued_at: float = 0.0
    jti: str | None = None
    topics: tuple[str, ...] = ()
    subject: str = ""

    def get(self, name: str) -> str | None:
        """A claim that channel patterns ask for."""
        if name == "sub":
            return self.user
        return None if self.others is None else self.others.get(name)

    def admits_topic(self, topic: str) -> bool:
        """Whether ``topics`` names a topic, itself or by a ``prefix*``."""
        return any(
            topic.startswith(pattern[:-1]) if pattern.endswith("*") else topic == pattern
            for pattern in self.topics
        )


def time_of(value: object) -> float:
    """A time (RFC 7519, section 2, NumericDate): unix seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _MAX_TIME:
        raise TokenError(TokenRefusal.CLAIMS)
    return float(value)


def id_of(value: object) -> str | None:
    """The claim ``jti``: a string of 1 to :data:`MAX_ID_CHARACTERS` characters."""
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_CHARACTERS:
        raise TokenError(TokenRefusal.CLAIMS)
    return value


def device_of(value: object) -> Device | None:
    """The claim ``device``: see :func:`gateway.device.parse_device`."""
    if value is None:
        return None
    try:
        return parse_device(value)
    except ValueError:
        raise TokenError(TokenRefusal.CLAIMS) from None


def max_sessions_of(value: object) -> int | None:
    """The claim ``max_sessions``: a whole number from 1 to :data:`MAX_SESSIONS`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SESSIONS:
        raise TokenError(TokenRefusal.CLAIMS)
    return value


def presence_of(value: object, max_bytes: int) -> bytes:
    """The claim ``presence``: an object, as JSON of at most ``max_bytes``."""
    if value is None:
        return NO_PRESENCE
    encoded = msgspec.json.encode(value) if isinstance(value, dict) else b""
    if not encoded or len(encoded) > max_bytes:
        raise TokenError(TokenRefusal.CLAIMS)
    return encoded


def topics_of(value: object) -> tuple[str, ...]:
    """The claim ``topics``: at most :data:`MAX_TOPICS` patterns, each a topic or a ``prefix*``."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_TOPICS or not all(map(_is_pattern, value)):
        raise TokenError(TokenRefusal.CLAIMS)
    return tuple(value)


def _is_pattern(value: object) -> bool:
    return (
        isinstance(value, str)
        and _PATTERN.fullmatch(value) is not None
        and len(value.removesuffix("*").encode()) <= MAX_NAME_BYTES
    )
