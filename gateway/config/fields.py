"""Types that the keys of the configuration share: values with their bounds, and marks on them."""

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from gateway.config import syntax

SECRET: Final = "secret"  # noqa: S105 -- names a mark
"""
Mark of keys whose value is never shown; as ``"userinfo"`` only what stands before an ``@``, as ``"pem"``
only PEM text, in which a private key may be by mistake.
"""

SYNTAX: Final = "syntax"
"""Mark of a check of the value, see :data:`gateway.config.syntax.Syntax`."""

DAY: Final = 86_400
YEAR: Final = 366 * DAY


def checked(check: syntax.Syntax) -> msgspec.Meta:
    """A further check of a string."""
    return msgspec.Meta(extra={SYNTAX: check})


def example(value: object) -> msgspec.Meta:
    """A value for the documentation of a key without default."""
    return msgspec.Meta(examples=[value])


def doc(text: str) -> msgspec.Meta:
    """What the key means, in one sentence."""
    return msgspec.Meta(description=text)


Address: TypeAlias = Annotated[str, checked(syntax.address)]
Bytes: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**40)]
Amount: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
HttpUrl: TypeAlias = Annotated[
    str, msgspec.Meta(extra={SYNTAX: syntax.http_url, SECRET: "userinfo"})
]
Secret: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, extra={SECRET: True})]
Scope: TypeAlias = Literal["publish", "read", "manage"]
EventName: TypeAlias = Literal[
    "connect",
    "session.started",
    "session.ended",
    "user.online",
    "user.offline",
    "replica.lost",
]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration file."""
