"""Describes every operation of the API: the table that routes and the OpenAPI document are made from."""

from typing import Annotated, Final

from msgspec import Meta

from gateway.api.drain import DrainReport
from gateway.api.history import Erased, HistoryPage
from gateway.api.operation import (
    BODY_PROBLEMS,
    KEY_PROBLEMS,
    PATH_PROBLEMS,
    TOPIC,
    Operation,
    Response,
)
from gateway.api.problem import (
    BUS_UNAVAILABLE,
    DRAINED,
    ENDING,
    INTERNAL,
    NOT_FOUND,
    OUTCOME_UNKNOWN,
    RESERVED,
    TOO_MANY_TAILS,
    UNMATCHED,
)
from gateway.api.tail import MEDIA_TYPE, TailLine
from gateway.api.tokens import RevokeRequest
from gateway.api.topic_operations import PRESENCE, SHOW_TOPIC, TOPICS
from gateway.api.types import (
    PUBLISH_BODY,
    BatchRequest,
    BatchResponse,
    Liveness,
    PublishResponse,
    ReadinessReport,
)
from gateway.api.user_types import (
    Disconnected,
    Removed,
    ReplicaList,
    SessionList,
    StatusReport,
    StatusRequest,
    UserReport,
)

_USER: Final = {"user": "The user, `sub` of her token; one percent-encoded segment."}
_HISTORY_PROBLEMS: Final = (*PATH_PROBLEMS, NOT_FOUND, BUS_UNAVAILABLE)

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

USER: Final = Operation(
    method="GET",
    path="/v1/users/{user}",
    name="getUser",
    tag="Users",
    summary="Whether a user is online, and when she was last seen",
    description="A user nobody knows is offline. After her last session a user stays online for "
    "`sessions.offline_after_seconds`.",
    scope="read",
    segments=_USER,
    answers={
        200: Response(
            "What is known.",
            UserReport,
            example='{"user": "42", "online": true, "sessions": 2, '
            '"last_seen_at": "2026-01-02T03:04:05.678Z", "complete": true, "missing_replicas": []}',
        )
    },
    problems=PATH_PROBLEMS,
)

USERS_STATUS: Final = Operation(
    method="POST",
    path="/v1/users/status",
    name="getUsersStatus",
    tag="Users",
    summary="Which of up to 1,000 users are online",
    scope="read",
    body=StatusRequest,
    example='{"users": ["42", "43"]}',
    answers={
        200: Response(
            "By user.",
            StatusReport,
            example='{"users": {"42": {"online": true, "sessions": 2}, '
            '"43": {"online": false, "sessions": 0}}, "complete": true, "missing_replicas": []}',
        )
    },
    problems=(*KEY_PROBLEMS, *BODY_PROBLEMS, INTERNAL),
)

SESSIONS: Final = Operation(
    method="GET",
    path="/v1/users/{user}/sessions",
    name="listSessions",
    tag="Users",
    summary="A user's sessions on all replicas",
    scope="read",
    segments=_USER,
    answers={
        200: Response(
            "The oldest first.",
            SessionList,
            example='{"items": [{"id": "kJ2x-1f", "user": "42", "device": {"id": "d1", "name": null, '
            '"type": "phone"}, "replica": "a", "transport": "websocket", "protocol": "2.0.0", "ip": '
            '"203.0.113.7", "user_agent": "Mozilla/5.0", "connected_at": '
            '"2026-01-02T03:04:05.678Z", "last_seen_at": "2026-01-02T03:05:00.000Z", "topics": '
            '["room:1"]}], "complete": true, "missing_replicas": []}',
        )
    },
    problems=PATH_PROBLEMS,
)

_DISCONNECTED: Final = Response(
    "How many were really closed.",
    Disconnected,
    example='{"disconnected": 1, "complete": true, "missing_replicas": []}',
)

CLOSE_SESSIONS: Final = Operation(
    method="DELETE",
    path="/v1/users/{user}/sessions",
    name="closeSessions",
    tag="Users",
    summary="Close a user's sessions",
    description="On every replica, with close code 1001: clients may come back at once. Take away "
    "what lets them in first, if they shall not.",
    scope="manage",
    segments=_USER,
    query={"except": "Ids of sessions that stay, separated by commas."},
    answers={200: _DISCONNECTED},
    problems=PATH_PROBLEMS,
)

CLOSE_SESSION: Final = Operation(
    method="DELETE",
    path="/v1/users/{user}/sessions/{id}",
    name="closeSession",
    tag="Users",
    summary="Close one session",
    description="Wherever it is, with close code 1001.",
    scope="manage",
    segments=_USER | {"id": "Id of the session."},
    answers={200: _DISCONNECTED},
    problems=PATH_PROBLEMS,
)

LEAVE_TOPIC: Final = Operation(
    method="DELETE",
    path="/v1/topics/{topic}/users/{user}",
    name="removeUserFromTopic",
    tag="Users",
    summary="Take a user off a topic, on all devices",
    description="Each of her channels on the topic ends with `phx_close`; its client does not join "
    "again by itself. Nothing keeps her from joining anew but the channel rule.",
    scope="manage",
    segments=_USER | TOPIC,
    answers={
        200: Response(
            "How many channels were really ended.",
            Removed,
            example='{"removed": 2, "complete": true, "missing_replicas": []}',
        )
    },
    problems=PATH_PROBLEMS,
)

REPLICAS: Final = Operation(
    method="GET",
    path="/v1/replicas",
    name="listReplicas",
    tag="Operate",
    summary="The replicas that are alive",
    scope="read",
    answers={
        200: Response(
            "As this replica sees it.",
            ReplicaList,
            example='{"items": [{"id": "a", "self": true, "sessions": 210, "connections": 214}]}',
        )
    },
    problems=(*KEY_PROBLEMS, INTERNAL),
)

_DRAIN: Final = Response(
    "How far it is.",
    DrainReport,
    example='{"state": "draining", "connections": 214, "ending": false}',
)

START_DRAIN: Final = Operation(
    method="POST",
    path="/v1/drain",
    name="startDrain",
    tag="Operate",
    summary="Move this replica's clients to others",
    description="As on SIGTERM: new clients are refused with 503, and those there are closed with 1012 in "
    "even batches. But the process goes on until it is told to end. Starting it twice changes nothing.",
    scope="manage",
    answers={200: _DRAIN},
    problems=(*KEY_PROBLEMS, INTERNAL),
)

GET_DRAIN: Final = Operation(
    method="GET",
    path="/v1/drain",
    name="getDrain",
    tag="Operate",
    summary="How far this replica's drain is",
    scope="read",
    answers={200: _DRAIN},
    problems=(*KEY_PROBLEMS, INTERNAL),
)

ABORT_DRAIN: Final = Operation(
    method="DELETE",
    path="/v1/drain",
    name="abortDrain",
    tag="Operate",
    summary="Let clients in again",
    description="Who was moved stays away; the others stay here. Aborting where nothing drains changes "
    "nothing. A replica that was told to end does so.",
    scope="manage",
    answers={200: _DRAIN},
    problems=(*KEY_PROBLEMS, ENDING, INTERNAL),
)

READ_HISTORY: Final = Operation(
    method="GET",
    path="/v1/topics/{topic}/history",
    name="readHistory",
    tag="History",
    summary="What was published to a topic",
    description="Pages through what is kept, the oldest first, within the limits of the topic's rule.",
    scope="read",
    segments=TOPIC,
    query={
        "limit": "Messages of a page, 1 to 1,000; 100 when absent.",
        "cursor": "`next` of the page before, or any position: what comes after it.",
    },
    answers={
        200: Response(
            "A page.",
            HistoryPage,
            example='{"items": [{"position": "@18c5.2a.19b2", "time": "2026-01-02T03:04:05.678Z", '
            '"event": "new_message", "payload": {"text": "hi"}, "exclude_sessions": [], '
            '"exclude_devices": [], "device_types": []}], "position": "@18c5.2a.19b2", "next": null}',
        )
    },
    problems=_HISTORY_PROBLEMS,
)

ERASE_HISTORY: Final = Operation(
    method="DELETE",
    path="/v1/topics/{topic}/history",
    name="eraseHistory",
    tag="History",
    summary="Forget what was published to a topic",
    description="For good, on all replicas. Members stay, and positions stay good: who resumes gets what "
    "is published afterwards.",
    scope="manage",
    segments=TOPIC,
    answers={200: Response("How many messages it was.", Erased, example='{"erased": 12}')},
    problems=(*_HISTORY_PROBLEMS, OUTCOME_UNKNOWN),
)

TAIL: Final = Operation(
    method="GET",
    path="/v1/tail",
    name="tail",
    tag="Operate",
    summary="Messages as they come, for an operator",
    description="A stream of JSON objects, one a line, until this replica is drained. `topic` shows all that "
    "is published on a topic, on whichever replica; it needs no channel rule. `pattern` shows what reaches "
    "this replica on topics that begin so: those that have members here. No presence, session or limit "
    "knows of it. A reader that is too slow misses messages, and is told how many.",
    scope="read",
    query={
        "topic": "The topic. Either it or `pattern` is needed.",
        "pattern": "What topics begin with, and `*` after it.",
        "after": "A position: what came after it comes first, where the topic's messages are kept.",
    },
    answers={
        200: Response(
            "The stream.",
            TailLine,
            media=MEDIA_TYPE,
            example='{"type": "message", "topic": "room:42", "event": "new_message", "payload": '
            '{"text": "hi"}, "time": "2026-01-02T03:04:05.678Z", "position": "@18c5.2a.19b2"}',
        )
    },
    problems=(*PATH_PROBLEMS, TOO_MANY_TAILS, BUS_UNAVAILABLE, DRAINED),
)

REVOKE: Final = Operation(
    method="POST",
    path="/v1/tokens/revoke",
    name="revokeTokens",
    tag="Users",
    summary="Refuse a user's tokens, or one token, and close their sockets",
    description="From now on every replica refuses the tokens, those that start later too, and closes "
    "the sockets that connected with them with 1001. `complete` is false when a replica did not answer, "
    "or when NATS could not keep it for replicas that start later: repeat it then. On 503 this replica "
    "alone has carried it out.",
    scope="manage",
    body=Annotated[
        RevokeRequest,
        Meta(extra_json_schema={"oneOf": [{"required": ["user"]}, {"required": ["jti"]}]}),
    ],
    example='{"user": "42"}',
    answers={
        200: Response(
            "How many sockets were really closed.",
            Disconnected,
            example='{"disconnected": 2, "complete": true, "missing_replicas": []}',
        )
    },
    problems=(*KEY_PROBLEMS, *BODY_PROBLEMS, INTERNAL, BUS_UNAVAILABLE),
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
    query={"worker": "Where several workers run: the number of the one whose own are wanted."},
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

ASYNCAPI: Final = Operation(
    method="GET",
    path="/asyncapi.json",
    name="asyncapi",
    tag="Describe",
    summary="The socket, which clients speak to, as AsyncAPI 3",
    answers={200: Response("The document.")},
)

DOCS: Final = Operation(
    method="GET",
    path="/docs",
    name="docs",
    tag="Describe",
    summary="Both descriptions as a page",
    answers={200: Response("The page.", media="text/html")},
)

OPERATIONS: Final = (
    PUBLISH,
    PUBLISH_BATCH,
    USER,
    USERS_STATUS,
    SESSIONS,
    CLOSE_SESSIONS,
    CLOSE_SESSION,
    LEAVE_TOPIC,
    TOPICS,
    SHOW_TOPIC,
    PRESENCE,
    REPLICAS,
    START_DRAIN,
    GET_DRAIN,
    ABORT_DRAIN,
    TAIL,
    READ_HISTORY,
    ERASE_HISTORY,
    REVOKE,
    LIVEZ,
    READYZ,
    METRICS,
    OPENAPI,
    ASYNCAPI,
    DOCS,
)
