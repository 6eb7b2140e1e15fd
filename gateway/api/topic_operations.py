"""Describes the operations that ask about topics; see :mod:`gateway.api.operations`."""

from typing import Final

from gateway.api.operation import PATH_PROBLEMS, TOPIC, Operation, Response
from gateway.api.problem import NOT_FOUND
from gateway.api.topic_types import PresentList, TopicList, TopicReport

_LIMIT: Final = "How many a page has, 1 to 1,000; 100 when absent."

TOPICS: Final = Operation(
    method="GET",
    path="/v1/topics",
    name="listTopics",
    tag="Topics",
    summary="The topics that have members",
    description="On any replica, in order of their names. Every replica looks through all of its own.",
    scope="read",
    query={
        "prefix": "What the names begin with.",
        "limit": _LIMIT,
        "cursor": "`next` of the page before, or any name: what comes after it.",
    },
    answers={
        200: Response(
            "A page.",
            TopicList,
            example='{"items": [{"topic": "room:42", "channels": 3}], "next": null, "complete": true, '
            '"missing_replicas": []}',
        )
    },
    problems=PATH_PROBLEMS,
)

SHOW_TOPIC: Final = Operation(
    method="GET",
    path="/v1/topics/{topic}",
    name="getTopic",
    tag="Topics",
    summary="How many are on a topic, where its history ends, and the rule it hits",
    description="A topic nobody is on is no error, nor is one that no rule matches.",
    scope="read",
    segments=TOPIC,
    answers={
        200: Response(
            "What is known.",
            TopicReport,
            example='{"topic": "room:42", "here": {"channels": 1, "sessions": 1, "users": 1}, "all": '
            '{"channels": 3, "sessions": 3, "users": 2}, "history": {"first": "@18c5.2a.19b2", '
            '"last": "@18c5.2c.19b9"}, "rule": {"pattern": "room:*", "join": "authenticated", "push": '
            '"broadcast", "echo": true, "presence": true, "history": {"messages": 100, "seconds": '
            '300}, "slow_consumer": "disconnect"}, "complete": true, "missing_replicas": []}',
        )
    },
    problems=PATH_PROBLEMS,
)

PRESENCE: Final = Operation(
    method="GET",
    path="/v1/topics/{topic}/presence",
    name="listPresence",
    tag="Topics",
    summary="Who is present on a topic",
    description="Users in order of their names, each with what clients see of her sessions. Only of "
    "topics whose rule has presence; numbers of all others are in `GET /v1/topics/{topic}`.",
    scope="read",
    segments=TOPIC,
    query={
        "limit": "How many users a page has, 1 to 1,000; 100 when absent. It has fewer where their "
        "metas are long.",
        "cursor": "`next` of the page before, or any user: who comes after her.",
    },
    answers={
        200: Response(
            "A page.",
            PresentList,
            example='{"items": [{"user": "42", "sessions": 1, "metas": [{"phx_ref": "GQ3f1", "online_at": '
            '1767323045, "device_type": "phone"}]}], "next": null, "complete": true, '
            '"missing_replicas": []}',
        )
    },
    problems=(*PATH_PROBLEMS, NOT_FOUND),
)
