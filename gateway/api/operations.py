"""Every operation of the API."""

from typing import Final

from gateway.api.history_operations import HISTORY_OPERATIONS
from gateway.api.operation import BODY_PROBLEMS, KEY_PROBLEMS, Operation, Response
from gateway.api.problem import BUS_UNAVAILABLE, INTERNAL, OUTCOME_UNKNOWN, RESERVED, UNMATCHED
from gateway.api.token_operations import TOKEN_OPERATIONS
from gateway.api.types import (
    PUBLISH_BODY,
    BatchRequest,
    BatchResponse,
    Liveness,
    PublishResponse,
    ReadinessReport,
)
from gateway.api.user_operations import USER_OPERATIONS

PUBLISH: Final = Operation(
    method="POST",
    path="/v1/publish",
    name="publish",
    tag="Publish",
    summary="Send a message to the members of a topic",
    description="Everybody who has joined the topic on any replica gets the event with the payload, "
    "byte for byte. With `topics` in place of `topic` each of them gets it, up to 1,000; with `user` or "
    "`users` all their devices do, by their personal topics. The answer has a result or a problem for "
    "each, and is 202 when at least one took it.",
    scope="publish",
    body=PUBLISH_BODY,
    example='{"topic": "room:42", "event": "new_message", "payload": {"text": "hi"}}',
    headers={
        "Idempotency-Key": "The same as `id` in the body. When both are there they must be equal."
    },
    answers={
        202: Response(
            "At least one topic took the message.",
            PublishResponse,
            example='{"id": "5f0c6fb1", "results": [{"topic": "room:42", "position": null}]}',
        )
    },
    problems=(
        *KEY_PROBLEMS,
        *BODY_PROBLEMS,
        RESERVED,
        UNMATCHED,
        INTERNAL,
        BUS_UNAVAILABLE,
        OUTCOME_UNKNOWN,
    ),
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
        202: Response(
            "The batch was read; each message has its own outcome.",
            BatchResponse,
            example='{"results": [{"id": "5f0c6fb1", "results": [{"topic": "room:42", '
            '"position": null}]}, {"problem": {"type": "urn:gateway:problem:unmatched-topic", '
            '"title": "The topic matches no channel rule", "status": 422}}]}',
        )
    },
    problems=(*KEY_PROBLEMS, *BODY_PROBLEMS, INTERNAL),
)

LIVEZ: Final = Operation(
    method="GET",
    path="/livez",
    name="livez",
    tag="Operate",
    summary="Whether the process works",
    answers={
        200: Response("It works.", Liveness, example='{"live": true}'),
        503: Response("It is stuck and should be restarted.", Liveness, example='{"live": false}'),
    },
)

READYZ: Final = Operation(
    method="GET",
    path="/readyz",
    name="readyz",
    tag="Operate",
    summary="Whether new clients should be sent here",
    answers={
        200: Response("Ready.", ReadinessReport, example='{"ready": true, "reasons": []}'),
        503: Response(
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
    answers={200: Response("Prometheus' text format.", media="text/plain")},
)

OPENAPI: Final = Operation(
    method="GET",
    path="/openapi.json",
    name="openapi",
    tag="Describe",
    summary="This description as OpenAPI 3.1",
    answers={200: Response("The document.")},
)

DOCS: Final = Operation(
    method="GET",
    path="/docs",
    name="docs",
    tag="Describe",
    summary="This description as a page",
    answers={200: Response("The page.", media="text/html")},
)

OPERATIONS: Final = (
    PUBLISH,
    PUBLISH_BATCH,
    *USER_OPERATIONS,
    *HISTORY_OPERATIONS,
    *TOKEN_OPERATIONS,
    LIVEZ,
    READYZ,
    METRICS,
    OPENAPI,
    DOCS,
)
