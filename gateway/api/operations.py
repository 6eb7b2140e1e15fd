"""Every operation of the API: its URL, its scope, and what the OpenAPI document says of it."""

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from gateway.api.keys import Scope
from gateway.api.problem import (
    BUS_UNAVAILABLE,
    FORBIDDEN,
    INTERNAL,
    INVALID,
    RESERVED,
    TOO_LARGE,
    UNAUTHORIZED,
    UNMATCHED,
    UNREADABLE,
    UNSUPPORTED_MEDIA_TYPE,
    Kind,
)
from gateway.api.types import (
    PUBLISH_BODY,
    BatchRequest,
    BatchResponse,
    Liveness,
    PublishResponse,
    ReadinessReport,
)

JSON: Final = "application/json"

_KEY: Final = (UNAUTHORIZED, FORBIDDEN)
_BODY: Final = (UNREADABLE, TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, INVALID)


class Answer(msgspec.Struct, frozen=True):
    """One answer that is no problem.

    Attributes:
        description: When it is given.
        body: Type of the body; None where ``media`` says all there is.
        media: Media type of the body.
        example: A body as JSON.
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
        body: Type of the request's body.
        example: A request body as JSON.
        headers: Optional request headers and what they do.
        answers: By status.
        problems: Kinds it can be refused with, but for those of the router.
    """

    method: Literal["GET", "POST"]
    path: str
    name: str
    tag: str
    summary: str
    description: str = ""
    scope: Scope | None = None
    body: Any = None
    example: str = ""
    headers: Mapping[str, str] = {}
    answers: Mapping[int, Answer]
    problems: tuple[Kind, ...] = (INTERNAL,)


PUBLISH: Final = Operation(
    method="POST",
    path="/v1/publish",
    name="publish",
    tag="Publish",
    summary="Send a message to the members of a topic",
    description="Everybody who has joined the topic on any replica gets the event with the payload, "
    "byte for byte. With `topics` in place of `topic` each of them gets it, up to 1,000; the answer "
    "has a result or a problem for each, and is 202 when at least one took it.",
    scope="publish",
    body=PUBLISH_BODY,
    example='{"topic": "room:42", "event": "new_message", "payload": {"text": "hi"}}',
    headers={
        "Idempotency-Key": "The same as `id` in the body. When both are there they must be equal."
    },
    answers={
        202: Answer(
            "At least one topic took the message.",
            PublishResponse,
            example='{"id": "5f0c6fb1", "results": [{"topic": "room:42", "position": null}]}',
        )
    },
    problems=(*_KEY, *_BODY, RESERVED, UNMATCHED, INTERNAL, BUS_UNAVAILABLE),
)

PUBLISH_BATCH: Final = Operation(
    method="POST",
    path="/v1/publish/batch",
    name="publishBatch",
    tag="Publish",
    summary="Send up to 1,000 messages in order",
    description="Each message is sent as by `POST /v1/publish`, one after the other. A batch that can "
    "be read is always answered 202; what became of each message stands at its place in `results`.",
    scope="publish",
    body=BatchRequest,
    example='{"messages": [{"topic": "room:42", "event": "new_message", "payload": {"text": "hi"}}, '
    '{"topics": ["room:1", "room:2"], "event": "moved", "payload": {"to": "room:42"}}]}',
    answers={
        202: Answer(
            "The batch was read; each message has its own outcome.",
            BatchResponse,
            example='{"results": [{"id": "5f0c6fb1", "results": [{"topic": "room:42", '
            '"position": null}]}, {"problem": {"type": "urn:gateway:problem:unmatched-topic", '
            '"title": "The topic matches no channel rule", "status": 422}}]}',
        )
    },
    problems=(*_KEY, *_BODY, INTERNAL),
)

LIVEZ: Final = Operation(
    method="GET",
    path="/livez",
    name="livez",
    tag="Operate",
    summary="Whether the process works",
    answers={
        200: Answer("It works.", Liveness, example='{"live": true}'),
        503: Answer("It is stuck and should be restarted.", Liveness, example='{"live": false}'),
    },
)

READYZ: Final = Operation(
    method="GET",
    path="/readyz",
    name="readyz",
    tag="Operate",
    summary="Whether new clients should be sent here",
    answers={
        200: Answer("Ready.", ReadinessReport, example='{"ready": true, "reasons": []}'),
        503: Answer(
            "Not ready, with the reasons.",
            ReadinessReport,
            example='{"ready": false, "reasons": ["bus_down"]}',
        ),
    },
)

METRICS: Final = Operation(
    method="GET",
    path="/metrics",
    name="metrics",
    tag="Operate",
    summary="Figures for Prometheus",
    answers={200: Answer("Prometheus' text format.", media="text/plain")},
)

OPENAPI: Final = Operation(
    method="GET",
    path="/openapi.json",
    name="openapi",
    tag="Describe",
    summary="This description as OpenAPI 3.1",
    answers={200: Answer("The document.")},
)

DOCS: Final = Operation(
    method="GET",
    path="/docs",
    name="docs",
    tag="Describe",
    summary="This description as a page",
    answers={200: Answer("The page.", media="text/html")},
)

OPERATIONS: Final = (PUBLISH, PUBLISH_BATCH, LIVEZ, READYZ, METRICS, OPENAPI, DOCS)
