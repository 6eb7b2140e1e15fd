"""The operations on users, their sessions, and the replicas they are on."""

from typing import Final

from gateway.api.operation import BODY_PROBLEMS, KEY_PROBLEMS, Operation, Response
from gateway.api.problem import INTERNAL, INVALID
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
_PATH_PROBLEMS: Final = (*KEY_PROBLEMS, INVALID, INTERNAL)

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
    problems=_PATH_PROBLEMS,
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
    problems=_PATH_PROBLEMS,
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
    problems=_PATH_PROBLEMS,
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
    problems=_PATH_PROBLEMS,
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
    segments=_USER | {"topic": "The topic; one percent-encoded segment."},
    answers={
        200: Response(
            "How many channels were really ended.",
            Removed,
            example='{"removed": 2, "complete": true, "missing_replicas": []}',
        )
    },
    problems=_PATH_PROBLEMS,
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

USER_OPERATIONS: Final = (
    USER,
    USERS_STATUS,
    SESSIONS,
    CLOSE_SESSIONS,
    CLOSE_SESSION,
    LEAVE_TOPIC,
    REPLICAS,
)
