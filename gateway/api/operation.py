"""Types that describe an operation of the API: its URL, its scope, its requests and responses."""

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from gateway.api.problem import (
    BUSY,
    FORBIDDEN,
    INTERNAL,
    INVALID,
    TOO_LARGE,
    TOO_SLOW,
    UNAUTHORIZED,
    UNREADABLE,
    UNSUPPORTED_MEDIA_TYPE,
    Kind,
)
from gateway.config.fields import Scope

JSON: Final = "application/json"

KEY_PROBLEMS: Final = (UNAUTHORIZED, FORBIDDEN)
PATH_PROBLEMS: Final = (*KEY_PROBLEMS, INVALID, INTERNAL)
BODY_PROBLEMS: Final = (UNREADABLE, TOO_SLOW, TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, INVALID, BUSY)

TOPIC: Final = {"topic": "The topic; one percent-encoded segment."}
"""The segment of a path that names a topic."""


class Response(msgspec.Struct, frozen=True):
    """One response that is no problem.

    Attributes:
        description: When it is given.
        body: Type of the body; None where ``media`` says all there is.
    """

    description: str
    body: Any = None
    media: str = JSON
    example: str = ""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path.

    Attributes:
        name: Stable name in camel case, OpenAPI's ``operationId``.
        scope: What the API key must allow; None where no key is needed.
        example: A request body as JSON.
        headers: Optional request headers and what they do, as ``query`` has it for parameters.
        segments: The path's parameters and what they are.
        problems: Kinds it can be refused with, but for those of the router.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    name: str
    tag: str
    summary: str
    description: str = ""
    scope: Scope | None = None
    body: Any = None
    example: str = ""
    headers: Mapping[str, str] = {}
    segments: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    answers: Mapping[int, Response]
    problems: tuple[Kind, ...] = (INTERNAL,)
